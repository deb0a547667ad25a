// What the model tests share: seeded problems with every awkward shape in them, and the check of backward against
// central differences of forward.

import Base
import Foundation
import Layers
import Testing

/// A model with parameters and a batch: two features share a table, lists are empty or long, dense numbers exist.
struct Problem {
  var model: any Model
  var batch: Batch
  var rows: [[Float]]
  var dense: [[Float]]
  var dropoutSeed: UInt64?
  /// What a teacher of a user model makes of the batch, and how strongly it pulls.
  var lesson: (embeddings: [Float], logits: [Float], regularization: Float, distillation: Float)?

  init(
    kind: String, seed: UInt64, examples: Int = 5, denseWidth: Int = 3, dimension: Int = 4,
    listCombiner: Combiner = .mean, adjust: (inout ModelOptions) -> Void = { _ in }
  ) throws {
    var random = SeededRandom(seed: seed)
    var options = ModelOptions(
      kind: kind,
      features: [
        ModelFeature(name: "user", table: 0), ModelFeature(name: "last_items", table: 1, combiner: listCombiner),
        ModelFeature(name: "item", table: 1), ModelFeature(name: "tags", table: 2, combiner: .sum),
      ], tasks: [ModelTask(name: "click"), ModelTask(name: "like", weight: 2), ModelTask(name: "share")])
    options.dimension = dimension
    options.denseWidth = denseWidth
    options.hidden = [6, 5]
    options.bottom = [5]
    options.userModel.features = ["user", "last_items"]
    options.userModel.dense = denseWidth > 0 ? [1..<2] : []
    options.userModel.embeddingDimension = 2 * dimension
    options.userModel.userTokens = [2]
    options.userModel.mixTokens = [2, 2]
    options.userModel.mixtures = 2
    adjust(&options)
    let model = try makeModel(options)
    self.model = model
    let rowCount = 4
    func normal() -> Float { Float(random.uniform() + random.uniform() + random.uniform() - 1.5) }
    rows = (0..<options.tableCount).map { table in
      (0..<rowCount * model.rowWidth(table: table)).map { _ in normal() }
    }
    dense = model.denseTensors.map { tensor in (0..<tensor.count).map { _ in normal() } }
    let features = options.features.map { feature in
      var offsets: [Int32] = [0]
      var numbers: [Int32] = []
      for _ in 0..<examples {
        let one = feature.name == "user" || feature.name == "item"
        for _ in 0..<(one ? 1 : Int.random(in: 0...3, using: &random)) {
          numbers.append(Int32.random(in: 0..<Int32(rowCount), using: &random))
        }
        offsets.append(Int32(numbers.count))
      }
      return FeatureColumn(table: feature.table, offsets: offsets, rows: numbers)
    }
    let cells = examples * options.tasks.count
    batch = Batch(
      exampleCount: examples, features: features,
      dense: (0..<examples * options.denseWidth).map { _ in normal() },
      labels: (0..<cells).map { _ in Bool.random(using: &random) ? 1 : 0 },
      weights: (0..<cells).map { _ in Float(Int.random(in: 0...2, using: &random)) })
  }

  func logits(_ scratch: inout Scratch) -> [Float] {
    var logits: [Float] = []
    scratch.dropoutSeed = dropoutSeed
    model.forward(batch, rows: rows, dense: dense, scratch: &scratch, logits: &logits)
    return logits
  }

  /// The problem's loss, in double.
  func loss() -> Double {
    var scratch = Scratch()
    var gradients: [Float] = []
    var leaning = batch
    if let lesson {
      for (index, logit) in lesson.logits.enumerated() {
        leaning.labels[index] += lesson.distillation * (1 / (1 + exp(-logit)) - leaning.labels[index])
      }
    }
    let loss = Losses.weightedLogLoss(logits: logits(&scratch), batch: leaning, gradients: &gradients).reduce(0, +)
    return loss + pull(&scratch)
  }

