// What a replica answers over ZeroMQ: rows by id for applications, digests for operators. One thread answers; a digest,
// which reads every row, is worked out on another one meanwhile, so that look-ups do not wait for it.

internal import Base
internal import Glibc
internal import Synchronization
public import Wire

/// Answers at an endpoint, on the thread that calls `run`.
public final class QuestionServer: Sendable {
  private let endpoint: String
  private let security: LinkSecurity?
  private let store: ReplicaStore
  private let digest: @Sendable () -> DigestReply
  private let forbidden = Atomic<UInt64>(0)
  private let lookups = Atomic<UInt64>(0)
  private let refusals = Mutex(LinkRefusals())
  private let isStopping = Atomic<Bool>(false)

  /// A server that is not running yet.
  ///
  /// - Parameter digest: works out the digest of what is served; called on a thread of its own.
  public init(
    endpoint: String, security: LinkSecurity?, store: ReplicaStore, digest: @escaping @Sendable () -> DigestReply
  ) {
    self.endpoint = endpoint
    self.security = security
    self.store = store
    self.digest = digest
  }

  /// Asks `run` to return.
  public func stop() { isStopping.store(true, ordering: .relaxed) }

  /// Requests for rows that were answered.
  public var answeredLookups: UInt64 { lookups.load(ordering: .relaxed) }

  /// Who was refused, by the names that status shows.
  public var refused: [String: UInt64] {
    var counters = refusals.withLock { $0.counters }
    let forbidden = forbidden.load(ordering: .relaxed)
    if forbidden > 0 { counters["forbidden"] = forbidden }
    return counters
  }

  /// Who waits for the digest that is worked out now, and for the one after it.
  private struct Digests {
    var asked: [(peer: PeerID, request: UInt64)] = []
    var next: [(peer: PeerID, request: UInt64)] = []
    var thread: OwnedThread?
    let results = Mailbox<DigestReply>(bound: 1)

    var isBusy: Bool { thread != nil || !next.isEmpty }
  }

  /// Questions that are answered before the answers are sent.
  private static let batch = 32
  /// How long this thread looks for another question before it sleeps, in nanoseconds.
  private static let patience: Int64 = 50_000

  /// Answers until `stop`.
  ///
  /// Blocks the calling thread.
  public func run() throws {
    let socket = try Socket(.router, context: LinkContext(security))
    try socket.bind(endpoint)
    let reader = RowReader(store)
    var digests = Digests()
    var answers: [(peer: PeerID, message: Blob)] = []
    var lastQuestion: Int64 = 0
    while !isStopping.load(ordering: .relaxed) {
      // All that waits is answered before anything is sent: then the thread that sends wakes once for all of it.
      var received = 0
      while received < Self.batch, let (peer, message) = try socket.receive() {
        received += 1
        if let peer, let answer = answer(message, peer, reader, &digests) { answers.append((peer, answer)) }
      }
      for answer in answers { _ = socket.send(answer.message, to: answer.peer) }
      answers.removeAll(keepingCapacity: true)
      let now = Clocks.monotonic()
      if received > 0 { lastQuestion = now }
      // The next question is often on its way: to look again costs less than to sleep and be woken.
      if now - lastQuestion < Self.patience, !digests.isBusy {
        if received == 0 { sched_yield() }
        continue
      }
      settle(&digests, socket)
      let refused = socket.refusals
      refusals.withLock { $0 = refused }
      socket.wait(descriptors: [digests.results.descriptor], timeout: .milliseconds(50))
    }
    digests.thread?.join()
  }

  /// The answer, unless it comes later or nobody can be answered.
  private func answer(_ message: Blob, _ peer: PeerID, _ reader: RowReader, _ digests: inout Digests) -> Blob? {
    var body = ByteReader(message)
    guard let header = try? MessageHeader(decoding: &body), header.kind == .request else { return nil }
    do {
      if let role = peer.role, !header.opcode.isAllowed(to: role) {
        forbidden.add(1, ordering: .relaxed)
        throw ErrorReply.forbidden(header.opcode, to: role)
      }
      switch header.opcode {
      case .rows: return try rows(RowsRequest(decoding: &body), header.request, reader)
      case .digest:
        digests.next.append((peer, header.request))
        return nil
      default: throw ErrorReply(.malformed, "a replica answers 'rows' and 'digest' here, not '\(header.opcode)'")
      }
    } catch {
      let refusal = error as? ErrorReply ?? ErrorReply(.malformed, "\(error)")
      return refusal.encoded(opcode: header.opcode, request: header.request)
    }
  }

  private func rows(_ question: RowsRequest, _ request: UInt64, _ reader: RowReader) throws(ErrorReply) -> Blob {
    guard let width = reader.width(of: question.table) else {
      let names = store.tableOptions.map(\.name).joined(separator: ", ")
      throw ErrorReply(.mismatch, "there is no table '\(question.table)'; the tables are \(names)")
    }
    let bytes = question.ids.count * width * question.numbers.byteCount
    guard bytes <= RowsRequest.byteLimit else {
      throw ErrorReply(
        .malformed,
        "\(question.ids.count) rows of \(width) numbers are \(bytes) bytes; the limit is \(RowsRequest.byteLimit)")
    }
    guard let rows = reader.rows(question.table, ids: question.ids.array) else {
      throw ErrorReply(.busy, "no base has been applied yet")
    }
    lookups.add(1, ordering: .relaxed)
    return RowsReply.encoded(
      request: request, version: rows.version.number, newestEventTime: rows.version.newestEventTime,
      lag: rows.lag.milliseconds, width: width, numbers: question.numbers, found: rows.found,
      weights: rows.weights)
  }

  /// Answers with a digest that is done, and begins the next one.
  private func settle(_ digests: inout Digests, _ socket: borrowing Socket) {
    if let result = digests.results.takeAll().first {
      digests.thread?.join()
      digests.thread = nil
      for (peer, request) in digests.asked { _ = socket.send(result.encoded(request: request), to: peer) }
      digests.asked = []
    }
    guard digests.thread == nil, !digests.next.isEmpty else { return }
    swap(&digests.asked, &digests.next)
    let (digest, results) = (digest, digests.results)
    digests.thread = OwnedThread(named: "digest") { _ = results.offer(digest()) }
  }
}
