// One connection to a Redis server: commands in, replies out, many at a time. The only place here that knows hiredis.

internal import Base
internal import CHiredis
internal import Glibc

/// What Redis answered to one command.
public enum RedisReply: Equatable, Sendable {
  /// A text or bytes.
  case bytes([UInt8])
  /// A number.
  case integer(Int64)
  /// Several answers.
  case list([RedisReply])
  /// "OK" and the like.
  case status(String)
  /// An error, in the server's words.
  case failure(String)
  /// Nothing is there.
  case null
}

/// Where a Redis server is, and who asks there.
public struct RedisAddress: Hashable, Sendable, CustomStringConvertible {
  /// The server's host name or address.
  public var host: String
  /// Its port.
  public var port: Int
  /// The user who asks, when the server knows several.
  public var user: String?
  /// The password, when the server wants one.
  public var password: String?

  /// The server at a host and port, which wants no password.
  public init(host: String, port: Int, user: String? = nil, password: String? = nil) {
    self.host = host
    self.port = port
    self.user = user
    self.password = password
  }

  /// "host:port"; never the password.
  public var description: String { "\(host):\(port)" }
}

/// A server that cannot be reached, or a connection that broke.
public struct RedisError: Error, Equatable, Sendable, CustomStringConvertible {
  /// "host:port".
  public let address: String
  /// What happened.
  public let problem: String

  /// "host:port: problem".
  public var description: String { "\(address): \(problem)" }
}

/// A connection; whoever uses it holds it alone.
///
/// unchecked because: its owner lends it to one thread at a time, under a lock or by belonging to one.
@safe public final class RedisConnection: @unchecked Sendable {
  private let context: UnsafeMutablePointer<redisContext>
  private let address: String

  /// Connects, and says who asks when the address has a password.
  /// - Parameter patience: how long connecting, and each answer, may take.
  public init(_ server: RedisAddress, patience: Duration) throws(RedisError) {
    address = "\(server)"
    let time = timeval(
      tv_sec: Int(patience.nanoseconds / 1_000_000_000), tv_usec: Int(patience.nanoseconds % 1_000_000_000 / 1000))
    guard let context = unsafe redisConnectWithTimeout(server.host, Int32(server.port), time) else {
      throw RedisError(address: address, problem: "out of memory")
    }
    unsafe self.context = context
    // From here on `deinit` frees it, also when this throws.
    let problem = unsafe Self.problem(context)
    guard problem == nil, unsafe redisSetTimeout(context, time) == REDIS_OK else {
      throw RedisError(address: address, problem: problem ?? "its timeout cannot be set")
    }
    guard let password = server.password else { return }
    let command = ["AUTH"] + (server.user.map { [$0] } ?? []) + [password]
    if case .failure(let problem)? = try ask([command.map { Array($0.utf8) }]).first {
      throw RedisError(address: address, problem: problem)
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
  public func ask(_ commands: [[[UInt8]]]) throws(RedisError) -> [RedisReply] {
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

  private func failure(_ otherwise: String) -> RedisError {
    RedisError(address: address, problem: unsafe Self.problem(context) ?? otherwise)
  }

  /// Appends a command as the protocol writes it: so many arguments, each with its length before it.
  private func append(_ command: [[UInt8]]) -> Int32 {
    var bytes = Array("*\(command.count)\r\n".utf8)
    bytes.reserveCapacity(command.reduce(32) { $0 + $1.count + 16 })
    for argument in command {
      bytes.append(contentsOf: "$\(argument.count)\r\n".utf8)
      bytes.append(contentsOf: argument)
      bytes.append(contentsOf: [13, 10])
    }
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
