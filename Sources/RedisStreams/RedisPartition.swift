// One partition of a stream in a Redis server: its keys, and the scripts that change them.
//
//   {<prefix>:<stream>:<partition>}            the stream; each entry is one record, in the field "r"
//   {<prefix>:<stream>:<partition>}:writer     a hash: the newest writer's generation, and the end of the last record
//   {<prefix>:<stream>:<partition>}:consumers  a hash: consumer → "<processed> <safe>"
//
// A record's entry has the id 0-<end>, where the end counts bytes as a journal does: the record's own and 16 around it.
// So positions of Redis and of journals mean the same, and a reader sees by the ids alone whether a record is missing.

internal import Base
internal import Redis
internal import Streams

/// The keys of a partition, and how records are numbered.
struct RedisPartition: Sendable {
  /// What a record counts beside its own bytes: about what an entry takes.
  static let overhead: UInt64 = 16

  let name: String
  let stream: [UInt8]
  let writer: [UInt8]
  let consumers: [UInt8]

  init(prefix: String, stream name: String, partition: Int) {
    self.name = "\(name)/\(partition)"
    // The braces keep the three keys in one slot of a Redis cluster.
    let key = "{\(prefix):\(name):\(partition)}"
    stream = Array(key.utf8)
    writer = Array("\(key):writer".utf8)
    consumers = Array("\(key):consumers".utf8)
  }

  static func id(_ end: UInt64) -> [UInt8] { Array("0-\(end)".utf8) }

  /// The end that an entry's id names; nil for an id that is not ours.
  static func end(id: [UInt8]) -> UInt64? {
    guard id.starts(with: [UInt8(ascii: "0"), UInt8(ascii: "-")]) else { return nil }
    return number(id.dropFirst(2))
  }

  static func number(_ bytes: some Collection<UInt8>) -> UInt64? {
    var value: UInt64 = 0
    guard !bytes.isEmpty, bytes.count <= 20 else { return nil }
    for byte in bytes {
      guard (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) else { return nil }
      let (product, over) = value.multipliedReportingOverflow(by: 10)
      let (sum, overflow) = product.addingReportingOverflow(UInt64(byte - UInt8(ascii: "0")))
      if over || overflow { return nil }
      value = sum
    }
    return value
  }
}

/// A script that the server runs as one step.
struct RedisScript: Sendable {
  let text: String

  /// Makes the caller the newest writer.
  ///
  /// Gives its generation and the end of the last record.
  static let claim = RedisScript(
    text: """
      local generation = redis.call('HINCRBY', KEYS[1], 'generation', 1)
      return {generation, redis.call('HGET', KEYS[1], 'end') or '0'}
      """)

  /// Appends records behind the end that the writer knows, and stores the new end with them.
  ///
  /// ARGV: generation, the end so far, then for each record its end and its bytes. Gives the end there is now: another
  /// than the last one asked for says that nothing was appended, as when the answer to an earlier call was lost.
  static let append = RedisScript(
    text: """
      local state = redis.call('HMGET', KEYS[1], 'generation', 'end')
      if state[1] ~= ARGV[1] then return redis.error_reply('FENCED ' .. (state[1] or '0')) end
      local last = state[2] or '0'
      if last ~= ARGV[2] then return last end
      for i = 3, #ARGV, 2 do redis.call('XADD', KEYS[2], '0-' .. ARGV[i], 'r', ARGV[i + 1]) end
      redis.call('HSET', KEYS[1], 'end', ARGV[#ARGV - 1])
      return ARGV[#ARGV - 1]
      """)

  /// Deletes the records that end before the one given, in whole nodes of the stream.
  static let trim = RedisScript(
    text: """
      local generation = redis.call('HGET', KEYS[1], 'generation')
      if generation ~= ARGV[1] then return redis.error_reply('FENCED ' .. (generation or '0')) end
      return redis.call('XTRIM', KEYS[2], 'MINID', '~', '0-' .. ARGV[2], 'LIMIT', 0)
      """)
}

/// Asks a server about one partition, in the words of streams.
struct RedisPartitionLink: Sendable {
  let partition: RedisPartition
  private var link: RedisLink
  /// The hashes the server knows our scripts by, once it has told.
  private var hashes: [String: [UInt8]] = [:]

  init(_ partition: RedisPartition, _ address: RedisAddress) {
    self.partition = partition
    link = RedisLink(address)
  }

  var server: String { "redis://\(link.address)" }

  /// The replies to some commands; a refusal is an error.
  mutating func ask(_ commands: [[[UInt8]]]) throws(StreamError) -> [RedisReply] {
    let replies: [RedisReply]
    do throws(RedisError) { replies = try link.ask(commands) } catch {
      throw .unavailable(server: server, problem: error.problem)
    }
    for reply in replies { if case .failure(let problem) = reply { throw refusal(problem) } }
    return replies
  }

  mutating func ask(_ words: String, _ arguments: [UInt8]...) throws(StreamError) -> RedisReply {
    try ask([words.split(separator: " ").map { Array($0.utf8) } + arguments])[0]
  }

  /// Runs a script over the writer's state and the stream.
  mutating func run(_ script: RedisScript, _ arguments: [[UInt8]]) throws(StreamError) -> RedisReply {
    let hash: [UInt8]
    if let known = hashes[script.text] {
      hash = known
    } else {
      let reply = try ask("SCRIPT LOAD", Array(script.text.utf8))
      guard case .bytes(let bytes) = reply else { throw unexpected(reply) }
      hashes[script.text] = bytes
      hash = bytes
    }
    let keys = [[UInt8(ascii: "2")], partition.writer, partition.stream]
    do throws(StreamError) {
      return try ask([[Array("EVALSHA".utf8), hash] + keys + arguments])[0]
    } catch {
      // A server that was started anew knows no scripts.
      hashes = [:]
      throw error
    }
  }

  /// What the server's refusal means.
  private func refusal(_ problem: String) -> StreamError {
    let word = problem.prefix { $0 != " " }
    switch word {
    case "FENCED": return .fenced(stream: partition.name, generation: UInt64(problem.dropFirst(7)) ?? 0)
    // It starts, is full, cannot write its own log, is a replica just now, or lost our script: all of that passes.
    case "NOSCRIPT", "LOADING", "OOM", "MISCONF", "READONLY", "BUSY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "NOAUTH":
      return .unavailable(server: server, problem: problem)
    default: return .server(stream: "\(server), \(partition.name)", problem: problem)
    }
  }

  func unexpected(_ reply: RedisReply) -> StreamError {
    .server(
      stream: "\(server), \(partition.name)", problem: String("an answer of an unexpected kind: \(reply)".prefix(300)))
  }

  /// The end of the last record; nil before the first writer.
  mutating func end() throws(StreamError) -> UInt64? {
    let reply = try ask("HMGET", partition.writer, Array("generation".utf8), Array("end".utf8))
    guard case .list(let values) = reply, values.count == 2 else { throw unexpected(reply) }
    if values[0] == .null { return nil }
    return try end(values[1])
  }

  func end(_ reply: RedisReply) throws(StreamError) -> UInt64 {
    if reply == .null { return 0 }
    guard case .bytes(let bytes) = reply, let end = RedisPartition.number(bytes) else { throw unexpected(reply) }
    return end
  }
}
