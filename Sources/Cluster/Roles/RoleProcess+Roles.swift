// How each role is put together from its module, and what it says in its status file.

internal import Base
internal import CKernels
internal import Embeddings
internal import Glibc
internal import Joining
internal import Serving
internal import Sharding
internal import Streams
internal import Syncing
internal import Synchronization
internal import Training
internal import Wire

extension RoleProcess {
  func runShard(_ board: StatusBoard) throws {
    try runShard(board) { server in StopSignal.onSignal { server.stop() } }
  }

  /// - Parameter onServer: told the server before it runs, so that it can be stopped.
  func runShard(_ board: StatusBoard, onServer: (ShardServer) -> Void) throws {
    guira_keep_freed_memory()
    var options = ShardServerOptions(
      shard: plan.shard(instance.index), endpoint: endpoints.listening(endpoints.shard(instance.index)),
      directory: directory)
    options.isDurable = plan.configuration.cluster.durability == .epoch
    options.keepCheckpoints = plan.configuration.shards.keepCheckpoints
    options.acceptLoss = acceptLoss
    options.security = security
    options.context = context
    options.inProcessEndpoint = endpoints.inProcess(shard: instance.index)
    let server = ShardServer(options)
    onServer(server)
    try server.run(
      onReady: { [logger] recovery in
        for loss in recovery.acceptedLosses { logger.warning("accepted a loss", metadata: ["loss": "\(loss)"]) }
        logger.info(
          "ready",
          metadata: [
            "checkpoint": "\(recovery.checkpoint ?? "none")", "checkpointRows": "\(recovery.checkpointRows)",
            "replayedRecords": "\(recovery.records)",
          ])
      },
      onStatus: { [instance] status in
        let state = StopSignal.wasSent ? RoleStatus.State.stopping : status.problem.isEmpty ? .ready : .waiting
        var report = RoleStatus(instance, state: state, message: status.problem)
        report.counters["stalled"] = status.isStalled ? 1 : 0
        report.counters[StatusKey.rows] = Double(status.tables.values.reduce(0) { $0 + $1.rows })
        report.counters[StatusKey.bytes] = Double(status.tables.values.reduce(0) { $0 + $1.bytes })
        report.counters[StatusKey.epoch] = Double(status.epoch)
        for (name, table) in status.tables { report.counters[StatusKey.rows(table: name)] = Double(table.rows) }
        for (name, value) in status.counters { report.counters[name] = Double(value) }
        board.post(report)
      })
  }

  func runJoiner(_ board: StatusBoard) throws {
    let configuration = plan.configuration
    var options = JoinerOptions(rules: configuration.joinRules, stateDirectory: directory)
    options.checkpointInterval = configuration.joiner.checkpointEvery
    options.backlogLimit = UInt64(configuration.joiner.backlogBytes)
    options.memory = configuration.joiner.memory
    options.rejectedBytes = configuration.ingest.rejectedBytes
    StopSignal.onSignal {}
    guard let joiner = try openJoiner(options, board) else { return }
    try joiner.run(until: { StopSignal.wasSent }) { status in
      let waiting = status.waitsFor
      var report = RoleStatus(
        instance, state: StopSignal.wasSent ? .stopping : (waiting == nil ? .ready : .waiting), message: waiting ?? "")
      report.counters[StatusKey.examples] = Double(status.counters.examples)
      report.counters[StatusKey.examplesPerSecond] = board.rate("examples", Double(status.counters.examples))
      report.counters[StatusKey.impressions] = Double(status.counters.impressions)
      report.counters["pendingImpressions"] = Double(status.pendingImpressions)
      report.counters["pendingInMemory"] = Double(status.pendingImpressions - status.storedImpressions)
      report.counters["pendingOnDisk"] = Double(status.storedImpressions)
      report.counters["pendingMemoryBytes"] = Double(status.memoryBytes)
      report.counters["pendingDiskBytes"] = Double(status.storedBytes)
      report.counters["unread"] = Double(status.inputs.reduce(0) { $0 + $1.unread })
      report.counters["lateActions"] = Double(status.counters.lateActions)
      report.counters["duplicates"] = Double(
        status.counters.duplicateImpressions + status.counters.duplicateActions)
      report.counters["malformedRecords"] = Double(status.counters.malformed)
      report.counters["notSetAside"] = Double(status.notSetAside)
      for (code, count) in status.refused { report.counters["refused_\(code)"] = Double(count) }
      report.counters["unfilledImpressions"] = Double(status.counters.unfilledImpressions)
      report.counters["expiredActions"] = Double(status.counters.expiredActions)
      if let features = status.features {
        report.counters["featureKeysEvicted"] = Double(features.evictedKeys)
        report.counters["featureImpressionsForgotten"] = Double(features.forgottenImpressions)
      }
      for counts in status.counters.labels {
        report.labels[counts.task] = RoleStatus.LabelCounts(
          emitted: Int(counts.emitted), positive: Int(counts.positive))
      }
      board.post(report)
    }
  }

