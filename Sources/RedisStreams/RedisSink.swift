// The writing end of a partition in Redis. Records are gathered and appended by a script, many in one step, with the end
// they reach: so the server's answer can be lost, the server can be killed and this process too, and every record is there
// once. The newest writer is the only one; an older one is refused from then on.

internal import Base
internal import Redis
internal import Streams

/// Appends to one partition; belongs to one thread.
final class RedisSink: RecordSink {
  /// A step's records: what keeps the server's other clients waiting for a millisecond or two.
  private static let stepRecords = 1024
  private static let stepBytes = 1 << 20
  /// Gathered bytes at which an append does not wait for `sync`.
  private static let gatheredBytes = 4 << 20

  private struct Pending {
    let end: UInt64
    let bytes: [UInt8]
  }

  private var link: RedisPartitionLink
  private let generation: UInt64
  private var durableEnd: UInt64
  private var pending: [Pending] = []
  private var pendingBytes = 0
  /// What is deleted already.
  private var trimmed: UInt64 = 0

  /// Becomes the partition's writer.
  ///
  /// - Parameter durable: whether a server without a log of its own is refused.
  init(_ partition: RedisPartition, _ address: RedisAddress, durable: Bool) throws(StreamError) {
    link = RedisPartitionLink(partition, address)
    if durable { try Self.checkLog(&link) }
    let reply = try link.run(.claim, [])
    guard case .list(let values) = reply, values.count == 2, case .integer(let generation) = values[0] else {
      throw link.unexpected(reply)
    }
    self.generation = UInt64(clamping: generation)
    durableEnd = try link.end(values[1])
  }

  /// A server that answers before a record is on its disk loses it when it is killed: with `appendfsync everysec` too, as
  /// it holds writes back while it syncs.
  private static func checkLog(_ link: inout RedisPartitionLink) throws(StreamError) {
    let reply: RedisReply
    do throws(StreamError) { reply = try link.ask("CONFIG GET append*") } catch {
      if error.isForNow { throw error }
      return  // The server lets nobody ask for its settings; its operator answers for them.
    }
    guard case .list(let words) = reply else { return }
    var settings: [String: String] = [:]
    for index in stride(from: 0, to: words.count - 1, by: 2) {
      guard case .bytes(let name) = words[index], case .bytes(let value) = words[index + 1] else { continue }
      settings[String(decoding: name, as: UTF8.self)] = String(decoding: value, as: UTF8.self)
    }
    for (name, wanted) in [("appendonly", "yes"), ("appendfsync", "always")] {
      guard let found = settings[name], found != wanted else { continue }
      throw .server(
        stream: "\(link.server), \(link.partition.name)",
        problem: "the server has `\(name) \(found)`, so its end would lose what it acknowledged: set "
          + "`\(name) \(wanted)` there, or cluster.durability to none")
    }
  }

  var synced: Position { Position(low: durableEnd) }
  var end: Position { Position(low: pending.last?.end ?? durableEnd) }

  @discardableResult
  func append(_ payload: RawSpan) throws(StreamError) -> Position {
    if pendingBytes >= Self.gatheredBytes { try sync() }
    let bytes = unsafe payload.withUnsafeBytes { unsafe Array($0) }
    let next = Pending(end: end.low + UInt64(bytes.count) + RedisPartition.overhead, bytes: bytes)
    pending.append(next)
    pendingBytes += bytes.count
    return Position(low: next.end)
  }

  func sync() throws(StreamError) {
    while !pending.isEmpty {
      var arguments = [Array("\(generation)".utf8), Array("\(durableEnd)".utf8)]
      var size = 0
      var last = durableEnd
      for record in pending.prefix(Self.stepRecords) {
        arguments.append(Array("\(record.end)".utf8))
        arguments.append(record.bytes)
        size += record.bytes.count
        last = record.end
        if size >= Self.stepBytes { break }
      }
      let found = try link.end(try link.run(.append, arguments))
      // Less than asked for: nothing was appended, as an earlier step whose answer was lost had been carried out.
      guard found == last || pending.contains(where: { $0.end == found }) else {
        throw .server(
          stream: "\(link.server), \(link.partition.name)",
          problem: "it ends at \(found), and \(durableEnd) was acknowledged: the server lost records, or another wrote")
      }
      durableEnd = found
      let done = pending.prefix { $0.end <= found }.count
      pendingBytes -= pending.prefix(done).reduce(0) { $0 + $1.bytes.count }
      pending.removeFirst(done)
    }
  }

  func deleteRecords(before position: Position, keeping keptBytes: UInt64) throws(StreamError) {
    guard durableEnd > keptBytes else { return }
    let before = min(position.low, durableEnd - keptBytes)
    // Deleting a little more each time would cost more than it frees.
    guard before > trimmed, before - trimmed >= min(64 << 10, durableEnd / 4) else { return }
    _ = try link.run(.trim, [Array("\(generation)".utf8), Array("\(before + 1)".utf8)])
    trimmed = before
  }
}
