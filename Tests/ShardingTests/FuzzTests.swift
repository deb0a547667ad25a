// Mutated messages: nothing traps, and what is refused changes nothing.

import Base
import Testing
import Wire

@testable import Sharding

/// Changes a valid message in one of the ways that find careless decoders.
func mutate(_ message: Blob, _ random: inout SeededRandom) -> Blob {
  var bytes = message.array
  for _ in 0..<Int.random(in: 1...3, using: &random) {
    guard !bytes.isEmpty else { break }
    let at = Int.random(in: bytes.indices, using: &random)
    switch Int.random(in: 0..<6, using: &random) {
    case 0: bytes[at] ^= 1 << UInt8.random(in: 0..<8, using: &random)
    case 1: bytes[at] = .random(in: 0...255, using: &random)
    case 2: bytes.removeLast(bytes.count - at)
    case 3: bytes.append(contentsOf: [UInt8](repeating: 0xFF, count: Int.random(in: 1...16, using: &random)))
    case 4:
      // A whole number at its end, where numbers lie.
      let start = at / 4 * 4
      for offset in start..<min(bytes.count, start + [4, 8].randomElement(using: &random)!) { bytes[offset] = 0xFF }
    default:
      let start = at / 8 * 8
      for offset in start..<min(bytes.count, start + 8) { bytes[offset] = offset == start + 7 ? 0x7F : 0 }
    }
  }
  return Blob(bytes)
}

@Suite("Mutated messages") struct FuzzTests {
  @Test(arguments: 1...4 as ClosedRange<UInt64>) func `a shard refuses them and stays as it was`(seed: UInt64) {
    var random = SeededRandom(seed: seed)
    let shard = ShardFixture()
    shard.claim()
    var applied: UInt64 = 0
    for _ in 0..<1000 {
      let messages: [Blob] = [
        Hello(role: .trainer, chains: [ShardFixture.chain]).encoded(request: 1),
        Claim(chain: ShardFixture.chain, ownership: ShardFixture.owner).encoded(request: 1),
        ShardFixture.pull(ids: Array(0..<20), dense: true),
        ShardFixture.push(.init(from: applied, to: applied + 10, ids: Array(0..<20), tensor: (0, 2))),
        ShardFixture.push(.init(from: applied, to: applied + 10, ids: Array(0..<20), tensor: (0, 2))),
        IDsRequest(table: "user", ids: [1, 2, 3]).encoded(.inspect, request: 1),
        BlocksRequest(afterEpoch: 1, skipRecords: 0, waitMilliseconds: 10, persistedEpoch: 0).encoded(request: 1),
        ScanRequest(table: 0, rows: 4, cursor: 0).encoded(request: 1),
        PlainMessage.empty(.status, request: 1),
      ]
      let message = mutate(messages.randomElement(using: &random)!, &random)
      let before = shard.state
      if shard.refusal(message) != nil { #expect(shard.state == before) }
      if Int.random(in: 0..<40, using: &random) == 0 {
        shard.now += 1_000_000_000
        shard.close()
      }
      // A mutated push may be a whole one, even one that takes the chain to its end: then a new shard goes on.
      applied = shard.core.status().chains.first { $0.consumer == ShardFixture.chain.consumer }?.applied ?? 0
      if applied > 1 << 40 { applied = 0 }
    }
  }

  @Test(arguments: 1...4 as ClosedRange<UInt64>) func `a client drops them or stops with a reason`(seed: UInt64) {
    var random = SeededRandom(seed: seed)
    for _ in 0..<150 {
      let shard = ShardFixture()
      var client = ShardClient(shardCount: 1, chains: [ShardFixture.chain], owner: 9, retryAfter: .milliseconds(1))
      var now: Int64 = 0
      for step in 0..<12 where client.failure == nil {
        now += 2_000_000
        client.tick(now: now)
        if client.isReady, step == 6 {
          let ownership = client.ownership
          _ = client.pull(now: now) { ticket, _ in
            PullRequest.encoded(
              request: ticket, mapNumber: 1, eventTime: 0, wantsDense: true,
              sections: [(table: 0, ids: [1, 2], sightings: [1, 1])])
          }
          client.push(chain: ShardFixture.chain, end: Position(low: 10), now: now) { _, _ in
            ShardFixture.push(.init(ownership: ownership))
          }
        }
        for (_, message) in client.takeOutgoing() {
          var answers = shard.send(message)
          shard.close()
          answers += shard.actions.compactMap { if case .send(_, let blob) = $0 { blob } else { nil } }
          for answer in answers {
            let isMutated = Int.random(in: 0..<4, using: &random) == 0
            client.receive(isMutated ? mutate(answer, &random) : answer, from: 0, now: now)
          }
        }
      }
    }
  }
}
