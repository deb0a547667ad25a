// What a replica answers over ZeroMQ: rows by id for applications, digests for operators. One thread answers; a digest,
// which reads every row, is worked out on another one meanwhile, so that look-ups do not wait for it.

internal import Base
internal import Synchronization
public import Wire

/// Answers at an endpoint, on the thread that calls `run`.
public final class QuestionServer: Sendable {
  private let server: AnsweringServer
  private let store: ReplicaStore
  private let digest: @Sendable () -> DigestReply
  private let lookups = Atomic<UInt64>(0)

  /// A server that is not running yet.
  ///
  /// - Parameter digest: works out the digest of what is served; called on a thread of its own.
  public init(
    endpoint: String, security: LinkSecurity?, store: ReplicaStore, digest: @escaping @Sendable () -> DigestReply
  ) {
    server = AnsweringServer(endpoint: endpoint, security: security)
    self.store = store
    self.digest = digest
  }

  /// Asks `run` to return.
  public func stop() { server.stop() }

  /// Requests for rows that were answered.
  public var answeredLookups: UInt64 { lookups.load(ordering: .relaxed) }

  /// Who was refused, by the names that status shows.
  public var refused: [String: UInt64] { server.refused }

  /// Who waits for the digest that is worked out now, and for the one after it.
  private struct Digests {
    var asked: [(peer: PeerID, request: UInt64)] = []
    var next: [(peer: PeerID, request: UInt64)] = []
    var thread: OwnedThread?
    let results = Mailbox<DigestReply>(bound: 1)

    var isBusy: Bool { thread != nil || !next.isEmpty }
  }

  /// Answers until `stop`.
  ///
  /// Blocks the calling thread.
  public func run() throws {
    let reader = RowReader(store)
    var digests = Digests()
    try server.run(
      waking: [digests.results.descriptor],
      settle: { socket in
        if digests.isBusy { settle(&digests, socket) }
      }
    ) { header, body, peer in
      switch header.opcode {
      case .rows: return try rows(RowsRequest(decoding: &body), header.request, reader)
      case .digest:
        digests.next.append((peer, header.request))
        return nil
      default: throw ErrorReply(.malformed, "a replica answers 'rows' and 'digest' here, not '\(header.opcode)'")
      }
    }
    digests.thread?.join()
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
