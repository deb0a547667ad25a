// A whole cluster on one thread under data time: the real cores of joiner, shards, trainers, sync and a replica, with
// messages that arrive at once. Events move the clock; between two of them everything that is due happens in its order:
// labels become due, batches are trained on, epochs close, versions are published. Every impression is scored by the
// replica with what it serves at that moment, before anything of the impression is known.

internal import Base
internal import Cluster
internal import Joining
internal import Layers
internal import Serving
internal import Sharding
internal import Streams
internal import Syncing
internal import Training
internal import Wire

/// When versions are published, in data time.
struct PublicationTimes: Equatable {
  /// How often rows are; nil for never again after the first.
  var sparse: Int64?
  /// How often dense tensors are; nil for never again after the first.
  var dense: Int64?

  /// How often epochs close: at least every minute, and at each publication.
  var epoch: Int64 {
    guard let sparse else { return Self.longestEpoch }
    return sparse / ((sparse + Self.longestEpoch - 1) / Self.longestEpoch)
  }

  static let longestEpoch: Int64 = 60_000
}

/// A cluster that lives in data time.
final class DataTimeCluster {
  /// One trainer of one model.
  final class TrainerBox {
    let model: Int
    let options: TrainerOptions
    var core: TrainerCore
    var waiting: [Int: Int] = [:]
    init(_ options: TrainerOptions, model: Int, owner: UInt64) throws {
      self.model = model
      self.options = options
      core = try TrainerCore(options, owner: owner)
    }
  }

  /// A shard in a place of its own: arrays cannot hold noncopyable values.
  final class ShardBox {
    var core: ShardCore
    init(_ core: consuming ShardCore) { self.core = core }
  }

  private final class JoinerBox {
    var core: JoinerCore
    init(_ rules: JoinRules) { core = JoinerCore(rules: rules) }
  }

  private final class ScoreBox {
    var log: ScoreLog
    init(tasks: Int) { log = ScoreLog(discarding: tasks) }
  }

  enum Letter {
    case toShard(Int, from: PeerID, Blob)
    case toPeer(PeerID, from: Int, Blob)
    case toSync(Blob)
    case toReplica(Blob)
  }

  let plan: ClusterPlan
  private let recording: Recording
  private(set) var times: PublicationTimes
  private(set) var now: Milliseconds
  private let joiner: JoinerBox
  private var features: ServedFeatures?
  var shards: [ShardBox]
  private var shardOptions: [ShardOptions] = []
  var trainers: [TrainerBox] = []
  private var logs: [ScoreBox] = []
  private var streams: [[StreamRecord]]
  var sync: SyncCore
  var versions: [UInt64: Blob] = [:]
  var baseParts: [Int: Blob] = [:]
  private let store: ReplicaStore
  let predictor: Predictor
  var follower: ReplicaFollower
  var mail: [Letter] = []
  private var hasUnpublished = false
  private var hasOpenEpoch = false
  private var lastDense: Milliseconds = .min
  /// A checkpoint being written, and the finished sections by shard.
  var sections: [Blob] = []
  var isCheckpointDone = false
  private(set) var publications = 0
  private(set) var trained = 0
  private var owners: UInt64 = 0
  private let syncOptions: SyncOptions
  /// Impressions taken: the upper half of an impression's position is its number, from 1.
  private var shown: UInt64 = 0
  /// Actions and watermarks taken.
  private var records: UInt64 = 0

  static let syncPeer = PeerID([0x73])
  static let replicaPeer = PeerID([0x72])
  /// So long that nothing is ever asked for again: no message is lost here.
  private static let patience = Duration.seconds(90 * 86_400)

  var nanoseconds: Int64 { now * 1_000_000 }

  /// A cluster in which nothing has happened yet.
  init(_ configuration: ClusterConfiguration, _ recording: Recording, times: PublicationTimes) throws {
    plan = try ClusterPlan(configuration)
    self.recording = recording
    self.times = times
    now = (recording.events.first?.time ?? 0) - 1
    let partitions = configuration.streams.examples.partitions
    joiner = JoinerBox(
      JoinRules(
        tasks: recording.schema.tasks, outputPartitions: partitions,
        allowedLatenessMilliseconds: max(
          recording.latenessMilliseconds, configuration.joiner.allowedLateness.milliseconds),
        features: configuration.streamFeatureRules))
    features = ServedFeatures(configuration.streamFeatureRules, lateness: recording.latenessMilliseconds)
    streams = Array(repeating: [], count: partitions)
    shards = []
    var syncOptions = plan.sync
    syncOptions.replicaCount = 1
    // The clock of data time says when; see `publish`.
    syncOptions.sparseEvery = .seconds(36_500 * 86_400)
    syncOptions.denseEvery = syncOptions.sparseEvery
    syncOptions.denseAt = nil
    syncOptions.versionBytes = configuration.sync.versionBytes
    syncOptions.retryAfter = Self.patience
    self.syncOptions = syncOptions
    let seed = configuration.cluster.seed
    sync = SyncCore(syncOptions, stored: nil) { Hashing.mix(seed) | 1 }
    store = try ReplicaStore(tables: plan.replicaTables, models: plan.servedModels)
    predictor = try Predictor(store: store, schema: recording.schema, streamFeatures: features?.shared)
    follower = ReplicaFollower(replica: 0, incarnation: 1, target: ReplicaTarget(plan, store: store))
    for index in 0..<plan.map.shardCount {
      var options = plan.shard(index)
      options.epoch = Self.patience
      options.checkpointEvery = .zero
      options.copyRows = 1 << 20
      options.checkpointRowRate = 1 << 40
      // Once at every close of an epoch; a row beyond its time is absent whether it was swept or not.
      options.sweepEvery = .zero
      options.sweepRows = 256
      shardOptions.append(options)
      let box = ShardBox(ShardCore(options, incarnation: 1, identity: (0, 1)))
      _ = box.core.beginRun(now: nanoseconds)
      shards.append(box)
    }
    try startTrainers()
  }

