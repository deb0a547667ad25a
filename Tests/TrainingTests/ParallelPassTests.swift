// Several threads give the sums that one gives, and the same bits every time.

import Base
import Layers
import Testing

@testable import Training

@Suite("Parallel pass") struct ParallelPassTests {
  /// What a pass over the batch gives.
  private struct Outcome: Equatable {
    var logits: [Float] = []
    var rows: [[Float]] = []
    var dense: [[Float]] = []
  }

  private let examples = 257
  private let model: any Model
  private let rows: [[Float]]
  private let dense: [[Float]]

  init() throws {
    var options = ModelOptions(
      kind: "dlrm",
      features: [ModelFeature(name: "user", table: 0), ModelFeature(name: "tags", table: 1, combiner: .sum)],
      tasks: [ModelTask(name: "click"), ModelTask(name: "like", weight: 2)])
    options.dimension = 4
    options.denseWidth = 3
    options.hidden = [8]
    options.bottom = [6]
    model = try makeModel(options)
    var random = SeededRandom(seed: 3)
    rows = (0..<2).map { [model] table in
      (0..<10 * model.rowWidth(table: table)).map { _ in Float(random.uniform() - 0.5) }
    }
    dense = model.denseTensors.map { tensor in (0..<tensor.count).map { _ in Float(random.uniform() - 0.5) } }
  }

  private func batch(seed: UInt64) -> Batch {
    var random = SeededRandom(seed: seed)
    var offsets: [Int32] = [0]
    var tags: [Int32] = []
    for _ in 0..<examples {
      for _ in 0..<Int(random.next() % 4) { tags.append(Int32(random.next() % 10)) }
      offsets.append(Int32(tags.count))
    }
    return Batch(
      exampleCount: examples,
      features: [
        FeatureColumn(table: 0, rows: (0..<examples).map { _ in Int32(random.next() % 10) }),
        FeatureColumn(table: 1, offsets: offsets, rows: tags),
      ], dense: (0..<examples * 3).map { _ in Float(random.uniform()) },
      labels: (0..<examples * 2).map { _ in Float(random.next() % 2) },
      weights: (0..<examples * 2).map { _ in Float(random.next() % 3) })
  }

  /// Three batches one after the other, so that memory of the one before is there to be mistaken for this one's.
  private func outcomes(threads: Int) -> [Outcome] {
    let pass = ParallelPass(model, threads: threads)
    return (1...3 as ClosedRange<UInt64>).map { seed in
      let batch = batch(seed: seed)
      var outcome = Outcome()
      pass.forward(batch, rows: rows, dense: dense, logits: &outcome.logits)
      var gradients: [Float] = []
      _ = Losses.weightedLogLoss(logits: outcome.logits, batch: batch, gradients: &gradients)
      outcome.rows = rows.map { $0.map { _ in 0 } }
      outcome.dense = dense.map { $0.map { _ in 0 } }
      pass.backward(
        batch, rows: rows, dense: dense, logitGradients: gradients, rowGradients: &outcome.rows,
        denseGradients: &outcome.dense)
      return outcome
    }
  }

  @Test(arguments: [2, 3, 7])
  func `the gradients are those of one thread`(threads: Int) {
    for (one, many) in zip(outcomes(threads: 1), outcomes(threads: threads)) {
      #expect(one.logits == many.logits)
      #expect(one.rows.allSatisfy { $0.contains { $0 != 0 } })
      for (left, right) in zip(one.rows + one.dense, many.rows + many.dense) {
        for (a, b) in zip(left, right) { #expect(abs(a - b) <= 1e-4 * max(1, abs(a))) }
      }
    }
  }

  @Test func `the same number of threads gives the same bits`() {
    #expect(outcomes(threads: 3) == outcomes(threads: 3))
  }
}
