// How sync reads shards that are slow to start, that leave out numbers of epochs, or that never reach a position.

import Base
import Embeddings
import Layers
import Testing
import Wire

@testable import Sharding
@testable import Syncing

/// A shard in a place of its own: closures and arrays cannot hold it.
private final class ShardBox {
  var core: ShardCore
  init(_ index: Int, of count: Int) {
    let segment = Segment(
      name: "w", width: 2, initializer: .zeros, optimizer: OptimizerOptions(rule: .sgd, learningRate: 1))
    core = ShardCore(
      ShardOptions(
        index: index, map: ClusterMap(shardCount: count), seed: 1,
        tables: [TableOptions(name: "user", seed: 1, segments: [segment])], tensors: []),
      incarnation: UInt64(index + 1), identity: (1, UInt64(index + 1)))
    _ = core.beginRun(now: 0)
  }
}

@Suite("Sync and its shards") struct ShardLinkTests {
  private static let chain = ChainKey(consumer: "model", stream: "examples", partition: 0)
  private static let owner = Ownership(generation: 1, owner: 2)

  private func questions(_ actions: [SyncAction], of shard: Int, _ opcode: Opcode) throws -> [(UInt64, Blob)] {
    try actions.compactMap {
      guard case .sendShard(shard, let message) = $0 else { return nil }
      var reader = ByteReader(message)
      let header = try MessageHeader(decoding: &reader)
      return header.opcode == opcode ? (header.request, message) : nil
    }
  }

  private func answer(_ shard: ShardBox, _ message: Blob) -> Blob? {
    var actions: [ShardAction] = []
    shard.core.receive(message, from: PeerID([5]), now: 0, into: &actions)
    for case .send(_, let reply) in actions { return reply }
    return nil
  }

  private func gone(_ request: UInt64) -> Blob {
    ErrorReply(.gone, "no longer kept").encoded(opcode: .blocksSince, request: request)
  }

