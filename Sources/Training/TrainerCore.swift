// The trainer without its sockets and files: examples in, pulls and pushes out through a `ShardClient`, scores into a
// log. One thread. Pull n+1 leaves before push n, so that waiting and arithmetic overlap; on one FIFO per shard this
// makes runs repeatable.

public import Base
public import Layers
public import Sharding
public import Streams
internal import Wire

/// The state of the pipeline of one model's trainer.
public struct TrainerCore: ~Copyable {
  /// Counts since the process started.
  public struct Counters: Sendable {
    /// Examples trained on.
    public var examples: UInt64 = 0
    /// Batches pushed.
    public var batches: UInt64 = 0
    /// Records that were no example of this schema.
    public var undecodable: UInt64 = 0
    /// Batches rejected because a number was not finite.
    public var rejectedBatches: UInt64 = 0
    /// Log-loss summed over the tasks, for a live look.
    public var loss: Double = 0
    /// Weights of that sum.
    public var lossCount: Double = 0
    /// The version that taught the last batch; 0 for none yet.
    public var teacherVersion: UInt64 = 0
    /// The mean square of the distance between the embeddings and the teacher's, over about the last 10,000 examples.
    public var teacherDistance: Double = 0
    /// Examples that had a lesson.
    public var taughtExamples: UInt64 = 0
    /// Batches trained on without a lesson although one is wanted: before the first version, or it is not finite.
    public var untaughtBatches: UInt64 = 0
  }

  private struct Partition {
    let number: Int
    let chain: ChainKey
    /// Where shards stood when the partition was claimed: batches end there while replaying.
    var boundaries: [Position] = []
    var read: Position = .start
    var forming: TrainingBatch?
    var hasEnded = false
  }

  /// The options in effect.
  public let options: TrainerOptions
  /// Gives lessons when `options.stabilization` asks for them; nil for none.
  public var teacher: (any Teacher)?
  /// Speaks to the shards.
  public var client: ShardClient
  /// What was counted.
  public private(set) var counters = Counters()
  /// Per task of the model, the last scored examples.
  public private(set) var windows: [WindowedMetrics]

  private let model: any Model
  private let taskOfModel: [Int]
  private let featureOfModel: [Int]
  private var partitions: [Partition]
  /// The one whose batch is pulled for first, when it is full.
  private var nextPartition = 0
  private var pulling: [TrainingBatch] = []
  /// In the order of their pulls; without a pass when there is nothing to compute.
  private var training: [(batch: TrainingBatch, pass: Pass?)] = []
  private var sparePasses: [Pass] = []
  private var spareAssemblers: [BatchAssembler] = []
  private var spareColumns: [FeatureColumns] = []
  private let passes: ParallelPass
  private var isSeeking = true
  private var rejected: [RejectedBatch] = []

  /// A trainer that has not claimed its partitions yet.
  /// - Throws: `ModelError` for options no model can be made of.
  public init(_ options: TrainerOptions, owner: UInt64) throws {
    self.options = options
    model = try options.makeModel()
    passes = ParallelPass(model, threads: options.threads, stabilization: options.stabilization)
    let schemaTasks = options.schema.tasks.map(\.name)
    let schemaFeatures = options.schema.features.map(\.name)
    taskOfModel = options.model.tasks.map { schemaTasks.firstIndex(of: $0.name) ?? 0 }
    featureOfModel = options.model.features.map { schemaFeatures.firstIndex(of: $0.name) ?? 0 }
    partitions = options.partitions.map { Partition(number: $0, chain: options.chain($0)) }
    client = ShardClient(
      shardCount: options.map.shardCount, chains: options.partitions.map { options.chain($0) }, owner: owner,
      retryAfter: options.retryAfter, check: { _, welcome in options.problem(in: welcome) })
    windows = options.model.tasks.map { _ in WindowedMetrics(capacity: 20_000) }
  }

