// What a shard and its clients read: whole messages, records of the journal, sections of rows, manifests; and what sync
// and replicas read.

import Base
import Embeddings
import Layers
import Sharding
import Syncing
import Wire

private let chain = ChainKey(consumer: "model", stream: "examples", partition: 0)
private let owner = Ownership(generation: 1, owner: 9)

private func shardOptions() -> ShardOptions {
  func segments(_ width: Int) -> [Segment] {
    [
      Segment(
        name: "w", width: width, initializer: .uniform(0.1),
        optimizer: OptimizerOptions(rule: .adagrad(initialAccumulator: 0.1), learningRate: 1))
    ]
  }
  var options = ShardOptions(
    index: 0, map: ClusterMap(shardCount: 1), seed: 3,
    tables: [
      TableOptions(name: "user", seed: 3, segments: segments(2)),
      TableOptions(name: "item", seed: 3, segments: segments(3), admission: .count(2)),
      TableOptions(name: "sketched", seed: 3, segments: segments(1), admission: .sketch(3, ids: 100, ageing: nil)),
    ],
    tensors: [
      DenseTensorOptions(
        tensor: DenseTensor(name: "bias", shape: [2], initial: .zeros),
        optimizer: DenseOptimizerOptions(rule: .sgd, learningRate: 1))
    ])
  options.checkpointEvery = .zero
  return options
}

/// A shard without files; a class because closures hold no noncopyable values.
private final class Shard {
  var core: ShardCore
  var records: [Blob] = []
  var sections: [Blob] = []
  var answers: [Blob] = []
  private var now: Int64 = 1_000_000_000

  init() {
    core = ShardCore(shardOptions(), incarnation: 5, identity: (6, 7))
    records.append(core.beginRun(now: now))
  }

  @discardableResult func receive(_ message: Blob) -> Bool {
    now += 1000
    var actions: [ShardAction] = []
    core.receive(message, from: PeerID([1, 2, 3]), now: now, into: &actions)
    return perform(actions)
  }

  private func perform(_ actions: [ShardAction]) -> Bool {
    var isTaken = true
    for action in actions {
      switch action {
      case .send(_, let answer):
        answers.append(answer)
        var reader = ByteReader(answer)
        if let header = try? MessageHeader(decoding: &reader), header.kind == .error { isTaken = false }
      case .append(let record): records.append(record)
      case .checkpointSection(let section):
        sections.append(section)
        core.checkpointWritten(sections: 1)
      case .sync(let epoch):
        var more: [ShardAction] = []
        core.blockSynced(epoch: epoch, into: &more)
        _ = perform(more)
      default: break
      }
    }
    return isTaken
  }

  func close() {
    core.closeEarly()
    for _ in 0..<100 {
      now += 1_000_000
      var actions: [ShardAction] = []
      core.work(now: now, into: &actions)
      _ = perform(actions)
      if core.isQuiet { return }
    }
  }

  /// A shard that owns its chain and has rows and counts.
  static func trained() -> Shard {
    let shard = Shard()
    shard.receive(Claim(chain: chain, ownership: owner).encoded(request: 1))
    shard.close()
    for step in 0..<4 as Range<UInt64> {
      shard.receive(
        push(
          .float32, from: step * 10, ids: Array(step..<step + 9), table: Int(step % 3), width: [2, 3, 1][Int(step % 3)])
      )
    }
    shard.close()
    shard.receive(IDsRequest(table: "user", ids: [1]).encoded(.forget, request: 1))
    shard.receive(CheckpointRequest(name: "daily").encoded(request: 4))
    shard.close()
    shard.close()
    return shard
  }
}

/// The bytes of a section of rows.
func sectionBytes() -> [UInt8] {
  for record in Shard.trained().records {
    if case .table(_, _, let section)? = try? BlockRecord.parse(ByteReader(record)) {
      return Array(record.array[section.offset...])
    }
  }
  return []
}

