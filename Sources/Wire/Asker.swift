// Asking a role one question at a time, for operators' commands and the supervisor.

public import Base

/// A blocking question to one endpoint; belongs to the thread that made it.
public struct Asker: ~Copyable {
  private let socket: Socket
  private let endpoint: String
  private var nextRequest: UInt64

  /// Talks to an endpoint; nobody need serve there yet.
  public init(endpoint: String, context: LinkContext) throws(LinkError) {
    let socket = try Socket(.dealer, context: context)
    try socket.connect(endpoint)
    self.socket = socket
    self.endpoint = endpoint
    nextRequest = .random(in: 1 ... .max / 2)
  }

  /// Sends `message(requestNumber)` and gives the body of its answer.
  /// - Throws: `ErrorReply` when it is refused, `AskError` when no answer comes in time.
  public mutating func ask(timeout: Duration = .seconds(5), _ message: (UInt64) -> Blob) throws -> ByteReader {
    nextRequest += 1
    let deadline = Clocks.monotonic() + timeout.nanoseconds
    guard socket.send(message(nextRequest)) else { throw silence(timeout) }
    while true {
      while let (_, reply) = try socket.receive() {
        var reader = ByteReader(reply)
        let header = try MessageHeader(decoding: &reader)
        guard header.request == nextRequest else { continue }
        if header.kind == .error { throw try ErrorReply(decoding: &reader) }
        return reader
      }
      let left = deadline - Clocks.monotonic()
      guard left > 0, !socket.isRefused else { throw silence(timeout) }
      socket.wait(timeout: .nanoseconds(min(left, 50_000_000)))
    }
  }

  private func silence(_ timeout: Duration) -> AskError {
    AskError(endpoint: endpoint, isRefused: socket.isRefused, timeout: timeout)
  }
}

/// Nobody answered in time.
public struct AskError: Error, Equatable, Sendable, CustomStringConvertible {
  /// Who was asked.
  public let endpoint: String
  /// Whether the key was refused.
  public let isRefused: Bool
  /// How long the answer was waited for.
  public let timeout: Duration

  /// What happened, and what to look at.
  public var description: String {
    isRefused
      ? "\(endpoint) refuses this process's key; is it in the allow-list there? try `guira keys show`"
      : "no answer from \(endpoint) within \(timeout); is it up? try `guira status`"
  }
}

extension Asker {
  /// The status of a shard.
  public mutating func shardStatus(timeout: Duration = .seconds(5)) throws -> ShardStatus? {
    var reader = try ask(timeout: timeout) { PlainMessage.empty(.status, request: $0) }
    return ShardStatus(json: try PlainMessage.text(decoding: &reader))
  }

  /// The digest of a shard or a replica.
  public mutating func digest(halfPrecision: Bool, timeout: Duration = .seconds(60)) throws -> DigestReply {
    var reader = try ask(timeout: timeout) { request in
      var writer = ByteWriter()
      MessageHeader(.digest, request: request).encode(into: &writer)
      writer.append(UInt32(halfPrecision ? 1 : 0))
      return writer.finish()
    }
    return try DigestReply(decoding: &reader)
  }
}
