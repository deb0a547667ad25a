// Versions as bytes: what is written is read, and every damaged bit is found.

import Base
import Testing

@testable import Syncing

@Suite("Version content") struct VersionContentTests {
  private func content(rows: Int = 50, seed: UInt64 = 1, basePart: (index: Int, count: Int)? = nil) -> VersionContent {
    var random = SeededRandom(seed: seed)
    let ids = Set((0..<rows).map { _ in random.next() }).union([0, .max]).sorted()
    let weights = (0..<ids.count * 3).map { _ in Float(random.uniform() * 2 - 1) }
    return VersionContent(
      number: 7, basePart: basePart, created: 8, newestEventTime: 9, exampleCount: 10, totals: .init(),
      epochs: [11, 12],
      identities: [13, 14],
      progress: [.init(consumer: 17, exampleCount: 18, watermark: 19)], arrivals: [.init(arrival: 15, count: 16)],
      tables: [
        TableChange(
          table: "user", weightCount: 3, tombstones: [0, 5, .max], ids: ids, weights: View(copying: weights)),
        TableChange(table: "empty", weightCount: 2, tombstones: [], ids: [], weights: View(copying: [])),
      ],
      tensors: [TensorChange(name: "bias", values: [1, -2.5, .infinity])])
  }

  @Test(arguments: [false, true]) func `what is written is read`(halfPrecision: Bool) throws {
    let written = content(basePart: (2, 5))
    let read = try VersionContent(decoding: ByteReader(written.encoded(halfPrecision: halfPrecision)))
    #expect(read.number == 7 && read.basePart?.index == 2 && read.basePart?.count == 5)
    #expect(read.epochs == [11, 12] && read.identities == [13, 14] && read.arrivals == written.arrivals)
    #expect(read.created == 8 && read.newestEventTime == 9 && read.exampleCount == 10)
    #expect(read.tensors == written.tensors && read.progress == written.progress)
    for (own, right) in zip(read.tables, written.tables) {
      #expect(own.table == right.table && own.weightCount == right.weightCount)
      #expect(own.ids == right.ids && own.tombstones == right.tombstones)
      let weights = halfPrecision ? right.weights.array.map { Float(Float16($0)) } : right.weights.array
      #expect(own.weights.array == weights)
    }
  }

  @Test func `no bit may change`() {
    let blob = content().encoded(halfPrecision: true)
    var random = SeededRandom(seed: 4)
    var bytes = blob.array
    var missed = 0
    for _ in 0..<10_000 {
      let bit = Int.random(in: 0..<bytes.count * 8, using: &random)
      bytes[bit / 8] ^= 1 << UInt8(bit % 8)
      if (try? VersionContent(decoding: ByteReader(Blob(bytes)))) != nil { missed += 1 }
      bytes[bit / 8] ^= 1 << UInt8(bit % 8)
    }
    #expect(missed == 0)
  }

  @Test func `bytes whose checksum was made to fit do not trap, nor take memory that is not there`() {
    var random = SeededRandom(seed: 6)
    let original = content(rows: 20).encoded(halfPrecision: false).array
    for _ in 0..<5_000 {
      var bytes = Array(original.dropLast(4))
      for _ in 0..<2 {
        let at = Int.random(in: 0..<bytes.count / 4, using: &random) * 4
        let value: UInt32 = [0, 1, .max, 1 << 31, UInt32(truncatingIfNeeded: random.next())].randomElement(
          using: &random)!
        for place in 0..<4 { bytes[at + place] = UInt8(truncatingIfNeeded: value >> UInt32(8 * place)) }
      }
      var writer = ByteWriter()
      writer.append(bytes: bytes)
      writer.append(unsafe Hashing.crc32c(bytes.span.bytes))
      _ = try? VersionContent(decoding: ByteReader(writer.finish()))
    }
  }
}
