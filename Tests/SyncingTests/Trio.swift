// One shard, sync with its files, and one replica in the same process, on a clock of the test's.

import Base
import Embeddings
import Glibc
import Layers
import Sharding
import Testing
import Wire

@testable import Syncing

/// One shard, sync, one replica, and a perfect link between them unless a test damages it.
final class Trio {
  static let chain = ChainKey(consumer: "model", stream: "examples", partition: 0)
  static let owner = Ownership(generation: 1, owner: 2)

  var shard: ShardCore
  var sync: SyncCore
  let replica = Target()
  var follower: ReplicaFollower
  private(set) var store: VersionStore
  let directory = "/tmp/guira-sync-\(getpid())-\(UInt32.random(in: 0 ... .max))"
  /// What sync answered to operators.
  var answers: [Blob] = []
  /// Messages of sync to the replica that vanish.
  var loses: (VersionContent) -> Bool = { _ in false }
  /// Sync ends before it stores more versions than these.
  var storesLeft = Int.max
  var now: Int64 = 0
  var wall: Milliseconds
  /// Changes a message on its way from the shard to sync.
  var damage: (Blob) -> Blob = { $0 }
  private var applied: UInt64 = 0

  /// Sync was killed.
  struct Ended: Error {}
  struct Refused: Error, CustomStringConvertible { let description = "table 'user' is another one" }

  final class Target: VersionTarget {
    var rows: [UInt64: [Float]] = [:]
    var tensors: [String: [Float]] = [:]
    var number: UInt64 = 0
    var bases = 0
    /// Rows as they were when each version was published.
    var history: [UInt64: [UInt64: [Float]]] = [:]
    var arrivals: [ArrivalCount] = []
    var progress: [ConsumerProgress] = []
    var store: UInt64 = 0
    private var base: [UInt64: [Float]]?

    /// Which changes are another configuration's.
    var refuses: (TableChange) -> Bool = { _ in false }

    func beginBase() { base = [:] }
    func abandonBase() { base = nil }
    func commitBase(_ version: VersionContent) {
      rows = base ?? [:]
      base = nil
      bases += 1
      number = version.number
      history[number] = rows
      arrivals += version.arrivals
      (progress, store) = (version.progress, version.store)
    }
    func apply(_ change: TableChange, of version: VersionContent) throws {
      if refuses(change) { throw Refused() }
      var target = base ?? rows
      for id in change.tombstones { target[id] = nil }
      for (place, id) in change.ids.enumerated() {
        target[id] = Array(change.weights.array[place * change.weightCount..<(place + 1) * change.weightCount])
      }
      if base == nil { rows = target } else { base = target }
    }
    func setDense(_ changes: [TensorChange]) { for change in changes { tensors[change.name] = change.values } }
    func publish(_ version: VersionContent) {
      number = version.number
      history[number] = rows
      arrivals += version.arrivals
      (progress, store) = (version.progress, version.store)
    }
  }

  let options: SyncOptions

  static var options: SyncOptions {
    var options = SyncOptions(shardCount: 1, replicaCount: 1)
    options.sparseEvery = .milliseconds(20)
    options.retryAfter = .milliseconds(10)
    options.scanRows = 8
    return options
  }

  init(_ options: SyncOptions = Trio.options, wall: Milliseconds = 0) throws {
    self.options = options
    self.wall = wall
    store = try VersionStore(directory: directory, keep: options.keepVersions)
    let segment = Segment(
      name: "w", width: 2, initializer: .zeros, optimizer: OptimizerOptions(rule: .sgd, learningRate: 1))
    shard = ShardCore(
      ShardOptions(
        index: 0, map: ClusterMap(shardCount: 1), seed: 1,
        tables: [TableOptions(name: "user", seed: 1, segments: [segment])],
        tensors: [
          DenseTensorOptions(
            tensor: DenseTensor(name: "bias", shape: [2], initial: .zeros),
            optimizer: DenseOptimizerOptions(rule: .sgd, learningRate: 1))
        ]), incarnation: 1, identity: (1, 1))
    _ = shard.beginRun(now: 0)
    sync = SyncCore(options, stored: nil) { 77 }
    follower = ReplicaFollower(replica: 0, incarnation: 1, target: replica)
    var actions: [ShardAction] = []
    shard.receive(
      Claim(chain: Self.chain, ownership: Self.owner).encoded(request: 1), from: PeerID([9]), now: 0, into: &actions)
  }

  deinit { try? Files.remove(directory) }