  /// The joiner, once the servers of its outputs are there; nil when it is to stop before.
  private func openJoiner(_ options: JoinerOptions, _ board: StatusBoard) throws -> Joiner? {
    let streams = ClusterStreams(plan.configuration, root: paths.root).joiner()
    while !StopSignal.wasSent {
      do throws(JoinerError) { return try Joiner(options, streams: streams) } catch {
        guard case .stream(_, let cause) = error, cause.isForNow else { throw error }
        board.post(RoleStatus(instance, state: .waiting, message: "\(error)"))
        usleep(100_000)
      }
    }
    return nil
  }

  /// One thread per model; all of them share the process.
  func runTrainer(_ board: StatusBoard) throws {
    var trainers: [(name: String, trainer: Trainer)] = []
    let shardEndpoints = try shardEndpoints()
    let failure = Mutex<(any Error)?>(nil)
    var teachers: [FollowingTeacher] = []
    for (place, model) in plan.models.enumerated() {
      var options = TrainerServiceOptions(
        trainer: plan.trainer(instance.index, of: model), shardEndpoints: shardEndpoints, streamRoot: paths.root,
        scorePath: "\(directory)/\(model.settings.name).scores")
      options.keepScores = keepsAllScores ? nil : plan.configuration.trainers.keepScores
      options.rejectedDirectory = "\(directory)/rejected"
      options.security = security
      options.context = context
      let examples = ClusterStreams(plan.configuration, root: paths.root)[.examples]
      let consumer = "trainer-\(model.settings.name)"
      options.source = { (partition: Int, position: Position) throws(StreamError) -> (any RecordSource)? in
        try examples.source(partition: partition, consumer: consumer, from: position)
      }
      if options.trainer.stabilization.isOn {
        let teacher = try teacher(of: model, number: place)
        teachers.append(teacher)
        options.teacher = teacher.teacher
      }
      trainers.append((model.settings.name, Trainer(options)))
    }
    let all = trainers.map(\.trainer)
    StopSignal.onSignal { for trainer in all { trainer.stop() } }
    let shards = plan.isOneProcess ? HostedShards(self) : nil
    shards?.onFailure { error in
      failure.withLock { $0 = $0 ?? error }
      for trainer in all { trainer.stop() }
    }
    // A teacher that stands still would hold the model where it was: the process ends, and is started again.
    let teaching = teachers.map { teacher in
      follow(teacher) { error in
        failure.withLock { $0 = $0 ?? error }
        for trainer in all { trainer.stop() }
      }
    }
    let states = Mutex<[String: TrainerStatus]>([:])
    let threads = trainers.map { name, trainer in
      OwnedThread(named: "train-\(name)") {
        do {
          try trainer.run { [instance, logger] status in
            for rejection in status.rejections {
              logger.warning("left a batch out", metadata: ["model": "\(name)", "reason": "\(rejection)"])
            }
            let merged = states.withLock { states in
              states[name] = status
              return states
            }
            board.post(Self.report(merged, of: instance, board))
          }
        } catch {
          failure.withLock { $0 = $0 ?? error }
          for other in all { other.stop() }
        }
      }
    }
    for thread in threads { thread.join() }
    for teacher in teachers { teacher.link.stop() }
    for thread in teaching { thread.join() }
    shards?.stop()
    if let error = failure.withLock({ $0 }) { throw error }
  }

