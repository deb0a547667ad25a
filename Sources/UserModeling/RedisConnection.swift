// One connection to a Redis server: commands in, replies out, many at a time. The only place here that knows hiredis.

internal import Base
internal import CHiredis
internal import Glibc

/// What Redis answered to one command.
enum RedisReply: Equatable {
  case bytes([UInt8])
  case integer(Int64)
  case list([RedisReply])
  case status(String)
  case failure(String)
  case null
}

/// A connection; whoever uses it holds it alone.
///
/// unchecked because: the store lends it to one thread at a time, under a lock.
@safe final class RedisConnection: @unchecked Sendable {
  private let context: UnsafeMutablePointer<redisContext>
  private let address: String

  /// Connects.
  /// - Parameter patience: how long connecting, and each answer, may take.
  init(host: String, port: Int, patience: Duration) throws(FeatureStoreError) {
    address = "\(host):\(port)"
    let time = timeval(
      tv_sec: Int(patience.nanoseconds / 1_000_000_000), tv_usec: Int(patience.nanoseconds % 1_000_000_000 / 1000))
    guard let context = unsafe redisConnectWithTimeout(host, Int32(port), time) else {
      throw .server(address: address, problem: "out of memory")
    }
    unsafe self.context = context
    // From here on `deinit` frees it, also when this throws.
    let problem = unsafe Self.problem(context)
    guard problem == nil, unsafe redisSetTimeout(context, time) == REDIS_OK else {
      throw .server(address: address, problem: problem ?? "its timeout cannot be set")
    }
  }

  deinit { unsafe redisFree(context) }

  private static func problem(_ context: UnsafeMutablePointer<redisContext>) -> String? {
    guard unsafe context.pointee.err != 0 else { return nil }
    return unsafe withUnsafePointer(to: &context.pointee.errstr) { text in
      unsafe text.withMemoryRebound(to: CChar.self, capacity: MemoryLayout.size(ofValue: text.pointee)) {
        unsafe String(cString: $0)
      }
    }
  }

  /// Sends all commands at once and gives their replies, in order.
  ///
  /// - Throws: when the connection is broken; it cannot be used again then.
  func ask(_ commands: [[[UInt8]]]) throws(FeatureStoreError) -> [RedisReply] {
    for command in commands {
      let code = append(command)
      guard code == REDIS_OK else { throw failure("a command cannot be sent") }
    }
    var replies: [RedisReply] = []
    replies.reserveCapacity(commands.count)
    for _ in commands {
      var raw: UnsafeMutableRawPointer?
      guard unsafe redisGetReply(context, &raw) == REDIS_OK, let raw = unsafe raw else {
        throw failure("no answer")
      }
      defer { unsafe freeReplyObject(raw) }
      replies.append(unsafe Self.reply(raw.assumingMemoryBound(to: redisReply.self)))
    }
    return replies
  }

  private func failure(_ otherwise: String) -> FeatureStoreError {
    .server(address: address, problem: unsafe Self.problem(context) ?? otherwise)
  }

  /// Appends a command as the protocol writes it: so many arguments, each with its length before it.
  private func append(_ command: [[UInt8]]) -> Int32 {
    var bytes = Array("*\(command.count)\r\n".utf8)
    for argument in command { bytes += Array("$\(argument.count)\r\n".utf8) + argument + [13, 10] }
    return unsafe bytes.withUnsafeBytes {
      unsafe redisAppendFormattedCommand(context, $0.assumingMemoryBound(to: CChar.self).baseAddress, $0.count)
    }
  }

  private static func reply(_ raw: UnsafeMutablePointer<redisReply>) -> RedisReply {
    let reply = unsafe raw.pointee
    func bytes() -> [UInt8] {
      guard let start = unsafe reply.str else { return [] }
      return unsafe [UInt8](UnsafeRawBufferPointer(start: start, count: reply.len))
    }
    switch unsafe reply.type {
    case REDIS_REPLY_STRING: return .bytes(bytes())
    case REDIS_REPLY_INTEGER: return .integer(unsafe reply.integer)
    case REDIS_REPLY_STATUS: return .status(String(decoding: bytes(), as: UTF8.self))
    case REDIS_REPLY_ERROR: return .failure(String(decoding: bytes(), as: UTF8.self))
    case REDIS_REPLY_ARRAY:
      var list: [RedisReply] = []
      for index in 0..<(unsafe reply.elements) {
        if let element = unsafe reply.element[index] { list.append(unsafe Self.reply(element)) }
      }
      return .list(list)
    default: return .null
    }
  }
}