  // MARK: Input

  /// Once claimed: where to begin reading each owned partition; nil before.
  public mutating func startPositions() -> [(partition: Int, position: Position)]? {
    guard client.isReady else { return nil }
    if isSeeking {
      isSeeking = false
      for index in partitions.indices {
        let positions = client.claimedPositions(of: partitions[index].chain)
        partitions[index].read = positions.min() ?? .start
        partitions[index].boundaries = Set(positions).sorted().filter { $0 > partitions[index].read }
      }
    }
    return partitions.map { ($0.number, $0.read) }
  }

  /// Whether another record of a partition may be taken now: one batch is made ready beside those under way.
  public func wantsRecord(of partition: Int) -> Bool {
    guard client.isReady, client.failure == nil else { return false }
    return partitions.firstIndex { $0.number == partition }.map { !isFull($0) } ?? false
  }

  /// Says that no record of a partition will follow: its last batch waits for none.
  public mutating func end(partition number: Int) {
    for index in partitions.indices where partitions[index].number == number { partitions[index].hasEnded = true }
  }

  /// Whether the trainer waits until kept pushes are durable.
  public var isBufferFull: Bool { client.keptBytes > options.pushBufferBytes }

  /// Whether no further batch may be pulled for: its rows would be older than the staleness bound allows, or the buffer
  /// is full.
  public var isBackedUp: Bool {
    isBufferFull || client.batchesAhead + batchesUnderWay > options.batchesAhead
  }

  /// Takes one record of a partition, in order.
  public mutating func take(_ record: StreamRecord, of partition: Int, now: Int64) {
    guard let index = partitions.firstIndex(where: { $0.number == partition }) else { return }
    if partitions[index].forming == nil {
      var columns = spareColumns.popLast() ?? FeatureColumns(schema: options.schema)
      columns.clear()
      partitions[index].forming = TrainingBatch(
        partition: partition, chain: partitions[index].chain, previousEnd: partitions[index].read, startedAt: now,
        columns: columns, assembler: spareAssemblers.popLast() ?? makeAssembler())
    }
    if partitions[index].forming?.take(record, schema: options.schema) == false { counters.undecodable += 1 }
    partitions[index].read = record.position
    // While others are under way there is time for it.
    if isFull(index) { partitions[index].forming?.group(by: options.map, tableIndex: options.tableIndex) }
  }

  private func makeAssembler() -> BatchAssembler {
    var tableOfFeature = [Int?](repeating: nil, count: options.schema.features.count)
    for (feature, schemaIndex) in zip(options.model.features, featureOfModel) {
      tableOfFeature[schemaIndex] = feature.table
    }
    return BatchAssembler(tableOfFeature: tableOfFeature, tableCount: options.tableIndex.count)
  }

  /// Whether a partition's next batch takes no more records.
  ///
  /// One ends wherever some shard stood at the claim, so that every example reaches every shard exactly once.
  private func isFull(_ index: Int) -> Bool {
    guard let count = partitions[index].forming?.recordCount else { return false }
    return count >= options.batchSize || partitions[index].boundaries.contains(partitions[index].read)
  }

  // MARK: Pipeline

