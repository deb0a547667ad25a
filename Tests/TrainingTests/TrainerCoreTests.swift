// The trainer's pipeline against a real shard in the same process.

import Base
import Embeddings
import Foundation
import Layers
import Sharding
import Streams
import Testing
import Wire

@testable import Training

/// A trainer of a small model, one shard, and what goes between them.
final class Pair {
  var shard: ShardCore
  var trainer: TrainerCore
  var scores: ScoreLog
  var pushes: [(from: Position, to: Position)] = []
  private(set) var pushedPartitions: [UInt64] = []
  /// Pulls and pushes in the order they left in.
  private(set) var left: [Opcode] = []
  /// Examples whose dense number is not finite.
  var poisoned: Set<Int> = []
  let schema: EventSchema
  private var now: Int64 = 0
  private let path: String
  private var peerActions: [ShardAction] = []

  init(
    batchSize: Int, threads: Int = 1, partitions: Int = 1, numbers: NumberType = .float32, hasNumber: Bool = false,
    schedule: LearningRateSchedule = LearningRateSchedule(), stabilization: Stabilization = Stabilization(),
    shard old: consuming ShardCore? = nil, adjust: (inout ModelOptions) -> Void = { _ in }
  ) throws {
    schema = EventSchema(
      features: [FeatureSpec(name: "user"), FeatureSpec(name: "item")]
        + (hasNumber ? [FeatureSpec(name: "price", kind: .dense(width: 1))] : []), tasks: [TaskSpec(name: "click")])
    var model = ModelOptions(
      kind: "deepfm", features: [ModelFeature(name: "user", table: 0), ModelFeature(name: "item", table: 1)],
      tasks: [ModelTask(name: "click")])
    model.dimension = 4
    model.hidden = [8]
    model.denseWidth = hasNumber ? 1 : 0
    adjust(&model)
    let made = try makeModel(model)
    let map = ClusterMap(shardCount: 1)
    let tables = (0..<2).map { table in
      TableOptions(
        name: ["user", "item"][table], seed: 5,
        segments: made.rowSegments(table: table).map { segment in
          Segment(
            name: segment.name, width: segment.width, initializer: .normal(0.01),
            optimizer: OptimizerOptions(rule: .adagrad(initialAccumulator: 0.1), learningRate: 0.05))
        })
    }
    let tensors = made.denseTensors.map {
      DenseTensorOptions(tensor: $0, optimizer: DenseOptimizerOptions(rule: .adam, learningRate: 0.01))
    }
    var shardOptions = ShardOptions(index: 0, map: map, seed: 5, tables: tables, tensors: tensors)
    shardOptions.schedules = ["model": schedule]
    shard = old ?? ShardCore(shardOptions, incarnation: 1, identity: (1, 1))
    _ = shard.beginRun(now: 0)
    var options = TrainerOptions(
      modelName: "model", model: model, schema: schema, map: map,
      tables: tables.map { TableShape(name: $0.name, weightCount: $0.weightCount, floatCount: $0.floatCount) },
      tensors: tensors.map { TensorShape(name: $0.tensor.name, count: $0.tensor.count, shard: 0) }, tableIndex: [0, 1],
      tensorIndex: Array(tensors.indices))
    options.batchSize = batchSize
    options.threads = threads
    options.partitions = Array(0..<partitions)
    options.numbers = numbers
    options.stabilization = stabilization
    trainer = try TrainerCore(options, owner: 3)
    path = FileManager.default.temporaryDirectory.appending(path: "scores-\(UUID().uuidString)").path
    scores = try ScoreLog(path: path, tasks: 1)
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }

  /// One turn: messages there and back, blocks synced at once.
  func turn() throws {
    now += 1_000_000
    trainer.client.tick(now: now)
    for (_, message) in trainer.client.takeOutgoing() {
      var reader = ByteReader(message)
      let opcode = try MessageHeader(decoding: &reader).opcode
      if opcode == .pull || opcode == .push { left.append(opcode) }
      if opcode == .push {
        let stamp = try PushRequest(decoding: &reader).stamp
        pushes.append((stamp.previousEnd, stamp.end))
        pushedPartitions.append(stamp.chain.partition)
      }
      var actions: [ShardAction] = []
      shard.receive(message, from: PeerID([1]), now: now, into: &actions)
      deliver(actions)
    }
    shard.closeEarly()
    var actions: [ShardAction] = []
    shard.work(now: now, into: &actions)
    for case .sync(let epoch) in actions { shard.blockSynced(epoch: epoch, into: &actions) }
    deliver(actions)
  }

  private func deliver(_ actions: [ShardAction]) {
    for case .send(_, let message) in actions { trainer.client.receive(message, from: 0, now: now) }
  }

  func claim() throws {
    for _ in 0..<100 where trainer.startPositions() == nil { try turn() }
  }

