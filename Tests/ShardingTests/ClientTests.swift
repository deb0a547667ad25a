// What a client does when a shard answers strangely.

import Base
import Testing
import Wire

@testable import Sharding

@Suite("Shard client") struct ClientTests {
  private let chain = ShardFixture.chain

  private func welcome(_ shard: Int = 0, of count: Int = 1, generation: UInt64 = 0) -> Welcome {
    var state = ChainState(chain: chain)
    state.ownership.generation = generation
    return Welcome(
      shard: shard, shardCount: count, mapNumber: 1, incarnation: 1, identityHigh: 1, identityLow: 1, epoch: 1,
      durableEpoch: 0, chains: [state], tables: [TableShape(name: "user", weightCount: 2, floatCount: 2)], tensors: [])
  }

  private func client() -> ShardClient {
    var client = ShardClient(shardCount: 1, chains: [chain], owner: 9)
    client.tick(now: 0)
    return client
  }

  /// A client that owns its chain, and its ownership.
  private func ready() -> ShardClient {
    var client = client()
    client.receive(welcome().encoded(request: 1), from: 0, now: 0)
    var state = ChainState(chain: chain)
    state.ownership = client.ownership
    client.receive(ChainReply(incarnation: 1, state: state).encoded(.claim, request: 2), from: 0, now: 0)
    _ = client.takeOutgoing()
    return client
  }

  private func opcodes(_ messages: [(shard: Int, message: Blob)]) -> [Opcode] {
    messages.compactMap { _, message in
      var reader = ByteReader(message)
      return try? MessageHeader(decoding: &reader).opcode
    }
  }

  @Test func `a shard at the wrong endpoint`() {
    var client = client()
    client.receive(welcome(2, of: 3).encoded(request: 1), from: 0, now: 0)
    #expect(
      client.failure?.description
        == "shard 0: it is shard 2 of 3, expected shard 0 of 1; compare the endpoints in the configuration")
  }

  @Test func `a client that owns its chain is fenced when a claim of it, repeated on the way, is refused`() {
    // It reads from the positions of its claim; were it to claim above, its batches would not end where shards stand.
    var client = ready()
    let refusal = ErrorReply(.fenced, "another one", generation: client.ownership.generation + 1)
    client.receive(refusal.encoded(opcode: .claim, request: 2), from: 0, now: 0)
    #expect(client.failure == .fenced(shard: 0, generation: 2))
  }

  @Test func `a generation that nobody can claim above`() {
    var client = client()
    client.receive(welcome(generation: .max).encoded(request: 1), from: 0, now: 0)
    #expect(
      client.failure?.description
        == "shard 0: generation 18446744073709551615 owns a partition, which nobody can claim above")
  }

  @Test func `an answer to a pull with fewer rows than were asked for`() {
    var client = ready()
    let ticket = client.pull(now: 0) { ticket, _ in
      PullRequest.encoded(
        request: ticket, mapNumber: 1, eventTime: 0, wantsDense: false,
        sections: [(table: 0, ids: [1, 2], sightings: [1, 1])])
    }
    var writer = ByteWriter()
    PullReply.begin(request: ticket, incarnation: 1, sections: 1, tensors: 0, into: &writer)
    PullReply.beginNumbers(number: 0, count: 3, into: &writer)
    writer.append(array: [Float](repeating: 0, count: 3))
    client.receive(writer.finish(), from: 0, now: 0)
    #expect(
      client.failure
        == .mismatch(shard: 0, "its answer to a pull does not hold the rows and tensors that were asked for"))
  }

  @Test func `a hello answered twice sends nothing again`() {
    var client = ready()
    client.push(chain: chain, end: Position(low: 10), now: 0) { _, _ in ShardFixture.push(.init()) }
    #expect(client.takeOutgoing().count == 1)
    var state = welcome()
    state.chains[0].ownership = client.ownership
    client.receive(state.encoded(request: 1), from: 0, now: 1)
    #expect(client.takeOutgoing().isEmpty)
  }

  @Test func `what stays applied but not durable is asked about`() {
    var client = ready()
    client.push(chain: chain, end: Position(low: 10), now: 0) { _, _ in ShardFixture.push(.init()) }
    _ = client.takeOutgoing()
    var state = ChainState(chain: chain)
    (state.ownership, state.applied) = (client.ownership, Position(low: 10))
    client.receive(ChainReply(incarnation: 1, state: state).encoded(.push, request: 3), from: 0, now: 1)
    client.tick(now: 7_000_000_000)
    #expect(opcodes(client.takeOutgoing()) == [.ping])
    client.tick(now: 9_000_000_000)
    #expect(opcodes(client.takeOutgoing()) == [.hello])
    // The shard came back without it: it is sent again.
    var back = welcome()
    back.incarnation = 2
    back.chains[0].ownership = client.ownership
    client.receive(back.encoded(request: 4), from: 0, now: 9_000_000_001)
    #expect(client.takeOutgoing().count == 1)
    #expect(client.failure == nil)
  }

  @Test func `a shard behind what it had called durable stops the client`() {
    var client = ready()
    var state = ChainState(chain: chain)
    (state.ownership, state.applied, state.durable) = (client.ownership, Position(low: 10), Position(low: 10))
    client.receive(ChainReply(incarnation: 1, state: state).encoded(.durable, request: 0), from: 0, now: 1)
    var back = welcome()
    back.chains[0].ownership = client.ownership
    back.chains[0].applied = Position(low: 5)
    client.receive(back.encoded(request: 4), from: 0, now: 2)
    #expect(client.failure == .lostDurable(shard: 0, acknowledged: Position(low: 10), found: Position(low: 5)))
  }

  @Test func `a push that a shard cannot read is not sent for ever`() {
    var client = ready()
    client.receive(ErrorReply(.malformed, "push: no").encoded(opcode: .push, request: 3), from: 0, now: 1)
    #expect(client.failure == .mismatch(shard: 0, "push: no"))
  }

  @Test func `what waits to be applied is known at once, however much is kept`() {
    var client = ready()
    let count: UInt64 = 20_000
    let began = Clocks.monotonic()
    var seen = 0
    for end in 1...count {
      client.push(chain: chain, end: Position(low: end), now: 0) { request, _ in
        PlainMessage.empty(.closeEpoch, request: request)
      }
      seen += client.batchesAhead
      _ = client.takeOutgoing()
    }
    #expect(client.batchesAhead == Int(count) && seen == Int(count * (count + 1) / 2))
    let bytes = client.keptBytes
    var state = ChainState(chain: chain)
    state.ownership = client.ownership
    for applied in 1...count {
      state.applied = Position(low: applied)
      state.durable = Position(low: applied / 2)
      client.receive(ChainReply(incarnation: 1, state: state).encoded(.push, request: applied + 9), from: 0, now: 0)
      #expect(client.batchesAhead == Int(count - applied))
    }
    #expect(client.keptBytes == bytes / 2)
    // Work that grew with what is kept would be 400 million steps each way.
    #expect(Clocks.monotonic() - began < 15_000_000_000)
    // A shard that came back has less than it had acknowledged: that is sent again, in order.
    state.applied = Position(low: count - 3)
    client.receive(
      ErrorReply(.gap, "gap").encoded(opcode: .push, request: 5), from: 0, now: 1)
    var again = welcome()
    again.incarnation = 2
    again.chains = [state]
    _ = client.takeOutgoing()
    client.receive(again.encoded(request: 6), from: 0, now: 2)
    #expect(client.batchesAhead == 3)
    #expect(opcodes(client.takeOutgoing()) == [.closeEpoch, .closeEpoch, .closeEpoch])
  }
}
