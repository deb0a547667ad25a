// What a shard refuses, in which words, and that a refused message changes nothing.

import Base
import Testing
import Wire

@testable import Sharding

@Suite("Shard protocol") struct ProtocolTests {
  private typealias Push = ShardFixture.PushShape

  private func expect(
    _ message: Blob, _ code: ErrorCode, _ text: String, of shard: ShardFixture,
    _ location: SourceLocation = #_sourceLocation
  ) {
    let before = shard.state
    let refusal = shard.refusal(message)
    #expect(refusal?.code == code, sourceLocation: location)
    #expect(refusal?.message == text, sourceLocation: location)
    #expect(shard.state == before, "a refused message changed the shard", sourceLocation: location)
  }

  private func claimed() -> ShardFixture {
    let shard = ShardFixture()
    shard.claim()
    return shard
  }

  @Test func `a pull of a table that is not there`() {
    expect(ShardFixture.pull(table: 7), .mismatch, "table 7 does not exist; the shard has 2 tables", of: claimed())
  }

  @Test func `a push with another dimension`() {
    expect(
      ShardFixture.push(Push(width: 4)), .mismatch,
      "table 'user' has 2 weights per row: 3 ids need 6 gradients, the push has 12", of: claimed())
  }

  @Test func `a push of a tensor that lives elsewhere, or has another size`() {
    expect(
      ShardFixture.push(Push(tensor: (4, 2))), .mismatch, "dense tensor 4 does not live on shard 0", of: claimed())
    expect(
      ShardFixture.push(Push(tensor: (0, 5))), .mismatch, "tensor 'bias' has 2 numbers, the push has 5 gradients",
      of: claimed())
  }

  @Test func `requests made with another cluster map`() {
    let text = "the cluster map is number 1, the request used 8"
    expect(ShardFixture.pull(map: 8), .staleMap, text, of: claimed())
    expect(ShardFixture.push(Push(map: 8)), .staleMap, text, of: claimed())
  }

  @Test func `a push that does not follow what was applied`() {
    let shard = claimed()
    expect(
      ShardFixture.push(Push(from: 3)), .gap, "the push begins at 3, the shard has applied 0", of: shard)
    #expect(shard.refusal(ShardFixture.push(Push())) == nil)
    #expect(shard.refusal(ShardFixture.push(Push(from: 12, to: 20)))?.position == Position(low: 10))
  }

  @Test func `a push or claim of an older owner`() {
    let shard = claimed()
    shard.claim(Ownership(generation: 4, owner: 1))
    expect(
      ShardFixture.push(Push()), .fenced, "generation 4 owns the partition, the push is of generation 1", of: shard)
    let claim = Claim(chain: ShardFixture.chain, ownership: Ownership(generation: 3, owner: .max))
    expect(claim.encoded(request: 1), .fenced, "generation 4 owns the partition; claim above it", of: shard)
    #expect(shard.refusal(claim.encoded(request: 1))?.generation == 4)
  }

  @Test func `a push to a chain that nobody claimed`() {
    expect(
      ShardFixture.push(Push(ownership: .none)), .fenced,
      "generation 0 owns the partition, the push is of generation 0", of: ShardFixture())
  }

  @Test func `generations that leave nothing above them`() {
    for generation in [0, Ownership.generationLimit, .max] {
      let claim = Claim(chain: ShardFixture.chain, ownership: Ownership(generation: generation, owner: 1))
      expect(
        claim.encoded(request: 1), .malformed, "claim: generation \(generation); expected 1 to 2^62 - 1",
        of: ShardFixture())
    }
  }

