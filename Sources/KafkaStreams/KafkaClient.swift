// One librdkafka client: its settings, what its errors mean for streams, and the questions both ends ask. Belongs to one
// thread, or to whoever holds a lock; librdkafka's own threads do the network.

internal import Base
internal import CRdKafka
internal import Streams

/// Which topic, where, and with which settings of librdkafka besides ours.
struct KafkaTopic: Sendable {
  var brokers: String
  var name: String
  var propertiesFile: String?

  /// What the file says, without what is ours.
  func properties() throws(StreamError) -> [String: String] {
    guard let propertiesFile else { return [:] }
    let text: [UInt8]
    do throws(FileError) { text = try Files.read(propertiesFile) } catch { throw .file(error) }
    var properties: [String: String] = [:]
    for line in String(decoding: text, as: UTF8.self).split(whereSeparator: \.isNewline) where !line.hasPrefix("#") {
      guard let sign = line.firstIndex(of: "=") else { continue }
      let name = line[..<sign].filter { $0 != " " }
      guard !Self.reserved.contains(name) else { continue }
      properties[name] = String(line[line.index(after: sign)...].drop { $0 == " " })
    }
    return properties
  }

  var place: String { "kafka://\(brokers)/\(name)" }

  /// What a user's properties may not say: it would break a promise.
  static let reserved: Set<String> = [
    "acks", "request.required.acks", "auto.offset.reset", "bootstrap.servers", "delivery.timeout.ms",
    "enable.auto.commit", "enable.auto.offset.store", "enable.idempotence", "enable.partition.eof", "group.id",
    "message.timeout.ms", "metadata.broker.list", "retries", "message.send.max.retries", "transactional.id",
  ]

  /// What holds unless the file says otherwise: a broker that is back is found again within two seconds, not ten.
  static let defaults = ["reconnect.backoff.max.ms": "2000"]
}

/// What a producer's delivery reports said; librdkafka calls back within our own calls, on our thread.
final class KafkaDeliveries {
  var outstanding = 0
  /// The end of the last record that is known to be there.
  var end: UInt64 = 0
  var failure: String?

  func note(_ error: rd_kafka_resp_err_t, offset: Int64) {
    outstanding -= 1
    guard error == RD_KAFKA_RESP_ERR_NO_ERROR else {
      failure = failure ?? KafkaClient.text(error)
      return
    }
    // A record that was sent twice may come back without its offset: it lies behind the one before.
    end = offset >= 0 ? max(end, UInt64(offset) + 1) : end + 1
  }
}

/// A client of a Kafka cluster.
@safe final class KafkaClient {
  static let questionMilliseconds: Int32 = 1000
  /// How long `sync` waits for reports before it says that they are not there.
  static let reportMilliseconds: Int32 = 250

  let topic: KafkaTopic
  let partition: Int32
  let handle: OpaquePointer
  /// The deliveries of a producer; kept here as librdkafka keeps only a pointer.
  let deliveries: KafkaDeliveries

  /// A producer that repeats until a record is there, once, on all replicas in sync.
  static func producer(_ topic: KafkaTopic, partition: Int) throws(StreamError) -> KafkaClient {
    try KafkaClient(
      topic, partition, RD_KAFKA_PRODUCER,
      [
        "enable.idempotence": "true", "acks": "all", "message.timeout.ms": "0", "linger.ms": "5",
        "queue.buffering.max.messages": "100000", "queue.buffering.max.kbytes": "65536",
      ])
  }

  /// A consumer of given offsets: its group has no members, and nothing is committed to it.
  static func consumer(_ topic: KafkaTopic, partition: Int) throws(StreamError) -> KafkaClient {
    try KafkaClient(
      topic, partition, RD_KAFKA_CONSUMER,
      [
        "group.id": "guira", "enable.auto.commit": "false", "enable.auto.offset.store": "false",
        "auto.offset.reset": "error", "fetch.wait.max.ms": "50", "queued.max.messages.kbytes": "16384",
        "allow.auto.create.topics": "false", "check.crcs": "true",
      ])
  }

