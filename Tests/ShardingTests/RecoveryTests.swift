// What comes back from a journal: whole blocks, in the numbers of the run that reads them.

import Base
import Testing
import Wire

@testable import Sharding

@Suite("Shard recovery") struct RecoveryTests {
  private typealias Push = ShardFixture.PushShape

  private func trained() -> (shard: ShardFixture, journal: [Blob]) {
    let shard = ShardFixture()
    var journal = [BlockRecord.encode(shard.core.shape)]
    shard.send(Claim(chain: ShardFixture.chain, ownership: ShardFixture.owner).encoded(request: 1))
    journal += shard.close()
    for step in 0..<20 as Range<UInt64> {
      let ids = Array(step * 3..<step * 3 + 40)
      shard.send(ShardFixture.push(Push(from: step * 10, to: step * 10 + 10, ids: ids, tensor: (0, 2))))
      if step % 4 == 3 { journal += shard.close() }
    }
    return (shard, journal)
  }

  @Test func `the journal gives back the same shard`() throws {
    let (shard, journal) = trained()
    let again = ShardFixture()
    for record in journal { try again.core.recover(record) }
    #expect(again.state == shard.state)
  }

  @Test func `a block without its end does not count`() throws {
    let (_, journal) = trained()
    let ends = journal.indices.filter {
      if case .end = try? BlockRecord.parse(ByteReader(journal[$0])) { true } else { false }
    }
    for cut in journal.indices {
      let again = ShardFixture()
      for record in journal[..<cut] { try again.core.recover(record) }
      _ = again.core.beginRun(now: 0)
      #expect(again.core.status().durableEpoch == UInt64(ends.count { $0 < cut }))
    }
  }

  @Test func `counts that moved while a journal was read do not come back later`() throws {
    // Many ids wait for their second sighting, so that the index moves them about while blocks are replayed.
    let shard = ShardFixture()
    var journal = [BlockRecord.encode(shard.core.shape)]
    shard.send(Claim(chain: ShardFixture.chain, ownership: ShardFixture.owner).encoded(request: 1))
    let ids = (0..<4000 as Range<UInt64>).map { Hashing.mix($0) }
    shard.send(ShardFixture.push(Push(to: 10, table: 1, ids: ids, width: 3)))
    journal += shard.close()
    shard.send(ShardFixture.push(Push(from: 10, to: 20, table: 1, ids: ids, width: 3)))
    journal += shard.close()
    let rows = shard.state
    for _ in 0..<3 {
      let again = ShardFixture()
      for record in journal { try again.core.recover(record) }
      journal.append(again.core.beginRun(now: 0))
      #expect(again.core.digest(halfPrecision: false) == shard.core.digest(halfPrecision: false))
      // A claim makes the next block.
      let generation = UInt64(journal.count)
      again.send(
        Claim(chain: ShardFixture.chain, ownership: Ownership(generation: generation, owner: 1)).encoded(request: 1))
      journal += again.close()
    }
    #expect(shard.state == rows)
  }
}
