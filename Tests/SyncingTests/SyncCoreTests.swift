// Sync against a real shard in the same process: damaged messages, and what a restart of sync must not forget.

import Base
import Embeddings
import Layers
import Testing
import Wire

@testable import Sharding
@testable import Syncing

/// One shard, sync, one replica, and a perfect link between them unless a test damages it.
private final class Trio {
  static let chain = ChainKey(consumer: "model", stream: "examples", partition: 0)
  static let owner = Ownership(generation: 1, owner: 2)

  var shard: ShardCore
  var sync: SyncCore
  let replica = Target()
  var follower: ReplicaFollower
  var versions: [UInt64: Blob] = [:]
  var parts: [Int: Blob] = [:]
  var base: (number: UInt64, parts: Int)?
  var now: Int64 = 0
  /// Changes a message on its way from the shard to sync.
  var damage: (Blob) -> Blob = { $0 }
  private var applied: UInt64 = 0

  final class Target: VersionTarget {
    var rows: [UInt64: [Float]] = [:]
    var tensors: [String: [Float]] = [:]
    var number: UInt64 = 0
    var bases = 0
    private var base: [UInt64: [Float]]?

    func beginBase() { base = [:] }
    func commitBase(_ version: VersionContent) {
      rows = base ?? [:]
      base = nil
      bases += 1
      number = version.number
    }
    func apply(_ change: TableChange) {
      var target = base ?? rows
      for id in change.tombstones { target[id] = nil }
      for (place, id) in change.ids.enumerated() {
        target[id] = Array(change.weights.array[place * change.weightCount..<(place + 1) * change.weightCount])
      }
      if base == nil { rows = target } else { base = target }
    }
    func setDense(_ changes: [TensorChange]) { for change in changes { tensors[change.name] = change.values } }
    func publish(_ version: VersionContent) { number = version.number }
  }

  static var options: SyncOptions {
    var options = SyncOptions(shardCount: 1, replicaCount: 1)
    options.sparseEvery = .milliseconds(20)
    options.retryAfter = .milliseconds(10)
    options.scanRows = 8
    return options
  }

  init() {
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
    sync = SyncCore(Self.options, stored: nil) { 77 }
    follower = ReplicaFollower(replica: 0, incarnation: 1, target: replica)
    var actions: [ShardAction] = []
    shard.receive(
      Claim(chain: Self.chain, ownership: Self.owner).encoded(request: 1), from: PeerID([9]), now: 0, into: &actions)
  }

  func push(_ ids: [UInt64]) {
    let stamp = Stamp(
      chain: Self.chain, ownership: Self.owner, previousEnd: Position(low: applied), end: Position(low: applied + 1),
      exampleCount: 1, eventTime: 1, watermark: 1)
    applied += 1
    var writer = ByteWriter()
    PushRequest.begin(
      request: 1, stamp: stamp, mapNumber: 1, sections: 1, tensors: 1,
      arrivals: [ArrivalCount(arrival: 0, count: 1 << 32)], into: &writer)
    PushRequest.beginSection(table: 0, ids: ids, sightings: ids.map { _ in 1 }, floats: ids.count * 2, into: &writer)
    writer.append(array: ids.flatMap { [Float($0 % 7), -1] })
    PushRequest.append(tensor: 0, gradients: [-1, 1], into: &writer)
    var actions: [ShardAction] = []
    shard.receive(writer.finish(), from: PeerID([9]), now: now, into: &actions)
  }

