// Rows added up per example, and back, against the same sums written out.

import Base
import Testing

@testable import Layers

@Suite("Rows of a column") struct ColumnRowsTests {
  @Test(arguments: [1, 7, 8, 16, 19], [false, true])
  func `every example gets the sum or the mean of its rows, and gives its gradient back`(count: Int, isMean: Bool) {
    var random = SeededRandom(seed: UInt64(count))
    let (rows, width, from, place) = (5, count + 3, 2, 1)
    let (examples, stride) = (40, count + 4)
    var offsets: [Int32] = [0]
    var numbers: [Int32] = []
    for _ in 0..<examples {
      for _ in 0..<random.next() % 4 { numbers.append(Int32(random.next() % UInt64(rows))) }
      offsets.append(Int32(numbers.count))
    }
    let column = FeatureColumn(table: 0, offsets: offsets, rows: numbers)
    let table = (0..<rows * width).map { _ in Float(random.uniform() - 0.5) }
    let before = (0..<examples * stride).map { _ in Float(random.uniform() - 0.5) }
    let sums = ColumnRows(column, table.count, width: width, isMean: isMean)
    var x = before
    var xs = x.mutableSpan
    sums.add(table.span, from: from, count: count, to: &xs, at: place, stride: stride)
    var back = table
    var backs = back.mutableSpan
    sums.addBack(before.span, at: place, stride: stride, to: &backs, from: from, count: count)

    var expected = before.map { Double($0) }
    var expectedBack = table.map { Double($0) }
    for example in 0..<examples {
      let occurrences = Int(offsets[example])..<Int(offsets[example + 1])
      let scale = isMean ? 1 / Double(max(1, occurrences.count)) : 1
      for occurrence in occurrences {
        for i in 0..<count {
          let (at, row) = (example * stride + place + i, Int(numbers[occurrence]) * width + from + i)
          expected[at] += scale * Double(table[row])
          expectedBack[row] += scale * Double(before[at])
        }
      }
    }
    for (a, b) in zip(x, expected) { #expect(abs(Double(a) - b) < 1e-5) }
    for (a, b) in zip(back, expectedBack) { #expect(abs(Double(a) - b) < 1e-4) }
  }
}