  @Test func `bytes that are no message`() {
    let shard = claimed()
    expect(
      Blob([1, 2, 3]), .malformed, "the bytes end too early: 4 needed at offset 0, 3 left", of: shard)
    var bytes = ShardFixture.pull().array
    bytes[0] = 0
    expect(Blob(bytes), .malformed, "magic is 52495500; expected 52495547", of: shard)
    bytes = ShardFixture.pull().array
    bytes[4] = 9
    expect(Blob(bytes), .malformed, "protocol version is 9; expected 1...1", of: shard)
    bytes = ShardFixture.pull().array
    bytes[6] = 200
    expect(Blob(bytes), .malformed, "opcode is 200; expected one of docs/protocol.md", of: shard)
    expect(
      Blob(ShardFixture.pull().array + [0]), .malformed, "pull: 1 bytes are left after the last field", of: shard)
    expect(
      Blob(Array(ShardFixture.push(Push()).array.dropLast(4))), .malformed,
      "push: the bytes end too early: 6 needed at offset 208, 20 left", of: shard)
  }

  @Test func `a client that speaks only other versions`() {
    var hello = Hello(role: .trainer)
    (hello.oldestVersion, hello.newestVersion) = (3, 5)
    expect(
      hello.encoded(request: 1), .mismatch, "the shard speaks protocol 1...1, the client 3...5", of: ShardFixture())
  }

  @Test func `questions for other roles, and tables by unknown names`() {
    expect(
      PlainMessage.empty(.publish, request: 1), .malformed,
      "a shard does not answer 'publish'; ask sync or a replica", of: ShardFixture())
    for opcode in [Opcode.forget, .inspect] {
      expect(
        IDsRequest(table: "nope", ids: [1]).encoded(opcode, request: 1), .mismatch,
        "no table 'nope'; the tables are user, item", of: ShardFixture())
    }
  }

  @Test func `a long name in a refusal is cut to what the other side reads`() {
    let name = String(repeating: "e\u{301}\u{302}\u{303}", count: 500)
    let refusal = ShardFixture().refusal(IDsRequest(table: name, ids: []).encoded(.forget, request: 1))
    #expect(refusal?.code == .mismatch)
  }

  @Test func `blocks that are no longer kept, and epochs that cannot be`() {
    let shard = claimed()
    let ask = { (after: UInt64, stored: UInt64) in
      BlocksRequest(afterEpoch: after, skipRecords: 0, waitMilliseconds: .max, persistedEpoch: stored)
        .encoded(request: 1)
    }
    // Nobody can have stored what is not synced: the next block stays.
    #expect(shard.send(ask(.max, .max)).isEmpty)
    expect(ask(0, 0), .gone, "blocks before epoch 2 are no longer kept; take a new base", of: shard)
    shard.send(ShardFixture.push(Push()))
    shard.close()
    #expect(shard.refusal(ask(1, 0)) == nil)
  }

  @Test func `a pull changes nothing`() {
    let shard = claimed()
    shard.send(ShardFixture.push(Push(tensor: (0, 2))))
    shard.close()
    let before = shard.state
    for table in 0..<2 {
      for _ in 0..<3 { shard.send(ShardFixture.pull(table: table, ids: Array(0...200), dense: true)) }
    }
    #expect(shard.state == before)
    #expect(shard.close().isEmpty)
  }

