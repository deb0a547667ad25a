// What versions say of each model's training: what every shard has applied, and no more.

import Base
import Support
import Testing
import Wire

@testable import Syncing

@Suite("Progress of training") struct ProgressTests {
  private static let consumer = Hashing.xxh3("model")

  private func progress(_ examples: UInt64, _ watermark: Milliseconds) -> [ConsumerProgress] {
    [ConsumerProgress(consumer: Self.consumer, exampleCount: examples, watermark: watermark)]
  }

  @Test func `versions carry it with the rows, and it does not go back when sync comes back`() throws {
    let trio = try Trio()
    trio.push([0], watermark: 30)
    try trio.run(40)
    // A store begins between two blocks, and the next one says how far its chains are.
    #expect(trio.replica.rows.count == 1 && trio.replica.progress == [])
    trio.push([1], watermark: 40)
    trio.push([2], watermark: 50)
    try trio.run(40)
    #expect(trio.replica.rows.count == 3)
    #expect(trio.replica.progress == progress(3, 50) && trio.replica.store == 77)
    try trio.restartSync()
    // Before any block came again it is what is stored.
    var news: [SyncAction] = []
    trio.sync.emit([], [], now: trio.now, into: &news)
    #expect(try content(news).progress == progress(3, 50))
    try trio.restartSync()
    trio.push([3], watermark: 70)
    try trio.run(250)
    #expect(trio.replica.rows.count == 4 && trio.replica.progress == progress(4, 70))
  }

  @Test func `while replicas are pinned it is that of what they serve`() throws {
    let trio = try Trio()
    trio.push([0], watermark: 30)
    try trio.run(40)
    trio.push([1], watermark: 40)
    try trio.run(40)
    trio.push([2], watermark: 50)
    try trio.run(40)
    #expect(trio.replica.progress == progress(3, 50))
    let earlier = try #require(trio.replica.history.keys.sorted().first { trio.replica.history[$0]?.count == 2 })
    try trio.ask(PinRequest(version: earlier).encoded(request: 5))
    try trio.run(250)
    #expect(trio.replica.rows.count == 2 && trio.replica.progress == progress(2, 40))
    try trio.ask(PlainMessage.empty(.resume, request: 6))
    try trio.run(250)
    #expect(trio.replica.rows.count == 3 && trio.replica.progress == progress(3, 50))
  }

  private func content(_ actions: [SyncAction]) throws -> VersionContent {
    for case .storeVersion(_, let blob) in actions { return try VersionContent(decoding: ByteReader(blob)) }
    throw DecodeError.truncated(offset: 0, needed: 1, available: 0)
  }

  @Test func `it is what the last of the shards and of the active chains has`() {
    var sync = SyncCore(SyncOptions(shardCount: 2, replicaCount: 1), stored: nil) { 1 }
    func settle(_ partition: Int, shard: Int, _ examples: UInt64, _ watermark: Milliseconds, second: Int64) {
      var state = ChainState(chain: ChainKey(consumer: "model", stream: "examples", partition: partition))
      state.applied = Position(low: examples)
      (state.exampleCount, state.watermark) = (examples, watermark)
      sync.settle(state, of: shard, mergedAt: second * 1_000_000_000)
    }
    func known(second: Int64) -> [ConsumerProgress] {
      sync.updateProgress(now: second * 1_000_000_000)
      return sync.progressList
    }
    settle(0, shard: 0, 10, 100, second: 1)
    // The other shard has not told of it yet.
    #expect(known(second: 1) == [])
    settle(0, shard: 1, 7, 90, second: 1)
    #expect(known(second: 1) == progress(7, 90))
    settle(1, shard: 0, 5, 60, second: 2)
    settle(1, shard: 1, 5, 60, second: 2)
    #expect(known(second: 2) == progress(12, 60))
    // A chain that has stood still for a minute holds nothing up, though every block holds it.
    settle(0, shard: 0, 20, 200, second: 61)
    settle(0, shard: 1, 20, 200, second: 61)
    settle(1, shard: 0, 5, 60, second: 61)
    #expect(known(second: 61) == progress(25, 60))
    #expect(known(second: 62) == progress(25, 200))
    // When none moves it stays where it was.
    #expect(known(second: 500) == progress(25, 200))
    settle(1, shard: 0, 6, 70, second: 501)
    settle(1, shard: 1, 6, 70, second: 501)
    #expect(known(second: 501) == progress(26, 70))
  }

  /// One version, byte by byte, in the format that is written and in the one before it.
  @Test func `the bytes are those of the page, and the format before is read`() throws {
    let written = VersionContent(
      number: 7, basePart: nil, created: 8, newestEventTime: 9, exampleCount: 10, totals: .init(), epochs: [11],
      identities: [12], progress: [ConsumerProgress(consumer: 13, exampleCount: 14, watermark: 15)],
      arrivals: [ArrivalCount(arrival: 16, count: 17)], tables: [], tensors: [])
    func words(_ bytes: [UInt8]) -> [UInt64] {
      stride(from: 0, to: bytes.count - 7, by: 8).map { start in
        (0..<8).reduce(0) { $0 | UInt64(bytes[start + $1]) << UInt64(8 * $1) }
      }
    }
    let bytes = written.encoded(halfPrecision: false).array
    let before: [UInt64] = [7, 0, 0, 8, 9, 10, 0, 0, 0, 0]
    #expect(
      words(bytes) == [0x0000_0003_5649_5547] + before + [1 | 1 << 32, 0, 1, 11, 12, 13, 14, 15, 16, 17])
    #expect(bytes.count == 21 * 8 + 4)
    #expect(try HexExamples.documented(sourceFile: #filePath)["sync-version"] == HexExamples.dump(bytes))

    var writer = ByteWriter()
    for word in [0x0000_0002_5649_5547] + before + [1 | 1 << 32, 0, 11, 12, 16, 17] { writer.append(word) }
    let checksum = Hashing.crc32c(writer.written)
    writer.append(checksum)
    let old = writer.finish()
    let read = try VersionContent(decoding: ByteReader(old))
    #expect(read.number == 7 && read.epochs == [11] && read.identities == [12] && read.progress == [])
    #expect(read.arrivals == written.arrivals && read.exampleCount == 10)
    // The one before that is not.
    var older = old.array
    older[4] = 1
    writer = ByteWriter()
    writer.append(bytes: Array(older.dropLast(4)))
    writer.append(Hashing.crc32c(writer.written))
    let reader = ByteReader(writer.finish())
    #expect(throws: DecodeError.invalid(field: "version format", value: "1", expected: "2 or 3")) {
      try VersionContent(decoding: reader)
    }
  }
}
