// A replica: a thread that follows sync, a thread that answers operators' questions, and the HTTP server.

internal import Base
internal import Serving
internal import Synchronization
internal import Syncing
internal import Wire

extension RoleProcess {
  func runReplica(_ board: StatusBoard) throws {
    let configuration = plan.configuration
    let store = try ReplicaStore(tables: plan.replicaTables, models: plan.servedModels)
    let predictor = try Predictor(store: store, schema: configuration.eventSchema)
    let http = endpoints.http(replica: instance.index)
    var options = ReplicaServerOptions(port: http.port)
    options.host = http.host
    options.stalenessLimit = configuration.replicas.staleAfter
    let server = try ReplicaServer(options: options, predictor: predictor, logger: logger)
    defer { server.stop() }
    let target = ReplicaTarget(plan, store: store)
    let questions = QuestionServer(endpoint: endpoints.replica(instance.index), security: security) { opcode in
      opcode == .digest ? target.digest() : nil
    }
    let questionFailure = Mutex<(any Error)?>(nil)
    let link = ReplicaLink(endpoint: endpoints.sync, replica: instance.index, security: security)
    let thread = OwnedThread(named: "questions") {
      do { try questions.run() } catch {
        questionFailure.withLock { $0 = error }
        link.stop()
      }
    }
    defer {
      questions.stop()
      thread.join()
    }
    StopSignal.onSignal { link.stop() }
    let nextStatus = Mutex<Int64>(0)
    try link.run(target: target) { follower in
      let now = Clocks.monotonic()
      guard
        nextStatus.withLock({ next in
          defer { if now >= next { next = now + 500_000_000 } }
          return now >= next
        })
      else { return }
      board.post(status(of: store, follower, questions))
    }
    if let error = questionFailure.withLock({ $0 }) { throw error }
  }

  private func status(
    of store: ReplicaStore, _ follower: ReplicaFollower, _ questions: QuestionServer
  ) -> RoleStatus {
    let statistics = store.statistics()
    let isReady = store.isReady
    var report = RoleStatus(
      instance, state: StopSignal.wasSent ? .stopping : (isReady ? .ready : .waiting),
      message: isReady ? "" : "waits for a base from sync")
    report.counters[StatusKey.rows] = Double(statistics.tables.reduce(0) { $0 + $1.rows })
    report.counters[StatusKey.bytes] = Double(statistics.tables.reduce(0) { $0 + $1.bytes })
    report.counters[StatusKey.version] = Double(statistics.version?.number ?? 0)
    for (name, count) in questions.refused { report.counters[name] = Double(count) }
    report.counters["rejectedVersions"] = Double(follower.rejected.count)
    if statistics.freshness.count > 0 {
      report.counters[StatusKey.freshnessP50] = Double(statistics.freshness.quantile(0.5)) / 1000
      report.counters[StatusKey.freshnessP99] = Double(statistics.freshness.quantile(0.99)) / 1000
    }
    return report
  }
}

/// Answers digests at an endpoint, on the thread that calls `run`.
final class QuestionServer: Sendable {
  private let endpoint: String
  private let security: LinkSecurity?
  private let forbidden = Atomic<UInt64>(0)
  private let refusals = Mutex(LinkRefusals())
  private let answer: @Sendable (Opcode) -> DigestReply?
  private let isStopping = Atomic<Bool>(false)

  init(endpoint: String, security: LinkSecurity?, answer: @escaping @Sendable (Opcode) -> DigestReply?) {
    self.endpoint = endpoint
    self.security = security
    self.answer = answer
  }

  func stop() { isStopping.store(true, ordering: .relaxed) }

  /// Who was refused, by the names that status shows.
  var refused: [String: UInt64] {
    var counters = refusals.withLock { $0.counters }
    let forbidden = forbidden.load(ordering: .relaxed)
    if forbidden > 0 { counters["forbidden"] = forbidden }
    return counters
  }

  func run() throws {
    let socket = try Socket(.router, context: LinkContext(security))
    try socket.bind(endpoint)
    while !isStopping.load(ordering: .relaxed) {
      while let (peer, message) = try socket.receive() {
        var reader = ByteReader(message)
        guard let peer, let header = try? MessageHeader(decoding: &reader) else { continue }
        if let role = peer.role, !header.opcode.isAllowed(to: role) {
          forbidden.add(1, ordering: .relaxed)
          let error = ErrorReply.forbidden(header.opcode, to: role)
          _ = socket.send(error.encoded(opcode: header.opcode, request: header.request), to: peer)
        } else if let digest = answer(header.opcode) {
          _ = socket.send(digest.encoded(request: header.request), to: peer)
        } else {
          let error = ErrorReply(.malformed, "a replica answers 'digest' here, not '\(header.opcode)'")
          _ = socket.send(error.encoded(opcode: header.opcode, request: header.request), to: peer)
        }
      }
      let now = socket.refusals
      refusals.withLock { $0 = now }
      socket.wait(timeout: .milliseconds(50))
    }
  }
}
