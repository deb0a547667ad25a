// Training on files: events are joined in memory, and the trainer and the shards that work online go through the examples,
// in order or shuffled anew for each epoch. All in one process. A pass over a file is a stream of its own, named after what
// is in it, so that a pass that was stopped goes on where it stopped, and what follows online keeps the parameters.

internal import Base
internal import Joining
public import Logging
public import Streams
internal import Synchronization
internal import Training

/// Passes over the events of a file.
public struct BatchTraining {
  /// How often and in which order examples are gone through.
  public struct Options: Sendable {
    /// Passes over all examples.
    public var epochs = 1
    /// Whether each pass has an order of its own; else impressions come in theirs.
    public var shuffles = false

    /// One ordered pass.
    public init() {}
  }

  /// Quality of one model in each pass, scored before each example was trained on.
  public struct Pass: Sendable {
    /// The model.
    public var model: String
    /// The pass, from 1.
    public var epoch: Int
    /// By task.
    public var quality: [(task: String, auc: Double?, ne: Double?)]
    /// How many examples this run trained on, over all its passes; earlier runs may have made some of them.
    public var trained: Int
  }

  private let configuration: ClusterConfiguration
  private let examples: Examples
  private let options: Options

  /// All examples, encoded, and the name of a pass over them.
  private final class Examples: Sendable {
    let records: [Blob]
    let name: String
    init(_ records: [Blob], name: String) { (self.records, self.name) = (records, name) }
  }

  /// How many examples one pass has.
  public var exampleCount: Int { examples.records.count }

  /// Reads and joins all events.
  /// - Throws: `StreamError` for events that cannot be read.
  public init(
    _ configuration: ClusterConfiguration, events input: inout EventInput, options: Options,
    progress: (Double) -> Void = { _ in }
  ) throws {
    var configuration = configuration
    // Shards and trainer are threads of this process, where keys do not reach and nobody else does.
    configuration.cluster.transport = .inproc
    configuration.security.mode = .none
    configuration.trainers.count = 1
    self.configuration = configuration
    self.options = options
    var rules = configuration.joinRules
    (rules.impressionPartitions, rules.actionPartitions, rules.outputPartitions) = (1, 1, 1)
    rules.allowedLatenessMilliseconds = max(input.latenessMilliseconds, rules.allowedLatenessMilliseconds)
    var joiner = JoinerCore(rules: rules)
    var records: [Blob] = []
    var hash: UInt64 = configuration.cluster.seed ^ (options.shuffles ? 1 : 0)
    func collect(_ joined: [JoinedExample]) {
      for entry in joined {
        var writer = ByteWriter()
        entry.example.encode(into: &writer)
        // Labels and features too: a file that was corrected is another one.
        let record = writer.finish()
        hash = Hashing.mix(hash ^ Hashing.xxh3(record.bytes))
        records.append(record)
      }
    }
    var place: UInt64 = 0
    var last = Milliseconds.min
    while let event = try input.next() {
      place += 1
      switch event {
      case .impression: joiner.take(event, from: JoinInput(.impressions, 0), at: Position(low: place))
      case .action: joiner.take(event, from: JoinInput(.actions, 0), at: Position(low: place))
      case .watermark: continue
      }
      last = max(last, event.time)
      if place % 4096 == 0 {
        collect(joiner.takeExamples())
        progress(input.fraction)
      }
    }
    let window = configuration.eventSchema.tasks.map(\.windowMilliseconds).max() ?? 0
    if place > 0 {
      let end = Event.watermark(time: last + window + 1)
      joiner.take(end, from: JoinInput(.impressions, 0), at: Position(low: place + 1))
      joiner.take(end, from: JoinInput(.actions, 0), at: Position(low: place + 1))
    }
    collect(joiner.takeExamples())
    progress(1)
    examples = Examples(records, name: "pass-" + String(hash, radix: 16))
  }

