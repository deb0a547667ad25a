// The user-modelling platform: main follows sync as a replica of the upstream model does; `compute` is the compute centre,
// `questions` answers over ZeroMQ, one event loop over HTTP.

internal import Base
internal import Foundation
internal import Serving
internal import Synchronization
internal import Syncing
internal import UserModeling
internal import Wire

extension RoleProcess {
  func runSoap(_ board: StatusBoard) throws {
    let configuration = plan.configuration
    guard let upstream = plan.upstream else { throw StateError("soap.model is none; name a model of kind sum") }
    let store = try ReplicaStore(tables: upstream.tables, models: [upstream.model])
    let predictor = try Predictor(store: store, schema: configuration.eventSchema)
    let entries: any FeatureStore =
      switch configuration.soap.store {
      case .embedded:
        try EmbeddedStore(
          directory: "\(directory)/embeddings", options: configuration.soap.storeOptions,
          durable: configuration.cluster.durability == .epoch)
      case .redis:
        RedisStore(
          host: configuration.soap.redisHost, port: configuration.soap.redisPort,
          prefix: "guira:\(configuration.cluster.name):\(upstream.model.name)", options: configuration.soap.storeOptions
        )
      }
    var soapOptions = configuration.soap.options(model: upstream.model.name, index: instance.index)
    // What a slow tower would do to readers (docs/user-modelling.md).
    if let text = ProcessInfo.processInfo.environment["GUIRA_SOAP_DELAY_MS"], let delay = Int(text) {
      soapOptions.computeDelay = .milliseconds(delay)
    }
    let soap = try Soap(soapOptions, store: entries, predictor: predictor)
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
    let compute = OwnedThread(named: "compute") { soap.run() }
    defer {
      messages.stop()
      soap.stop()
      questions.join()
      compute.join()
    }
    StopSignal.onSignal { link.stop() }
    let nextStatus = Mutex<Int64>(0)
    try link.run(target: ReplicaTarget(plan, store: store, tables: upstream.tables.map(\.name))) { _ in
      let now = Clocks.monotonic()
      guard
        nextStatus.withLock({ next in
          defer { if now >= next { next = now + 500_000_000 } }
          return now >= next
        })
      else { return }
      board.post(status(of: soap, messages, board))
    }
    if let error = failure.withLock({ $0 }) { throw error }
  }

  private func status(of soap: Soap, _ messages: SoapMessages, _ board: StatusBoard) -> RoleStatus {
    let status = soap.status
    let isReady = status.problem.isEmpty && status.version > 0
    var report = RoleStatus(
      instance, state: StopSignal.wasSent ? .stopping : (isReady ? .ready : .waiting),
      message: isReady ? "" : status.problem.isEmpty ? "waits for a base from sync" : status.problem)
    report.counters["currentReads"] = Double(status.currentReads)
    report.counters["storedReads"] = Double(status.storedReads)
    report.counters["defaultReads"] = Double(status.defaultReads)
    report.counters["readsPerSecond"] = board.rate(
      "reads", Double(status.currentReads + status.storedReads + status.defaultReads))
    report.counters["computed"] = Double(status.computed)
    report.counters["computedPerSecond"] = board.rate("computed", Double(status.computed))
    report.counters["queued"] = Double(status.queued)
    report.counters["replaced"] = Double(status.replaced)
    report.counters["dropped"] = Double(status.dropped)
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
