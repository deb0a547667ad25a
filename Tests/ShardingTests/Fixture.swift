// A small shard without a process, and messages to it.

import Base
import Embeddings
import Layers
import Wire

@testable import Sharding

/// A shard with two tables and one tensor; `ask` gives what it answers at once.
final class ShardFixture {
  static let peer = PeerID([1, 2, 3])
  static let chain = ChainKey(consumer: "model", stream: "examples", partition: 0)
  static let owner = Ownership(generation: 1, owner: 9)

  var core: ShardCore
  var actions: [ShardAction] = []
  var now: Int64 = 1_000_000_000

  /// What the shard is told.
  static func options(shards: Int = 1, index: Int = 0) -> ShardOptions {
    func segments(_ width: Int) -> [Segment] {
      [
        Segment(
          name: "w", width: width, initializer: .uniform(0.1), optimizer: OptimizerOptions(rule: .sgd, learningRate: 1))
      ]
    }
    return ShardOptions(
      index: index, map: ClusterMap(shardCount: shards), seed: 3,
      tables: [
        TableOptions(name: "user", seed: 3, segments: segments(2)),
        TableOptions(name: "item", seed: 3, segments: segments(3), admission: .count(2)),
      ],
      tensors: [
        DenseTensorOptions(
          tensor: DenseTensor(name: "bias", shape: [2], initial: .zeros),
          optimizer: DenseOptimizerOptions(rule: .sgd, learningRate: 1))
      ])
  }

  init(
    shards: Int = 1, index: Int = 0, checkpointSliceRows: Int = 512, checkpointQueueBytes: Int = 512 << 20,
    memoryLimit: Int? = nil
  ) {
    var options = Self.options(shards: shards, index: index)
    options.tables[0].memoryLimitBytes = memoryLimit
    options.checkpointSliceRows = checkpointSliceRows
    options.checkpointQueueBytes = checkpointQueueBytes
    core = ShardCore(options, incarnation: 5, identity: (6, 7))
    _ = core.beginRun(now: now)
  }

  /// Sends a message; gives the answers' bytes.
  @discardableResult func send(_ message: Blob) -> [Blob] {
    actions = []
    core.receive(message, from: Self.peer, now: now, into: &actions)
    return actions.compactMap { if case .send(_, let blob) = $0 { blob } else { nil } }
  }

  /// The refusal of a message; nil when it was not refused.
  func refusal(_ message: Blob) -> ErrorReply? {
    guard let answer = send(message).first else { return nil }
    var reader = ByteReader(answer)
    guard let header = try? MessageHeader(decoding: &reader), header.kind == .error else { return nil }
    return try? ErrorReply(decoding: &reader)
  }

  /// Claims the chain and makes the claim durable.
  func claim(_ ownership: Ownership = owner) {
    send(Claim(chain: Self.chain, ownership: ownership).encoded(request: 1))
    close()
  }

  /// Closes the epoch and calls its block synced; gives the block's records.
  @discardableResult func close() -> [Blob] {
    core.closeEarly()
    var records: [Blob] = []
    for _ in 0..<100 where !core.isQuiet {
      actions = []
      core.work(now: now, into: &actions)
      for action in actions {
        if case .append(let record) = action { records.append(record) }
        if case .sync(let epoch) = action { core.blockSynced(epoch: epoch, into: &actions) }
      }
    }
    return records
  }

  static func pull(
    map: UInt64 = 1, table: Int = 0, ids: [UInt64] = [1, 2, 3], dense: Bool = false, eventTime: Milliseconds = 1000,
    numbers: NumberType = .float32
  ) -> Blob {
    PullRequest.encoded(
      request: 2, mapNumber: map, eventTime: eventTime, wantsDense: dense, numbers: numbers,
      sections: [(table, ids, ids.map { _ in 1 })])
  }

  struct PushShape {
    var map: UInt64 = 1
    var from: UInt64 = 0
    var to: UInt64 = 10
    var ownership = ShardFixture.owner
    var examples = 4
    var table = 0
    var ids: [UInt64] = [1, 2, 3]
    var width = 2
    var tensor: (index: Int, count: Int)?
    var gradient: Float = 0.5
    var numbers = NumberType.float32
    var arrivals = [ArrivalCount(arrival: 4500, count: 4)]
  }

  static func push(_ shape: PushShape) -> Blob {
    let stamp = Stamp(
      chain: chain, ownership: shape.ownership, previousEnd: Position(low: shape.from), end: Position(low: shape.to),
      exampleCount: shape.examples, eventTime: 5000, watermark: 4000)
    var writer = ByteWriter()
    PushRequest.begin(
      request: 3, stamp: stamp, mapNumber: shape.map, sections: 1, tensors: shape.tensor == nil ? 0 : 1,
      arrivals: shape.arrivals, numbers: shape.numbers, into: &writer)
    let floats = shape.ids.count * shape.width
    PushRequest.beginSection(
      table: shape.table, ids: shape.ids, sightings: shape.ids.map { _ in 1 }, floats: floats, into: &writer)
    writer.append(numbers: shape.numbers, count: floats) { target in
      for place in 0..<floats { target[place] = shape.gradient }
    }
    if let tensor = shape.tensor {
      PushRequest.append(tensor: tensor.index, gradients: [Float](repeating: 1, count: tensor.count), into: &writer)
    }
    return writer.finish()
  }

  /// All that a message may not change when it is refused.
  var state: String {
    let status = core.status()
    let digest = core.digest(halfPrecision: false)
    let sums = (digest.tables.sorted { $0.key < $1.key } + digest.tensors.sorted { $0.key < $1.key }).map { "\($0)" }
    return "\(sums) \(status.epoch) \(status.chains) \(status.isQuiet)"
  }
}
