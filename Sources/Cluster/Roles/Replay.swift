// A replay into a running cluster: the player, the wait until all of it is trained, shipped and served, and the report.

internal import Base
internal import Foundation
internal import Joining
internal import Serving
public import Streams
internal import Syncing
internal import Training
internal import Wire

/// Replays a dataset into a cluster that is up.
public enum Replay {
  /// Bytes of events the joiner may be behind before the player waits, and bytes of examples the trainers may be behind.
  ///
  /// About 4,000 records: a second's work or less, so that predictions of a replay at full speed come from a model that
  /// has seen what was shown a moment ago.
  static let leadBytes: UInt64 = 512 << 10

  /// Replays all events and reports.
  ///
  /// - Parameters:
  ///   - events: a directory or file that `EventInput` opens.
  ///   - mapping: how rows become events; nil when the path holds events or a dataset that is known.
  ///   - predictedShare: the share of impressions a replica is asked about first.
  ///   - isCancelled: asked often; the replay ends early when true.
  /// - Throws: what makes a report impossible; the cluster goes on.
  public static func run(
    events: String, mapping: ImportMapping? = nil, speed: ReplaySpeed, predictedShare: Double,
    configuration: ClusterConfiguration, state: StatePaths, isCancelled: @escaping @Sendable () -> Bool
  ) throws -> Report {
    let session = try ReplaySession(configuration, state, isCancelled: isCancelled)
    try session.waitUntilReady()
    try session.play(events: events, mapping: mapping, speed: speed, predictedShare: predictedShare)
    try session.waitUntilQuiet()
    return try session.report()
  }
}

/// One replay's state; belongs to the player's thread.
final class ReplaySession {
  private let configuration: ClusterConfiguration
  private let plan: ClusterPlan
  private let streams: ClusterStreams
  private let paths: StatePaths
  private let endpoints: Endpoints
  private let isCancelled: @Sendable () -> Bool
  private let context: LinkContext
  private var shardQuestions: [AskerBox] = []
  private let syncQuestions: AskerBox
  private var progress = ReplayProgress()
  private var began: Int64 = 0
  private var ended: Int64 = 0
  private var board: StatusBoard

  private final class AskerBox {
    var asker: Asker
    init(_ asker: consuming Asker) { self.asker = asker }
  }

  init(
    _ configuration: ClusterConfiguration, _ paths: StatePaths, isCancelled: @escaping @Sendable () -> Bool
  ) throws {
    self.configuration = configuration
    self.paths = paths
    self.isCancelled = isCancelled
    plan = try ClusterPlan(configuration)
    streams = ClusterStreams(configuration, root: paths.root)
    let endpoints = Endpoints(configuration, socketDirectory: paths.socketDirectory)
    self.endpoints = endpoints
    let context = LinkContext(try ClusterKeys(configuration, paths).security(of: ClusterKeys.operatorName))
    self.context = context
    shardQuestions = try configuration.shards.count.indices.map {
      AskerBox(try Asker(endpoint: endpoints.shard($0), context: context))
    }
    syncQuestions = AskerBox(try Asker(endpoint: endpoints.sync, context: context))
    let player = RoleInstance(.player)
    try Files.makeDirectory(paths.directory(player))
    board = StatusBoard(player, paths: paths)
  }

  // MARK: Playing

  /// Waits until every role says it is ready.
  func waitUntilReady() throws {
    try wait(for: .seconds(120), "the cluster is not ready") {
      let status = ClusterStatus.read(paths, configuration)
      let starting = configuration.instances.first { instance in
        guard let entry = status.entries.first(where: { $0.instance == instance }), entry.isAlive else { return true }
        // Joiner and trainers wait for the first events; that they say so is enough.
        let mayWait = instance.role == .joiner || instance.role == .trainer
        return !(entry.status?.state == .ready || mayWait && entry.status?.state == .waiting)
      }
      return starting.map { "\($0) is starting" }
    }
  }

