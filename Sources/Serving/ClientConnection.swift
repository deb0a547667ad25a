// One kept-alive HTTP/1.1 connection of the prediction client: a non-blocking socket, the request being sent and the
// answer being received. Belongs to the client's thread.

internal import Base
internal import Glibc

/// A replica's address, resolved when first needed.
struct ReplicaAddress {
  let host: String
  let port: Int
  /// Monotonic nanoseconds until which it is not asked, after it failed.
  var restsUntil: Int64 = 0

  init(_ replica: PredictionClientOptions.Replica) {
    host = replica.host
    port = replica.port
  }
}

/// What a connection has come to.
enum ConnectionStep {
  case pending
  case answered(ResponseHead)
  /// `isStale`: it had been idle and was closed by the other side before any byte of the answer.
  case failed(String, isStale: Bool)
}

final class ClientConnection {
  let replica: Int
  private(set) var descriptor: Int32 = -1
  /// The request in flight, or nil.
  private(set) var request: Int?
  private(set) var startedAt: Int64 = 0
  private(set) var deadline: Int64 = 0
  /// The request's bytes.
  var output: [UInt8] = []
  /// What has come of the answer.
  private(set) var input: [UInt8] = []
  var isRunnable = false
  private var sent = 0
  private var received = 0
  /// Whether the connection was open before this request.
  private(set) var isReused = false

  var isSending: Bool { sent < output.count }

  init(replica: Int) { self.replica = replica }

  deinit { close() }

  func begin(_ request: Int, at now: Int64, deadline: Int64) {
    self.request = request
    startedAt = now
    self.deadline = deadline
    sent = 0
    received = 0
  }

  /// Connects unless it is connected; false when that fails at once.
  func open(_ address: ReplicaAddress) -> Bool {
    isReused = descriptor >= 0
    if isReused { return true }
    var hints = unsafe addrinfo()
    unsafe hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
    var list: UnsafeMutablePointer<addrinfo>?
    guard unsafe getaddrinfo(address.host, "\(address.port)", &hints, &list) == 0, let first = unsafe list else {
      return false
    }
    defer { unsafe freeaddrinfo(list) }
    let type = Int32(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue)
    descriptor = unsafe socket(first.pointee.ai_family, type, 0)
    guard descriptor >= 0 else { return false }
    var one: Int32 = 1
    unsafe setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &one, 4)
    return unsafe connect(descriptor, first.pointee.ai_addr, first.pointee.ai_addrlen) == 0 || errno == EINPROGRESS
  }

  /// Sends or receives as far as that goes without waiting.
  func advance() -> ConnectionStep {
    if isSending {
      let count = unsafe output.withUnsafeBytes { bytes in
        unsafe send(descriptor, bytes.baseAddress! + sent, bytes.count - sent, Int32(MSG_NOSIGNAL))
      }
      if count < 0 { return errno == EAGAIN || errno == EINTR ? .pending : failure(errno) }
      sent += count
      return .pending
    }
    if input.count - received < 4096 { input.append(contentsOf: repeatElement(0, count: max(16_384, input.count))) }
    let count = unsafe input.withUnsafeMutableBytes { bytes in
      unsafe recv(descriptor, bytes.baseAddress! + received, bytes.count - received, 0)
    }
    if count < 0 { return errno == EAGAIN || errno == EINTR ? .pending : failure(errno) }
    if count == 0 { return .failed("the replica closed the connection", isStale: isReused && received == 0) }
    received += count
    switch ResponseHead.parse(input, count: received) {
    case .incomplete: return .pending
    case .invalid(let problem): return .failed(problem, isStale: false)
    case .complete(let head): return received < head.end ? .pending : .answered(head)
    }
  }

  private func failure(_ code: Int32) -> ConnectionStep {
    .failed(unsafe String(cString: strerror(code)), isStale: isReused && received == 0)
  }

  /// The answer has been used; the next request may follow.
  func finish(keepsAlive: Bool) {
    request = nil
    if !keepsAlive { close() }
  }

  func close() {
    request = nil
    if descriptor >= 0 { _ = Glibc.close(descriptor) }
    descriptor = -1
  }
}

/// Status and length of an HTTP/1.1 response whose body has a Content-Length, as replicas send it.
struct ResponseHead: Equatable {
  /// The status code.
  var status: Int
  /// Where the body lies.
  var body: Range<Int>
  /// Whether another request may follow on the connection.
  var keepsAlive: Bool
  /// Where the response ends.
  var end: Int { body.upperBound }

  /// The most bytes an answer may have.
  static let byteLimit = 16 << 20

  enum Result: Equatable {
    case incomplete
    case invalid(String)
    case complete(ResponseHead)
  }

  /// Reads the head from the first `count` of `bytes`.
  static func parse(_ bytes: [UInt8], count: Int) -> Result {
    guard let headEnd = endOfHead(bytes, count) else {
      return count > 65_536 ? .invalid("the answer's head has more than 65536 bytes") : .incomplete
    }
    let lines = String(decoding: bytes[..<headEnd], as: UTF8.self).split(separator: "\r\n")
    guard let first = lines.first, first.hasPrefix("HTTP/1."), let status = Int(first.dropFirst(9).prefix(3)) else {
      return .invalid("the answer is not HTTP/1.1")
    }
    var length: Int?
    var keepsAlive = first.hasPrefix("HTTP/1.1")
    for line in lines.dropFirst() {
      guard let colon = line.firstIndex(of: ":") else { continue }
      let name = line[..<colon].lowercased()
      let value = line[line.index(after: colon)...].drop { $0 == " " }
      if name == "content-length" { length = Int(value) }
      if name == "connection", value.lowercased() == "close" { keepsAlive = false }
    }
    guard let length, length >= 0, length <= byteLimit else {
      return .invalid("the answer has no Content-Length up to \(byteLimit)")
    }
    return .complete(
      ResponseHead(status: status, body: (headEnd + 4)..<(headEnd + 4 + length), keepsAlive: keepsAlive))
  }

  private static func endOfHead(_ bytes: [UInt8], _ count: Int) -> Int? {
    var at = 0
    while at + 4 <= count {
      if bytes[at] == 13, bytes[at + 1] == 10, bytes[at + 2] == 13, bytes[at + 3] == 10 { return at }
      at += 1
    }
    return nil
  }
}
