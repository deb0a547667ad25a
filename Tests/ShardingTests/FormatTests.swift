import Base
import Support
import Testing
import Wire

@testable import Sharding

@Suite("Stored formats of shards") struct FormatTests {
  /// The records of docs/formats.md, made by a shard: a new id of `user`, one sighting of an id that `item` does not admit
  /// yet, and a step of the tensor.
  private static func example() -> [String: [UInt8]] {
    let shard = ShardFixture()
    let shape = shard.core.beginRun(now: 0).array
    shard.claim()
    shard.send(ShardFixture.push(.init(ids: [7], tensor: (0, 2))))
    shard.send(ShardFixture.push(.init(from: 10, to: 20, table: 1, ids: [7], width: 3)))
    var examples = ["shard-shape": shape]
    for record in shard.close() {
      switch try? BlockRecord.parse(ByteReader(record)) {
      case .table(0, _, _): examples["shard-table"] = record.array
      case .table(_, _, _): examples["shard-counts"] = record.array
      case .tensor: examples["shard-tensor"] = record.array
      case .end: examples["shard-end"] = record.array
      default: break
      }
    }
    examples["shard-forgotten"] =
      ForgottenIDs(
        epoch: 3, table: "user", ids: [7], chains: [.init(key: ShardFixture.chain, applied: Position(low: 20))]
      ).encoded.array
    return examples
  }

  @Test func `the hex examples of shards in docs_formats are the bytes that are written`() throws {
    let documented = try HexExamples.documented(sourceFile: #filePath).filter { $0.key.hasPrefix("shard-") }
    let written = Self.example()
    #expect(documented.keys.sorted() == written.keys.sorted())
    for (name, bytes) in written {
      #expect(documented[name] == HexExamples.dump(bytes), "\(name):\n\(HexExamples.dump(bytes))")
    }
  }

  @Test func `the documented block and the documented forgotten ids are read`() throws {
    let documented = try HexExamples.documented(sourceFile: #filePath).mapValues { Blob(HexExamples.bytes($0)) }
    let shard = ShardFixture()
    for name in ["shard-shape", "shard-table", "shard-counts", "shard-tensor", "shard-end"] {
      try shard.core.recover(try #require(documented[name]))
    }
    let original = ShardFixture()
    original.claim()
    original.send(ShardFixture.push(.init(ids: [7], tensor: (0, 2))))
    original.send(ShardFixture.push(.init(from: 10, to: 20, table: 1, ids: [7], width: 3)))
    original.close()
    #expect(shard.core.digest(halfPrecision: false) == original.core.digest(halfPrecision: false))
    let forgotten = try ForgottenIDs(ByteReader(try #require(documented["shard-forgotten"])))
    #expect((forgotten.table, forgotten.ids, forgotten.epoch) == ("user", [7], 3))
  }
}
