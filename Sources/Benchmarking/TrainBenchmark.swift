// `guira bench train`: the trainer as it is, on made-up examples, beside the speed of the machine's matrix product. The
// shard is a thread of this process or a process of its own; its journal is on disk either way.

internal import Base
internal import CKernels
internal import Cluster
internal import Foundation
internal import Glibc
internal import Layers
internal import Sharding
internal import Streams
internal import Synchronization
internal import Training
internal import Wire

/// What is trained, on what, and how long.
public struct TrainBenchmarkSettings: Sendable, Equatable {
  /// The kind of model, as `models.kind` names it.
  public var model = "dlrm"
  /// Whether the shard is a process of its own, reached over a Unix socket.
  public var isSeparate = false
  /// Features with one id each.
  public var features = 26
  /// Ids of each, zipf-distributed.
  public var ids = 1_000_000
  /// Dense numbers of an example.
  public var denseWidth = 13
  /// Numbers in a vector.
  public var dimension = 16
  /// Examples of a batch.
  public var batch = 2048
  /// Threads that compute a batch, and of the matrix product that is the limit.
  public var threads = 2
  /// Examples made beforehand; they are gone through in a circle.
  public var examples = 200_000
  /// Seconds of one run.
  public var seconds = 10.0
  /// How many runs.
  public var runs = 5
  /// The directory for the shard's files.
  public var directory = "/tmp"
  /// The seed of everything.
  public var seed: UInt64 = 1

  /// The settings of the published figures.
  public init() {}

  /// The cluster that trains.
  func configuration() throws -> ClusterConfiguration {
    let ids = (0..<features).map { "{name: c\($0)}" }.joined(separator: ", ")
    let dense = denseWidth > 0 ? ", {name: numbers, kind: dense, width: \(denseWidth)}" : ""
    let text = """
      cluster: {name: bench, seed: \(seed), transport: \(isSeparate ? "ipc" : "inproc")}
      features: [\(ids)\(dense)]
      tasks: [{name: click}]
      models:
        - {name: main, kind: \(model), dimension: \(dimension), bottom: [512, 256], hidden: [512, 256], batchSize: \(batch)}
      shards: {count: 1}
      trainers: {count: 1, threads: \(threads)}
      """
    return try ClusterConfiguration(text: text, file: "the benchmark")
  }

  var described: [String: Setting] {
    [
      "model": .text(model), "transport": .text(isSeparate ? "ipc" : "inproc"), "features": .number(features),
      "ids": .number(ids), "denseWidth": .number(denseWidth), "dimension": .number(dimension), "batch": .number(batch),
      "threads": .number(threads), "examples": .number(examples), "seconds": .decimal(seconds), "runs": .number(runs),
      "seed": .number(Int(clamping: seed)),
    ]
  }
}

/// Measures training.
public struct TrainBenchmark {
  private let settings: TrainBenchmarkSettings
  private let executable: String
  private let progress: (String) -> Void

  /// A benchmark that has not run yet.
  public init(
    _ settings: TrainBenchmarkSettings, executable: String, progress: @escaping (String) -> Void = { _ in }
  ) {
    self.settings = settings
    self.executable = executable
    self.progress = progress
    guira_keep_freed_memory()
  }

  /// Trains and gives the examples a second, and those that matrix products alone would allow.
  public func run() throws -> BenchmarkReport {
    let configuration = try settings.configuration()
    let plan = try ClusterPlan(configuration)
    let directory = "\(settings.directory)/guira-bench-\(getpid())"
    try Files.makeDirectory(directory)
    defer { try? FileManager.default.removeItem(atPath: directory) }
    progress("making \(settings.examples) examples")
    let examples = MadeExamples(settings, schema: configuration.eventSchema)
    let operations = Self.operationsPerExample(plan.models[0].options, try makeModel(plan.models[0].options))
    var series = Series()
    series.add("operationsPerExample", operations / 1e6, "MFLOP")
    for run in 1...settings.runs {
      progress("run \(run) of \(settings.runs)")
      let limit = MatrixLimit.operationsPerSecond(threads: settings.threads, seconds: 1)
      let rate = try train(plan, configuration, examples, directory: "\(directory)/\(run)")
      series.add("examplesPerSecond", rate, "examples/s")
      series.add("sgemmLimit.gigaflopsPerSecond", limit / 1e9, "GFLOP/s")
      series.add("sgemmLimit.examplesPerSecond", limit / operations, "examples/s")
      series.add("shareOfLimit", rate * operations / limit, "ratio")
    }
    return BenchmarkReport(name: "train", settings: settings.described, results: series.results)
  }

