// A trainer with a teacher: it is held where the teacher is, and what cannot be learned is left out.

import Base
import Layers
import Streams
import Synchronization
import Testing

@testable import Training

/// Says the same of every example.
private final class Parrot: Teacher {
  private let value: Float
  private let asked = Atomic(0)

  init(_ value: Float) { self.value = value }

  var questions: Int { asked.load(ordering: .relaxed) }

  func lesson(on columns: FeatureColumns) -> Lesson? {
    asked.add(1, ordering: .relaxed)
    return Lesson(
      version: 7, embeddings: [Float](repeating: value, count: columns.exampleCount * 8),
      logits: [Float](repeating: 0, count: columns.exampleCount))
  }
}

@Suite("Teacher") struct TeacherTests {
  /// A user model whose embeddings are 2 × 4 numbers.
  private func pair(regularization: Float, distillation: Float = 0, _ teacher: (any Teacher)?) throws -> Pair {
    var stabilization = Stabilization()
    (stabilization.regularization, stabilization.distillation) = (regularization, distillation)
    let pair = try Pair(batchSize: 16, stabilization: stabilization) { model in
      model.kind = "sum"
      model.userModel.features = ["user"]
      model.userModel.embeddingDimension = 4
      model.userModel.userTokens = []
      model.userModel.mixTokens = [2]
    }
    pair.trainer.teacher = teacher
    try pair.claim()
    try pair.train(0..<800)
    return pair
  }

  @Test func `a strong pull keeps the embeddings with the teacher, where a weak one lets them go`() throws {
    let (weak, strong) = try (pair(regularization: 1e-6, Parrot(0.5)), pair(regularization: 100, Parrot(0.5)))
    let (free, held) = (weak.trainer.counters.teacherDistance, strong.trainer.counters.teacherDistance)
    #expect(held < free * 0.7 && held > 0, "\(held) and \(free)")
    #expect(strong.trainer.counters.teacherVersion == 7 && strong.trainer.counters.untaughtBatches == 0)
    #expect(strong.trainer.counters.rejectedBatches == 0)
  }

  @Test func `a teacher that knows nothing takes from what is learned, and not from what is reported`() throws {
    let (taught, free) = try (pair(regularization: 0, distillation: 1, Parrot(0)), pair(regularization: 0, nil))
    // Every label is a half to it, so the model stays near that; the loss is still that of the labels.
    let (blank, learned) = (taught.trainer.windows[0].scores(), free.trainer.windows[0].scores())
    #expect(abs((blank.logLoss ?? 0) - 0.6931) < 0.03)
    #expect((learned.logLoss ?? 1) < (blank.logLoss ?? 0) - 0.05)
    let counted = taught.trainer.counters.loss / taught.trainer.counters.lossCount
    #expect(abs(counted - (blank.logLoss ?? 0)) < 1e-3)
  }

  @Test func `what is not finite is no lesson, and without one training is as ever`() throws {
    let teacher = Parrot(.infinity)
    let (none, broken, plain) = try (
      pair(regularization: 1, nil), pair(regularization: 1, teacher), pair(regularization: 0, Parrot(0.5))
    )
    #expect(broken.trainer.counters.untaughtBatches == broken.trainer.counters.batches && teacher.questions > 0)
    #expect(broken.trainer.counters.rejectedBatches == 0 && broken.trainer.counters.teacherVersion == 0)
    let digest = plain.shard.digest(halfPrecision: false)
    #expect(none.shard.digest(halfPrecision: false) == digest)
    #expect(broken.shard.digest(halfPrecision: false) == digest)
  }

  @Test func `nobody is asked when nothing is wanted, and only user models have lessons`() throws {
    let teacher = Parrot(0)
    _ = try pair(regularization: 0, teacher)
    #expect(teacher.questions == 0)
    var stabilization = Stabilization()
    stabilization.distillation = 0.5
    #expect(throws: ModelError.self) { try Pair(batchSize: 4, stabilization: stabilization) }
  }

  @Test func `several threads give the pulls that one gives`() throws {
    var options = ModelOptions(
      kind: "sum", features: [ModelFeature(name: "user", table: 0), ModelFeature(name: "item", table: 1)],
      tasks: [ModelTask(name: "click")])
    options.dimension = 4
    options.hidden = [8]
    options.userModel.features = ["user"]
    options.userModel.embeddingDimension = 4
    options.userModel.userTokens = []
    options.userModel.mixTokens = [2]
    let model = try makeModel(options)
    var random = SeededRandom(seed: 3)
    func numbers(_ count: Int) -> [Float] { (0..<count).map { _ in Float(random.uniform() - 0.5) } }
    let rows = (0..<2).map { numbers(10 * model.rowWidth(table: $0)) }
    let dense = model.denseTensors.map { numbers($0.count) }
    let examples = 517
    let batch = Batch(
      exampleCount: examples,
      features: (0..<2).map { table in
        FeatureColumn(table: table, rows: (0..<examples).map { Int32($0 * (table + 3) % 10) })
      }, labels: (0..<examples).map { Float($0 % 2) }, weights: (0..<examples).map { Float($0 % 3) })
    let lesson = Lesson(version: 1, embeddings: numbers(examples * 8), logits: numbers(examples))
    var stabilization = Stabilization()
    (stabilization.regularization, stabilization.distillation) = (2, 0.5)
    func gradients(threads: Int, _ lesson: Lesson?) -> (all: [Float], distance: Double) {
      let pass = Pass(rows: rows, dense: dense)
      pass.batch = batch
      pass.shifts = (0..<examples).map { Float($0 % 5) / 10 }
      pass.lesson = lesson
      _ = ParallelPass(model, threads: threads, stabilization: stabilization).train(pass)
      return (Array((pass.rowGradients + pass.denseGradients).joined()), pass.distance)
    }
    let (one, three, without) = (
      gradients(threads: 1, lesson), gradients(threads: 3, lesson), gradients(threads: 1, nil)
    )
    for (a, b) in zip(one.all, three.all) { #expect(abs(a - b) <= 1e-3 * max(1, abs(a))) }
    #expect(abs(one.distance - three.distance) < 1e-6 * one.distance && one.distance > 0 && without.distance == 0)
    #expect(zip(one.all, without.all).contains { abs($0 - $1) > 1 })
  }
}