/// The bytes of a version.
func versionBytes(halfPrecision: Bool = false) -> [UInt8] {
  let ids: [UInt64] = [0, 3, 500, .max]
  return VersionContent(
    number: 7, basePart: halfPrecision ? (2, 5) : nil, created: 8, newestEventTime: 9, exampleCount: 10,
    epochs: [11, 12], identities: [13, 14],
    progress: [.init(consumer: 17, exampleCount: 18, watermark: 19)], arrivals: [.init(arrival: 15, count: 16)],
    tables: [
      TableChange(
        table: "user", weightCount: 16, tombstones: [0, 5, .max], ids: ids,
        weights: View(copying: (0..<64).map { halfPrecision ? 0 : Float($0) })),
      TableChange(table: "empty", weightCount: 2, tombstones: [], ids: [], weights: View(copying: [])),
    ],
    tensors: [TensorChange(name: "bias", values: [1, -2.5, .infinity])]
  ).encoded(halfPrecision: halfPrecision).array
}

/// Puts a fitting CRC-32C behind all other bytes.
func sealTail(_ bytes: inout [UInt8]) {
  guard bytes.count >= 4 else { return }
  let crc = Hashing.crc32c(Array(bytes.dropLast(4)).span.bytes)
  for place in 0..<4 { bytes[bytes.count - 4 + place] = UInt8(truncatingIfNeeded: crc >> UInt32(8 * place)) }
}

private let requests: [Blob] = [
  Hello(role: .trainer, chains: [chain]).encoded(request: 1),
  Claim(chain: chain, ownership: owner).encoded(request: 1),
  PullRequest.encoded(
    request: 2, mapNumber: 1, eventTime: 1000, wantsDense: true, sections: [(0, [1, 2, .max], [1, 1, 3])]),
  push(.float32, from: 40), push(.float16, from: 40, table: 1, width: 3),
  IDsRequest(table: "user", ids: [1, 2, 3]).encoded(.inspect, request: 1),
  IDsRequest(table: "item", ids: [1, 2, 3]).encoded(.forget, request: 1),
  BlocksRequest(afterEpoch: 1, skipRecords: 0, waitMilliseconds: 10, persistedEpoch: 0).encoded(request: 1),
  ScanRequest(table: 0, rows: 4, cursor: 0).encoded(request: 1),
  CheckpointRequest(name: "daily").encoded(request: 4),
  PlainMessage.empty(.status, request: 1), PlainMessage.empty(.digest, request: 1),
  PlainMessage.empty(.ping, request: 1), PlainMessage.empty(.closeEpoch, request: 1),
]

/// A replica that keeps nothing but what it was given last.
private final class Target: VersionTarget {
  func beginBase() throws {}
  func abandonBase() {}
  func commitBase(_ version: VersionContent) throws {}
  func apply(_ change: TableChange, of version: VersionContent) throws {}
  func setDense(_ tensors: [TensorChange]) throws {}
  func publish(_ version: VersionContent) throws {}
}