  // MARK: Trainers

  private func startTrainers() throws {
    trainers = []
    logs = []
    for (index, model) in plan.models.enumerated() {
      for number in 0..<plan.configuration.trainers.count {
        owners += 1
        var options = plan.trainer(number, of: model)
        options.retryAfter = Self.patience
        guard !options.partitions.isEmpty else { continue }
        let box = try TrainerBox(options, model: index, owner: owners)
        if options.stabilization.isOn { box.core.teacher = VersionTeacher(predictor, model: model.settings.name) }
        trainers.append(box)
        logs.append(ScoreBox(tasks: options.model.tasks.count))
      }
    }
    for _ in 0..<100 where !trainers.allSatisfy({ $0.core.client.isReady }) {
      for trainer in trainers { trainer.core.client.tick(now: nanoseconds) }
      try deliver()
      try closeEpochs()
    }
    for trainer in trainers {
      guard let starts = trainer.core.startPositions() else {
        throw ExperimentError("a trainer cannot begin: \(trainer.core.client.waitsFor ?? "no shard answers")")
      }
      for (partition, position) in starts { trainer.waiting[partition] = Int(position.low) }
    }
  }

  /// Trains on all examples there are, as of a moment.
  private func train(at moment: Milliseconds) throws {
    for (index, trainer) in trainers.enumerated() {
      var isDone = false
      while !isDone {
        isDone = true
        for partition in trainer.options.partitions {
          while let next = trainer.waiting[partition], next < streams[partition].count,
            trainer.core.wantsRecord(of: partition)
          {
            trainer.core.take(streams[partition][next], of: partition, now: moment * 1_000_000)
            trainer.waiting[partition] = next + 1
            isDone = false
          }
        }
        while try trainer.core.work(now: moment * 1_000_000, isDry: true, scores: &logs[index].log) {
          try deliver()
          isDone = false
          (hasOpenEpoch, hasUnpublished) = (true, true)
        }
        try deliver()
      }
    }
  }

  // MARK: Events

  /// The features of an impression that is about to be shown, with those from the stream as the replica has them now.
  func served(_ impression: Impression) -> FeatureBlock {
    predictor.filled(impression.features, at: impression.time)
  }

  /// The event time before which all that features count has been counted.
  var countedBefore: Milliseconds { features?.frontier ?? now }

  /// Takes the next impression; the joiner will make an example of it.
  func show(_ impression: Impression) {
    shown += 1
    features?.take(.impression(impression))
    joiner.core.take(.impression(impression), from: JoinInput(.impressions, 0), at: Position(high: shown, low: 0))
  }

  /// Takes an action.
  func act(_ action: Action) {
    records += 1
    features?.take(.action(action))
    joiner.core.take(.action(action), from: JoinInput(.actions, 0), at: Position(low: records))
  }

  /// Which impression an example was made of, from 0.
  static func impression(of example: Example) -> Int { Int(example.ordinal.high) - 1 }

  /// Lets all time up to a moment pass.
  ///
  /// - Parameters:
  ///   - isPublishing: whether versions are published; epochs close in any case.
  ///   - score: called before what is served changes.
  ///   - label: called for every example.
  func advance(
    to moment: Milliseconds, isPublishing: Bool, score: () throws -> Void, label: (Example) -> Void
  ) throws {
    guard moment > now else { return }
    if isPublishing, let sparse = times.sparse {
      let publication = moment - moment % sparse
      if publication > now {
        try join(upTo: publication, label)
        try score()
        try publish()
      }
    }
    // Nobody reads the blocks of a time in which nothing is published: few will do, and all runs have the same.
    let length = isPublishing ? times.epoch : PublicationTimes.longestEpoch
    let epoch = moment - moment % length
    if epoch > now {
      try join(upTo: epoch, label)
      try closeEpochs()
    }
    try join(upTo: moment, label)
  }

