// The reading end of a partition in Redis: reads runs of records behind its position, and sees by their ids when one is
// missing. Belongs to one thread.

internal import Base
internal import Redis
internal import Streams

/// Reads one partition for one named consumer.
final class RedisSource: RecordSource {
  private static let runBytes: UInt64 = 1 << 20
  private static let runRecords = [UInt8]("1024".utf8)
  /// How long an empty answer stands before the server is asked again.
  private static let pause: Int64 = 2_000_000

  private var link: RedisPartitionLink
  private let consumer: String
  private(set) var position: Position
  private var run: ArraySlice<StreamRecord> = []
  private var nextQuestion: Int64 = 0

  init(
    _ partition: RedisPartition, _ address: RedisAddress, consumer: String, from position: Position
  ) {
    link = RedisPartitionLink(partition, address)
    self.consumer = consumer
    self.position = position
  }

  func next() throws(StreamError) -> StreamRecord? {
    if run.isEmpty {
      let now = Clocks.monotonic()
      guard now >= nextQuestion else { return nil }
      run = try readRun()[...]
      if run.isEmpty { nextQuestion = now + Self.pause }
    }
    guard let record = run.popFirst() else { return nil }
    position = record.position
    return record
  }

  private func readRun() throws(StreamError) -> [StreamRecord] {
    let partition = link.partition
    let begin = RedisPartition.id(position.low + 1)
    func range(_ last: [UInt8], _ count: [UInt8]) -> [[UInt8]] {
      [Array("XRANGE".utf8), partition.stream, begin, last, Array("COUNT".utf8), count]
    }
    // The end first: what it names is in the stream by the time that is read.
    let replies = try link.ask([
      ["HGET", "", "end"].map { $0.isEmpty ? partition.writer : Array($0.utf8) },
      range(RedisPartition.id(position.low + Self.runBytes), Self.runRecords),
    ])
    let end = try link.end(replies[0])
    guard end >= position.low else {
      throw .server(
        stream: "\(link.server), \(partition.name)",
        problem: "it ends at \(end), and \(position) was read from it: the server lost records it had acknowledged")
    }
    var records = try records(replies[1])
    if records.isEmpty, end > position.low {
      // A record larger than a run, or none because it was deleted.
      records = try self.records(try link.ask([range([UInt8(ascii: "+")], [UInt8(ascii: "1")])])[0])
      if records.isEmpty { throw .gone(stream: partition.name, wanted: position, first: Position(low: end)) }
    }
    return records
  }

  /// The records of an answer to XRANGE, which must follow each other without a gap.
  private func records(_ reply: RedisReply) throws(StreamError) -> [StreamRecord] {
    guard case .list(let entries) = reply else { throw link.unexpected(reply) }
    var records: [StreamRecord] = []
    records.reserveCapacity(entries.count)
    var last = position.low
    for entry in entries {
      guard case .list(let parts) = entry, parts.count == 2, case .bytes(let id) = parts[0],
        case .list(let fields) = parts[1], fields.count == 2, case .bytes(let payload) = fields[1],
        let end = RedisPartition.end(id: id), end >= UInt64(payload.count) + RedisPartition.overhead
      else { throw link.unexpected(entry) }
      let begin = end - UInt64(payload.count) - RedisPartition.overhead
      guard begin == last else {
        throw .gone(stream: link.partition.name, wanted: Position(low: last), first: Position(low: begin))
      }
      last = end
      records.append(StreamRecord(position: Position(low: end), reader: ByteReader(Blob(payload))))
    }
    return records
  }

  func end() throws(StreamError) -> Position { Position(low: try link.end() ?? 0) }

  func commit(processed: Position, safe: Position) throws(StreamError) {
    let place = Array("\(processed.low) \(safe.low)".utf8)
    _ = try link.ask("HSET", link.partition.consumers, Array(consumer.utf8), place)
  }
}