  /// Goes through all examples, and returns when all that was learnt is on the shards' disks.
  ///
  /// - Parameters:
  ///   - paths: the state directory, in the caller's hands.
  ///   - progress: called with the share done, 0…1.
  /// - Returns: the quality of the last scored examples of each model.
  public func run(
    paths: StatePaths, logger: Logger, progress: @escaping @Sendable (Double) -> Void = { _ in }
  ) throws -> [Pass] {
    let host = try RoleProcess(RoleInstance(.trainer), configuration: configuration, paths: paths, logger: logger)
    let directory = try RoleDirectory(host.instance, in: paths)
    defer { _ = directory.path }
    let shards = HostedShards(host)
    defer { shards.stop() }
    var passes: [Pass] = []
    for model in host.plan.models { passes.append(try train(model, host, shards, progress)) }
    return passes
  }

  private func train(
    _ model: ClusterPlan.PlannedModel, _ host: RoleProcess, _ shards: HostedShards,
    _ progress: @escaping @Sendable (Double) -> Void
  ) throws -> Pass {
    var trainer = host.plan.trainer(0, of: model)
    trainer.stream = examples.name
    trainer.partitions = [0]
    // A file has no arrivals to wait for.
    trainer.flushAfter = .seconds(3600)
    var options = TrainerServiceOptions(
      trainer: trainer, shardEndpoints: try host.shardEndpoints(), streamRoot: host.paths.root,
      scorePath: "\(host.directory)/\(model.settings.name).\(examples.name).scores")
    options.keepScores = configuration.trainers.keepScores
    options.rejectedDirectory = "\(host.directory)/rejected"
    options.security = host.security
    options.context = host.context
    let (source, epochs, shuffles) = (examples, self.options.epochs, self.options.shuffles)
    let seed = configuration.cluster.seed
    let total = UInt64(epochs * source.records.count)
    let box = SharedFlag()
    let begun = Atomic(total)
    options.source = { _, position in
      begun.store(min(position.low, total), ordering: .relaxed)
      return PassSource(source.records, epochs: epochs, shuffles: shuffles, seed: seed, from: position) { committed in
        progress(min(1, Double(committed.low) / Double(max(1, total))))
        if committed.low >= total { box.set() }
      }
    }
    let service = Trainer(options)
    let failure = Mutex<(any Error)?>(nil)
    shards.onFailure { error in
      failure.withLock { $0 = $0 ?? error }
      service.stop()
    }
    var quality: [(task: String, auc: Double?, ne: Double?)] = []
    try service.run { status in
      quality = status.quality
      if box.isSet || total == 0 { service.stop() }
    }
    if let error = failure.withLock({ $0 }) { throw error }
    return Pass(
      model: model.settings.name, epoch: epochs, quality: quality,
      trained: Int(total - begun.load(ordering: .relaxed)))
  }
}

/// A flag that is set once, from any thread.
private final class SharedFlag: Sendable {
  private let value = Atomic(false)
  var isSet: Bool { value.load(ordering: .relaxed) }
  func set() { value.store(true, ordering: .relaxed) }
}

/// Examples in memory, over and over; a position is how many came before, over all passes.
private struct PassSource: RecordSource {
  private let records: [Blob]
  private let epochs: Int
  private let shuffles: Bool
  private let seed: UInt64
  private let committed: @Sendable (Position) -> Void
  private var order: [Int] = []
  private var epoch = -1
  private(set) var position: Position

  init(
    _ records: [Blob], epochs: Int, shuffles: Bool, seed: UInt64, from position: Position,
    committed: @escaping @Sendable (Position) -> Void
  ) {
    self.records = records
    self.epochs = epochs
    self.shuffles = shuffles
    self.seed = seed
    self.position = position
    self.committed = committed
  }

  mutating func next() -> StreamRecord? {
    let place = Int(position.low)
    guard place < epochs * records.count else { return nil }
    let (pass, index) = place.quotientAndRemainder(dividingBy: records.count)
    if shuffles, pass != epoch {
      // A pure function of seed and pass: a pass that was stopped goes on in the same order.
      var random = SeededRandom(seed: Hashing.mix(seed ^ UInt64(pass + 1)))
      order = Array(records.indices)
      order.shuffle(using: &random)
      epoch = pass
    }
    position.low += 1
    return StreamRecord(position: position, reader: ByteReader(records[shuffles ? order[index] : index]))
  }

  var hasEnded: Bool { position.low >= epochs * records.count }

  /// An earlier run may have made more passes than this one wants.
  mutating func end() -> Position { max(position, Position(low: UInt64(epochs * records.count))) }

  mutating func commit(processed: Position, safe: Position) { committed(safe) }
}
