import Base
import Testing

@Suite("Bytes") struct BytesTests {
  @Test func `what was written is read back`() throws {
    var writer = ByteWriter(capacity: 1)
    writer.append(UInt16(7))
    writer.append(string: "guira ñ")
    writer.align()
    writer.append(array: [1.5, -2] as [Float])
    var reader = ByteReader(writer.finish())
    #expect(try reader.read(UInt16.self) == 7)
    #expect(try reader.string() == "guira ñ")
    try reader.align()
    #expect(try reader.view(Float.self, count: 2).array == [1.5, -2])
    try reader.expectEnd()
  }

  @Test func `an array literal arrives whole`() throws {
    func written(_ numbers: UInt64) -> Blob {
      var writer = ByteWriter()
      writer.append(array: [SIMD2(numbers, numbers &+ 1)])
      return writer.finish()
    }
    for number in [0, 1 << 40, .max] as [UInt64] {
      var reader = ByteReader(written(number))
      #expect(try reader.read(UInt64.self) == number)
      #expect(try reader.read(UInt64.self) == number &+ 1)
    }
  }

  @Test func `a short blob is an error, not a trap`() {
    var reader = ByteReader(Blob([1, 2, 3]))
    #expect(throws: DecodeError.truncated(offset: 0, needed: 8, available: 3)) { try reader.read(UInt64.self) }
    #expect(throws: DecodeError.self) { try reader.view(Float.self, count: .max) }
    #expect(throws: DecodeError.self) { try View<Float>(Blob([0, 0, 0, 0, 0, 0, 0, 0]), byteOffset: 1, count: 1) }
  }

  @Test func `CRC-32C equals its scalar twin and the known value`() {
    let nine = Array("123456789".utf8)
    #expect(Hashing.crc32c(nine.span.bytes) == 0xE306_9283)
    var random = SeededRandom(seed: 1)
    for count in 0..<100 {
      let bytes = (0..<count).map { _ in UInt8.random(in: 0...255, using: &random) }
      #expect(Hashing.crc32c(bytes.span.bytes) == Hashing.crc32cScalar(bytes.span.bytes))
    }
  }

  @Test func `quantiles are within the bucket width`() {
    var histogram = Histogram()
    for value in 1...10_000 { histogram.record(Int64(value)) }
    for quantile in [0.01, 0.5, 0.95, 0.99] {
      let exact = quantile * 10_000
      #expect(abs(Double(histogram.quantile(quantile)) - exact) <= exact / 32)
    }
    #expect(histogram.quantile(1) == 10_000)
  }

  @Test func `a mailbox refuses what is above its bound`() {
    let box = Mailbox<Int>(bound: 2)
    #expect(box.offer(1) && box.offer(2))
    #expect(!box.offer(3))
    #expect(box.takeAll() == [1, 2])
    #expect(box.offer(3))
  }
}
