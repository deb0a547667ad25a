// The messages, each decoded as its receiver does: header, then body.

import Base
import Wire

private let chain = ChainKey(consumer: "model", stream: "examples", partition: 0)

private func message(
  _ name: String, _ seeds: [Blob], _ body: @escaping (inout ByteReader) throws -> Void
) -> Decoder {
  Decoder("wire-\(name)", seeds: { seeds.map(\.array) }) { input in
    var reader = ByteReader(input)
    _ = try MessageHeader(decoding: &reader)
    try body(&reader)
  }
}

private func pull(_ numbers: NumberType) -> Blob {
  PullRequest.encoded(
    request: 2, mapNumber: 1, eventTime: 1000, wantsDense: true, numbers: numbers,
    sections: [(0, [1, 2, .max], [1, 1, 3]), (1, [0], [1])])
}

func push(_ numbers: NumberType, from: UInt64 = 0, ids: [UInt64] = [1, 2, 3], table: Int = 0, width: Int = 2) -> Blob {
  let stamp = Stamp(
    chain: chain, ownership: Ownership(generation: 1, owner: 9), previousEnd: Position(low: from),
    end: Position(low: from + 10), exampleCount: 4, eventTime: 5000, watermark: 4000)
  var writer = ByteWriter()
  PushRequest.begin(
    request: 3, stamp: stamp, mapNumber: 1, sections: 1, tensors: 1,
    arrivals: [ArrivalCount(arrival: 4500, count: 4)], numbers: numbers, into: &writer)
  let floats = ids.count * width
  PushRequest.beginSection(table: table, ids: ids, sightings: ids.map { _ in 1 }, floats: floats, into: &writer)
  writer.append(numbers: numbers, count: floats) { target in
    for place in 0..<floats { target[place] = 0.5 }
  }
  PushRequest.append(tensor: 0, gradients: [1, 1], into: &writer)
  return writer.finish()
}

private func pullReply() -> Blob {
  var writer = ByteWriter()
  PullReply.begin(request: 1, incarnation: 2, sections: 1, tensors: 1, into: &writer)
  PullReply.beginNumbers(number: 0, count: 4, into: &writer)
  writer.append(numbers: .float32, count: 4) { target in for place in 0..<4 { target[place] = 1 } }
  PullReply.beginNumbers(number: 0, count: 2, into: &writer)
  writer.append(numbers: .float32, count: 2) { target in for place in 0..<2 { target[place] = 1 } }
  return writer.finish()
}

private func welcome() -> Blob {
  Welcome(
    shard: 0, shardCount: 1, mapNumber: 1, incarnation: 2, identityHigh: 3, identityLow: 4, epoch: 5, durableEpoch: 4,
    chains: [ChainState(chain: chain)], tables: [TableShape(name: "user", weightCount: 2, floatCount: 4)],
    tensors: [TensorShape(name: "bias", count: 2, shard: 0)], requestCredits: 256, byteCredits: 1 << 20
  ).encoded(request: 1)
}