  @Test func `a push is applied once, a repeat is acknowledged`() throws {
    let shard = claimed()
    shard.send(ShardFixture.push(Push()))
    let once = shard.state
    let answers = shard.send(ShardFixture.push(Push()))
    #expect(shard.state == once)
    var reader = ByteReader(try #require(answers.first))
    #expect(try MessageHeader(decoding: &reader).kind == .reply)
    #expect(try ChainReply(decoding: &reader).state.applied == Position(low: 10))
    #expect(shard.core.status().counters["repeated"] == 1)
  }

  @Test func `a claim is answered when its block is synced`() throws {
    let shard = ShardFixture()
    #expect(shard.send(Claim(chain: ShardFixture.chain, ownership: ShardFixture.owner).encoded(request: 4)).isEmpty)
    shard.close()
    let sends = shard.actions.compactMap { if case .send(_, let blob) = $0 { blob } else { nil } }
    var reader = ByteReader(try #require(sends.first))
    #expect(try MessageHeader(decoding: &reader) == MessageHeader(.claim, .reply, request: 4))
    // The same claim again is answered at once: it is durable.
    #expect(shard.send(Claim(chain: ShardFixture.chain, ownership: ShardFixture.owner).encoded(request: 5)).count == 1)
  }

  @Test func `a claim that is durable does not answer for a higher one that is not`() throws {
    let shard = ShardFixture()
    shard.send(Claim(chain: ShardFixture.chain, ownership: ShardFixture.owner).encoded(request: 4))
    shard.core.closeEarly()
    var closing: [ShardAction] = []
    while shard.core.hasWork { shard.core.work(now: shard.now, into: &closing) }
    // The block of the first is on its way to the disk when the same owner claims above.
    let higher = Ownership(generation: 7, owner: ShardFixture.owner.owner)
    shard.send(Claim(chain: ShardFixture.chain, ownership: higher).encoded(request: 5))
    var news: [ShardAction] = []
    shard.core.blockSynced(epoch: 1, into: &news)
    let answers = news.compactMap { if case .send(_, let blob) = $0 { blob } else { nil } }
    var reader = ByteReader(try #require(answers.first))
    #expect(answers.count == 1)
    #expect(try MessageHeader(decoding: &reader) == MessageHeader(.claim, .reply, request: 4))
    #expect(try ChainReply(decoding: &reader).state.ownership == ShardFixture.owner)
  }

  @Test func `numbers at their ends do not trap`() {
    let shard = claimed()
    var bytes = ShardFixture.push(Push()).array
    // Example count, event time and watermark: the last three words of the stamp.
    for word in 0..<3 { for byte in 0..<8 { bytes[16 + 72 + word * 8 + byte] = 0xFF } }
    shard.send(Blob(bytes))
    shard.send(ShardFixture.push(Push(from: 10, to: 20)))
    #expect(shard.core.status().chains.first?.examples == .max)
    for cursor in [1, .max, 2 << 60 | 99, 1 << 60 | 99, 3 << 60] as [UInt64] {
      #expect(shard.send(ScanRequest(table: 0, rows: 1, cursor: cursor).encoded(request: 1)).count == 1)
    }
    shard.close()
  }

  @Test func `buckets are those of docs_protocol`() {
    #expect([0, 1, .max].map { ClusterMap.bucket(of: $0) } == [1552, 2910, 1581])
  }

  @Test(arguments: [1, 11, 511, 512, 5000])
  func `a batch is grouped by owner, bucket after bucket, without loss`(count: Int) {
    var random = SeededRandom(seed: 8)
    for shards in [1, 3, 7, 4096] {
      let map = ClusterMap(shardCount: shards)
      // Some buckets have many.
      let ids = (0..<count).map { $0 % 3 == 0 ? UInt64($0 % 7) : random.next() }
      let groups = map.places(of: ids)
      #expect(groups.flatMap { $0 }.sorted() == ids.indices.map { Int32($0) })
      for (shard, places) in groups.enumerated() {
        let buckets = places.map { ClusterMap.bucket(of: ids[Int($0)]) }
        #expect(places.allSatisfy { map.shard(of: ids[Int($0)]) == shard } && buckets == buckets.sorted())
        // Those of one bucket stay in their order.
        #expect(zip(zip(buckets, places), zip(buckets, places).dropFirst()).allSatisfy { $0 < $1 })
      }
    }
    #expect(ClusterMap(shardCount: 2).places(of: []) == [[], []])
  }

  @Test func `buckets are dealt out evenly, and every shard gets some`() {
    for count in [1, 2, 3, 7, 100, 4096] {
      let map = ClusterMap(shardCount: count)
      var buckets = [Int](repeating: 0, count: count)
      var seen: Set<Int> = []
      var id: UInt64 = 0
      while seen.count < ClusterMap.bucketCount {
        if seen.insert(ClusterMap.bucket(of: id)).inserted { buckets[map.shard(of: id)] += 1 }
        id += 1
      }
      #expect(buckets.max()! - buckets.min()! <= 1, "\(count) shards")
    }
  }
}