  private func train(
    _ plan: ClusterPlan, _ configuration: ClusterConfiguration, _ examples: MadeExamples, directory: String
  ) throws -> Double {
    try Files.makeDirectory(directory)
    let context = LinkContext()
    var options = TrainerServiceOptions(
      trainer: plan.trainer(0, of: plan.models[0]), shardEndpoints: [], streamRoot: directory,
      scorePath: "\(directory)/scores")
    options.context = context
    options.source = { _, position in CircularSource(examples, from: position) }
    let shard: any BenchShard
    if settings.isSeparate {
      let process = try ShardProcess(configuration, executable: executable, directory: directory)
      options.shardEndpoints = [process.endpoint]
      shard = process
    } else {
      let thread = ShardThread(plan.shard(0), directory: directory, context: context)
      options.shardEndpoints = [thread.endpoint]
      shard = thread
    }
    defer { shard.stop() }
    // A third of the time is for rows to be made and caches to fill.
    let clock = TrainingClock(warmup: settings.seconds / 3, seconds: settings.seconds)
    let trainer = Trainer(options)
    var problem: String?
    try trainer.run { status in
      // Without a shard the trainer would wait for ever.
      problem = problem ?? shard.problem
      let isOver = clock.note(examples: status.counters.examples, isReady: status.isReady)
      if isOver || problem != nil { trainer.stop() }
    }
    if let problem = problem ?? shard.problem { throw BenchmarkError(description: "the shard ended: \(problem)") }
    return try clock.rate()
  }

  /// Floating-point operations of a forward and a backward pass over one example: two for each weight of a layer on the
  /// way there, four on the way back, without those for the gradient of the dense numbers, which nobody wants.
  static func operationsPerExample(_ options: ModelOptions, _ model: any Model) -> Double {
    var operations = 0.0
    for tensor in model.denseTensors where tensor.shape.count == 2 {
      let isFirst = tensor.name.hasPrefix("bottom") && tensor.shape[1] == options.denseWidth
      operations += Double(tensor.count) * (isFirst ? 4 : 6)
    }
    guard options.kind == "dlrm" else { return operations }
    let vectors = options.features.count + (options.denseWidth > 0 ? 1 : 0)
    return operations + 6 * Double(vectors * (vectors - 1) / 2 * options.dimension)
  }
}

/// Examples a second between the end of the warm-up and the end.
private final class TrainingClock: Sendable {
  private let state = Mutex<(began: Int64?, first: (Int64, UInt64)?, last: (Int64, UInt64)?)>((nil, nil, nil))
  private let warmup: Int64
  private let seconds: Int64

  init(warmup: Double, seconds: Double) {
    self.warmup = Int64(warmup * 1e9)
    self.seconds = Int64(seconds * 1e9)
  }

  /// True when it is over.
  func note(examples: UInt64, isReady: Bool) -> Bool {
    let now = Clocks.monotonic()
    return state.withLock { state in
      guard isReady, examples > 0 else { return false }
      let began = state.began ?? now
      state.began = began
      guard now - began >= warmup else { return false }
      if state.first == nil { state.first = (now, examples) }
      if state.last == nil || now - began < warmup + seconds { state.last = (now, examples) }
      return now - began >= warmup + seconds
    }
  }

  func rate() throws -> Double {
    let (_, first, last) = state.withLock { $0 }
    guard let first, let last, last.0 > first.0 else {
      throw BenchmarkError(description: "the trainer trained too little to be measured; use more --seconds")
    }
    return Double(last.1 - first.1) / (Double(last.0 - first.0) / 1e9)
  }
}

