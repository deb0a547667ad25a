// Many requests under way over plain TCP, for servers that answer in order on each connection: Redis, and HTTP/1.1. One
// thread, no threads behind it: what is measured is the server.

internal import Base
internal import Glibc

/// Connections to one server, each with a number of requests under way.
final class StreamClient {
  private final class Connection {
    let descriptor: Int32
    var output: [UInt8] = []
    var sent = 0
    var input = [UInt8](repeating: 0, count: 1 << 17)
    var received = 0
    /// When each unanswered request was due.
    var waiting: [Int64] = []

    init(_ descriptor: Int32) { self.descriptor = descriptor }
    deinit { close(descriptor) }
  }

  private let connections: [Connection]
  private let depth: Int
  /// The length of the answer that begins a range of the bytes; nil when it is not whole, an error when it is one.
  private let answerLength: ([UInt8], Range<Int>) throws -> Int?

  init(port: Int, connections: Int, depth: Int, answerLength: @escaping ([UInt8], Range<Int>) throws -> Int?) throws {
    self.depth = depth
    self.answerLength = answerLength
    self.connections = try (0..<connections).map { _ in Connection(try Self.connect(port)) }
  }

  private static func connect(_ port: Int) throws -> Int32 {
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    guard descriptor >= 0 else { throw FileError(errno, "make a socket") }
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = in_port_t(UInt16(port).bigEndian)
    address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    let code = unsafe withUnsafePointer(to: &address) { pointer in
      unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        unsafe Glibc.connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
    guard code == 0 else {
      let failure = FileError(errno, "connect to port \(port)")
      close(descriptor)
      throw failure
    }
    var one: Int32 = 1
    unsafe setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &one, 4)
    _ = fcntl(descriptor, F_SETFL, O_NONBLOCK)
    return descriptor
  }

  /// Sends requests for a while, as many as may be under way, or at a rate; gives how many were answered and how long
  /// each took from when it was due.
  func run(seconds: Double, rate: Double? = nil, _ next: (inout [UInt8]) -> Void) throws -> AnsweredRun {
    var run = BenchRun()
    var answered = 0
    var begun = 0
    var lastAnswer: Int64 = 0
    let start = Clocks.monotonic()
    let end = start + Int64(seconds * 1e9)
    while true {
      let now = Clocks.monotonic()
      var due = now
      for connection in connections {
        while now < end, connection.waiting.count < depth {
          if let rate {
            due = start + Int64(Double(begun) / rate * 1e9)
            guard due <= now else { break }
          }
          next(&connection.output)
          connection.waiting.append(due)
          begun += 1
        }
        try write(connection)
      }
      if now >= end, connections.allSatisfy({ $0.waiting.isEmpty }) { break }
      guard now < end + 20_000_000_000 else { throw BenchmarkError(description: "no answer within 20 seconds") }
      // As the other client does, so that both are compared alike.
      if rate != nil || now - lastAnswer > QuestionClient.patience {
        wait(until: rate.map { start + Int64(Double(begun) / $0 * 1e9) })
      }
      let before = answered
      for connection in connections { answered += try read(connection, &run) }
      if answered > before { lastAnswer = Clocks.monotonic() }
    }
    run.seconds = Double(Clocks.monotonic() - start) / 1e9
    return AnsweredRun(run: run, answered: answered)
  }

  /// Sends requests one after the other, each when the one before is answered.
  func send(_ requests: [[UInt8]]) throws {
    guard let connection = connections.first else { return }
    var run = BenchRun()
    for request in requests {
      connection.output += request
      connection.waiting.append(0)
      let deadline = Clocks.monotonic() + 20_000_000_000
      while !connection.waiting.isEmpty {
        guard Clocks.monotonic() < deadline else { throw BenchmarkError(description: "no answer within 20 seconds") }
        try write(connection)
        wait(until: nil)
        _ = try read(connection, &run)
      }
    }
  }

  private func wait(until due: Int64?) {
    var polled = connections.map { connection in
      pollfd(
        fd: connection.descriptor,
        events: Int16(POLLIN) | (connection.sent < connection.output.count ? Int16(POLLOUT) : 0), revents: 0)
    }
    // What is due within a millisecond would be late after a wait of one, so this thread looks again and again then.
    let left = due.map { max(0, $0 - Clocks.monotonic()) } ?? 100_000_000
    _ = unsafe poll(&polled, nfds_t(polled.count), Int32(min(left / 1_000_000, 100)))
  }

  private func write(_ connection: Connection) throws {
    guard connection.sent < connection.output.count else { return }
    let count = unsafe connection.output.withUnsafeBytes { bytes in
      unsafe Glibc.send(
        connection.descriptor, bytes.baseAddress! + connection.sent, bytes.count - connection.sent, Int32(MSG_NOSIGNAL))
    }
    guard count > 0 || errno == EAGAIN || errno == EINTR else { throw FileError(errno, "send a request") }
    connection.sent += max(0, count)
    if connection.sent == connection.output.count {
      connection.output.removeAll(keepingCapacity: true)
      connection.sent = 0
    }
  }

  private func read(_ connection: Connection, _ run: inout BenchRun) throws -> Int {
    guard !connection.waiting.isEmpty else { return 0 }
    if connection.input.count - connection.received < 65_536 {
      connection.input.append(contentsOf: repeatElement(0, count: connection.input.count))
    }
    let room = connection.input.count - connection.received
    let count = unsafe connection.input.withUnsafeMutableBytes { bytes in
      unsafe recv(connection.descriptor, bytes.baseAddress! + connection.received, room, 0)
    }
    if count == 0 { throw BenchmarkError(description: "the server closed the connection") }
    guard count > 0 else {
      guard errno == EAGAIN || errno == EINTR else { throw FileError(errno, "receive an answer") }
      return 0
    }
    connection.received += count
    var begin = 0
    var answered = 0
    while begin < connection.received, answered < connection.waiting.count {
      let length = try answerLength(connection.input, begin..<connection.received)
      guard let length, begin + length <= connection.received else { break }
      begin += length
      run.latencies.record(Clocks.monotonic() - connection.waiting[answered])
      answered += 1
    }
    connection.waiting.removeFirst(answered)
    if begin > 0 {
      connection.input.removeFirst(begin)
      connection.input.append(contentsOf: repeatElement(0, count: begin))
      connection.received -= begin
    }
    return answered
  }
}
