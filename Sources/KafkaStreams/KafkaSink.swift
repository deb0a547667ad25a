// The writing end of a Kafka partition. librdkafka's idempotent producer repeats until a record is there once, in order, on
// all replicas in sync; `sync` waits for its reports. A new writer begins with an empty record that names its generation:
// what an older one still had on its way is passed over behind that. Belongs to one thread.

internal import Base
internal import CRdKafka
internal import Streams

/// Appends to one partition.
@safe final class KafkaSink: RecordSink {
  private let client: KafkaClient
  private let rkt: OpaquePointer
  /// Keeps a second writer on this machine out.
  private let lock: FileLock
  private let key: [UInt8]
  /// Our generation.
  let generation: UInt64

  init(_ topic: KafkaTopic, partition: Int, directory: String) throws(StreamError) {
    do throws(FileError) {
      try Files.makeDirectory(directory)
      lock = try FileLock(path: "\(directory)/writer.lock")
    } catch {
      throw .file(error)
    }
    let client = try KafkaClient.producer(topic, partition: partition)
    guard let rkt = unsafe rd_kafka_topic_new(client.handle, topic.name, nil) else {
      throw .server(stream: client.name, problem: "no such topic can be used")
    }
    self.client = client
    unsafe self.rkt = rkt
    let last: (generation: UInt64, end: UInt64)
    do throws(StreamError) {
      last = try Self.lastRecord(topic, partition: partition, directory: directory)
    } catch {
      unsafe rd_kafka_topic_destroy(rkt)
      throw error
    }
    // The clock tells writers apart that had no time to write; what is in the log keeps a clock that was set back in step.
    generation = max(last.generation + 1, UInt64(clamping: Clocks.wall()))
    key = KafkaSource.key(generation)
    client.deliveries.end = last.end
    var empty: [UInt8] = []
    try produce(&empty)
    try begin()
  }

  deinit { unsafe rd_kafka_topic_destroy(rkt) }

  /// The generation of the last record, 0 when there is none, and where the partition ends.
  private static func lastRecord(
    _ topic: KafkaTopic, partition: Int, directory: String
  ) throws(StreamError) -> (generation: UInt64, end: UInt64) {
    let asking = try KafkaClient.consumer(topic, partition: partition)
    guard let (low, high) = try asking.watermarks() else {
      throw .unavailable(
        server: topic.place, problem: "there is no partition \(partition): create the topic with more partitions")
    }
    guard high > low else { return (0, high) }
    let source = try KafkaSource(
      topic, partition: partition, consumer: "writer", from: Position(low: high), directory: directory)
    let deadline = Clocks.monotonic() + 5_000_000_000
    while source.generation == 0 {
      guard Clocks.monotonic() < deadline else {
        throw .unavailable(server: topic.place, problem: "the last record of partition \(partition) does not come")
      }
      _ = try source.next(waiting: 100)
    }
    return (source.generation, high)
  }

  var synced: Position { Position(low: client.deliveries.end) }
  var end: Position { Position(low: client.deliveries.end + UInt64(client.deliveries.outstanding)) }

  @discardableResult
  func append(_ payload: RawSpan) throws(StreamError) -> Position {
    var bytes = unsafe payload.withUnsafeBytes { unsafe Array($0) }
    precondition(!bytes.isEmpty, "a record without bytes")
    try produce(&bytes)
    return end
  }

  private func produce(_ bytes: inout [UInt8]) throws(StreamError) {
    try check()
    let count = bytes.count
    for _ in 0..<20 {
      let result = unsafe bytes.withUnsafeMutableBytes { payload in
        unsafe key.withUnsafeBytes { key in
          unsafe rd_kafka_produce(
            rkt, client.partition, RD_KAFKA_MSG_F_COPY, count == 0 ? nil : payload.baseAddress, count, key.baseAddress,
            key.count, nil)
        }
      }
      if result == 0 {
        client.deliveries.outstanding += 1
        unsafe rd_kafka_poll(client.handle, 0)
        return
      }
      let code = rd_kafka_last_error()
      guard code == RD_KAFKA_RESP_ERR__QUEUE_FULL else { throw client.error(code) }
      unsafe rd_kafka_poll(client.handle, 50)
      try check()
    }
    throw client.error(RD_KAFKA_RESP_ERR__QUEUE_FULL)
  }

  /// Waits for the empty record; a producer takes a moment to introduce itself to the brokers.
  private func begin() throws(StreamError) {
    let deadline = Clocks.monotonic() + 5_000_000_000
    while true {
      do throws(StreamError) { return try sync() } catch {
        guard error.isForNow, Clocks.monotonic() < deadline else { throw error }
      }
    }
  }

  func sync() throws(StreamError) {
    try check()
    guard client.deliveries.outstanding > 0 else { return }
    _ = unsafe rd_kafka_flush(client.handle, KafkaClient.reportMilliseconds)
    try check()
    guard client.deliveries.outstanding == 0 else {
      throw .unavailable(
        server: client.topic.place, problem: "\(client.deliveries.outstanding) records are not acknowledged")
    }
  }

  /// After a refusal nobody knows what is there of what followed: another writer must look.
  private func check() throws(StreamError) {
    if let failure = client.deliveries.failure { throw .server(stream: client.name, problem: failure) }
  }
}
