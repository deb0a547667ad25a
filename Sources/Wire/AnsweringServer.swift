// Answers requests at an endpoint on one thread: what a replica and the user-modelling platform do for applications.
// Whoever may not ask, and what is malformed, is answered here; the rest is the caller's closure.

public import Base
internal import Synchronization

/// Answers at an endpoint, on the thread that calls `run`.
public final class AnsweringServer: Sendable {
  private let endpoint: String
  private let security: LinkSecurity?
  private let receiveQueue: Int
  private let frameLimit: Int
  private let forbidden = Atomic<UInt64>(0)
  private let refusals = Mutex(LinkRefusals())
  private let isStopping = Atomic<Bool>(false)

  /// Questions that are answered before the answers are sent.
  private static let batch = 32

  /// A server that is not running yet.
  ///
  /// - Parameters:
  ///   - receiveQueue: messages of one peer that may wait to be received.
  ///   - frameLimit: the longest message taken.
  public init(
    endpoint: String, security: LinkSecurity?, receiveQueue: Int = 10_000, frameLimit: Int = WireProtocol.frameLimit
  ) {
    self.endpoint = endpoint
    self.security = security
    self.receiveQueue = receiveQueue
    self.frameLimit = frameLimit
  }

  /// Asks `run` to return.
  public func stop() { isStopping.store(true, ordering: .relaxed) }

  /// Who was refused, by the names that status shows.
  public var refused: [String: UInt64] {
    var counters = refusals.withLock { $0.counters }
    let forbidden = forbidden.load(ordering: .relaxed)
    if forbidden > 0 { counters["forbidden"] = forbidden }
    return counters
  }

  /// Answers until `stop`.
  ///
  /// Blocks the calling thread.
  ///
  /// - Parameters:
  ///   - descriptors: what else wakes the thread.
  ///   - opened: told where it serves.
  ///   - settle: called between questions, to send what came later.
  ///   - answer: what to answer; nil when the answer comes later. What it throws is the answer: an `ErrorReply` as it
  ///     is, anything else as malformed.
  public func run(
    waking descriptors: [Int32] = [], opened: (String) -> Void = { _ in },
    settle: (borrowing Socket) -> Void = { _ in },
    answer: (_ header: MessageHeader, _ body: inout ByteReader, _ peer: PeerID) throws -> Blob?
  ) throws(LinkError) {
    let socket = try Socket(
      .router, context: LinkContext(security), receiveQueue: receiveQueue, frameLimit: frameLimit)
    try socket.bind(endpoint)
    opened(socket.endpoint)
    var answers: [(peer: PeerID, message: Blob)] = []
    while !isStopping.load(ordering: .relaxed) {
      // All that waits is answered before anything is sent: then the thread that sends wakes once for all of it.
      var received = 0
      while received < Self.batch, let (peer, message) = try socket.receive() {
        received += 1
        if let peer, let reply = reply(to: message, peer, answer) { answers.append((peer, reply)) }
      }
      for answer in answers { _ = socket.send(answer.message, to: answer.peer) }
      answers.removeAll(keepingCapacity: true)
      settle(socket)
      // This thread never spins: on few cores it would take them from the threads that receive and send.
      guard received < Self.batch else { continue }
      let refused = socket.refusals
      refusals.withLock { $0 = refused }
      socket.wait(descriptors: descriptors, timeout: .milliseconds(50))
    }
    settle(socket)
  }

  private func reply(
    to message: Blob, _ peer: PeerID, _ answer: (MessageHeader, inout ByteReader, PeerID) throws -> Blob?
  ) -> Blob? {
    var body = ByteReader(message)
    guard let header = try? MessageHeader(decoding: &body), header.kind == .request else { return nil }
    do {
      if let role = peer.role, !header.opcode.isAllowed(to: role) {
        forbidden.add(1, ordering: .relaxed)
        throw ErrorReply.forbidden(header.opcode, to: role)
      }
      return try answer(header, &body, peer)
    } catch {
      let refusal = error as? ErrorReply ?? ErrorReply(.malformed, "\(error)")
      return refusal.encoded(opcode: header.opcode, request: header.request)
    }
  }
}