  /// Trains on records `range`, each at ten times its number.
  func train(_ range: Range<Int>) throws {
    var next = range.lowerBound
    for _ in 0..<10_000 {
      while next < range.upperBound, trainer.wantsRecord(of: 0) {
        trainer.take(record(next), of: 0, now: now)
        next += 1
        _ = try trainer.work(now: now, isDry: false, scores: &scores)
      }
      _ = try trainer.work(now: now, isDry: next == range.upperBound, scores: &scores)
      try turn()
      if next == range.upperBound, trainer.isIdle, trainer.client.keptBytes == 0 { return }
    }
    Issue.record("the trainer does not finish: \(trainer.client.waitsFor ?? "")")
  }

  /// Takes records, and works once.
  func take(_ range: Range<Int>) throws -> Bool {
    for number in range { trainer.take(record(number), of: 0, now: now) }
    return try trainer.work(now: now, isDry: false, scores: &scores)
  }

  func record(_ number: Int) -> StreamRecord {
    var random = SeededRandom(seed: UInt64(number))
    let (user, item) = (random.next() % 20, random.next() % 50)
    let price: [FeatureValue] = schema.features.count > 2 ? [.numbers([poisoned.contains(number) ? .nan : 0.5])] : []
    let features = FeatureBlock(schema: schema, values: [.ids([user]), .ids([item])] + price)
    // Users of one kind like every third item, the others every fifth; now and then it is the other way round.
    let likes = (item % (user < 10 ? 3 : 5) == 0) != (random.next() % 8 == 0)
    let example = Example(
      impression: ImpressionID(UInt64(number)), time: Int64(number) * 1000, ordinal: Position(low: UInt64(number)),
      due: Int64(number) * 1000, arrival: 0, labels: [likes ? .positive : .negative], rates: [1],
      predictions: [], features: features)
    var writer = ByteWriter()
    example.encode(into: &writer)
    return StreamRecord(position: Position(low: UInt64(number + 1) * 10), reader: ByteReader(writer.finish()))
  }
}

@Suite("Trainer") struct TrainerCoreTests {
  private func trained(batchSize: Int, threads: Int, examples: Int) throws -> (DigestReply, left: [Opcode]) {
    let pair = try Pair(batchSize: batchSize, threads: threads)
    try pair.claim()
    try pair.train(0..<examples)
    return (pair.shard.digest(halfPrecision: false), pair.left)
  }

  @Test(arguments: [1, 3])
  func `the same data twice gives the same bits`(threads: Int) throws {
    let (first, _) = try trained(batchSize: 200, threads: threads, examples: 2000)
    let (second, _) = try trained(batchSize: 200, threads: threads, examples: 2000)
    #expect(first == second)
    #expect(first.tables["item"]?.count == 50)
  }

  @Test func `pulls and pushes leave in the same order however many threads compute`() throws {
    // So few examples are one thread's, whose sums are the same.
    let (one, inTurns) = try trained(batchSize: 16, threads: 1, examples: 320)
    let (many, left) = try trained(batchSize: 16, threads: 3, examples: 320)
    #expect(one == many)
    #expect(left == inTurns)
    let middle = Array(repeating: [Opcode.push, .pull], count: 18).joined()
    #expect(left == [.pull, .pull] + middle + [.push, .push])
  }

  @Test func `the next batch's pull leaves before this batch's arithmetic`() throws {
    let pair = try Pair(batchSize: 16)
    try pair.claim()
    #expect(try pair.take(0..<16))
    try pair.turn()
    #expect(try pair.take(16..<32))
    let leaves = try pair.trainer.client.takeOutgoing().map { _, message in
      var reader = ByteReader(message)
      return try MessageHeader(decoding: &reader).opcode
    }
    let batches = pair.trainer.counters.batches
    #expect(leaves == [.pull] && batches == 0)
    #expect(try pair.take(32..<32))
    #expect(pair.trainer.counters.batches == 1)
  }

  @Test func `batches follow each other without gaps and are as long as they should be`() throws {
    let pair = try Pair(batchSize: 16)
    try pair.claim()
    try pair.train(0..<100)
    var at = Position.start
    for push in pair.pushes {
      #expect(push.from == at)
      at = push.to
    }
    #expect(at == Position(low: 1000))
    #expect(pair.pushes.map { Int($0.to.low - $0.from.low) / 10 } == [16, 16, 16, 16, 16, 16, 4])
    #expect(pair.shard.status().chains.first?.examples == 100)
    #expect(pair.trainer.counters.examples == 100)
  }

  @Test func `every example has one score record`() throws {
    let pair = try Pair(batchSize: 7)
    try pair.claim()
    try pair.train(0..<60)
    #expect(pair.scores.lastPosition[0] == Position(low: 600))
  }

  @Test func `rows and gradients as halves train as well`() throws {
    func quality(_ numbers: NumberType) throws -> Double {
      let pair = try Pair(batchSize: 16, numbers: numbers)
      try pair.claim()
      try pair.train(0..<4000)
      return try #require(pair.trainer.windows[0].scores().auc)
    }
    let (whole, half) = (try quality(.float32), try quality(.float16))
    #expect(whole > 0.7)
    #expect(abs(whole - half) < 0.002, "\(whole) as float32, \(half) as float16")
    #expect(whole != half)
  }

