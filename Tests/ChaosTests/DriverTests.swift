// The driver's own parts: a driver that overlooks things would call every cluster exact.

import Base
import Embeddings
import Testing

@Suite("The chaos driver") struct DriverTests {
  /// Greeting, a command, then messages of one frame each, one of them long.
  private static let greeting = [UInt8](repeating: 7, count: 64)
  private static let command: [UInt8] = [4, 3, 1, 2, 3]
  private static func message(_ byte: UInt8, count: Int) -> [UInt8] {
    let head: [UInt8] = count < 256 ? [0, UInt8(count)] : [2, 0, 0, 0, 0, 0, 0, UInt8(count >> 8), UInt8(count & 255)]
    return head + [UInt8](repeating: byte, count: count)
  }

  @Test(arguments: [1, 2, 7, 64, 1000]) func `messages are lost whole, commands never`(pieces: Int) {
    let messages = [Self.message(1, count: 5), Self.message(2, count: 700), Self.message(3, count: 0)]
    let all = Self.greeting + Self.command + messages.joined()
    var filter = FrameFilter()
    var number = 0
    var passed: [UInt8] = []
    for start in stride(from: 0, to: all.count, by: pieces) {
      passed += filter.pass(all[start..<min(all.count, start + pieces)]) {
        number += 1
        return number == 2 ? .lose : nil
      }
    }
    #expect(passed == Self.greeting + Self.command + messages[0] + messages[2])
    #expect(filter.lost == 1)
  }

  @Test func `a message of several frames is lost as one`() {
    let parts: [UInt8] = [1, 1, 9, 1, 1, 9, 0, 1, 9]
    var filter = FrameFilter()
    #expect(filter.pass((Self.greeting + parts + Self.message(4, count: 1))[...], harms: { nil }).count == 64 + 12)
    var isFirst = true
    var losing = FrameFilter()
    let passed = losing.pass((Self.greeting + parts + Self.message(4, count: 1))[...]) {
      defer { isFirst = false }
      return isFirst ? .lose : nil
    }
    #expect(passed == Self.greeting + Self.message(4, count: 1))
    #expect(losing.lost == 1)
  }

  private func passed(_ harms: [Harm?]) -> [UInt8] {
    let messages = (1...4).map { Self.message(UInt8($0), count: 300 + $0) }
    var filter = FrameFilter()
    var rest = harms
    let all = filter.pass((Self.greeting + messages.joined())[...]) { rest.isEmpty ? nil : rest.removeFirst() }
    #expect(filter.isCut == harms.contains(.cut))
    return Array(all.dropFirst(Self.greeting.count))
  }

  @Test func `messages are repeated, overtaken, damaged in one bit and cut in the middle`() {
    let messages = (1...4).map { Self.message(UInt8($0), count: 300 + $0) }
    #expect(passed([.twice]) == [0, 0, 1, 2, 3].flatMap { messages[$0] })
    #expect(passed([.late]) == [1, 0, 2, 3].flatMap { messages[$0] })
    #expect(passed([nil, .late, .late]) == [0, 1, 3, 2].flatMap { messages[$0] })
    #expect(passed([nil, .cut]) == messages[0] + messages[1][..<160])
    for place in [0, 0.5, 0.999] {
      let damaged = passed([.flip(place)])
      let differing = zip(damaged, messages.joined()).filter { $0 != $1 }
      #expect(damaged.count == messages.joined().count && differing.count == 1)
      #expect(Array(damaged[..<9]) == Array(messages[0][..<9]))
      #expect(differing.allSatisfy { ($0 ^ $1).nonzeroBitCount == 1 })
    }
  }

  /// A table that admits at the third sighting, after pushes of 1 to each of four columns.
  private func sections(of pushes: [UInt64], _ options: TableOptions) throws -> [CutSection] {
    var table = Table(options)
    let gradients = [Float](repeating: -1, count: ChaosOptions.dimension)
    for id in pushes {
      table.push(ids: [id].span, sightings: [1].span, gradients: gradients.span, eventTime: 1_000)
    }
    var writer = ByteWriter()
    var cursor = TableCursor()
    while table.scan(cursor: &cursor, rows: 100, into: &writer) {}
    var reader = ByteReader(writer.finish())
    var sections: [CutSection] = []
    while reader.remaining > 0 { sections.append(try CutSection(&reader)) }
    return sections
  }

  private var options: TableOptions {
    TableOptions(
      name: "t", seed: 1,
      segments: [
        Segment(
          name: "sums", width: ChaosOptions.dimension, initializer: .zeros,
          optimizer: OptimizerOptions(rule: .sgd, learningRate: 1, l2: 0))
      ], admission: .count(ChaosOptions.threshold))
  }

  /// Id 5 has a row after four sightings, id 6 was sighted twice.
  private static let expected: [UInt64: TallyRow] = [
    5: TallyRow(sightings: 4, sums: [1, 1, 1, 1]), 6: TallyRow(sightings: 2, sums: [0, 0, 0, 0]),
  ]

  private func differences(_ pushes: [UInt64]) throws -> [String] {
    var comparison = Comparison()
    var left = Self.expected
    for section in try sections(of: pushes, options) { comparison.compare(section, of: options, left: &left) }
    for id in left.keys { comparison.note("lacks \(id)") }
    #expect(comparison.differences == comparison.examples.count)
    return comparison.examples
  }

  @Test func `what is exact has no difference`() throws {
    #expect(try differences([5, 6, 5, 5, 6, 5]) == [])
  }

  @Test func `a lost push, a repeated one, a missing id and a foreign one all show`() throws {
    #expect(try differences([5, 6, 5, 5, 6]).count == ChaosOptions.dimension)
    #expect(try differences([5, 6, 5, 5, 6, 5, 5]).first == "table 't', id 5, column 0: 2.0 instead of 1")
    #expect(try differences([5, 6, 5, 5, 5]) == ["table 't', id 6 was sighted 1 times instead of 2"])
    #expect(try differences([5, 5, 5, 5]) == ["lacks 6"])
    #expect(try differences([5, 6, 5, 5, 6, 5, 7]) == ["table 't', id 7 was sighted 1 times instead of 0"])
    #expect(
      try differences([5, 6, 5, 5, 6, 5, 7, 7, 7]) == ["table 't' has a row of id 7, which it must not have"])
  }
}