/// Decoders of shards, their clients, sync and replicas.
func shardDecoders() -> [Decoder] {
  func records() -> [[UInt8]] { Shard.trained().records.map(\.array) }

  var core = Decoder("shard-messages", seeds: { requests.map(\.array) }) {
    let shard = Shard.trained()
    var count = 0
    return { input in
      count += 1
      if count % 64 == 0 { shard.close() }
      shard.answers = []
      return shard.receive(input)
    }
  }
  // A shard that is told to takes what its table may take; a push of a new id makes a row, an index doubles.
  core.isConversation = true
  core.limit = { 256 * $0 + (8 << 20) }
  core.life = 500

  var recovery = Decoder("shard-recovery", seeds: records) {
    var shard = Shard()
    var count = 0
    let whole = Shard.trained().records
    return { input in
      count += 1
      if count % 50 == 0 { shard = Shard() }
      guard (try? shard.core.recover(input)) != nil else { return false }
      // The end of a block applies what came before it.
      if let end = whole.last { _ = try? shard.core.recover(end) }
      return true
    }
  }
  recovery.limit = { 256 * $0 + (8 << 20) }
  recovery.life = 500

  var sections = Decoder("shard-checkpoint", seeds: { Shard.trained().sections.map(\.array) }) {
    var shard = Shard()
    var count = 0
    return { input in
      count += 1
      if count % 50 == 0 { shard = Shard() }
      return (try? shard.core.restore(section: ByteReader(input))) != nil
    }
  }
  sections.limit = { 256 * $0 + (8 << 20) }
  sections.life = 500

  var client = Decoder(
    "shard-client", seeds: { Shard.answers(to: requests).map(\.array) }
  ) {
    var client = ShardClient(shardCount: 1, chains: [chain], owner: 9, retryAfter: .milliseconds(1))
    var now: Int64 = 0
    return { input in
      now += 1_000_000
      if client.failure != nil || now % 64_000_000 == 0 {
        client = ShardClient(shardCount: 1, chains: [chain], owner: 9, retryAfter: .milliseconds(1))
      }
      client.tick(now: now)
      _ = client.takeOutgoing()
      client.receive(input, from: 0, now: now)
      return client.failure == nil
    }
  }
  client.isConversation = true
  client.limit = { 256 * $0 + (256 << 10) }

  var version = Decoder("sync-version", seeds: { [versionBytes(), versionBytes(halfPrecision: true)] }) { input in
    _ = try VersionContent(decoding: ByteReader(input))
  }
  version.seal = sealTail
  // Snappy makes at most 64 bytes of three; float16 becomes float32.
  version.limit = { 256 * $0 + (64 << 10) }

  var sync = Decoder("sync-messages", seeds: { Shard.answers(to: requests).map(\.array) }) {
    var options = SyncOptions(shardCount: 1, replicaCount: 1)
    options.scanRows = 16
    var core = SyncCore(options, stored: nil, randomStore: { 1 })
    var now: Int64 = 0
    return { input in
      now += 10_000_000
      var actions: [SyncAction] = []
      core.tick(now: now, wall: now / 1_000_000, into: &actions)
      core.receive(input, fromShard: 0, now: now, into: &actions)
      core.receive(input, from: PeerID([1]), now: now, into: &actions)
      return !actions.isEmpty
    }
  }
  sync.isConversation = true
  sync.limit = { 256 * $0 + (8 << 20) }

  var follower = Decoder(
    "sync-follower",
    seeds: {
      [versionBytes(), versionBytes(halfPrecision: true)].map {
        VersionMessage(store: 1, number: 7, newest: 7, content: ByteReader(Blob($0))).encoded(request: 1).array
      }
    }
  ) {
    var follower = ReplicaFollower(replica: 0, incarnation: 1, target: Target())
    var now: Int64 = 0
    return { input in
      now += 1_000_000
      return follower.receive(input, now: now) != nil
    }
  }
  follower.seal = sealTail
  follower.isConversation = true
  follower.limit = { 256 * $0 + (64 << 10) }

  return [
    Decoder("row-section", seeds: { [sectionBytes()] }) { input in
      var reader = ByteReader(input)
      let section = try CutSection(&reader)
      // What is there must be readable to its last number.
      for row in 0..<section.ids.count { _ = section.weights(row).count + Int(section.seen[row]) }
    },
    Decoder("block-record", seeds: records) { input in
      if case .table(_, _, var section) = try BlockRecord.parse(ByteReader(input)) { _ = try CutSection(&section) }
    },
    Decoder(
      "forgotten-ids",
      seeds: {
        [
          ForgottenIDs(
            epoch: 3, table: "user", ids: [1, .max], chains: [.init(key: chain, applied: Position(low: 7))]
          ).encoded.array
        ]
      }
    ) { input in _ = try ForgottenIDs(ByteReader(input)) },
    {
      var manifest = Decoder("shard-manifest", seeds: { [manifestBytes()] }) { input in
        guard ShardCheckpoint(json: String(decoding: input.array, as: UTF8.self)) != nil else {
          throw CorpusError(description: "no manifest")
        }
      }
      manifest.limit = { 1024 * $0 + (1 << 20) }
      return manifest
    }(),
    core, recovery, sections, client, version, sync, follower,
  ]
}

extension Shard {
  fileprivate static func answers(to requests: [Blob]) -> [Blob] {
    let shard = Shard.trained()
    for request in requests { shard.receive(request) }
    shard.close()
    return shard.answers
  }
}

private func manifestBytes() -> [UInt8] {
  Array(
    """
    {"beginEpoch":3,"chains":[{"consumer":1,"examples":4,"high":0,"low":40,"partition":0,"stream":2}],"compacts":false,\
    "epoch":3,"finished":1700000000000,"format":1,"journalOffset":800,"name":"daily","shard":0,"shardCount":1,\
    "tables":[{"name":"user","rows":9}]}
    """.utf8)
}
