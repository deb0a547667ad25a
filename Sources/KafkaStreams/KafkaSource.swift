// The reading end of a Kafka partition: assigned to an offset that we keep ourselves. A record's key is the generation of
// its writer. Where a newer writer has begun, with an empty record, what an older one still had on its way is passed over,
// by every reader alike, as all see the same log. Belongs to one thread.

internal import Base
internal import CRdKafka
internal import Glibc
internal import Journal
internal import Streams

/// Reads one partition for one named consumer.
@safe final class KafkaSource: RecordSource {
  private let client: KafkaClient
  private let consumer: String
  /// Where consumers on this machine note how far they are.
  private let directory: String
  private(set) var position: Position
  /// The newest writer seen.
  private(set) var generation: UInt64 = 0
  /// The offset that must come next; nil at the beginning, where the oldest record that is kept is the first.
  private var expected: UInt64?
  /// Whether the brokers said that there is no record at the offset asked for: it must be known why before more can come.
  private var isLost = false

  init(
    _ topic: KafkaTopic, partition: Int, consumer: String, from position: Position, directory: String
  ) throws(StreamError) {
    client = try KafkaClient.consumer(topic, partition: partition)
    self.consumer = consumer
    self.directory = directory
    self.position = position
    // The record before the first one wanted tells whose turn it was.
    assign(position == .start ? Int64(RD_KAFKA_OFFSET_BEGINNING) : Int64(clamping: position.low) - 1)
  }

  private func assign(_ offset: Int64) {
    expected = offset < 0 ? nil : UInt64(offset)
    guard let list = unsafe rd_kafka_topic_partition_list_new(1) else { return }
    defer { unsafe rd_kafka_topic_partition_list_destroy(list) }
    if let entry = unsafe rd_kafka_topic_partition_list_add(list, client.topic.name, client.partition) {
      unsafe entry.pointee.offset = offset
    }
    _ = unsafe rd_kafka_assign(client.handle, list)
  }

  func next() throws(StreamError) -> StreamRecord? {
    try next(waiting: 0)
  }

  /// The next record that counts, of those that come within a time.
  func next(waiting milliseconds: Int32) throws(StreamError) -> StreamRecord? {
    if isLost { try findPlace() }
    while let message = unsafe rd_kafka_consumer_poll(client.handle, milliseconds) {
      defer { unsafe rd_kafka_message_destroy(message) }
      let code = unsafe message.pointee.err
      guard code == RD_KAFKA_RESP_ERR_NO_ERROR else {
        try handle(code)
        return nil
      }
      if let record = try unsafe take(message.pointee) { return record }
    }
    return nil
  }

  private func handle(_ code: rd_kafka_resp_err_t) throws(StreamError) {
    switch code {
    case RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET, RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE:
      isLost = true
      try findPlace()
    default: throw client.error(code)
    }
  }

  /// Goes on at the first record wanted, when that is there; to be called again when the brokers cannot be asked.
  private func findPlace() throws(StreamError) {
    if position == .start {
      assign(Int64(RD_KAFKA_OFFSET_BEGINNING))
    } else {
      guard let (low, high) = try client.watermarks() else {
        throw client.error(RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART)
      }
      if position.low > high {
        throw .server(
          stream: client.name,
          problem: "it ends at \(high), and \(position) was read from it: records that were acknowledged are lost")
      }
      guard low <= position.low else {
        throw .gone(stream: client.name, wanted: position, first: Position(low: low))
      }
      // Only the record before the first one wanted is gone.
      assign(Int64(clamping: position.low))
    }
    isLost = false
  }

  /// The record of a message; nil for one that is there for its generation only, or that came too late.
  private func take(_ message: rd_kafka_message_t) throws(StreamError) -> StreamRecord? {
    let offset = unsafe UInt64(clamping: message.offset)
    if let expected, offset != expected {
      if offset < expected { return nil }
      throw .gone(stream: client.name, wanted: Position(low: expected), first: Position(low: offset))
    }
    expected = offset + 1
    let writer = unsafe Self.generation(UnsafeRawBufferPointer(start: message.key, count: message.key_len))
    guard let writer else {
      throw .server(
        stream: client.name, problem: "the record at offset \(offset) is not of guira: its key names no writer")
    }
    let isInTime = writer >= generation
    generation = max(generation, writer)
    guard offset >= position.low else { return nil }
    position = Position(low: offset + 1)
    guard isInTime, unsafe message.len > 0, let payload = unsafe message.payload else { return nil }
    let bytes = unsafe [UInt8](UnsafeRawBufferPointer(start: payload, count: message.len))
    return StreamRecord(position: position, reader: ByteReader(Blob(bytes)))
  }

  static func key(_ generation: UInt64) -> [UInt8] {
    (0..<8).map { UInt8(truncatingIfNeeded: generation >> (56 - 8 * $0)) }
  }

  private static func generation(_ key: UnsafeRawBufferPointer) -> UInt64? {
    guard key.count == 8 else { return nil }
    return unsafe key.reduce(0) { $0 << 8 | UInt64($1) }
  }

  /// As of the last answer to a fetch, some hundredths of a second ago; the brokers are asked before there was one.
  func end() throws(StreamError) -> Position {
    if let end = client.fetchedEnd { return Position(low: end) }
    return Position(low: try client.end() ?? 0)
  }

  func commit(processed: Position, safe: Position) throws(StreamError) {
    do throws(JournalError) {
      try JournalConsumers.commit(
        directory: directory, consumer: consumer, processed: processed.low, safe: safe.low, durable: false)
    } catch {
      throw .journal(error)
    }
  }
}