  /// Sync comes back with what it has stored.
  func restartSync() throws {
    let newest = try #require(versions.keys.max())
    let content = try VersionContent(decoding: ByteReader(try #require(versions[newest])))
    sync = SyncCore(
      Self.options, stored: StoredState(store: 77, newest: content, base: try #require(base))
    ) { 78 }
  }

  func run(_ turns: Int) throws {
    for _ in 0..<turns {
      now += 5_000_000
      shard.closeEarly()
      var actions: [ShardAction] = []
      shard.work(now: now, into: &actions)
      for case .sync(let epoch) in actions { shard.blockSynced(epoch: epoch, into: &actions) }
      var news = deliver(actions)
      sync.tick(now: now, wall: 0, into: &news)
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
      switch item {
      case .sendShard(_, let message):
        var actions: [ShardAction] = []
        shard.receive(message, from: PeerID([5]), now: now, into: &actions)
        try perform(deliver(actions))
      case .storeVersion(let number, let blob): versions[number] = blob
      case .storeBasePart(_, let part, let blob): parts[part] = blob
      case .finishBase(let number, let count): base = (number, count)
      case .sendVersion(_, let number): try send(versions[number], number)
      case .sendBasePart(_, let number, let part): try send(parts[part], number)
      case .beginStore, .send: break
      }
    }
  }

  private func send(_ content: Blob?, _ number: UInt64) throws {
    guard let content else { return }
    let message = VersionMessage(
      store: sync.heading.store, number: number, newest: sync.heading.newest, content: ByteReader(content))
    guard let answer = try follower.receive(message.encoded(request: 0), now: now) else { return }
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

@Suite("Sync") struct SyncCoreTests {
  @Test(arguments: 1...6 as ClosedRange<UInt64>)
  func `damaged messages of a shard do not trap, and sync ends up right`(seed: UInt64) throws {
    var random = SeededRandom(seed: seed)
    let trio = Trio()
    trio.damage = { message in
      guard Int.random(in: 0..<4, using: &random) == 0 else { return message }
      // Only counts, offsets and the like: a float that is another float is nothing a reader can see.
      var bytes = message.array
      let at = Int.random(in: 0..<min(bytes.count, 56) / 4, using: &random) * 4
      switch Int.random(in: 0..<3, using: &random) {
      case 0: bytes.removeLast(bytes.count - at)
      case 1: bytes[at + Int.random(in: 0..<4, using: &random)] ^= 1 << UInt8.random(in: 0..<8, using: &random)
      default: for place in at..<min(bytes.count, at + 4) { bytes[place] = 0xFF }
      }
      return Blob(bytes)
    }
    for step in 0..<60 as Range<UInt64> {
      trio.push((0..<20).map { $0 * 3 + step })
      try trio.run(3)
    }
    // A welcome that was damaged into another journal's or epoch's is believed until sync is started anew.
    trio.damage = { $0 }
    trio.sync = SyncCore(Trio.options, stored: nil) { 79 }
    (trio.versions, trio.parts, trio.base) = ([:], [:], nil)
    try trio.run(300)
    #expect(trio.replica.rows == (try trio.held()))
  }

  @Test func `dense tensors merged before a restart are published after it`() throws {
    let trio = Trio()
    trio.push([1, 2, 3])
    try trio.run(40)
    #expect(trio.replica.bases == 1)
    let old = trio.replica.tensors["bias"]
    trio.push([4])
    try trio.run(20)
    // The new values are merged and, dense versions being rare, published nowhere.
    #expect(trio.replica.tensors["bias"] == old)
    try trio.restartSync()
    trio.sync.publish(dense: true)
    try trio.run(4)
    // A replica speaks twice a second.
    trio.sync.publish(dense: true)
    try trio.run(250)
    #expect(trio.replica.tensors["bias"] == [2, -2])
    #expect(trio.replica.bases == 1)
  }

  @Test func `each role asks sync for its own only`() throws {
    let trio = Trio()
    func refusal(_ message: Blob, _ role: PeerRole) throws -> ErrorReply? {
      var news: [SyncAction] = []
      trio.sync.receive(message, from: PeerID([7], role: role), now: trio.now, into: &news)
      guard case .send(_, let answer)? = news.first else { return nil }
      var reader = ByteReader(answer)
      guard try MessageHeader(decoding: &reader).kind == .error else { return nil }
      return try ErrorReply(decoding: &reader)
    }
    let follow = Follow(replica: 0, incarnation: 1, store: 0, version: 0).encoded(request: 1)
    let publish = PublishRequest(dense: true).encoded(request: 1)
    #expect(try refusal(publish, .replica) == .forbidden(.publish, to: .replica))
    #expect(try refusal(follow, .operator) == .forbidden(.follow, to: .operator))
    #expect(try refusal(follow, .trainer) == .forbidden(.follow, to: .trainer))
    #expect(trio.sync.replicas[PeerID([7])] == nil)
    #expect(try refusal(follow, .replica) == nil)
    #expect(try refusal(publish, .operator) == nil)
    #expect(try refusal(PlainMessage.empty(.status, request: 1), .shard) == nil)
    #expect(trio.sync.status(now: trio.now).counters["forbidden"] == 3)
  }

  @Test func `a hostile replica is answered or ignored`() throws {
    let trio = Trio()
    trio.push([1])
    try trio.run(40)
    var random = SeededRandom(seed: 3)
    let valid = Follow(replica: 0, incarnation: 1, store: 77, version: 1, part: 0).encoded(request: 1).array
    for _ in 0..<600 {
      var bytes = valid
      for _ in 0..<2 {
        let at = Int.random(in: 0..<bytes.count / 8, using: &random) * 8
        let ones = Bool.random(using: &random)
        for place in at..<at + 8 { bytes[place] = ones ? 0xFF : .random(in: 0...255, using: &random) }
      }
      var news: [SyncAction] = []
      trio.sync.receive(Blob(bytes), from: PeerID([2]), now: trio.now, into: &news)
      trio.sync.receive(Blob(bytes), from: PeerID(bytes), now: trio.now, into: &news)
    }
    #expect(trio.sync.replicas.count <= SyncCore.replicaLimit)
    trio.push([5])
    try trio.run(300)
    #expect(trio.replica.rows.keys.sorted() == [1, 5])
  }
}

@Suite("Replica follower") struct FollowerTests {
  private func message(
    _ number: UInt64, store: UInt64 = 5, newest: UInt64, part: (Int, Int)? = nil, ids: [UInt64] = []
  ) -> Blob {
    let content = VersionContent(
      number: number, basePart: part.map { (index: $0.0, count: $0.1) }, created: 0, newestEventTime: 0,
      exampleCount: 0,
      totals: .init(), epochs: [1], identities: [1], arrivals: [],
      tables: [
        TableChange(
          table: "user", weightCount: 2, tombstones: [], ids: ids,
          weights: View(copying: ids.flatMap { [Float($0), Float(number)] }))
      ], tensors: [])
    return VersionMessage(
      store: store, number: number, newest: newest, content: ByteReader(content.encoded(halfPrecision: false))
    ).encoded(request: 0)
  }

  private func answer(_ blob: Blob?) throws -> Follow {
    var reader = ByteReader(try #require(blob))
    _ = try MessageHeader(decoding: &reader)
    return try Follow(decoding: &reader)
  }

  @Test func `a base is served only with every version since its scan began`() throws {
    let target = Trio.Target()
    var follower = ReplicaFollower(replica: 0, incarnation: 1, target: target)
    #expect(try answer(follower.receive(message(3, newest: 5, part: (0, 0), ids: [1]), now: 0)).part == 1)
    #expect(try answer(follower.receive(message(3, newest: 5, part: (1, 2), ids: [2]), now: 0)).version == 3)
    #expect(target.bases == 0 && follower.servedVersion == 0)
    _ = try follower.receive(message(4, newest: 5, ids: [2]), now: 0)
    #expect(target.bases == 0 && follower.servedVersion == 0)
    _ = try follower.receive(message(5, newest: 6, ids: [3]), now: 0)
    #expect(target.bases == 1 && follower.servedVersion == 5)
    #expect(target.rows == [1: [1, 3], 2: [2, 4], 3: [3, 5]])
    // The first part again changes nothing: it came twice.
    #expect(try follower.receive(message(3, newest: 5, part: (0, 0), ids: [9]), now: 0) == nil)
    // So does a repeat; a gap is told.
    #expect(try follower.receive(message(4, newest: 5, ids: [9]), now: 0) == nil)
    #expect(try answer(follower.receive(message(7, newest: 7, ids: [9]), now: 0)).version == 5)
    #expect(target.rows[9] == nil)
  }

  @Test func `versions of no store, and numbers at their end`() throws {
    let target = Trio.Target()
    var follower = ReplicaFollower(replica: 0, incarnation: 1, target: target)
    _ = try follower.receive(message(1, store: 0, newest: 1, ids: [1]), now: 0)
    #expect(target.rows.isEmpty && target.number == 0)
    _ = try follower.receive(message(.max, newest: .max, part: (0, 1), ids: [1]), now: 0)
    _ = try follower.receive(message(0, newest: .max, ids: [1]), now: 0)
    #expect(follower.servedVersion == .max)
  }

  @Test func `mutated messages are rejected and asked for again`() throws {
    let target = Trio.Target()
    var follower = ReplicaFollower(replica: 0, incarnation: 1, target: target)
    _ = try follower.receive(message(1, newest: 1, part: (0, 1), ids: [1]), now: 0)
    var random = SeededRandom(seed: 8)
    let valid = message(2, newest: 2, ids: [1, 2, 3]).array
    for _ in 0..<4_000 {
      var bytes = valid
      // The version's bytes have a checksum; the message around them is the connection's.
      bytes[Int.random(in: 40..<bytes.count, using: &random)] ^= 1 << UInt8.random(in: 0..<8, using: &random)
      if Bool.random(using: &random) { bytes.removeLast(Int.random(in: 0..<bytes.count, using: &random)) }
      _ = try follower.receive(Blob(bytes), now: 0)
    }
    #expect(target.number == 1 && target.rows == [1: [1, 1]])
    #expect(follower.rejected.count > 3_000)
  }
}