  /// λ · the mean of (e − e')², summed over examples.
  private func pull(_ scratch: inout Scratch) -> Double {
    guard let lesson, let model = model as? any UserModel else { return 0 }
    var embeddings: [Float] = []
    model.embeddings(batch.exampleCount, scratch: &scratch, into: &embeddings)
    let squares = zip(embeddings, lesson.embeddings).map { pow(Double($0) - Double($1), 2) }
    return Double(lesson.regularization) * squares.reduce(0, +) / Double(model.options.userModel.width)
  }

  func gradients() -> (rows: [[Float]], dense: [[Float]]) {
    var scratch = Scratch()
    return gradients(&scratch)
  }

  func gradients(_ scratch: inout Scratch) -> (rows: [[Float]], dense: [[Float]]) {
    var logitGradients: [Float] = []
    _ = Losses.weightedLogLoss(logits: logits(&scratch), batch: batch, gradients: &logitGradients)
    if let lesson, let userModel = model as? any UserModel {
      return gradients(&scratch, lesson.embeddings, lesson.logits, userModel, logitGradients)
    }
    var rowGradients = rows.map { [Float](repeating: 0, count: $0.count) }
    var denseGradients = dense.map { [Float](repeating: 0, count: $0.count) }
    model.backward(
      batch, rows: rows, dense: dense, logitGradients: logitGradients, scratch: &scratch,
      rowGradients: &rowGradients, denseGradients: &denseGradients)
    return (rowGradients, denseGradients)
  }

  private func gradients(
    _ scratch: inout Scratch, _ target: [Float], _ teacher: [Float], _ model: any UserModel, _ plain: [Float]
  ) -> (rows: [[Float]], dense: [[Float]]) {
    var (logitGradients, embeddings, embeddingGradients): ([Float], [Float], [Float]) = (plain, [], [])
    Losses.distill(teacher: teacher, share: lesson?.distillation ?? 0, batch: batch, gradients: &logitGradients)
    model.embeddings(batch.exampleCount, scratch: &scratch, into: &embeddings)
    _ = Losses.pull(
      embeddings, towards: target, width: model.options.userModel.width, weight: lesson?.regularization ?? 0,
      gradients: &embeddingGradients)
    var rowGradients = rows.map { [Float](repeating: 0, count: $0.count) }
    var denseGradients = dense.map { [Float](repeating: 0, count: $0.count) }
    model.backward(
      batch, rows: rows, dense: dense, logitGradients: logitGradients, embeddingGradients: embeddingGradients,
      scratch: &scratch, rowGradients: &rowGradients, denseGradients: &denseGradients)
    return (rowGradients, denseGradients)
  }

  /// Compares every gradient with (loss(x + h) − loss(x − h)) / 2h.
  ///
  /// Where they differ a shorter step decides: a long one may have crossed the bend of a ReLU.
  func expectGradientsMatch(step: Float = 0.01, tolerance: Double = 3e-3) {
    let (rowGradients, denseGradients) = gradients()
    var copy = self
    func check(
      _ parameters: WritableKeyPath<Problem, [[Float]]>, _ array: Int, _ gradients: [Float], _ name: String
    ) {
      for index in gradients.indices {
        let gradient = Double(gradients[index])
        let agrees = [step, step / 4, step / 16].contains { step in
          let slope = copy.slope(parameters, array, index, step)
          return abs(slope - gradient) <= tolerance * max(1, abs(slope))
        }
        #expect(agrees, "\(model.options.kind): \(name)[\(index)] is \(gradient)")
      }
    }
    for table in rows.indices { check(\.rows, table, rowGradients[table], "table \(table)") }
    for (number, tensor) in model.denseTensors.enumerated() {
      check(\.dense, number, denseGradients[number], tensor.name)
    }
  }

  private mutating func slope(
    _ parameters: WritableKeyPath<Problem, [[Float]]>, _ array: Int, _ index: Int, _ step: Float
  ) -> Double {
    let value = self[keyPath: parameters][array][index]
    self[keyPath: parameters][array][index] = value + step
    let above = loss()
    self[keyPath: parameters][array][index] = value - step
    let below = loss()
    self[keyPath: parameters][array][index] = value
    return (above - below) / Double((value + step) - (value - step))
  }
}
