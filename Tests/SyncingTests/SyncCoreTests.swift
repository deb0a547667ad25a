// Sync against a real shard in the same process: damaged messages, and what a restart of sync must not forget.

import Base
import Embeddings
import Layers
import Testing
import Wire

@testable import Sharding
@testable import Syncing

@Suite("Sync") struct SyncCoreTests {
  @Test(arguments: 1...6 as ClosedRange<UInt64>)
  func `damaged messages of a shard do not trap, and sync ends up right`(seed: UInt64) throws {
    var random = SeededRandom(seed: seed)
    let trio = try Trio()
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
    try trio.run(300)
    #expect(trio.replica.rows == (try trio.held()))
  }

  @Test func `dense tensors merged before a restart are published after it`() throws {
    let trio = try Trio()
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
    let trio = try Trio()
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
    #expect(try refusal(follow, .application) == .forbidden(.follow, to: .application))
    #expect(trio.sync.replicas[PeerID([7])] == nil)
    #expect(try refusal(follow, .replica) == nil)
    #expect(try refusal(follow, .trainer) == nil)
    #expect(try refusal(publish, .operator) == nil)
    #expect(try refusal(PlainMessage.empty(.status, request: 1), .shard) == nil)
    #expect(trio.sync.status(now: trio.now).counters["forbidden"] == 3)
  }

  @Test func `a hostile replica is answered or ignored`() throws {
    let trio = try Trio()
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
    _ = follower.receive(message(4, newest: 5, ids: [2]), now: 0)
    #expect(target.bases == 0 && follower.servedVersion == 0)
    _ = follower.receive(message(5, newest: 6, ids: [3]), now: 0)
    #expect(target.bases == 1 && follower.servedVersion == 5)
    #expect(target.rows == [1: [1, 3], 2: [2, 4], 3: [3, 5]])
    // The first part again changes nothing: it came twice.
    #expect(follower.receive(message(3, newest: 5, part: (0, 0), ids: [9]), now: 0) == nil)
    // So does a repeat; a gap is told.
    #expect(follower.receive(message(4, newest: 5, ids: [9]), now: 0) == nil)
    #expect(try answer(follower.receive(message(7, newest: 7, ids: [9]), now: 0)).version == 5)
    #expect(target.rows[9] == nil)
  }

  @Test func `what the target refuses is said, asked for again after a while, and taken when it fits`() throws {
    let target = Trio.Target()
    var follower = ReplicaFollower(replica: 0, incarnation: 1, target: target)
    func take(_ message: Blob, now: Int64) -> Blob? { follower.receive(message, now: now) }
    target.refuses = { $0.ids.contains(2) }
    _ = take(message(3, newest: 3, part: (0, 0), ids: [1]), now: 0)
    #expect(take(message(3, newest: 3, part: (1, 2), ids: [2]), now: 0) == nil)
    #expect(follower.refusal == "table 'user' is another one" && follower.servedVersion == 0 && target.bases == 0)
    #expect(follower.tick(now: 4_000_000_000) == nil)
    #expect(try answer(follower.tick(now: 6_000_000_000)).store == 0)
    // The base begins anew, and what was refused before fits now.
    target.refuses = { _ in false }
    _ = take(message(3, newest: 3, part: (0, 0), ids: [1]), now: 6_000_000_000)
    #expect(follower.refusal != nil)
    _ = take(message(3, newest: 3, part: (1, 2), ids: [2]), now: 6_000_000_000)
    #expect(follower.refusal == nil && follower.servedVersion == 3 && target.rows.count == 2)
    // A version that is refused leaves the one before it served, and is asked for again.
    target.refuses = { $0.ids.contains(4) }
    #expect(take(message(4, newest: 4, ids: [4]), now: 7_000_000_000) == nil)
    #expect(follower.refusal != nil && follower.servedVersion == 3)
    #expect(try answer(follower.tick(now: 13_000_000_000)).version == 3)
    target.refuses = { _ in false }
    _ = take(message(4, newest: 4, ids: [4]), now: 13_000_000_000)
    #expect(follower.refusal == nil && follower.servedVersion == 4)
  }

  @Test func `versions of no store, and numbers at their end`() throws {
    let target = Trio.Target()
    var follower = ReplicaFollower(replica: 0, incarnation: 1, target: target)
    _ = follower.receive(message(1, store: 0, newest: 1, ids: [1]), now: 0)
    #expect(target.rows.isEmpty && target.number == 0)
    _ = follower.receive(message(.max, newest: .max, part: (0, 1), ids: [1]), now: 0)
    _ = follower.receive(message(0, newest: .max, ids: [1]), now: 0)
    #expect(follower.servedVersion == .max)
  }

  @Test func `mutated messages are rejected and asked for again`() throws {
    let target = Trio.Target()
    var follower = ReplicaFollower(replica: 0, incarnation: 1, target: target)
    _ = follower.receive(message(1, newest: 1, part: (0, 1), ids: [1]), now: 0)
    var random = SeededRandom(seed: 8)
    let valid = message(2, newest: 2, ids: [1, 2, 3]).array
    for _ in 0..<4_000 {
      var bytes = valid
      // The version's bytes have a checksum; the message around them is the connection's.
      bytes[Int.random(in: 48..<bytes.count, using: &random)] ^= 1 << UInt8.random(in: 0..<8, using: &random)
      if Bool.random(using: &random) { bytes.removeLast(Int.random(in: 0..<bytes.count, using: &random)) }
      _ = follower.receive(Blob(bytes), now: 0)
    }
    #expect(target.number == 1 && target.rows == [1: [1, 1]])
    #expect(follower.rejected.count > 3_000)
  }
}