  /// Makes and trains on every example whose labels are due before a moment, which is now from then on.
  private func join(upTo moment: Milliseconds, _ label: (Example) -> Void) throws {
    now = moment
    features?.advance(to: moment)
    records += 1
    let watermark = Event.watermark(time: moment - recording.latenessMilliseconds)
    joiner.core.take(watermark, from: JoinInput(.impressions, 0), at: Position(high: shown, low: records))
    joiner.core.take(watermark, from: JoinInput(.actions, 0), at: Position(low: records))
    for joined in joiner.core.takeExamples() {
      label(joined.example)
      var writer = ByteWriter()
      joined.example.encode(into: &writer)
      let position = Position(low: UInt64(streams[joined.partition].count) + 1)
      // What waited for more examples leaves before these come, when its time is up.
      let due = min(moment, max(joined.example.due, 0))
      try train(at: due)
      streams[joined.partition].append(StreamRecord(position: position, reader: ByteReader(writer.finish())))
      trained += 1
      try train(at: due)
    }
    try train(at: moment)
  }

  // MARK: Epochs and versions

  private func closeEpochs() throws {
    hasOpenEpoch = false
    for shard in shards.indices {
      for _ in 0..<1_000_000 {
        shards[shard].core.closeEarly()
        var actions: [ShardAction] = []
        shards[shard].core.work(now: nanoseconds, into: &actions)
        try perform(actions, of: shard)
        if shards[shard].core.isQuiet { break }
      }
    }
    try deliver()
  }

  /// Publishes everything trained so far, when there is something.
  func publish(always: Bool = false) throws {
    guard hasUnpublished || always else { return }
    try closeEpochs()
    let isDense = always || times.dense.map { now - now % $0 > lastDense } ?? false
    if isDense { lastDense = now }
    for _ in 0..<100 {
      if let message = follower.tick(now: nanoseconds) { mail.append(.toSync(message)) }
      try deliver()
      if sync.heading.newest > 0, follower.servedVersion > 0 { break }
      try tickSync()
      try closeEpochs()
    }
    guard follower.servedVersion > 0 else { throw ExperimentError("the replica never got a base") }
    try catchSyncUp()
    sync.publish(dense: isDense)
    try tickSync()
    publications += 1
    hasUnpublished = false
    versions = versions.filter { $0.key + 8 > sync.heading.newest }
  }

  /// Sync asks for some blocks at a tick; a version is to hold all that is trained, however many epochs ago the last was.
  private func catchSyncUp() throws {
    let epochs = shards.map { $0.core.status().durableEpoch }
    for _ in 0..<100_000 {
      guard zip(sync.cursors, epochs).contains(where: <) else { return }
      // A question that found no block is answered by a shard's work, when there is one.
      try closeEpochs()
      try tickSync()
    }
    throw ExperimentError("sync does not read all blocks of the shards")
  }

  private func tickSync() throws {
    var actions: [SyncAction] = []
    sync.tick(now: nanoseconds, wall: now, into: &actions)
    perform(actions)
    try deliver()
  }

  // MARK: Predictions

  /// The probabilities of a model for some impressions, `[impressions × tasks]`; nil before the first version.
  func predict(model: Int, _ columns: FeatureColumns) -> Prediction? {
    predictor.predict(model: plan.models[model].settings.name, columns)
  }

  // MARK: A lost shard

  /// Asks a shard for a checkpoint and gives its sections.
  func checkpoint(shard: Int) throws -> [Blob] {
    sections = []
    isCheckpointDone = false
    mail.append(.toShard(shard, from: PeerID([0x6f]), CheckpointRequest(name: "kept").encoded(request: 1)))
    for _ in 0..<100_000 where !isCheckpointDone {
      try deliver()
      shards[shard].core.closeEarly()
      var actions: [ShardAction] = []
      shards[shard].core.work(now: nanoseconds, into: &actions)
      try perform(actions, of: shard)
    }
    guard isCheckpointDone else { throw ExperimentError("shard \(shard) does not finish a checkpoint") }
    return sections
  }

  /// A shard's files are lost: it comes back as it was in a checkpoint, and goes on with the newest examples.
  ///
  /// What lay between is not trained on again.
  func lose(shard: Int, comingBackFrom sections: [Blob]) throws {
    try train(at: now)
    var core = ShardCore(shardOptions[shard], incarnation: 2, identity: (0, 2))
    for section in sections { try core.restore(section: ByteReader(section)) }
    var skip = SkipTo()
    for (partition, records) in streams.enumerated() {
      skip.partitions[UInt64(partition)] = Position(low: UInt64(records.count))
    }
    core.beginAnew(after: core.status().durableEpoch, skip)
    _ = core.beginRun(now: nanoseconds)
    shards[shard] = ShardBox(core)
    mail = []
    try startTrainers()
    // Sync meets another journal, and every replica takes a new base.
    let seed = plan.configuration.cluster.seed
    sync = SyncCore(syncOptions, stored: nil) { Hashing.mix(seed &+ 1) | 1 }
    follower = ReplicaFollower(replica: 0, incarnation: 2, target: ReplicaTarget(plan, store: store))
    try publish(always: true)
  }
}
