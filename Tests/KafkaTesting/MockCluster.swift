// The mock of a Kafka cluster that librdkafka brings along: brokers in this process that speak the protocol on loopback.
// It models idempotent producers, injected errors and broker loss; not transactions, and it keeps 5 MiB of a partition.

import Base
internal import CRdKafka

/// Which kind of request an injected error answers, as the protocol numbers them.
public enum KafkaRequest: Int16, Sendable {
  /// Appending records.
  case produce = 0
  /// Reading records.
  case fetch = 1
  /// Asking where a partition begins and ends.
  case offsets = 2
  /// Asking who leads a partition.
  case metadata = 3
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

    fileprivate var code: rd_kafka_resp_err_t {
      switch self {
      case .notLeader: RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION
      case .notEnoughReplicas: RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND
      case .timedOut: RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT
      case .unknownPartition: RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART
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
}
