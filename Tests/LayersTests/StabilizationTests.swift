// Regularization towards a teacher's embeddings and distillation from its predictions: gradients, and when there is nothing
// to learn from a teacher.

import Base
import Layers
import Testing

@Suite("Stabilisation") struct StabilizationTests {
  /// What the model itself makes of the problem's batch.
  private func ownLesson(_ problem: Problem) throws -> (embeddings: [Float], logits: [Float]) {
    let model = try #require(problem.model as? any UserModel)
    var scratch = Scratch()
    let logits = problem.logits(&scratch)
    var embeddings: [Float] = []
    model.embeddings(problem.batch.exampleCount, scratch: &scratch, into: &embeddings)
    return (embeddings, logits)
  }

  @Test(arguments: [(0.7, 0), (0, 0.4), (0.7, 0.4), (0, 1)] as [(Float, Float)])
  func `gradients equal central differences`(regularization: Float, distillation: Float) throws {
    var problem = try Problem(kind: "sum", seed: 31, examples: 3) { options in
      options.hidden = [4]
      options.bottom = [3]
      options.crossLayers = 1
      options.userModel.userTokens = []
      options.userModel.mixTokens = [2]
    }
    let plain = problem.gradients()
    var random = SeededRandom(seed: 5)
    let own = try ownLesson(problem)
    problem.lesson = (
      own.embeddings.map { $0 + Float(random.uniform() - 0.5) }, own.logits.map { $0 + Float(random.uniform() - 0.5) },
      regularization, distillation
    )
    problem.expectGradientsMatch()
    // The check sees the terms: without them the gradients are others.
    let taught = problem.gradients()
    #expect(taught.rows != plain.rows && taught.dense != plain.dense)
  }

  @Test func `a teacher that says what the model says pulls nowhere, and alone leaves nothing to learn`() throws {
    var problem = try Problem(kind: "sum", seed: 32)
    let plain = problem.gradients()
    let own = try ownLesson(problem)
    problem.lesson = (own.embeddings, own.logits, 1000, 0)
    let held = problem.gradients()
    #expect(held.rows == plain.rows && held.dense == plain.dense)
    problem.lesson = (own.embeddings, own.logits, 1000, 1)
    let taught = problem.gradients()
    #expect((taught.rows + taught.dense).joined().allSatisfy { abs($0) < 1e-4 })
    #expect((plain.rows + plain.dense).joined().contains { abs($0) > 0.1 })
  }

  @Test func `a teacher does not unmask a label, and the distance is the mean of squares`() {
    let batch = Batch(exampleCount: 2, features: [], labels: [.nan, 1], weights: [0, 2])
    var gradients: [Float] = []
    _ = Losses.weightedLogLoss(logits: [3, 0], batch: batch, gradients: &gradients)
    Losses.distill(teacher: [.nan, 0], share: 0.5, batch: batch, gradients: &gradients)
    #expect(gradients == [0, -0.5])
    var pulls: [Float] = []
    let distance = Losses.pull([1, 2, 3, 4], towards: [1, 0, 3, 5], width: 2, weight: 3, gradients: &pulls)
    #expect(distance == 2.5 && pulls == [0, 6, 0, -3])
  }
}