  @Test func `no blocks are asked for before all shards have told where they stand, and old refusals reset nothing`()
    throws
  {
    let shards = [ShardBox(0, of: 2), ShardBox(1, of: 2)]
    var options = SyncOptions(shardCount: 2, replicaCount: 1)
    options.retryAfter = .milliseconds(10)
    var sync = SyncCore(options, stored: nil) { 77 }
    var now: Int64 = 0
    var asked = 0
    func tick() -> [SyncAction] {
      now += 20_000_000
      var actions: [SyncAction] = []
      sync.tick(now: now, wall: 0, into: &actions)
      return actions
    }
    // The second shard is still starting.
    for _ in 0..<20 {
      let actions = tick()
      asked += try questions(actions, of: 0, .blocksSince).count
      for (_, hello) in try questions(actions, of: 0, .hello) {
        var next: [SyncAction] = []
        sync.receive(try #require(answer(shards[0], hello)), fromShard: 0, now: now, into: &next)
      }
      var next: [SyncAction] = []
      sync.receive(gone(1), fromShard: 0, now: now, into: &next)
    }
    #expect(asked == 0 && sync.counters["resets"] == nil)
    #expect(sync.shards[0].welcome != nil && sync.shards[1].welcome == nil)
    // It comes: the store begins, and what was said before it is no news.
    for (_, hello) in try questions(tick(), of: 1, .hello) {
      var next: [SyncAction] = []
      sync.receive(try #require(answer(shards[1], hello)), fromShard: 1, now: now, into: &next)
    }
    let actions = tick() + tick()
    #expect(sync.counters["stores"] == 1)
    let (request, _) = try #require(try questions(actions, of: 0, .blocksSince).last)
    var next: [SyncAction] = []
    sync.receive(gone(1), fromShard: 0, now: now, into: &next)
    #expect(sync.counters["resets"] == nil)
    sync.receive(gone(request), fromShard: 0, now: now, into: &next)
    #expect(sync.counters["resets"] == 1)
  }

  @Test(arguments: [1 << 20, 1] as [UInt64])
  func `blocks are read across numbers of epochs that a shard has left out`(atOnce bytes: UInt64) throws {
    let shard = ShardBox(0, of: 1)
    // After an accepted loss the shard goes on above the epoch of what had been forgotten.
    let erased = shard.core.recover([ForgottenIDs(epoch: 50, table: "user", ids: [99], chains: [])])
    #expect(erased == 0)
    var sync = SyncCore(SyncOptions(shardCount: 1, replicaCount: 1), stored: nil) { 77 }
    var now: Int64 = 0
    var waiting: [Blob] = []
    func turn(closes: Bool = true) throws {
      now += 5_000_000
      if closes { shard.core.closeEarly() }
      var work: [ShardAction] = []
      shard.core.work(now: now, into: &work)
      for case .sync(let epoch) in work { shard.core.blockSynced(epoch: epoch, into: &work) }
      var actions: [SyncAction] = []
      sync.tick(now: now, wall: 0, into: &actions)
      for case .sendShard(_, let message) in actions { waiting.append(message) }
      let messages = waiting
      waiting = []
      for message in messages {
        var reader = ByteReader(message)
        let header = try MessageHeader(decoding: &reader)
        var question = message
        if header.opcode == .blocksSince {
          var request = try BlocksRequest(decoding: &reader)
          request.maximumBytes = bytes
          request.waitMilliseconds = 0
          question = request.encoded(request: header.request)
        }
        shard.core.receive(question, from: PeerID([5]), now: now, into: &work)
      }
      var next: [SyncAction] = []
      for case .send(PeerID([5]), let reply) in work { sync.receive(reply, fromShard: 0, now: now, into: &next) }
    }
    for _ in 0..<4 { try turn(closes: false) }
    #expect(sync.counters["stores"] == 1 && sync.shards[0].cursor == 49)
    var actions: [ShardAction] = []
    shard.core.receive(
      Claim(chain: Self.chain, ownership: Self.owner).encoded(request: 1), from: PeerID([9]), now: now, into: &actions)
    for _ in 0..<20 { try turn() }
    for step in 0..<3 as Range<UInt64> {
      let stamp = Stamp(
        chain: Self.chain, ownership: Self.owner, previousEnd: Position(low: step), end: Position(low: step + 1),
        exampleCount: 1, eventTime: 1, watermark: 1)
      var writer = ByteWriter()
      PushRequest.begin(
        request: 1, stamp: stamp, mapNumber: 1, sections: 1, tensors: 0, arrivals: [], into: &writer)
      PushRequest.beginSection(table: 0, ids: [step], sightings: [1], floats: 2, into: &writer)
      writer.append(array: [1, 2] as [Float])
      shard.core.receive(writer.finish(), from: PeerID([9]), now: now, into: &actions)
      for _ in 0..<20 { try turn() }
    }
    let durable = shard.core.status().durableEpoch
    #expect(sync.shards[0].cursor == durable && durable > 50)
    #expect(sync.counters["blocks"] == 4 && sync.counters["resets"] == nil && sync.counters["misplacedRecords"] == nil)
  }

  @Test func `arrivals of a chain that some shard never reaches are bounded, and others are counted all the same`() {
    let (stuck, alive) = (Self.chain, ChainKey(consumer: "model", stream: "examples", partition: 1))
    func push(_ chain: ChainKey, _ end: UInt64, _ count: Int) -> BlockRecord.PushArrivals {
      BlockRecord.PushArrivals(
        chain: chain, end: Position(low: end),
        counts: Array(repeating: ArrivalCount(arrival: Int64(end), count: 1), count: count))
    }
    var waiting = WaitingArrivals()
    var dropped = 0
    var ready = 0
    for end in 1...3000 as ClosedRange<UInt64> {
      dropped += waiting.add([push(stuck, end, 1000), push(alive, end, 1)])
      let taken = waiting.takeReady { $0 == alive ? Position(low: end - 1) : .start }
      ready += taken.count
      #expect(taken.allSatisfy { $0.arrival == Int64(end) - 1 })
    }
    #expect(ready == 2999, "the chain that goes on loses nothing")
    let rest = waiting.takeReady { _ in Position(low: 3000) }
    #expect(rest.count + dropped == 3_000_000 + 1)
    #expect(rest.count <= WaitingArrivals.limit && rest.count > WaitingArrivals.limit / 3 && waiting.isEmpty)
  }
}
