// The hex blocks in docs/protocol.md are what the encoders write, to the letter: other languages are written from them.

import Base
import Support
import Testing
import Wire

@Suite("Protocol page") struct ProtocolPageTests {
  private static let chain: ChainKey = {
    var chain = ChainKey(consumer: "", stream: "", partition: 3)
    (chain.consumer, chain.stream) = (0x11, 0x22)
    return chain
  }()
  private static let ownership = Ownership(generation: 5, owner: 6)

  private static let state: ChainState = {
    var state = ChainState(chain: chain)
    state.ownership = ownership
    state.applied = Position(low: 20)
    state.durable = Position(low: 10)
    state.exampleCount = 7
    state.eventTime = 1_700_000_000_000
    state.watermark = 1_699_999_999_000
    return state
  }()

  private static func push(_ numbers: NumberType) -> Blob {
    let stamp = Stamp(
      chain: chain, ownership: ownership, previousEnd: Position(low: 10), end: Position(low: 20), exampleCount: 4,
      eventTime: 1_700_000_000_000, watermark: 1_699_999_999_000)
    var writer = ByteWriter()
    PushRequest.begin(
      request: 8, stamp: stamp, mapNumber: 2, sections: 1, tensors: 1,
      arrivals: [ArrivalCount(arrival: 1_700_000_000_120, count: 4)], numbers: numbers, into: &writer)
    PushRequest.beginSection(table: 1, ids: [9, 10], sightings: [2, 1], floats: 4, into: &writer)
    writer.append(numbers: numbers, count: 4) { target in
      for place in 0..<4 { target[place] = [1, -0.5, 0.25, 2][place] }
    }
    PushRequest.append(tensor: 0, gradients: [0.5], into: &writer)
    return writer.finish()
  }

  private static func rows(_ numbers: NumberType) -> Blob {
    var writer = ByteWriter()
    PullReply.begin(request: 7, incarnation: 0xABCD, sections: 1, tensors: 1, numbers: numbers, into: &writer)
    PullReply.beginNumbers(number: 0, count: 2, into: &writer)
    writer.append(numbers: numbers, count: 2) { target in
      target[0] = 1
      target[1] = -0.5
    }
    PullReply.beginNumbers(number: 0, count: 1, into: &writer)
    writer.append(Float(0.25))
    return writer.finish()
  }

  private static var digest: DigestReply {
    var digest = DigestReply()
    digest.tables["user"] = DigestReply.Entry(count: 1, sum: 2)
    digest.tensors["bias"] = DigestReply.Entry(count: 3, sum: 4)
    return digest
  }

  private static var digestRequest: Blob {
    var writer = ByteWriter()
    MessageHeader(.digest, request: 13).encode(into: &writer)
    writer.append(UInt32(1))
    return writer.finish()
  }