  func play(events: String, mapping: ImportMapping?, speed: ReplaySpeed, predictedShare: Double) throws {
    let schema = configuration.eventSchema
    var input = try EventInput.open(path: events, schema: schema, importInto: paths.root, mapping: mapping)
    try input.setAside(in: rejectedPath, limit: configuration.ingest.rejectedBytes)
    var options = ReplayOptions()
    options.speed = speed
    options.predictedShare = predictedShare
    options.latenessMilliseconds = input.latenessMilliseconds
    options.largestWindowMilliseconds = schema.tasks.map(\.windowMilliseconds).max() ?? 0
    // While predictions are asked, chunks are small: an impression is scored by a model that saw those just before it.
    options.chunkEvents = predictedShare > 0 ? 128 : 512
    let impressions = try streams.sinks(.impressions, shouldStop: isCancelled)
    let actions = try streams.sinks(.actions, shouldStop: isCancelled)
    var replayer = EventReplayer(options: options, impressions: impressions, actions: actions)
    let client = predictedShare > 0 ? predictionClient(schema) : nil
    let vectors = try plan.upstream == nil ? nil : UserVectorFiller(configuration, endpoints, context)
    let gate = BacklogGate(streams, models: plan.models.map(\.settings.name))
    began = Clocks.monotonic()
    let board = board
    progress = try replayer.run(
      next: { () throws(StreamError) in try input.next() }, complete: { chunk in vectors?.fill(&chunk) },
      predict: { chunk in
        let times = schema.hasStreamFeatures ? chunk.map(\.time) : []
        return client?.predict(chunk.map(\.features), times: times) ?? chunk.map { _ in nil }
      },
      mayContinue: { gate.isOpen }, isCancelled: isCancelled,
      report: { progress in
        var status = RoleStatus(RoleInstance(.player), state: .ready)
        status.counters[StatusKey.impressions] = Double(progress.impressions)
        status.counters[StatusKey.impressionsPerSecond] = board.rate("impressions", Double(progress.impressions))
        status.counters[StatusKey.predictionsPerSecond] = board.rate("answered", Double(progress.answered))
        status.counters["fraction"] = input.fraction
        status.counters["refusedEvents"] = Double(input.faultCount)
        status.counters["notSetAside"] = Double(input.notSetAside)
        for (code, count) in input.faultsByCode { status.counters["refused_\(code)"] = Double(count) }
        if let vectors {
          status.counters["userVectors"] = Double(vectors.filled)
          status.counters["userVectorsMissing"] = Double(vectors.missing)
        }
        board.post(status)
      })
    tellFaults(of: input)
    if progress.wasCancelled { throw StateError("the replay was interrupted") }
  }

  private var rejectedPath: String { "\(paths.directory(RoleInstance(.player)))/\(RejectedEvents.fileName)" }

  /// Lines that could not be read are left out; how many, and why the first ones.
  private func tellFaults(of input: borrowing EventInput) {
    guard input.faultCount > 0 else { return }
    let reasons = input.faultsByCode.sorted { $0.key < $1.key }.map { "\($0.value) \($0.key)" }
    var text = "\(input.faultCount) lines of the events were refused: \(reasons.joined(separator: ", "))\n"
    for fault in input.faults.prefix(5) { text += "  \(fault)\n" }
    text += "they are set aside in \(rejectedPath)"
    text += input.notSetAside > 0 ? ", but for \(input.notSetAside) that found no room\n" : "\n"
    FileHandle.standardError.write(Data(text.utf8))
  }

  /// Asks this cluster's replicas as an application would; the first model answers.
  private func predictionClient(_ schema: EventSchema) -> PredictionClient {
    let replicas = configuration.replicas.count.indices.map { index in
      let address = endpoints.http(replica: index)
      return PredictionClientOptions.Replica(host: address.host, port: address.port)
    }
    return PredictionClient(
      options: PredictionClientOptions(replicas: replicas), model: plan.models[0].settings.name, schema: schema)
  }

  // MARK: Quiet

  /// Waits until all events are joined, trained on by every model, durable, published and acknowledged (DESIGN 3.5).
  func waitUntilQuiet() throws {
    try wait(for: .seconds(600), "the cluster does not come to rest") { try notYetQuiet() }
    ended = Clocks.monotonic()
    try wait(for: .seconds(300), "the replicas do not catch up") { try notYetShipped() }
  }

