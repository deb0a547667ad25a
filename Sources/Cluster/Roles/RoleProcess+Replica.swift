// A replica: a thread that follows sync, one that answers questions over ZeroMQ, and the HTTP server.

internal import Base
internal import Glibc
internal import Joining
internal import Serving
internal import Streams
internal import Synchronization
internal import Syncing
internal import Wire

/// How far a replica's stream features are.
struct FeatureStatus {
  /// All that counts before this event time is counted; nil before anything is.
  var frontier: Milliseconds?
  /// Why they do not go on, in words; empty when they do.
  var problem = ""
}

extension RoleProcess {
  /// Keeps stream features up with the streams until it is told to stop; trouble is told, and tried again.
  ///
  /// - Parameter observe: gets what came in time, and up to when all is counted.
  func follow(
    into shared: SharedStreamFeatures, _ status: borrowing Mutex<FeatureStatus>, until isStopped: () -> Bool,
    observe: ([Event], Milliseconds) -> Void = { _, _ in }
  ) {
    let streams = ClusterStreams(plan.configuration, root: paths.root).joiner(consumer: "\(instance)")
    let joiner = paths.directory(RoleInstance(.joiner))
    var follower: StreamFeatureFollower?
    while !isStopped() {
      do throws(JoinerError) {
        let current: StreamFeatureFollower
        if let follower {
          current = follower
        } else {
          current = try StreamFeatureFollower(
            plan.configuration.joinRules, stateDirectory: joiner, streams: streams, into: shared)
          follower = current
        }
        let didRead = try current.step(now: Clocks.wall()) { observe($0, current.frontier) }
        let frontier = current.frontier
        status.withLock { $0 = FeatureStatus(frontier: frontier == .min ? nil : frontier) }
        if !didRead { usleep(2000) }
      } catch {
        status.withLock { $0.problem = "features from the stream stand still: \(error)" }
        usleep(100_000)
      }
    }
  }

  func runReplica(_ board: StatusBoard) throws {
    let configuration = plan.configuration
    let store = try ReplicaStore(
      tables: plan.replicaTables, models: plan.servedModels, visibility: configuration.replicas.visibility)
    let features = configuration.streamFeatureRules.map { SharedStreamFeatures(StreamFeatures($0)) }
    let predictor = try Predictor(store: store, schema: configuration.eventSchema, streamFeatures: features)
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
    let featureStatus = Mutex(FeatureStatus())
    let isStopped = Atomic(false)
    let featureThread = features.map { shared in
      OwnedThread(named: "features") {
        follow(into: shared, featureStatus, until: { isStopped.load(ordering: .relaxed) })
      }
    }
    defer {
      isStopped.store(true, ordering: .relaxed)
      featureThread?.join()
    }
    StopSignal.onSignal { link.stop() }
    try follow(link, into: target, of: store) { follower in
      board.post(status(of: store, follower, questions, featureStatus.withLock { $0 }))
    }
    if let error = questionFailure.withLock({ $0 }) { throw error }
  }

  private func status(
    of store: ReplicaStore, _ follower: ReplicaFollower, _ questions: QuestionServer, _ features: FeatureStatus
  ) -> RoleStatus {
    let statistics = store.statistics()
    let problem = follower.refusal ?? (store.isReady ? "" : "waits for a base from sync")
    var report = RoleStatus(
      instance, state: StopSignal.wasSent ? .stopping : (problem.isEmpty ? .ready : .waiting), message: problem)
    report.counters[StatusKey.rows] = Double(statistics.tables.reduce(0) { $0 + $1.rows })
    report.counters[StatusKey.bytes] = Double(statistics.tables.reduce(0) { $0 + $1.bytes })
    report.counters[StatusKey.version] = Double(statistics.version?.number ?? 0)
    if let frontier = features.frontier {
      report.counters["featureLagSeconds"] = Double(max(0, Clocks.wall() - frontier)) / 1000
    }
    if problem.isEmpty, !features.problem.isEmpty { report.message = features.problem }
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