  private init(
    _ topic: KafkaTopic, _ partition: Int, _ type: rd_kafka_type_t, _ settings: [String: String]
  ) throws(StreamError) {
    self.topic = topic
    self.partition = Int32(clamping: partition)
    deliveries = KafkaDeliveries()
    let all = try KafkaTopic.defaults.merging(topic.properties()) { $1 }.merging(settings) { $1 }
      .merging(["bootstrap.servers": topic.brokers]) { $1 }
    guard let conf = unsafe rd_kafka_conf_new() else { throw .server(stream: topic.place, problem: "out of memory") }
    var text = [CChar](repeating: 0, count: 512)
    for (name, value) in all.sorted(by: { $0.key < $1.key }) {
      guard unsafe rd_kafka_conf_set(conf, name, value, &text, text.count) == RD_KAFKA_CONF_OK else {
        unsafe rd_kafka_conf_destroy(conf)
        throw .server(stream: topic.place, problem: Self.string(text))
      }
    }
    // Its errors come to us as results; what it says besides would go to the terminal.
    unsafe rd_kafka_conf_set_log_cb(conf, nil)
    if type == RD_KAFKA_PRODUCER {
      unsafe rd_kafka_conf_set_opaque(conf, Unmanaged.passUnretained(deliveries).toOpaque())
      unsafe rd_kafka_conf_set_dr_msg_cb(conf) { _, message, opaque in
        guard let message = unsafe message, let opaque = unsafe opaque else { return }
        unsafe Unmanaged<KafkaDeliveries>.fromOpaque(opaque).takeUnretainedValue().note(
          message.pointee.err, offset: message.pointee.offset)
      }
    }
    guard let handle = unsafe rd_kafka_new(type, conf, &text, text.count) else {
      unsafe rd_kafka_conf_destroy(conf)
      throw .server(stream: topic.place, problem: Self.string(text))
    }
    unsafe self.handle = handle
    if type == RD_KAFKA_CONSUMER { _ = unsafe rd_kafka_poll_set_consumer(handle) }
  }

  deinit {
    // There is no group to leave, and what was not acknowledged is not waited for.
    _ = unsafe rd_kafka_purge(handle, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT)
    unsafe rd_kafka_destroy_flags(handle, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE)
  }

  var name: String { "\(topic.place), partition \(partition)" }

  static func string(_ text: [CChar]) -> String {
    String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  static func text(_ error: rd_kafka_resp_err_t) -> String {
    unsafe rd_kafka_err2str(error).map { unsafe String(cString: $0) } ?? "error \(error.rawValue)"
  }

  /// What an error means: for good, or for now.
  func error(_ code: rd_kafka_resp_err_t) -> StreamError {
    switch code {
    case RD_KAFKA_RESP_ERR__FATAL, RD_KAFKA_RESP_ERR__FENCED, RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE,
      RD_KAFKA_RESP_ERR__INVALID_ARG, RD_KAFKA_RESP_ERR__BAD_MSG, RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
      .server(stream: name, problem: Self.text(code))
    default: .unavailable(server: topic.place, problem: Self.text(code))
    }
  }

  /// The offset that the next record will have, as the last answer to a fetch said; nil before there was one.
  var fetchedEnd: UInt64? {
    var low: Int64 = -1
    var high: Int64 = -1
    let code = unsafe rd_kafka_get_watermark_offsets(handle, topic.name, partition, &low, &high)
    return code == RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0 ? UInt64(high) : nil
  }

  /// The offset of the oldest record that is kept, and the one the next record will have; nil while nobody has made the
  /// partition.
  func watermarks() throws(StreamError) -> (low: UInt64, high: UInt64)? {
    guard let low = try offset(Int64(RD_KAFKA_OFFSET_BEGINNING)), let high = try offset(Int64(RD_KAFKA_OFFSET_END))
    else {
      return nil
    }
    return (low, high)
  }

  /// The offset that the next record will have; nil while nobody has made the partition.
  func end() throws(StreamError) -> UInt64? { try offset(Int64(RD_KAFKA_OFFSET_END)) }

  /// What a logical offset stands for now, by the partition's leader.
  ///
  /// librdkafka's call for this very question waits, once the question is under way, for as long as a request lives:
  /// three minutes while the leader is away, whatever time it was given. The one for times keeps to it, and in the
  /// protocol the logical offsets are times.
  private func offset(_ logical: Int64) throws(StreamError) -> UInt64? {
    guard let list = unsafe rd_kafka_topic_partition_list_new(1) else {
      throw .unavailable(server: topic.place, problem: "out of memory")
    }
    defer { unsafe rd_kafka_topic_partition_list_destroy(list) }
    guard let entry = unsafe rd_kafka_topic_partition_list_add(list, topic.name, partition) else {
      throw .unavailable(server: topic.place, problem: "out of memory")
    }
    unsafe entry.pointee.offset = logical
    var code = unsafe rd_kafka_offsets_for_times(handle, list, Self.questionMilliseconds)
    if code == RD_KAFKA_RESP_ERR_NO_ERROR { code = unsafe entry.pointee.err }
    switch code {
    case RD_KAFKA_RESP_ERR_NO_ERROR:
      // An answer that did not come in time leaves the question where it was.
      guard let offset = unsafe UInt64(exactly: entry.pointee.offset) else {
        throw error(RD_KAFKA_RESP_ERR__TIMED_OUT)
      }
      return offset
    case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION, RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC,
      RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
      return nil
    default: throw error(code)
    }
  }
}
