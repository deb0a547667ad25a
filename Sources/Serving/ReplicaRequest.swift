// One HTTP request to a replica, for commands: a connection of its own, the answer whole.

internal import Base
internal import Glibc

/// Asks a replica once.
public enum ReplicaRequest {
  /// A replica that did not answer.
  public struct Silence: Error, Equatable, Sendable, CustomStringConvertible {
    /// What happened, and where.
    public let description: String
  }

  /// Sends a JSON body and gives the answer's status and body.
  ///
  /// Blocks the calling thread.
  /// - Throws: `Silence` when no answer comes in time.
  public static func post(
    _ body: [UInt8], path: String, to replica: PredictionClientOptions.Replica, timeout: Duration = .seconds(5)
  ) throws(Silence) -> (status: Int, body: [UInt8]) {
    try send("POST", body, path: path, to: replica, timeout: timeout)
  }

  /// Reads a page, such as `/metrics`.
  ///
  /// Blocks the calling thread.
  /// - Throws: `Silence` when no answer comes in time.
  public static func get(
    _ path: String, from replica: PredictionClientOptions.Replica, timeout: Duration = .seconds(5)
  ) throws(Silence) -> (status: Int, body: [UInt8]) {
    try send("GET", [], path: path, to: replica, timeout: timeout)
  }

  private static func send(
    _ method: String, _ body: [UInt8], path: String, to replica: PredictionClientOptions.Replica, timeout: Duration
  ) throws(Silence) -> (status: Int, body: [UInt8]) {
    let connection = ClientConnection(replica: 0)
    let now = Clocks.monotonic()
    connection.begin(0, at: now, deadline: now + timeout.nanoseconds)
    let head =
      "\(method) \(path) HTTP/1.1\r\nHost: \(replica.host)\r\nContent-Type: application/json\r\n"
      + "Content-Length: \(body.count)\r\nConnection: close\r\n\r\n"
    connection.output = Array(head.utf8) + body
    let place = "\(replica.host):\(replica.port)"
    guard connection.open(ReplicaAddress(replica)) else { throw Silence(description: "cannot connect to \(place)") }
    while true {
      let left = connection.deadline - Clocks.monotonic()
      guard left > 0 else { throw Silence(description: "no answer from \(place) within \(timeout)") }
      var polled = pollfd(
        fd: connection.descriptor, events: Int16(connection.isSending ? POLLOUT : POLLIN), revents: 0)
      guard unsafe poll(&polled, 1, Int32(clamping: left / 1_000_000 + 1)) > 0 else { continue }
      switch connection.advance() {
      case .pending: continue
      case .failed(let problem, _): throw Silence(description: "\(place): \(problem)")
      case .answered(let head): return (head.status, Array(connection.input[head.body]))
      }
    }
  }
}