  /// The examples of the page, by name.
  private static func examples() -> [String: Blob] {
    let welcome = Welcome(
      shard: 0, shardCount: 2, mapNumber: 2, incarnation: 0xABCD, identityHigh: 1, identityLow: 2, epoch: 8,
      durableEpoch: 7, chains: [state], tables: [TableShape(name: "user", weightCount: 2, floatCount: 4)],
      tensors: [TensorShape(name: "bias", count: 1, shard: 0)], requestCredits: 256, byteCredits: 256 << 20)
    let reply = ChainReply(incarnation: 0xABCD, state: state)
    let record = BlockRecordEntry(epoch: 7, index: 0, payload: ByteReader(Blob([1, 2, 3])))
    return [
      "hello": Hello(role: .trainer, chains: [chain]).encoded(request: 1), "welcome": welcome.encoded(request: 1),
      "claim": Claim(chain: chain, ownership: ownership).encoded(request: 2),
      "claim-reply": reply.encoded(.claim, request: 2),
      "pull": PullRequest.encoded(
        request: 7, mapNumber: 2, eventTime: 1_700_000_000_000, wantsDense: true,
        sections: [(table: 0, ids: [9], sightings: [2])]),
      "pull-reply": rows(.float32), "pull-reply-float16": rows(.float16), "push": push(.float32),
      "push-float16": push(.float16), "push-reply": reply.encoded(.push, request: 8),
      "durable": reply.encoded(.durable, request: 0), "ping": PlainMessage.empty(.ping, request: 9),
      "ping-reply": Pong(incarnation: 0xABCD, durableEpoch: 7).encoded(request: 9),
      "closeEpoch": PlainMessage.empty(.closeEpoch, request: 10),
      "closeEpoch-reply": PlainMessage.empty(.closeEpoch, .reply, request: 10),
      "forget": IDsRequest(table: "user", ids: [9]).encoded(.forget, request: 11),
      "forget-reply": PlainMessage.text(.forget, "{\"erased\":1}", request: 11),
      "inspect": IDsRequest(table: "user", ids: [9]).encoded(.inspect, request: 12),
      "status": PlainMessage.empty(.status, request: 13), "digest": digestRequest,
      "digest-reply": digest.encoded(request: 13),
      "blocksSince": BlocksRequest(afterEpoch: 6, skipRecords: 0, waitMilliseconds: 1000, persistedEpoch: 5)
        .encoded(request: 14),
      "blocksSince-reply": BlocksReply(
        incarnation: 0xABCD, identityHigh: 1, identityLow: 2, durableEpoch: 7, records: [record]
      ).encoded(request: 14),
      "scan": ScanRequest(table: 0, rows: 1024, cursor: 0).encoded(request: 15),
      "scan-reply": ScanReply.encoded(request: 15, incarnation: 0xABCD, epoch: 8) { _ in (1024, true) },
      "follow": Follow(replica: 1, incarnation: 2, store: 3, version: 4).encoded(request: 16),
      "version": VersionMessage(store: 3, number: 5, newest: 5, content: ByteReader(Blob([1, 2, 3])))
        .encoded(request: 16),
      "checkpoint": CheckpointRequest(name: "mine").encoded(request: 18),
      "publish": PublishRequest(dense: true).encoded(request: 17),
      "versions": VersionsRequest().encoded(request: 19), "pin": PinRequest(version: 812).encoded(request: 20),
      "resume": PlainMessage.empty(.resume, request: 21),
      "rows": RowsRequest.encoded(table: "user", ids: [9, 10], request: 22),
      "rows-reply": RowsReply.encoded(
        request: 22, version: 812, newestEventTime: 1_700_000_000_000, lag: 1500, width: 2, numbers: .float32,
        found: [1, 0], weights: [1, -0.5, 0, 0]),
      "error": ErrorReply(.gap, "behind", position: Position(low: 20), generation: 5).encoded(
        opcode: .push, request: 8),
    ]
  }

  @Test func `the hex examples in docs_protocol are the bytes that are written`() throws {
    let documented = try HexExamples.documented(in: "protocol.md", sourceFile: #filePath)
    let written = Self.examples().mapValues { HexExamples.dump($0.array) }
    #expect(documented.keys.sorted() == written.keys.sorted())
    for (name, bytes) in written { #expect(documented[name] == bytes, "```hex \(name)\n\(bytes)```") }
  }

  @Test func `every opcode and every error code is in the page`() throws {
    let root = #filePath.split(separator: "/", omittingEmptySubsequences: false).dropLast(3).joined(separator: "/")
    let page = String(decoding: try Files.read(root + "/docs/protocol.md"), as: UTF8.self)
    for opcode in Opcode.allCases { #expect(page.contains("| \(opcode.rawValue) | \(opcode) |")) }
    for code in (1...).lazy.map({ ErrorCode(rawValue: $0) }).prefix(while: { $0 != nil }) {
      let code = try #require(code)
      #expect(page.contains("| \(code.rawValue) | \(code) |"))
    }
  }
}