  /// What is still on its way to the shards, in words; nil when nothing is.
  private func notYetQuiet() throws -> String? {
    for stream in [StreamLocation.Stream.impressions, .actions] {
      for partition in (streams.partitions[stream] ?? 0).indices {
        do throws(StreamError) {
          let left = try streams[stream].backlog(partition: partition, of: "joiner") ?? 0
          if left > 0 { return "the joiner has \(left) bytes of \(stream.rawValue) to read" }
        } catch {
          guard error.isForNow else { throw error }
          return "\(error)"
        }
      }
    }
    // Joined, but perhaps not yet written: the joiner says what it emitted, and the stream says what it holds.
    let joiner = ClusterStatus.read(paths, configuration)[RoleInstance(.joiner)]
    guard let joiner, (joiner.counters["pendingImpressions"] ?? 1) == 0, (joiner.counters["unread"] ?? 1) == 0 else {
      return "the joiner holds impressions that are not closed"
    }
    // What it said before it had read all this knows of fewer.
    guard Int(joiner.counters[StatusKey.impressions] ?? 0) >= progress.impressions else {
      return "the joiner has not said yet what it made"
    }
    let emitted = UInt64(joiner.counters[StatusKey.examples] ?? 0)
    for shard in shardQuestions.indices {
      guard let status = try? shardQuestions[shard].asker.shardStatus(timeout: .seconds(2)) else {
        return "shard \(shard) does not answer"
      }
      for model in plan.models {
        let applied = examples(of: model.settings.name, in: status)
        if applied != emitted { return "shard \(shard) has applied \(applied) of \(emitted) examples" }
      }
      if !status.isQuiet { return "shard \(shard) has changes that are not durable" }
    }
    return nil
  }

  private func examples(of model: String, in status: ShardStatus) -> UInt64 {
    let consumer = Hashing.xxh3(model)
    // Passes over files are streams of their own.
    let stream = Hashing.xxh3(StreamLocation.Stream.examples.rawValue)
    return status.chains.filter { $0.consumer == consumer && $0.stream == stream }.reduce(0) { $0 + $1.examples }
  }

  private func notYetShipped() throws -> String? {
    _ = try? syncQuestions.asker.ask(timeout: .seconds(2)) { PublishRequest(dense: true).encoded(request: $0) }
    var durable: [UInt64] = []
    for shard in shardQuestions.indices {
      guard let status = try? shardQuestions[shard].asker.shardStatus(timeout: .seconds(2)) else {
        return "shard \(shard) does not answer"
      }
      if !status.isQuiet { return "shard \(shard) has changes that are not durable" }
      durable.append(status.durableEpoch)
    }
    guard let sync = syncStatus() else { return "sync does not answer" }
    if sync.isBehind || sync.cursors != durable { return "sync has blocks to publish" }
    let missing = configuration.replicas.count.indices.filter { index in
      !sync.replicas.contains { $0.index == index && $0.version == sync.newest && $0.silentMilliseconds < 3000 }
    }
    return missing.isEmpty ? nil : "replicas \(missing.map(String.init).joined(separator: ", ")) have not acknowledged"
  }

  private func syncStatus() -> SyncStatus? {
    guard
      var reader = try? syncQuestions.asker.ask(
        timeout: .seconds(2), { PlainMessage.empty(.status, request: $0) }),
      let text = try? PlainMessage.text(decoding: &reader)
    else { return nil }
    return SyncStatus(json: text)
  }

  private func wait(
    for limit: Duration, _ failure: String, _ reason: () throws -> String?
  ) throws {
    let deadline = Clocks.monotonic() + limit.nanoseconds
    var (last, nextPost) = ("", Int64.min)
    while let problem = try reason() {
      if isCancelled() { throw StateError("the replay was interrupted") }
      // Said again, though nothing has changed: who is silent is taken for stuck.
      if problem != last || Clocks.monotonic() >= nextPost {
        last = problem
        nextPost = Clocks.monotonic() + 1_000_000_000
        board.post(RoleStatus(RoleInstance(.player), state: .waiting, message: problem))
      }
      guard Clocks.monotonic() < deadline else {
        throw StateError("\(failure) within \(limit): \(problem); see `guira status` and the logs in \(paths.root)")
      }
      Thread.sleep(forTimeInterval: 0.05)
    }
  }

  // MARK: Report