  /// Sends pulls of full or overdue batches, or trains on what has come back; call it again while it does something.
  ///
  /// - Parameter isDry: whether the sources have nothing more at the moment; then a waiting batch is not held back for
  ///   the next one's pull.
  /// - Returns: whether anything was done, or is being computed, which it waits a little for.
  public mutating func work(now: Int64, isDry: Bool, scores: inout ScoreLog) throws -> Bool {
    var didWork = false
    // Partitions with a backlog take turns.
    let turn = nextPartition
    for offset in partitions.indices where batchesUnderWay < 2 && !isBackedUp {
      let index = (turn + offset) % partitions.count
      guard let batch = partitions[index].forming else { continue }
      let isDue = partitions[index].hasEnded || now - batch.startedAt >= options.flushAfter.nanoseconds
      guard isFull(index) || isDue else { continue }
      partitions[index].forming = nil
      nextPartition = index + 1
      pulling.append(sendPull(of: batch, now: now))
      didWork = true
    }
    // A pull leaves before the arithmetic that its answer is on its way beside: the caller sends it, and comes back. And a
    // push leaves after it, however soon the arithmetic has ended.
    guard !didWork, batchesUnderWay == 2 || isDry || isBackedUp else { return didWork }
    if let first = pulling.first, let replies = client.takePull(first.ticket) {
      begin(pulling.removeFirst(), replies)
      didWork = true
    }
    guard let first = training.first else { return didWork }
    if first.pass != nil, passes.finish(patience: didWork ? .zero : Self.patience) == nil { return true }
    try conclude(training.removeFirst(), now: now, scores: &scores)
    return true
  }

  /// How long the arithmetic is waited for before messages are looked after again.
  private static let patience = Duration.milliseconds(2)

  /// Batches that are pulled for and not pushed yet.
  private var batchesUnderWay: Int { pulling.count + training.count }

  /// Whether nothing is on its way: all records taken are pushed.
  public var isIdle: Bool { batchesUnderWay == 0 && partitions.allSatisfy { $0.forming == nil } }

  /// The position read up to in a partition.
  public func readPosition(of partition: Int) -> Position {
    partitions.first { $0.number == partition }?.read ?? .start
  }

  private mutating func sendPull(of forming: TrainingBatch, now: Int64) -> TrainingBatch {
    var batch = forming
    if batch.parts.isEmpty { batch.group(by: options.map, tableIndex: options.tableIndex) }
    let options = options
    batch.ticket = client.pull(now: now) { batch.pull($0, from: $1, options) }
    return batch
  }

  /// Begins with the arithmetic of a batch whose rows have come.
  private mutating func begin(_ batch: TrainingBatch, _ replies: [PullReply?]) {
    guard !batch.examples.isEmpty else { return training.append((batch, nil)) }
    let pass = sparePasses.popLast() ?? makePass()
    batch.gather(replies, options, into: pass)
    pass.batch = batch.modelBatch(options, taskOfModel: taskOfModel, featureOfModel: featureOfModel)
    pass.shifts = shifts(of: batch)
    pass.seed = batch.seed
    pass.lesson = lesson(on: batch)
    training.append((batch, pass))
    passes.begin(pass)
  }

  private func makePass() -> Pass {
    Pass(
      rows: Array(repeating: [], count: options.tableIndex.count),
      dense: model.denseTensors.map { [Float](repeating: 0, count: $0.count) })
  }

  /// Scores and pushes a batch whose arithmetic has ended.
  private mutating func conclude(
    _ trained: (batch: TrainingBatch, pass: Pass?), now: Int64, scores: inout ScoreLog
  ) throws {
    let batch = trained.batch
    if let pass = trained.pass {
      score(batch, logits: pass.logits, &scores)
      try scores.flush()
      let cause = problem(batch, pass)
      if let cause {
        reject(batch, cause)
      } else if let lesson = pass.lesson {
        counters.note(lesson, distance: pass.distance, examples: batch.examples.count)
      }
      push(batch, cause == nil ? pass : nil, now: now)
      pass.forget()
      sparePasses.append(pass)
    } else {
      push(batch, nil, now: now)
    }
    counters.batches += 1
    counters.examples += UInt64(batch.recordCount)
    recycle(batch)
  }

  /// What is not finite; counts the losses of what was predicted.
  private mutating func problem(_ batch: TrainingBatch, _ pass: Pass) -> String? {
    let numbers = NonFinite(options: options, batch: batch)
    if let cause = numbers.inForward(pass.batch, rows: pass.rows, dense: pass.dense, logits: pass.logits) {
      return cause
    }
    for (task, loss) in pass.losses.enumerated() where loss.isFinite {
      counters.loss += loss
      counters.lossCount += Double(
        stride(from: task, to: pass.batch.weights.count, by: taskOfModel.count).count { pass.batch.weights[$0] > 0 })
    }
    return numbers.inBackward(rows: pass.rowGradients, dense: pass.denseGradients)
  }

