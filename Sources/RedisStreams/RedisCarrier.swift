// A stream in a Redis server, as roles see it.

public import Base
public import Redis
public import Streams
internal import Synchronization

/// The partitions of one stream as Redis Streams.
///
/// What the server has acknowledged is never lost or repeated by the end of any process, the server's included; whether it
/// survives the end of the server's machine is the server's setting `appendfsync`.
public final class RedisCarrier: StreamCarrier {
  private let address: RedisAddress
  private let prefix: String
  private let stream: String
  private let durable: Bool
  /// Questions about places go over one connection for each partition.
  private let questions = Mutex<[Int: RedisPartitionLink]>([:])

  /// A stream in the server at an address.
  /// - Parameters:
  ///   - prefix: what the keys of the stream begin with.
  ///   - durable: whether a server that keeps no append-only file is refused.
  public init(_ address: RedisAddress, prefix: String, stream: String, durable: Bool = true) {
    self.address = address
    self.prefix = prefix
    self.stream = stream
    self.durable = durable
  }

  private func partition(_ number: Int) -> RedisPartition {
    RedisPartition(prefix: prefix, stream: stream, partition: number)
  }

  /// Becomes the writer of a partition; an older writer is refused from then on.
  public func sink(partition: Int) throws(StreamError) -> any RecordSink {
    try RedisSink(self.partition(partition), address, durable: durable)
  }

  /// A reader of a partition.
  public func source(
    partition: Int, consumer: String, from position: Position
  ) throws(StreamError) -> (any RecordSource)? {
    if position == .start, try end(partition: partition) == nil { return nil }
    return RedisSource(self.partition(partition), address, consumer: consumer, from: position)
  }

  /// The end of a partition; nil before its first writer.
  public func end(partition: Int) throws(StreamError) -> Position? {
    try ask(partition) { link throws(StreamError) in try link.end().map { Position(low: $0) } }
  }

  /// The places that consumers noted in the server.
  public func consumers(partition: Int) throws(StreamError) -> [String: ConsumerPlace] {
    try ask(partition) { link throws(StreamError) in
      let reply = try link.ask("HGETALL", link.partition.consumers)
      guard case .list(let words) = reply, words.count % 2 == 0 else { throw link.unexpected(reply) }
      var places: [String: ConsumerPlace] = [:]
      for index in stride(from: 0, to: words.count, by: 2) {
        guard case .bytes(let name) = words[index], case .bytes(let place) = words[index + 1] else {
          throw link.unexpected(reply)
        }
        let numbers = place.split(separator: UInt8(ascii: " ")).map { RedisPartition.number($0) }
        guard numbers.count == 2, let processed = numbers[0], let safe = numbers[1] else {
          throw link.unexpected(reply)
        }
        places[String(decoding: name, as: UTF8.self)] = ConsumerPlace(
          processed: Position(low: processed), safe: Position(low: safe))
      }
      return places
    }
  }

  private func ask<Answer: Sendable>(
    _ partition: Int, _ question: (inout RedisPartitionLink) throws(StreamError) -> Answer
  ) throws(StreamError) -> Answer {
    try questions.withLock { links throws(StreamError) in
      var link = links[partition] ?? RedisPartitionLink(self.partition(partition), address)
      defer { links[partition] = link }
      return try question(&link)
    }
  }
}