  private static func report(
    _ states: [String: TrainerStatus], of instance: RoleInstance, _ board: StatusBoard
  ) -> RoleStatus {
    let message = states.values.map(\.message).first { !$0.isEmpty } ?? ""
    let isReady = states.values.allSatisfy(\.isReady) && message.isEmpty
    var report = RoleStatus(
      instance, state: StopSignal.wasSent ? .stopping : (isReady ? .ready : .waiting), message: message)
    let examples = states.values.reduce(0) { $0 + Double($1.counters.examples) }
    report.counters[StatusKey.examples] = examples
    report.counters[StatusKey.examplesPerSecond] = board.rate("examples", examples)
    report.counters["lagBytes"] = states.values.reduce(0) { $0 + Double($1.lagBytes) }
    report.counters["keptBytes"] = states.values.reduce(0) { $0 + Double($1.keptBytes) }
    report.counters["resynchronizations"] = states.values.reduce(0) { $0 + Double($1.resynchronizations) }
    report.counters["rejectedBatches"] = states.values.reduce(0) { $0 + Double($1.counters.rejectedBatches) }
    for (model, status) in states {
      for figures in status.quality {
        let name = states.count == 1 ? figures.task : "\(model)/\(figures.task)"
        if let auc = figures.auc { report.counters[StatusKey.auc(name)] = auc }
        if let ne = figures.ne { report.counters[StatusKey.ne(name)] = ne }
      }
      guard let teacher = status.teacher else { continue }
      report.counters[StatusKey.teacherVersion(of: model)] = Double(teacher.version)
      report.counters[StatusKey.teacherDistance(of: model)] = teacher.distance
      report.counters["untaughtBatches", default: 0] += Double(teacher.untaughtBatches)
    }
    return report
  }

  func runSync(_ board: StatusBoard) throws {
    // Every version takes the buffers of the one before.
    guira_keep_freed_memory()
    var options = SyncServerOptions(
      sync: plan.sync, shardEndpoints: try shardEndpoints(), endpoint: endpoints.listening(endpoints.sync),
      directory: "\(directory)/versions")
    options.security = security
    let server = SyncServer(options)
    StopSignal.onSignal { server.stop() }
    try server.run { [instance] status in
      var report = RoleStatus(
        instance, state: StopSignal.wasSent ? .stopping : (status.base > 0 ? .ready : .waiting),
        message: status.base > 0 ? "" : "waits for the first base")
      report.counters[StatusKey.version] = Double(status.newest)
      for (name, value) in status.counters { report.counters[name] = Double(value) }
      report.counters["versions"] = Double(status.totals.versions)
      report.counters["pinned"] = Double(status.pinned)
      report.counters["waitingRows"] = Double(status.waiting.rows)
      report.counters["waitingSeconds"] = Double(status.waiting.milliseconds) / 1000
      report.counters["lagSeconds"] = Double(status.lagMilliseconds) / 1000
      report.counters["versionRows"] = Double(status.totals.rows)
      report.counters["versionBytes"] = Double(status.totals.bytes)
      if status.freshness.count > 0 {
        report.counters[StatusKey.freshnessP50] = Double(status.freshness.quantile(0.5)) / 1000
        report.counters[StatusKey.freshnessP99] = Double(status.freshness.quantile(0.99)) / 1000
      }
      board.post(report)
    }
  }
}
