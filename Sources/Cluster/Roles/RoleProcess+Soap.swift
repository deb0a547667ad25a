// The user-modelling platform: main follows sync as a replica of the upstream model does; `compute` is the compute centre,
// `questions` answers over ZeroMQ, one event loop over HTTP; `features` follows the streams when the user tower reads features
// that are computed from them, and says whom an action makes worth working out again.

internal import Base
internal import Foundation
internal import Serving
internal import Streams
internal import Synchronization
internal import Syncing
internal import UserModeling
internal import Wire

extension RoleProcess {
  func runSoap(_ board: StatusBoard) throws {
    let configuration = plan.configuration
    guard let upstream = plan.upstream else { throw StateError("soap.model is none; name a model of kind sum") }
    let store = try ReplicaStore(tables: upstream.tables, models: [upstream.model])
    let features =
      configuration.userStreamFeatures.isEmpty
      ? nil : configuration.streamFeatureRules.map { SharedStreamFeatures(StreamFeatures($0)) }
    let predictor = try Predictor(store: store, schema: configuration.eventSchema, streamFeatures: features)
    var soapOptions = configuration.soapOptions(model: upstream.model.name, index: instance.index)
    let servedFile = ServedFile(
      "\(directory)/served.json", durable: configuration.cluster.durability == .epoch)
    let entries = try featureStore(
      of: upstream.model.name, keeping: soapOptions.seen == nil ? [] : try servedFile.states())
    // What a slow tower would do to readers (docs/user-modelling.md).
    if let text = ProcessInfo.processInfo.environment["GUIRA_SOAP_DELAY_MS"], let delay = Int(text) {
      soapOptions.computeDelay = .milliseconds(delay)
    }
    soapOptions.allowedSkew = configuration.ingest.allowedSkew
    let soap = try Soap(soapOptions, store: entries, predictor: predictor, servedFile: servedFile)
    let http = endpoints.http(soap: instance.index)
    var options = ReplicaServerOptions(port: http.port)
    options.http.host = http.host
    options.stalenessLimit = configuration.replicas.staleAfter
    let server = try SoapServer(options: options, soap: soap, logger: logger)
    defer { server.stop() }
    let messages = SoapMessages(
      endpoint: endpoints.listening(endpoints.soap(instance.index)), security: security, soap: soap)
    let failure = Mutex<(any Error)?>(nil)
    let link = ReplicaLink(
      endpoint: syncEndpoint, replica: configuration.replicas.count + instance.index, security: security)
    let questions = OwnedThread(named: "questions") {
      do { try messages.run() } catch {
        failure.withLock { $0 = error }
        link.stop()
      }
    }
    let compute = OwnedThread(named: "compute", yields: true) { soap.run() }
    defer {
      messages.stop()
      soap.stop()
      questions.join()
      compute.join()
    }
    let featureStatus = Mutex(FeatureStatus())
    let isStopped = Atomic(false)
    let featureThread = features.map { shared in
      OwnedThread(named: "features") {
        follow(soap, into: shared, featureStatus, until: { isStopped.load(ordering: .relaxed) })
      }
    }
    defer {
      isStopped.store(true, ordering: .relaxed)
      featureThread?.join()
    }
    StopSignal.onSignal { link.stop() }
    let target = SoapTarget(
      ReplicaTarget(plan, store: store, tables: upstream.tables.map(\.name)), soap: soap, userTable: plan.userTable)
    try follow(link, into: target, of: store) { _ in
      board.post(status(of: soap, messages, featureStatus.withLock { $0 }, board))
    }
    if let error = failure.withLock({ $0 }) { throw error }
  }

  private func featureStore(of model: String, keeping served: [ServedVersions]) throws -> any FeatureStore {
    let settings = plan.configuration.soap
    switch settings.store {
    case .embedded:
      return try EmbeddedStore(
        directory: "\(directory)/embeddings", options: settings.storeOptions, keeping: served,
        durable: plan.configuration.cluster.durability == .epoch)
    case .redis:
      return RedisStore(
        host: settings.redisHost, port: settings.redisPort,
        prefix: "guira:\(plan.configuration.cluster.name):\(model)", options: settings.storeOptions)
    }
  }

  /// Keeps the users' features up with the streams; with `onAction` in `recompute`, has users worked out as their actions count.
  private func follow(
    _ soap: Soap, into shared: SharedStreamFeatures, _ status: borrowing Mutex<FeatureStatus>,
    until isStopped: () -> Bool
  ) {
    let configuration = plan.configuration
    guard configuration.soap.recompute.contains(.onAction), let rules = configuration.streamFeatureRules else {
      return follow(into: shared, status, until: isStopped)
    }
    var triggers = ActionTriggers(
      actions: configuration.userActions, delayMilliseconds: rules.delayMilliseconds,
      memoryMilliseconds: rules.memoryMilliseconds)
    follow(into: shared, status, until: isStopped) { events, frontier in
      for event in events {
        triggers.take(event) { features in soap.user(of: features).flatMap { soap.isOwn($0) ? $0 : nil } }
      }
      soap.recompute(triggers.due(before: frontier), countedBefore: frontier)
    }
  }

  private func status(
    of soap: Soap, _ messages: SoapMessages, _ features: FeatureStatus, _ board: StatusBoard
  ) -> RoleStatus {
    let status = soap.status
    let isReady = status.problem.isEmpty && status.version > 0
    var report = RoleStatus(
      instance, state: StopSignal.wasSent ? .stopping : (isReady ? .ready : .waiting),
      message: isReady ? "" : status.problem.isEmpty ? "waits for a base from sync" : status.problem)
    if isReady, !features.problem.isEmpty { report.message = features.problem }
    if let frontier = features.frontier {
      report.counters["featureLagSeconds"] = Double(max(0, Clocks.wall() - frontier)) / 1000
    }
    report.counters["currentReads"] = Double(status.currentReads)
    report.counters["storedReads"] = Double(status.storedReads)
    report.counters["defaultReads"] = Double(status.defaultReads)
    report.counters["withheldReads"] = Double(status.withheldReads)
    for model in status.seen {
      report.counters[StatusKey.servedVersion(model.model)] = Double(model.served)
      report.counters[StatusKey.seenExamples(model.model)] = Double(model.examples)
      report.counters[StatusKey.seenExamplesNeeded] = Double(model.needed)
    }
    report.counters["readsPerSecond"] = board.rate(
      "reads", Double(status.currentReads + status.storedReads + status.defaultReads))
    report.counters["computed"] = Double(status.computed)
    report.counters["computedPerSecond"] = board.rate("computed", Double(status.computed))
    report.counters["changed"] = Double(status.changed)
    report.counters["queued"] = Double(status.queued)
    report.counters["replaced"] = Double(status.replaced)
    report.counters["dropped"] = Double(status.dropped)
    report.counters["forgotten"] = Double(status.forgotten)
    report.counters["storeFailures"] = Double(status.storeFailures)
    report.counters["heldVersions"] = Double(status.heldVersions)
    report.counters["users"] = Double(status.extent.users)
    report.counters[StatusKey.bytes] = Double(status.extent.bytes)
    report.counters[StatusKey.version] = Double(status.version)
    if let shift = status.shift {
      report.counters["shiftCosine"] = shift.meanCosine
      report.counters["shiftL2Ratio"] = shift.l2Ratio
    }
    for (name, count) in messages.refused { report.counters[name] = Double(count) }
    return report
  }
}