  @Test func `partitions that all have a backlog take turns`() throws {
    let pair = try Pair(batchSize: 4, partitions: 3)
    try pair.claim()
    var next = [0, 0, 0]
    for _ in 0..<20 {
      for partition in 0..<3 {
        while pair.trainer.wantsRecord(of: partition) {
          pair.trainer.take(pair.record(next[partition]), of: partition, now: 0)
          next[partition] += 1
        }
      }
      _ = try pair.trainer.work(now: 0, isDry: false, scores: &pair.scores)
      try pair.turn()
    }
    #expect(pair.pushedPartitions.prefix(6) == [0, 1, 2, 0, 1, 2])
  }

  @Test(arguments: [1, 2])
  func `a record that is no example counts and passes`(threads: Int) throws {
    let pair = try Pair(batchSize: 4, threads: threads)
    try pair.claim()
    pair.trainer.take(StreamRecord(position: Position(low: 5), reader: ByteReader(Blob([1, 2]))), of: 0, now: 0)
    try pair.train(0..<8)
    #expect(pair.trainer.counters.undecodable == 1)
    #expect(pair.shard.status().chains.first?.applied == 80)
  }

  @Test(arguments: [1, 2])
  func `nothing of a batch that holds a NaN reaches a table, and the batch is kept with the place of it`(
    threads: Int
  ) throws {
    let clean = try Pair(batchSize: 8, hasNumber: true)
    try clean.claim()
    try clean.train(0..<16)
    let pair = try Pair(batchSize: 8, threads: threads, hasNumber: true)
    pair.poisoned = [19]
    try pair.claim()
    try pair.train(0..<24)
    #expect(pair.trainer.counters.rejectedBatches == 1)
    #expect(pair.shard.status().chains.first?.applied == 240)
    // The first two batches left the same as where the third was never sent.
    #expect(pair.shard.digest(halfPrecision: false) == clean.shard.digest(halfPrecision: false))
    let rejected = try #require(pair.trainer.takeRejected().first)
    #expect(rejected.cause == "the dense numbers of impression 19 hold nan")
    #expect(rejected.examples.count == 8)
    let directory = FileManager.default.temporaryDirectory.appending(path: "rejected-\(UUID().uuidString)").path
    defer { try? FileManager.default.removeItem(atPath: directory) }
    let path = try #require(try rejected.write(into: directory, schema: pair.schema))
    #expect(rejected.keep(in: directory, schema: pair.schema).hasSuffix("hold nan; it is in \(path)"))
    // Where it cannot be written that is said, and nothing else happens.
    let words = rejected.keep(in: "\(path)/below-a-file", schema: pair.schema)
    #expect(words.contains("hold nan; it could not be kept: ") && words.contains("below-a-file"), "\(words)")
    #expect(path == "\(directory)/model-0-240.json")
    let text = try String(contentsOfFile: path, encoding: .utf8)
    #expect(text.contains("\"nan\"") && text.contains("\"impression\" : \"19\""))
    try pair.train(24..<32)
    #expect(pair.trainer.counters.rejectedBatches == 1)
    #expect(pair.shard.digest(halfPrecision: false) != clean.shard.digest(halfPrecision: false))
  }

  @Test func `a warm-up makes the first steps small, and the schedule counts what the shard has applied`() throws {
    var schedule = LearningRateSchedule()
    schedule.warmUp = 1 << 40
    let slow = try Pair(batchSize: 8, schedule: schedule)
    try slow.claim()
    try slow.train(0..<64)
    let fresh = try Pair(batchSize: 8)
    try fresh.claim()
    try fresh.train(0..<64)
    // Rows are made either way; only their steps differ.
    #expect(slow.shard.digest(halfPrecision: false) != fresh.shard.digest(halfPrecision: false))
    let (held, free) = (slow.trainer.windows[0].scores().logLoss, fresh.trainer.windows[0].scores().logLoss)
    #expect(abs((held ?? 0) - 0.6931) < 0.002)
    #expect(held != free)
  }

  @Test func `step sizes rise over the warm-up and fall as the decay says`() {
    var schedule = LearningRateSchedule()
    schedule.warmUp = 100
    schedule.decay = .linear
    schedule.decayOver = 200
    schedule.floor = 0.1
    #expect(schedule.factor(after: 0) == 0.01)
    #expect(schedule.factor(after: 49) == 0.5)
    #expect(schedule.factor(after: 100) == 1)
    #expect(abs(schedule.factor(after: 200) - 0.55) < 1e-6)
    #expect(schedule.factor(after: 1_000_000) == 0.1)
    schedule.decay = .cosine
    #expect(abs(schedule.factor(after: 200) - 0.55) < 1e-6)
    #expect(abs(schedule.factor(after: 250) - (0.1 + 0.9 * 0.146447)) < 1e-5)
    schedule.decay = .inverseRoot
    #expect(schedule.factor(after: 300) == 0.5)
    schedule.decay = .none
    #expect(schedule.factor(after: .max) == 1)
  }
}
