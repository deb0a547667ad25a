// The mock of a Kafka cluster that librdkafka brings along: brokers in this process that speak the protocol on loopback.
// It models injected errors and broker loss; not transactions, and it keeps 5 MiB of a partition. It gives producers ids,
// but looks at no sequence numbers: a record that is sent again because an answer was lost is there twice, and one that
// overtakes another which was refused stays before it. Brokers see to both. So a test that injects errors into produce
// requests lets one be under way at a time (`oneRequestAtATime`), and takes brokers away while none is.

import Base
internal import CRdKafka

/// Which kind of request an injected error answers, as the protocol numbers them.
public enum KafkaRequest: Int16, CaseIterable, Sendable {
  /// Appending records.
  case produce = 0
  /// Reading records.
  case fetch = 1
  /// Asking where a partition begins and ends.
  case offsets = 2
  /// Asking who leads a partition.
  case metadata = 3
  /// Asking for a producer's id.
  case producerID = 22
}

/// Some brokers.
///
/// unchecked because: the mock's functions may be called from any thread.
public final class MockCluster: @unchecked Sendable {
  private let handle: OpaquePointer
  private let cluster: OpaquePointer

  /// Errors a broker may answer with for a while.
  public enum Trouble: Sendable {
    /// Another broker leads the partition now.
    case notLeader
    /// Too few replicas have the record.
    case notEnoughReplicas
    /// The broker gave up.
    case timedOut
    /// The broker has no such partition, yet.
    case unknownPartition

    /// The broker is still loading what it must know.
    case loading

    fileprivate var code: rd_kafka_resp_err_t {
      switch self {
      case .notLeader: RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION
      case .notEnoughReplicas: RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND
      case .timedOut: RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT
      case .unknownPartition: RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART
      case .loading: RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS
      }
    }
  }

  /// Starts brokers, numbered from 1.
  public init(brokers: Int = 3) throws {
    var text = [CChar](repeating: 0, count: 512)
    let conf = rd_kafka_conf_new()
    rd_kafka_conf_set(conf, "test.mock.num.brokers", "\(brokers)", &text, text.count)
    rd_kafka_conf_set_log_cb(conf, nil)
    guard let handle = rd_kafka_new(RD_KAFKA_PRODUCER, conf, &text, text.count),
      let cluster = rd_kafka_handle_mock_cluster(handle)
    else { throw FileError(5, "start a mock cluster") }
    self.handle = handle
    self.cluster = cluster
  }

  deinit { rd_kafka_destroy(handle) }

  /// Writes the settings of a producer that has one request under way at a time; gives the file's path.
  public static func oneRequestAtATime(in directory: String) throws -> String {
    let path = "\(directory)/kafka.properties"
    try Files.makeDirectory(directory)
    try Files.replace(path, with: Array("max.in.flight=1\n".utf8))
    return path
  }

  /// `host:port` of the brokers, with commas between.
  public var brokers: String { String(cString: rd_kafka_mock_cluster_bootstraps(cluster)) }

  /// Makes a topic.
  public func create(_ topic: String, partitions: Int) {
    rd_kafka_mock_topic_create(cluster, topic, Int32(partitions), 3)
  }

  /// Makes a broker the leader of a partition.
  public func lead(_ topic: String, _ partition: Int, by broker: Int) {
    rd_kafka_mock_partition_set_leader(cluster, topic, Int32(partition), Int32(broker))
  }

  /// Has a broker hang up and refuse connections, or accept them again.
  public func set(_ broker: Int, up: Bool) {
    if up {
      rd_kafka_mock_broker_set_up(cluster, Int32(broker))
    } else {
      rd_kafka_mock_broker_set_down(cluster, Int32(broker))
    }
  }

  /// Has the next requests of a kind answered with errors.
  public func inject(_ troubles: [Trouble], into request: KafkaRequest) {
    let codes = troubles.map(\.code)
    rd_kafka_mock_push_request_errors_array(cluster, request.rawValue, codes.count, codes)
  }

  /// Takes back the errors that no request has met yet.
  public func clearErrors() {
    for request in KafkaRequest.allCases { rd_kafka_mock_clear_request_errors(cluster, request.rawValue) }
  }
}
