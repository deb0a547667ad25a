// Rows and gradients as float16: which values arrive, and what a stranger's type is answered with.

import Base
import CKernels
import Testing
import Wire

@Suite("Numbers on the wire") struct NumbersTests {
  private func reply(_ values: [Float], _ type: NumberType) -> Blob {
    var writer = ByteWriter()
    PullReply.begin(request: 1, incarnation: 2, sections: 1, tensors: 1, numbers: type, into: &writer)
    PullReply.beginNumbers(number: 0, count: values.count, into: &writer)
    writer.append(numbers: type, count: values.count) { target in
      for place in values.indices { target[place] = values[place] }
    }
    PullReply.beginNumbers(number: 3, count: 1, into: &writer)
    writer.append(Float(0.1))
    return writer.finish()
  }

  private func read(_ message: Blob) throws -> PullReply {
    var reader = ByteReader(message)
    _ = try MessageHeader(decoding: &reader)
    return try PullReply(decoding: &reader)
  }

  @Test(arguments: NumberType.allCases) func `rows arrive rounded to their type, tensors as they are`(
    type: NumberType
  ) throws {
    var random = SeededRandom(seed: 4)
    for count in [0, 1, 7, 8, 9, 1000] {
      let values = (0..<count).map { _ in Float(random.uniform() * 2 - 1) }
      let reply = try read(reply(values, type))
      #expect(reply.rows[0].array == (type == .float32 ? values : values.map { Float(Float16($0)) }))
      #expect(reply.tensors[0].values.array == [0.1])
    }
  }

  @Test func `halves that exist arrive as the same bits, and the ends of the range as they should`() throws {
    let exact: [Float] = [0, -0.0, 1, -2, 65_504, 0x1p-24, 0x1p-14, 0.099975586]
    #expect(try read(reply(exact, .float16)).rows[0].array.map(\.bitPattern) == exact.map(\.bitPattern))
    let ends = try read(reply([65_520, -1e9, 1e-9, .nan, .infinity], .float16)).rows[0].array
    #expect(Array(ends[..<3]) == [.infinity, -.infinity, 0])
    #expect(ends[3].isNaN && ends[4] == .infinity)
  }

  @Test func `every half widens to the same bits with and without the CPU's instructions`() {
    let all = (0...UInt16.max).map { $0 }
    var (fast, scalar) = ([Float](repeating: 0, count: all.count), [Float](repeating: 0, count: all.count))
    guira_from_half(all, all.count, &fast)
    guira_from_half_scalar(all, all.count, &scalar)
    #expect(fast.map(\.bitPattern) == scalar.map(\.bitPattern))
    for half in all where !Float16(bitPattern: half).isNaN {
      #expect(scalar[Int(half)] == Float(Float16(bitPattern: half)))
    }
  }

  @Test func `an unknown type is named with those that are known`() {
    var bytes = reply([1, 2], .float16).array
    bytes[26] = 7
    #expect(
      throws: DecodeError.invalid(field: "data type", value: "7", expected: "0 (float32) or 1 (float16)")
    ) { try read(Blob(bytes)) }
  }
}