  func report() throws -> Report {
    var report = Report()
    let status = ClusterStatus.read(paths, configuration)
    let joiner = status[RoleInstance(.joiner)]
    report.labels = joiner?.labels ?? [:]
    report.examples = Int(joiner?.counters[StatusKey.examples] ?? 0)
    try addQuality(to: &report)
    let seconds = max(1e-9, Double(ended - began) / 1e9)
    report.throughput.impressionsPerSecond = Double(progress.impressions) / seconds
    report.throughput.examplesPerSecond = Double(report.examples) / seconds
    if let sync = syncStatus() {
      func quantile(_ share: Double) -> Double { Double(sync.freshness.quantile(share)) / 1000 }
      if sync.freshness.count > 0 {
        report.freshness = Report.Freshness(
          p50: quantile(0.5), p95: quantile(0.95), p99: quantile(0.99), max: Double(sync.freshness.maximum) / 1000)
      }
      report.versions.count = Int(sync.totals.versions)
      report.versions.rows = Int(sync.totals.rows)
      report.versions.tombstones = Int(sync.totals.tombstones)
      report.versions.bytes = Int(sync.totals.bytes)
    }
    try addShards(to: &report)
    report.predictions.asked = progress.asked
    report.predictions.answered = progress.answered
    report.predictions.defaultRowsOnly = progress.defaultOnly
    return report
  }

  private func addQuality(to report: inout Report) throws {
    for model in plan.models {
      var records: [ScoreRecord] = []
      for trainer in configuration.trainers.count.indices {
        let path = "\(paths.directory(RoleInstance(.trainer, trainer)))/\(model.settings.name).scores"
        if Files.exists(path) { records += try ScoreLog.read(path) }
      }
      let quality = Training.Quality(records: records, tasks: model.options.tasks.map(\.name))
      for (task, scores) in quality.prequential {
        report.prequential[plan.models.count == 1 ? task : "\(model.settings.name)/\(task)"] = Self.quality(scores)
      }
      for (task, scores) in quality.served where model.settings.name == plan.models[0].settings.name {
        report.served[task] = Self.quality(scores)
      }
    }
  }

  private static func quality(_ quality: Training.TaskQuality) -> Report.TaskQuality {
    Report.TaskQuality(
      all: Report.Quality(
        auc: quality.all.auc, logLoss: quality.all.logLoss, ne: quality.all.ne, calibration: quality.all.calibration,
        count: quality.all.count),
      last20: Report.Quality(
        auc: quality.last20.auc, logLoss: quality.last20.logLoss, ne: quality.last20.ne,
        calibration: quality.last20.calibration, count: quality.last20.count))
  }

  private func addShards(to report: inout Report) throws {
    let isHalf = configuration.sync.precision == .float16
    var shards = DigestReply()
    for index in shardQuestions.indices {
      guard let status = try shardQuestions[index].asker.shardStatus() else { continue }
      var updates = Report.Updates()
      let applied = plan.models.map { Int(examples(of: $0.settings.name, in: status)) }
      updates.appliedExamples = applied.reduce(0, +)
      updates.repeated = Int(status.counters["repeated"] ?? 0)
      updates.refused = Int(status.counters["refused"] ?? 0)
      updates.missing = applied.reduce(0) { $0 + report.examples - $1 }
      report.updates.append(updates)
      for (name, table) in status.tables {
        var sum = report.tables[name] ?? Report.Table()
        sum.rows += Int(table.rows)
        sum.admitted += Int(table.admitted)
        sum.refused += Int(table.refused)
        sum.expired += Int(table.expired)
        sum.bytes += Int(table.bytes)
        report.tables[name] = sum
      }
      shards.merge(try shardQuestions[index].asker.digest(halfPrecision: isHalf))
    }
    report.digest.shards = shards.fingerprint
    report.digest.equal = true
    for index in configuration.replicas.count.indices {
      var asker = try Asker(endpoint: endpoints.replica(index), context: context)
      let replica = try asker.digest(halfPrecision: isHalf)
      report.digest.replicas.append(replica.fingerprint)
      if replica.fingerprint != report.digest.shards { report.digest.equal = false }
    }
  }
}

extension DigestReply {
  /// One word for all tables and tensors.
  var fingerprint: String {
    let parts = [tables, tensors].map { part in
      part.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value.count):\($0.value.sum)" }.joined(separator: ",")
    }
    return String(Hashing.xxh3(parts.joined(separator: "|")), radix: 16)
  }
}
