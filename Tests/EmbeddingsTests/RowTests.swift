import Base
import CKernels
import Testing

@testable import Embeddings

@Suite("Rows") struct RowTests {
  @Test func `initial weights depend on seed, table and id alone`() {
    let ids = Array(0..<200 as Range<UInt64>) + [.max]
    let weights = Table(options(width: 5)).pull(ids)
    var grown = Table(options(width: 5))
    grown.push(Array(1000...9000))
    #expect(grown.pull(ids) == weights)
    #expect(grown.pull([7, .max, 7]) == Array(weights[35..<40] + weights[1000..<1005] + weights[35..<40]))
    for change in [\TableOptions.seed] {
      var told = options(width: 5)
      told[keyPath: change] += 1
      #expect(Table(told).pull(ids) != weights)
    }
    var renamed = options(width: 5)
    renamed.name = "user"
    #expect(Table(renamed).pull(ids) != weights)
    #expect(Set(weights).count > 980, "values are spread")
  }

  @Test(arguments: [Initializer.uniform(0.5), .normal(0.5)])
  func `initial weights have the distribution asked for`(initializer: Initializer) {
    let weights = Table(options(width: 10, initializer: initializer)).pull(Array(0..<4000))
    let mean = weights.reduce(0, +) / 40_000
    let variance = weights.reduce(0) { $0 + $1 * $1 } / 40_000
    #expect(abs(mean) < 0.01)
    if case .uniform = initializer {
      #expect(abs(variance - 0.25 / 3) < 0.005)
      #expect(
        weights.allSatisfy { abs($0) <= 0.5 } && weights.contains { $0 > 0.49 } && weights.contains { $0 < -0.49 })
    } else {
      #expect(abs(variance - 0.25) < 0.01)
      #expect(weights.allSatisfy { abs($0) <= 3 } && weights.contains { $0 > 1.5 })
    }
  }

  @Test func `constants and zeros are what they say`() {
    #expect(Table(options(initializer: .zeros)).pull([1]) == [0, 0])
    #expect(Table(options(initializer: .constant(2.5))).pull([1]) == [2.5, 2.5])
  }

  @Test func `ids 0 and UInt64.max are ids like others`() {
    var table = Table(options())
    table.push([0, .max])
    #expect(table.inspect(0) != nil && table.inspect(.max) != nil && table.inspect(1) == nil)
    #expect(table.forget([0].span) == 1 && table.forget([0].span) == 0)
    #expect(table.inspect(0) == nil && table.inspect(.max) != nil)
  }

  @Test func `a repeated id is worked on in order`() {
    var twice = Table(options(.momentum(beta: 0.5)))
    var once = Table(options(.momentum(beta: 0.5)))
    twice.push([4, 4], gradients: [1, 1, 3, 3])
    once.push([4], gradients: [1, 1])
    once.push([4], gradients: [3, 3])
    #expect(twice.pull([4]) == once.pull([4]))
  }

  @Test(arguments: [1, 2, 33, 100]) func `rows keep to themselves at any width`(width: Int) {
    var table = Table(options(.sgd, width: width, rate: 1, initializer: .zeros))
    let ids = Array(1...3000 as ClosedRange<UInt64>)
    let gradients = ids.flatMap { id in [Float](repeating: -Float(id), count: width) }
    for start in stride(from: 0, to: 3000, by: 1000) {
      table.push(Array(ids[start..<start + 1000]), gradients: Array(gradients[start * width..<(start + 1000) * width]))
    }
    #expect(table.pull(ids) == gradients.map { -$0 })
  }

  @Test func `half precision rounds like the hardware and like its twin`() {
    var random = SeededRandom(seed: 1)
    let special: [Float] = [
      0, -0.0, 1, 65504, 65519.996, 65520, -70000, .infinity, -.infinity, .nan, 0x1p-14, 0x1p-24, 0x1p-25, 0x1.8p-25,
      0x1.ffep-15, 0x1.ffcp-15, 1e-30, 0x1.002p0, 0x1.006p0,
    ]
    let values = special + (0..<20_000).map { _ in Float(bitPattern: UInt32(truncatingIfNeeded: random.next())) }
    var (fast, scalar) = ([UInt16](repeating: 0, count: values.count), [UInt16](repeating: 0, count: values.count))
    guira_to_half(values, values.count, &fast)
    guira_to_half_scalar(values, values.count, &scalar)
    #expect(fast == scalar)
    #expect(scalar[0...3] == [0, 0x8000, 0x3C00, 0x7BFF] && scalar[5] == 0x7C00 && scalar[11] == 1 && scalar[12] == 0)
  }

  @Test func `the digest does not depend on order, and tells precisions apart only where they differ`() {
    var one = Table(options(initializer: .zeros))
    var other = Table(options(initializer: .zeros))
    one.push([1, 2, 3])
    other.push([3, 1])
    other.push([2])
    let (a, b) = (one.digest(halfPrecision: false), other.digest(halfPrecision: false))
    #expect(a == b && a != 0)
    other.push([2], gradient: 1e-6)
    let (full, half) = (other.digest(halfPrecision: false), other.digest(halfPrecision: true))
    #expect(full != a)
    #expect(half == one.digest(halfPrecision: true))
    let weights: [Float] = [-0.5, -0.5]
    let sum = [1, 2, 3].reduce(UInt64(0)) {
      $0 &+ RowDigest.row(id: $1, weights: weights.span, halfPrecision: false)
    }
    #expect(sum == a)
  }
}