  /// One batch: each id's first weight goes down by what is given, the second one up by 1.
  func push(
    _ ids: [UInt64], arrival: Milliseconds = .min, watermark: Milliseconds = 1,
    by step: (UInt64) -> Float = { Float($0 % 7) }
  ) {
    let stamp = Stamp(
      chain: Self.chain, ownership: Self.owner, previousEnd: Position(low: applied), end: Position(low: applied + 1),
      exampleCount: 1, eventTime: 1, watermark: watermark)
    applied += 1
    var writer = ByteWriter()
    PushRequest.begin(
      request: 1, stamp: stamp, mapNumber: 1, sections: 1, tensors: 1,
      arrivals: [ArrivalCount(arrival: max(0, arrival), count: 1)], into: &writer)
    PushRequest.beginSection(table: 0, ids: ids, sightings: ids.map { _ in 1 }, floats: ids.count * 2, into: &writer)
    writer.append(array: ids.flatMap { [step($0), -1] })
    PushRequest.append(tensor: 0, gradients: [-1, 1], into: &writer)
    var actions: [ShardAction] = []
    shard.receive(writer.finish(), from: PeerID([9]), now: now, into: &actions)
  }

  func forget(_ ids: [UInt64]) {
    var actions: [ShardAction] = []
    shard.receive(
      IDsRequest(table: "user", ids: ids).encoded(.forget, request: 1), from: PeerID([8]), now: now, into: &actions)
  }

  /// An operator's message to sync.
  func ask(_ message: Blob) throws {
    var news: [SyncAction] = []
    sync.receive(message, from: PeerID([4]), now: now, into: &news)
    try perform(news)
  }

  /// Sync's files are read anew, without what it remembers of them.
  func restartStore() throws {
    store = try VersionStore(directory: directory, keep: options.keepVersions)
    _ = try store.load()
  }

  /// Sync comes back with what it has stored.
  func restartSync() throws {
    store = try VersionStore(directory: directory, keep: options.keepVersions)
    sync = SyncCore(options, stored: try store.load()) { 78 }
    storesLeft = .max
  }

  func run(_ turns: Int) throws {
    for _ in 0..<turns {
      now += 5_000_000
      shard.closeEarly()
      var actions: [ShardAction] = []
      shard.work(now: now, into: &actions)
      for case .sync(let epoch) in actions { shard.blockSynced(epoch: epoch, into: &actions) }
      var news = deliver(actions)
      sync.tick(now: now, wall: wall, into: &news)
      if let message = follower.tick(now: now) {
        sync.receive(message, from: PeerID([1]), now: now, into: &news)
      }
      try perform(news)
    }
  }

  private func deliver(_ actions: [ShardAction]) -> [SyncAction] {
    var news: [SyncAction] = []
    for case .send(let peer, let message) in actions where peer == PeerID([5]) {
      sync.receive(damage(message), fromShard: 0, now: now, into: &news)
    }
    return news
  }

  private func perform(_ news: [SyncAction]) throws {
    for item in news {
      var more: [SyncAction] = []
      switch item {
      case .sendShard(_, let message):
        var actions: [ShardAction] = []
        shard.receive(message, from: PeerID([5]), now: now, into: &actions)
        try perform(deliver(actions))
      case .beginStore(let number): try store.begin(number)
      case .storeVersion(let number, let blob):
        guard storesLeft > 0 else { throw Ended() }
        storesLeft -= 1
        try store.store(number, blob)
      case .storeBasePart(let base, let part, let blob): try store.store(base: base, part: part, blob)
      case .finishBase(let base, let parts): try store.finish(base: base, parts: parts)
      case .sendVersion(_, let number):
        if let blob = store.version(number) {
          try send(blob, number)
        } else {
          sync.missing(version: number, now: now, into: &more)
        }
      case .sendBasePart(_, let base, let part):
        if let blob = store.part(part, ofBase: base) {
          try send(blob, base)
        } else {
          sync.missing(base: base, now: now, into: &more)
        }
      case .readState(let number): sync.read(store.state(of: number), now: now, into: &more)
      case .describe: break
      case .send(_, let message): answers.append(message)
      }
      try perform(more)
    }
  }

  private func send(_ content: Blob, _ number: UInt64) throws {
    if loses(try VersionContent(decoding: ByteReader(content))) { return }
    let message = VersionMessage(
      store: sync.heading.store, number: number, newest: sync.heading.newest, content: ByteReader(content))
    guard let answer = follower.receive(message.encoded(request: 0), now: now) else { return }
    var news: [SyncAction] = []
    sync.receive(answer, from: PeerID([1]), now: now, into: &news)
    try perform(news)
  }

  /// The shard's rows, as a scan answers them.
  func held() throws -> [UInt64: [Float]] {
    var actions: [ShardAction] = []
    shard.receive(
      ScanRequest(table: 0, rows: 10_000, cursor: 0).encoded(request: 1), from: PeerID([3]), now: now, into: &actions)
    guard case .send(_, let blob)? = actions.first else { return [:] }
    var reader = ByteReader(blob)
    _ = try MessageHeader(decoding: &reader)
    var reply = try ScanReply(decoding: &reader)
    let section = try CutSection(&reply.section)
    var rows: [UInt64: [Float]] = [:]
    for (place, id) in section.ids.array.enumerated() {
      rows[id] = [section.weights(place)[0], section.weights(place)[1]]
    }
    return rows
  }
}
