// A replica: a thread that follows sync, one that answers questions over ZeroMQ, and the HTTP server.

internal import Base
internal import Serving
internal import Synchronization
internal import Syncing
internal import Wire

extension RoleProcess {
  func runReplica(_ board: StatusBoard) throws {
    let configuration = plan.configuration
    let store = try ReplicaStore(
      tables: plan.replicaTables, models: plan.servedModels, visibility: configuration.replicas.visibility)
    let predictor = try Predictor(store: store, schema: configuration.eventSchema)
    let http = endpoints.http(replica: instance.index)
    var options = ReplicaServerOptions(port: http.port)
    options.http.host = http.host
    options.stalenessLimit = configuration.replicas.staleAfter
    let server = try ReplicaServer(options: options, predictor: predictor, logger: logger)
    defer { server.stop() }
    let target = ReplicaTarget(plan, store: store)
    let questions = QuestionServer(
      endpoint: endpoints.listening(endpoints.replica(instance.index)), security: security, store: store,
      digest: target.digest)
    let questionFailure = Mutex<(any Error)?>(nil)
    let link = ReplicaLink(endpoint: syncEndpoint, replica: instance.index, security: security)
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
      if store.refusal != follower.refusal {
        store.refusal = follower.refusal
        if let refusal = follower.refusal { logger.error("refuses the versions", metadata: ["reason": "\(refusal)"]) }
      }
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
    let problem = follower.refusal ?? (store.isReady ? "" : "waits for a base from sync")
    var report = RoleStatus(
      instance, state: StopSignal.wasSent ? .stopping : (problem.isEmpty ? .ready : .waiting), message: problem)
    report.counters[StatusKey.rows] = Double(statistics.tables.reduce(0) { $0 + $1.rows })
    report.counters[StatusKey.bytes] = Double(statistics.tables.reduce(0) { $0 + $1.bytes })
    report.counters[StatusKey.version] = Double(statistics.version?.number ?? 0)
    for (name, count) in questions.refused { report.counters[name] = Double(count) }
    if let lag = statistics.lag { report.counters["lagSeconds"] = lag.inSeconds }
    report.counters["rowRequests"] = Double(questions.answeredLookups)
    report.counters["rejectedVersions"] = Double(follower.rejected.count)
    if statistics.freshness.count > 0 {
      report.counters[StatusKey.freshnessP50] = Double(statistics.freshness.quantile(0.5)) / 1000
      report.counters[StatusKey.freshnessP99] = Double(statistics.freshness.quantile(0.99)) / 1000
    }
    return report
  }
}
