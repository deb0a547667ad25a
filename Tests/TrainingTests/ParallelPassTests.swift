// Several threads give the sums that one gives, and the same bits every time.

import Base
import Layers
import Testing

@testable import Training

@Suite("Parallel pass") struct ParallelPassTests {
  /// What a pass over the batch gives.
  private struct Outcome: Equatable {
    var logits: [Float]
    var rows: [[Float]]
    var dense: [[Float]]

    init(_ pass: Pass) { (logits, rows, dense) = (pass.logits, pass.rowGradients, pass.denseGradients) }
  }

  private let examples = 257
  /// Of three runs, of one, of three again.
  private let sizes = [257, 60, 257, 130, 257]
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

  private func batch(seed: UInt64, examples: Int = 257) -> Batch {
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

  private func pass(_ batch: Batch) -> Pass {
    let pass = Pass(rows: rows, dense: dense)
    pass.batch = batch
    return pass
  }

  /// Batches one after the other, so that memory of the one before is there to be mistaken for this one's.
  private func outcomes(threads: Int) -> [Outcome] {
    let threads = ParallelPass(model, threads: threads)
    let pass = Pass(rows: rows, dense: dense)
    return sizes.enumerated().map { seed, examples in
      pass.batch = batch(seed: UInt64(seed), examples: examples)
      return Outcome(threads.train(pass))
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

  @Test(arguments: [1, 3])
  func `batches under way beside each other come back in their order with what each gives alone`(threads: Int) {
    let passes = ParallelPass(model, threads: threads)
    var (spare, waiting, found): ([Pass], [Int], [Outcome]) = ([], Array(sizes.indices), [])
    while found.count < 5 {
      while passes.hasRoom, !waiting.isEmpty {
        let pass = spare.popLast() ?? Pass(rows: rows, dense: dense)
        let seed = waiting.removeFirst()
        pass.batch = batch(seed: UInt64(seed), examples: sizes[seed])
        passes.begin(pass)
      }
      #expect(passes.hasRoom == (threads > 1 && found.count == 4))
      guard let pass = passes.finish(patience: .seconds(1)) else { continue }
      found.append(Outcome(pass))
      pass.forget()
      spare.append(pass)
    }
    #expect(passes.finish(patience: .zero) == nil)
    #expect(found == outcomes(threads: threads))
  }

  @Test func `dropout is drawn anew for every batch and piece, and alike from the same seed`() throws {
    var options = model.options
    options.dropout = 0.5
    let threads = ParallelPass(try makeModel(options), threads: 1)
    // One example again and again: without dropout its logits are the same everywhere.
    var batch = batch(seed: 6)
    for index in batch.features.indices {
      let rows = batch.features[index].rows
      batch.features[index] = FeatureColumn(
        table: batch.features[index].table, rows: Array(repeating: rows[0], count: examples))
    }
    batch.dense = (0..<examples * 3).map { batch.dense[$0 % 3] }
    func logits(seed: UInt64) -> [Float] {
      let pass = pass(batch)
      pass.seed = seed
      return threads.train(pass).logits
    }
    let first = logits(seed: 1)
    #expect(first == logits(seed: 1))
    #expect(first != logits(seed: 2))
    let tasks = first.count / examples
    #expect(examples > 256 && first[..<tasks] != first[256 * tasks..<257 * tasks])
  }

  @Test(arguments: [1, 3])
  func `a shift is in the loss and its gradient, and not in the logits`(threads: Int) {
    // The gradient of a task's last bias is the sum of sigmoid(logit + shift) - label, each times its weight.
    let bias = model.denseTensors.firstIndex { $0.name == "head.bias" }!
    let batch = batch(seed: 4)
    var random = SeededRandom(seed: 5)
    let shifts = (0..<examples * 2).map { _ in Float(random.uniform()) }
    func trained(_ shifts: [Float]) -> (Outcome, [Double]) {
      let pass = pass(batch)
      pass.shifts = shifts
      _ = ParallelPass(model, threads: threads).train(pass)
      return (Outcome(pass), pass.losses)
    }
    let (plain, _) = trained([])
    let (shifted, losses) = trained(shifts)
    #expect(plain.logits == shifted.logits)
    var gradients: [Float] = []
    let expected = Losses.weightedLogLoss(
      logits: zip(plain.logits, shifts).map { $0 + $1 }, batch: batch, gradients: &gradients)
    for task in 0..<2 {
      #expect(abs(losses[task] - expected[task]) <= 1e-6 * expected[task])
      let sum = stride(from: task, to: gradients.count, by: 2).reduce(0) { $0 + Double(gradients[$1]) }
      #expect(abs(Double(shifted.dense[bias][task]) - sum) <= 1e-4 * max(1, abs(sum)))
      #expect(abs(shifted.dense[bias][task] - plain.dense[bias][task]) > 1)
    }
  }
}

extension ParallelPass {
  /// Begins with a batch and waits until it has ended.
  func train(_ pass: Pass) -> Pass {
    begin(pass)
    while true {
      if let ended = finish(patience: .seconds(1)) { return ended }
    }
  }
}
