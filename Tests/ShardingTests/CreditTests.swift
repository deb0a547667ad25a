// How much a client sends: never more than a shard said, in order, and less often while the shard does not answer.

import Base
import Testing
import Wire

@testable import Sharding

@Suite("Credits and retries") struct CreditTests {
  private let chain = ShardFixture.chain

  /// A client that owns its chain at a shard with these credits.
  private func ready(requests: Int = 0, bytes: Int = 0, owner: UInt64 = 9) -> ShardClient {
    var client = ShardClient(shardCount: 1, chains: [chain], owner: owner)
    client.tick(now: 0)
    client.receive(welcome(requests, bytes, .none).encoded(request: 1), from: 0, now: 0)
    var state = ChainState(chain: chain)
    state.ownership = client.ownership
    let claim = client.takeOutgoing().last.map { number($0.message) } ?? 0
    client.receive(ChainReply(incarnation: 1, state: state).encoded(.claim, request: claim), from: 0, now: 0)
    return client
  }

  private func welcome(_ requests: Int, _ bytes: Int, _ ownership: Ownership) -> Welcome {
    var state = ChainState(chain: chain)
    state.ownership = ownership
    return Welcome(
      shard: 0, shardCount: 1, mapNumber: 1, incarnation: 1, identityHigh: 1, identityLow: 1, epoch: 1,
      durableEpoch: 0, chains: [state], tables: [TableShape(name: "user", weightCount: 2, floatCount: 2)], tensors: [],
      requestCredits: requests, byteCredits: bytes)
  }

  private func number(_ message: Blob) -> UInt64 {
    var reader = ByteReader(message)
    return (try? MessageHeader(decoding: &reader).request) ?? 0
  }

  private func opcodes(_ messages: [(shard: Int, message: Blob)]) -> [Opcode] {
    messages.compactMap { _, message in
      var reader = ByteReader(message)
      return try? MessageHeader(decoding: &reader).opcode
    }
  }

  private func push(_ client: inout ShardClient, to end: UInt64, bytes: Int = 0) {
    client.push(chain: chain, end: Position(low: end), now: 0) { request, _ in
      var writer = ByteWriter()
      MessageHeader(.push, request: request).encode(into: &writer)
      writer.append(bytes: [UInt8](repeating: 0, count: bytes))
      return writer.finish()
    }
  }

  private func acknowledge(_ client: inout ShardClient, _ request: UInt64, to end: UInt64) {
    var state = ChainState(chain: chain)
    (state.ownership, state.applied) = (client.ownership, Position(low: end))
    client.receive(ChainReply(incarnation: 1, state: state).encoded(.push, request: request), from: 0, now: 1)
  }

  @Test func `requests beyond the credits wait, in order, for answers`() {
    var client = ready(requests: 2)
    for end in 1...5 as ClosedRange<UInt64> { push(&client, to: end * 10) }
    var sent: [UInt64] = []
    for end in 1...5 as ClosedRange<UInt64> {
      sent += client.takeOutgoing().map { number($0.message) }
      #expect(sent.count == min(5, Int(end) + 1))
      acknowledge(&client, sent[Int(end) - 1], to: end * 10)
    }
    #expect(sent == sent.sorted())
  }

  @Test func `bytes count too`() {
    var client = ready(bytes: 1 << 20)
    for end in 1...3 as ClosedRange<UInt64> { push(&client, to: end, bytes: 600_000) }
    let first = client.takeOutgoing()
    #expect(first.count == 1)
    acknowledge(&client, number(first[0].message), to: 1)
    #expect(client.takeOutgoing().count == 1)
  }

  @Test func `a request that no credit can hold stops the client with words`() {
    var client = ready(bytes: 1 << 20)
    push(&client, to: 1, bytes: 1 << 20)
    #expect(
      client.failure
        == .mismatch(shard: 0, "a request of 1048592 bytes is above its limit of 1048576; make batches smaller"))
  }

  @Test func `an idle client pings, and a shard that does not answer is found out`() {
    var client = ready()
    client.tick(now: 900_000_000)
    #expect(client.takeOutgoing().isEmpty)
    client.tick(now: 1_100_000_000)
    let ping = client.takeOutgoing()
    #expect(opcodes(ping) == [.ping])
    client.receive(Pong(incarnation: 1, durableEpoch: 0).encoded(request: 7), from: 0, now: 1_200_000_000)
    client.tick(now: 2_300_000_000)
    #expect(opcodes(client.takeOutgoing()) == [.ping])
    #expect(client.waitsFor == nil)
    client.tick(now: 4_400_000_000)
    #expect(opcodes(client.takeOutgoing()) == [.hello])
    #expect(client.waitsFor == "waits for shards 0 to answer again")
  }

  @Test func `a pong of another incarnation means the shard came back`() {
    var client = ready()
    client.tick(now: 1_100_000_000)
    _ = client.takeOutgoing()
    client.receive(Pong(incarnation: 2, durableEpoch: 0).encoded(request: 7), from: 0, now: 1_200_000_000)
    #expect(opcodes(client.takeOutgoing()) == [.hello])
  }

  /// When a client says hello to a shard that never answers, in milliseconds.
  private func hellos(owner: UInt64) -> [Int64] {
    var client = ready(owner: owner)
    push(&client, to: 10)
    _ = client.takeOutgoing()
    return (0..<30_000).compactMap { millisecond in
      client.tick(now: Int64(millisecond) * 1_000_000)
      return opcodes(client.takeOutgoing()).contains(.hello) ? Int64(millisecond) : nil
    }
  }

  @Test func `a silent shard is asked with growing pauses that differ between clients and repeat with the seed`() {
    let times = hellos(owner: 9)
    let pauses = zip(times.dropFirst(), times).map { $0 - $1 }
    #expect(pauses.allSatisfy { $0 <= 4_001 })
    #expect(pauses.suffix(5).allSatisfy { $0 >= 2_000 })
    #expect((125...251).contains(pauses[0]))
    #expect((8...20).contains(times.count))
    #expect(hellos(owner: 9) == times)
    #expect(hellos(owner: 10) != times)
  }

  @Test func `a busy shard is not asked again at once`() {
    var client = ready()
    push(&client, to: 10)
    let request = number(client.takeOutgoing()[0].message)
    client.receive(ErrorReply(.busy, "later").encoded(opcode: .push, request: request), from: 0, now: 1)
    client.tick(now: 50_000_000)
    #expect(client.takeOutgoing().isEmpty)
    client.tick(now: 300_000_000)
    #expect(opcodes(client.takeOutgoing()) == [.hello])
    #expect(client.failure == nil)
  }
}
