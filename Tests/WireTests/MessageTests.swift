// The bytes of messages as docs/protocol.md gives them: they are a format, so they are held to the letter.

import Base
import Testing
import Wire

@Suite("Messages") struct MessageTests {
  private let chain: ChainKey = {
    var chain = ChainKey(consumer: "", stream: "", partition: 3)
    (chain.consumer, chain.stream) = (0x11, 0x22)
    return chain
  }()

  private func hex(_ blob: Blob) -> String {
    blob.array.map { byte in (byte < 16 ? "0" : "") + String(byte, radix: 16) }.joined()
  }

  private func words(_ values: UInt64...) -> String {
    values.map { value in
      (0..<8).map { place in
        let byte = UInt8(truncatingIfNeeded: value >> (8 * UInt64(place)))
        return (byte < 16 ? "0" : "") + String(byte, radix: 16)
      }.joined()
    }.joined()
  }

  @Test func `hello`() {
    let hello = Hello(role: .trainer, chains: [chain]).encoded(request: 0x0102)
    #expect(
      hex(hello) == "4755495201000100" + words(0x0102) + "0100" + "0100" + "0100" + "0100" + words(0x11, 0x22, 3))
  }

  @Test func `claim`() {
    let claim = Claim(chain: chain, ownership: Ownership(generation: 5, owner: 6)).encoded(request: 7)
    #expect(hex(claim) == "4755495201000200" + words(7, 0x11, 0x22, 3, 5, 6))
  }

  @Test func `pull`() {
    let pull = PullRequest.encoded(
      request: 8, mapNumber: 2, eventTime: 1000, wantsDense: true,
      sections: [(table: 1, ids: [9, 10, 11], sightings: [1, 2, 3])])
    let section = "01000000" + "03000000" + words(9, 10, 11) + "010000000200000003000000" + "00000000"
    #expect(hex(pull) == "4755495201000300" + words(8, 2, 1000) + "01000000" + "01000000" + section)
  }

  @Test func `push`() {
    let stamp = Stamp(
      chain: chain, ownership: Ownership(generation: 5, owner: 6), previousEnd: Position(high: 1, low: 2),
      end: Position(high: 3, low: 4), exampleCount: 12, eventTime: 13, watermark: 14)
    var writer = ByteWriter()
    PushRequest.begin(
      request: 8, stamp: stamp, mapNumber: 2, sections: 1, tensors: 1,
      arrivals: [ArrivalCount(arrival: 15, count: 16)], into: &writer)
    PushRequest.beginSection(table: 1, ids: [9], sightings: [2], floats: 1, into: &writer)
    writer.append(Float(1))
    PushRequest.append(tensor: 4, gradients: [2], into: &writer)
    let begin = words(8, 0x11, 0x22, 3, 5, 6, 1, 2, 3, 4, 12, 13, 14, 2)
    let counts = "01000000" + "01000000" + "01000000" + "00000000" + words(15, 16)
    let section = "01000000" + "01000000" + words(1, 9) + "02000000" + "00000000" + "0000803f" + "00000000"
    let tensor = "04000000" + "01000000" + "00000040"
    #expect(hex(writer.finish()) == "4755495201000400" + begin + counts + section + tensor)
  }

  @Test func `what is written is read`() throws {
    func read<Body>(_ message: Blob, _ decode: (inout ByteReader) throws -> Body) throws -> Body {
      var reader = ByteReader(message)
      _ = try MessageHeader(decoding: &reader)
      return try decode(&reader)
    }
    let hello = Hello(role: .sync, chains: [chain, chain])
    #expect(try read(hello.encoded(request: 1)) { try Hello(decoding: &$0) } == hello)
    var state = ChainState(chain: chain)
    state.applied = Position(high: 7, low: 8)
    let welcome = Welcome(
      shard: 1, shardCount: 2, mapNumber: 3, incarnation: 4, identityHigh: 5, identityLow: 6, epoch: 7, durableEpoch: 8,
      chains: [state], tables: [TableShape(name: "user", weightCount: 2, floatCount: 4)],
      tensors: [TensorShape(name: "bias", count: 3, shard: 1)])
    #expect(try read(welcome.encoded(request: 1)) { try Welcome(decoding: &$0) } == welcome)
    let reply = ChainReply(incarnation: 9, state: state)
    #expect(try read(reply.encoded(.durable, request: 0)) { try ChainReply(decoding: &$0) } == reply)
    let refusal = ErrorReply(.gap, "behind", position: Position(low: 3), generation: 4)
    #expect(try read(refusal.encoded(opcode: .push, request: 1)) { try ErrorReply(decoding: &$0) } == refusal)
    let ids = IDsRequest(table: "user", ids: [0, .max])
    #expect(try read(ids.encoded(.forget, request: 1)) { try IDsRequest(decoding: &$0) } == ids)
    let blocks = BlocksRequest(afterEpoch: 1, skipRecords: 2, waitMilliseconds: 3, persistedEpoch: 4)
    #expect(try read(blocks.encoded(request: 1)) { try BlocksRequest(decoding: &$0) } == blocks)
    let follow = Follow(replica: 1, incarnation: 2, store: 3, version: 4, part: 5)
    #expect(try read(follow.encoded(request: 1)) { try Follow(decoding: &$0) } == follow)
    var digest = DigestReply()
    digest.tables["user"] = DigestReply.Entry(count: 1, sum: 2)
    #expect(try read(digest.encoded(request: 1)) { try DigestReply(decoding: &$0) } == digest)
  }

  @Test func `a push renumbered differs in its number alone`() throws {
    let message = Claim(chain: chain, ownership: .none).encoded(request: 7)
    #expect(
      PushRequest.renumbered(message, request: 9).array
        == Claim(chain: chain, ownership: .none).encoded(request: 9).array)
  }
}