  /// What the teacher makes of a batch; nil when none is wanted, or none can be had.
  private mutating func lesson(on batch: TrainingBatch) -> Lesson? {
    guard options.stabilization.isOn else { return nil }
    // A version in float16 may hold infinities; nobody is to learn those.
    if let lesson = teacher?.lesson(on: batch.columns), lesson.isFinite { return lesson }
    counters.untaughtBatches += 1
    return nil
  }

  private mutating func reject(_ batch: TrainingBatch, _ cause: String) {
    counters.rejectedBatches += 1
    guard rejected.count < Self.rejectedLimit else { return }
    rejected.append(
      RejectedBatch(
        model: options.modelName, partition: batch.partition, positions: (batch.previousEnd, batch.end), cause: cause,
        examples: batch.examples))
  }

  /// Rejected batches that wait to be taken; more are only counted.
  private static let rejectedLimit = 4

  /// Hands over the batches that were rejected since the last call, and forgets them.
  public mutating func takeRejected() -> [RejectedBatch] {
    defer { rejected = [] }
    return rejected
  }

  /// What is added to the logits before the loss is taken; empty for nothing.
  private func shifts(of batch: TrainingBatch) -> [Float] {
    guard options.correction == .loss else { return [] }
    // The logit of sampled data is the true one minus ln r.
    var shifts: [Float] = []
    shifts.reserveCapacity(batch.examples.count * taskOfModel.count)
    for example in batch.examples {
      for task in taskOfModel { shifts.append(example.rates[task] < 1 ? -logOf(example.rates[task]) : 0) }
    }
    return shifts
  }

  private mutating func score(_ batch: TrainingBatch, logits: [Float], _ log: inout ScoreLog) {
    let tasks = taskOfModel.count
    let last = log.lastPosition[UInt32(batch.partition)] ?? .start
    var record = ScoreRecord(partition: UInt32(batch.partition), position: .start, time: 0, ordinal: 0, tasks: [])
    for index in batch.examples.indices where batch.positions[index] > last {
      (record.position, record.time) = (batch.positions[index], batch.examples[index].time)
      record.ordinal = batch.examples[index].ordinal.low
      record.tasks.removeAll(keepingCapacity: true)
      for (task, schemaIndex) in taskOfModel.enumerated() {
        let rate = batch.examples[index].rates[schemaIndex]
        var logit = logits[index * tasks + task]
        if options.correction == .serving, rate < 1 { logit += logOf(rate) }
        let probability = Losses.sigmoid(logit)
        let label = batch.examples[index].labels[schemaIndex]
        let value: Float = label == .masked ? .nan : (label == .positive ? 1 : 0)
        record.tasks.append(
          ScoreRecord.Task(
            label: value, prequential: probability,
            served: schemaIndex < batch.examples[index].predictions.count
              ? batch.examples[index].predictions[schemaIndex] : .nan, rate: rate))
        if label != .masked { windows[task].record(prediction: probability, label: value) }
      }
      log.append(record)
    }
  }

  /// Sends every shard exactly one push, with what came out of a pass or nothing.
  private mutating func push(_ batch: TrainingBatch, _ pass: Pass?, now: Int64) {
    let (options, stamp) = (options, batch.stamp(client.ownership))
    client.push(chain: batch.chain, end: batch.end, now: now) { batch.push($0, to: $1, stamp, pass, options) }
  }

  private mutating func recycle(_ batch: TrainingBatch) {
    spareColumns.append(batch.columns)
    spareAssemblers.append(batch.assembler)
  }
}