/// Every message's decoder.
func wireDecoders() -> [Decoder] {
  var digest = DigestReply()
  digest.tables["user"] = DigestReply.Entry(count: 3, sum: 4)
  digest.tensors["bias"] = DigestReply.tensor([1, 2])
  let status = ShardStatus(
    shard: 0, epoch: 2, durableEpoch: 1, isQuiet: true, chains: [ShardStatus.Chain(ChainState(chain: chain))],
    counters: ["pushes": 3], tables: [:], problem: "none")
  let section = sectionBytes()
  return [
    message(
      "hello", [Hello(role: .trainer, chains: [chain]).encoded(request: 1), Hello(role: .sync).encoded(request: 2)]
    ) {
      _ = try Hello(decoding: &$0)
    },
    message("welcome", [welcome()]) { _ = try Welcome(decoding: &$0) },
    message("claim", [Claim(chain: chain, ownership: Ownership(generation: 1, owner: 9)).encoded(request: 1)]) {
      _ = try Claim(decoding: &$0)
    },
    message("chain", [ChainReply(incarnation: 1, state: ChainState(chain: chain)).encoded(.push, request: 1)]) {
      _ = try ChainReply(decoding: &$0)
    },
    message("pong", [Pong(incarnation: 1, durableEpoch: 2).encoded(request: 1)]) { _ = try Pong(decoding: &$0) },
    message("pull", [pull(.float32), pull(.float16)]) { _ = try PullRequest(decoding: &$0) },
    message("pull-reply", [pullReply()]) { _ = try PullReply(decoding: &$0) },
    message("push", [push(.float32), push(.float16)]) { _ = try PushRequest(decoding: &$0) },
    message("ids", [IDsRequest(table: "user", ids: [1, 2, .max]).encoded(.forget, request: 1)]) {
      _ = try IDsRequest(decoding: &$0)
    },
    message(
      "blocks",
      [BlocksRequest(afterEpoch: 1, skipRecords: 0, waitMilliseconds: 10, persistedEpoch: 0).encoded(request: 1)]
    ) { _ = try BlocksRequest(decoding: &$0) },
    message(
      "blocks-reply",
      [
        BlocksReply(
          incarnation: 1, identityHigh: 2, identityLow: 3, durableEpoch: 4,
          records: [
            BlockRecordEntry(epoch: 3, index: 0, payload: ByteReader(Blob(section))),
            BlockRecordEntry(epoch: 3, index: 1, payload: ByteReader(Blob([1, 2, 3]))),
          ]
        ).encoded(request: 1)
      ]
    ) { _ = try BlocksReply(decoding: &$0) },
    message("scan", [ScanRequest(table: 0, rows: 4, cursor: 0).encoded(request: 1)]) {
      _ = try ScanRequest(decoding: &$0)
    },
    message(
      "scan-reply",
      [
        ScanReply.encoded(request: 1, incarnation: 2, epoch: 3) { writer in
          writer.append(bytes: section)
          return (4, true)
        }
      ]
    ) { _ = try ScanReply(decoding: &$0) },
    message(
      "error", [ErrorReply(.gap, "the push begins at 4", position: Position(low: 3)).encoded(opcode: .push, request: 1)]
    ) {
      _ = try ErrorReply(decoding: &$0)
    },
    message("checkpoint", [CheckpointRequest(name: "daily", compacts: true).encoded(request: 1)]) {
      _ = try CheckpointRequest(decoding: &$0)
    },
    message("digest", [digest.encoded(request: 1)]) { _ = try DigestReply(decoding: &$0) },
    message("follow", [Follow(replica: 0, incarnation: 1, store: 2, version: 3, part: 4).encoded(request: 1)]) {
      _ = try Follow(decoding: &$0)
    },
    message(
      "version",
      [VersionMessage(store: 1, number: 2, newest: 3, content: ByteReader(Blob(versionBytes()))).encoded(request: 1)]
    ) { _ = try VersionMessage(decoding: &$0) },
    message("publish", [PublishRequest(dense: true).encoded(request: 1)]) { _ = try PublishRequest(decoding: &$0) },
    message("text", [PlainMessage.text(.status, status.json, request: 1)]) {
      _ = ShardStatus(json: try PlainMessage.text(decoding: &$0))
    },
    message("rows", [RowsRequest.encoded(table: "user", ids: [1, 2, .max], request: 1)]) {
      _ = try RowsRequest(decoding: &$0)
    },
    message(
      "rows-reply",
      [NumberType.float32, .float16].map {
        RowsReply.encoded(
          request: 1, version: 2, newestEventTime: 3, lag: 4, width: 2, numbers: $0, found: [1, 0],
          weights: [1, -2, 0, 0.5])
      }
    ) { _ = try RowsReply(decoding: &$0) },
    message(
      "embed",
      [
        EmbedRequest.encoded(model: "users", users: [1, .max], request: 1),
        EmbedRequest.encoded(model: "users", users: [1], features: [[1, 2, 3]], request: 2),
        EmbedRequest.encoded(model: "users", users: [1], for: ["feed", "ads"], request: 3),
      ]
    ) { _ = try EmbedRequest(decoding: &$0) },
    message(
      "embed-reply",
      [NumberType.float32, .float16].map { numbers in
        EmbedReply.encoded(
          request: 1, count: 2, dimension: 3, numbers: numbers,
          origins: [EmbedReply.Origin(version: 1, eventTime: 2, age: 3, source: 1, pooled: 2)]
        ) { for place in 0..<6 { $0[place] = Float(place) } }
      }
    ) { _ = try EmbedReply(decoding: &$0) },
    Decoder(
      "wire-allow-list",
      seeds: {
        [
          Array("# who may speak\ntrainer-0 trainer rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7\n".utf8),
          Array("sync-0 sync\t0000000000000000000000000000000000000000\n".utf8),
        ]
      }
    ) { input in _ = try AllowList(parsing: String(decoding: input.array, as: UTF8.self)) },
  ]
}