// MARK: Examples

/// Encoded examples, made once.
private final class MadeExamples: Sendable {
  let records: [Blob]

  init(_ settings: TrainBenchmarkSettings, schema: EventSchema) {
    var ranks: [[UInt32]] = []
    for feature in 0..<settings.features {
      var column = [UInt32](repeating: 0, count: settings.examples)
      unsafe guira_stream_ranks_zipf(
        settings.seed &+ UInt64(feature), UInt64(settings.ids), 1.05, &column, column.count)
      ranks.append(column)
    }
    var random = SeededRandom(seed: settings.seed)
    let now = Clocks.wall()
    records = (0..<settings.examples).map { example in
      var values = ranks.enumerated().map { feature, column in
        FeatureValue.ids([guira_stream_id(settings.seed &+ UInt64(feature), UInt64(column[example]))])
      }
      if settings.denseWidth > 0 {
        values.append(.numbers((0..<settings.denseWidth).map { _ in Float(random.uniform()) }))
      }
      let time = now + Int64(example)
      let made = Example(
        impression: ImpressionID(UInt64(example)), time: time, ordinal: Position(low: UInt64(example)), due: time,
        arrival: 0, labels: [random.next() % 4 == 0 ? .positive : .negative], rates: [1], predictions: [],
        features: FeatureBlock(schema: schema, values: values))
      var writer = ByteWriter()
      made.encode(into: &writer)
      return writer.finish()
    }
  }
}

/// A stream without end.
private struct CircularSource: RecordSource {
  private let examples: MadeExamples
  private(set) var position: Position

  init(_ examples: MadeExamples, from position: Position) {
    self.examples = examples
    self.position = position
  }

  mutating func next() -> StreamRecord? {
    let record = examples.records[Int(position.low % UInt64(examples.records.count))]
    position.low += 1
    return StreamRecord(position: position, reader: ByteReader(record))
  }

  mutating func end() -> Position { position }
  mutating func commit(processed: Position, safe: Position) {}
}

// MARK: Shards

private protocol BenchShard {
  /// Why it ended; nil while it runs.
  var problem: String? { get }
  func stop()
}

/// The shard as a thread of this process.
private final class ShardThread: BenchShard {
  let endpoint = "inproc://shard-0"
  private let server: ShardServer
  private let thread: OwnedThread
  private let failure = Mailbox<String>(bound: 1)
  private var isStopped = false

  init(_ shard: ShardOptions, directory: String, context: LinkContext) {
    var options = ShardServerOptions(
      shard: shard, endpoint: "ipc://\(directory)/socket", directory: "\(directory)/shard-0")
    options.inProcessEndpoint = endpoint
    options.context = context
    // Sync is not there to take the blocks away.
    options.shard.retainedBytes = 1 << 20
    let server = ShardServer(options)
    self.server = server
    thread = OwnedThread(named: "shard-0") { [failure] in
      do { try server.run() } catch { _ = failure.offer("\(error)") }
    }
  }

  var problem: String? { failure.takeAll().first }

  func stop() {
    guard !isStopped else { return }
    isStopped = true
    server.stop()
    thread.join()
  }
}

/// The shard as `guira shard` runs it.
private final class ShardProcess: BenchShard {
  let endpoint: String
  private let process = Process()

  init(_ configuration: ClusterConfiguration, executable: String, directory: String) throws {
    let paths = StatePaths(directory)
    try Files.replace(paths.configuration, with: Array(configuration.text.utf8))
    endpoint = Endpoints(configuration, socketDirectory: paths.socketDirectory).shard(0)
    process.executableURL = URL(filePath: executable)
    process.arguments = ["shard", "--state", directory, "--index", "0", "--log", "warning"]
    process.standardInput = FileHandle.nullDevice
    process.standardOutput = FileHandle.standardError
    do { try process.run() } catch { throw BenchmarkError(description: "cannot start \(executable): \(error)") }
  }

  var problem: String? { process.isRunning ? nil : "code \(process.terminationStatus)" }

  func stop() {
    guard process.isRunning else { return }
    process.terminate()
    process.waitUntilExit()
  }
}
