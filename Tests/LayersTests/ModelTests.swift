import Base
import Layers
import Testing

/// Kinds whose gradients are derivatives: all but the one that adds up.
private let learning = ModelOptions.kinds.filter { $0 != "counting" }

@Suite("Models") struct ModelTests {
  // `sum` has tests of its own.
  @Test(arguments: learning.filter { $0 != "sum" }, [Combiner.sum, .mean])
  func `gradients equal central differences`(kind: String, combiner: Combiner) throws {
    try Problem(kind: kind, seed: 1, listCombiner: combiner).expectGradientsMatch()
    try Problem(kind: kind, seed: 2, denseWidth: 0, dimension: 3, listCombiner: combiner).expectGradientsMatch()
  }

  @Test(arguments: ["deepfm", "dcn", "dlrm"])
  func `gradients equal central differences with attention, layer norm and dropout`(kind: String) throws {
    var problem = try Problem(kind: kind, seed: 11, listCombiner: .attention) { options in
      options.layerNorm = true
      options.dropout = 0.3
    }
    problem.dropoutSeed = 5
    problem.expectGradientsMatch()
  }

  @Test func `dropout is drawn from its seed alone, keeps the mean, and predictions have none`() throws {
    var problem = try Problem(kind: "deepfm", seed: 12, examples: 2) { options in
      options.dropout = 0.4
      options.hidden = [6]
    }
    var scratch = Scratch()
    let whole = problem.logits(&scratch)
    problem.dropoutSeed = 1
    let dropped = problem.logits(&scratch)
    #expect(dropped != whole)
    #expect(problem.logits(&scratch) == dropped)
    var mean = [Double](repeating: 0, count: whole.count)
    for seed in 0..<500 {
      problem.dropoutSeed = UInt64(seed)
      for (index, logit) in problem.logits(&scratch).enumerated() { mean[index] += Double(logit) / 500 }
    }
    // With one hidden layer the logit is linear in what is dropped, so its mean is the whole one.
    for (a, b) in zip(mean, whole) { #expect(abs(a - Double(b)) < 0.2) }
    problem.dropoutSeed = nil
    #expect(problem.logits(&scratch) == whole)
  }

  @Test(arguments: learning)
  func `an example's logits do not depend on its batch or on used scratch`(kind: String) throws {
    let problem = try Problem(kind: kind, seed: 3, examples: 7)
    var scratch = Scratch()
    let together = problem.logits(&scratch)
    let tasks = problem.model.options.tasks.count
    for example in 0..<7 {
      var alone = problem
      alone.batch = problem.batch.only(example, tasks: tasks, denseWidth: problem.model.options.denseWidth)
      for (task, logit) in alone.logits(&scratch).enumerated() {
        #expect(abs(logit - together[example * tasks + task]) <= 1e-5 * max(1, abs(logit)))
      }
    }
    #expect(problem.logits(&scratch) == together)
  }

  @Test(arguments: learning)
  func `gradients are sums over the batch, added to what is there`(kind: String) throws {
    let problem = try Problem(kind: kind, seed: 4, examples: 6)
    var scratch = Scratch()
    let (rowGradients, denseGradients) = problem.gradients(&scratch)
    var logitGradients: [Float] = []
    var summedRows = problem.rows.map { [Float](repeating: 0, count: $0.count) }
    var summedDense = problem.dense.map { [Float](repeating: 0, count: $0.count) }
    for example in 0..<6 {
      var alone = problem
      alone.batch = problem.batch.only(
        example, tasks: problem.model.options.tasks.count, denseWidth: problem.model.options.denseWidth)
      let logits = alone.logits(&scratch)
      _ = Losses.weightedLogLoss(logits: logits, batch: alone.batch, gradients: &logitGradients)
      problem.model.backward(
        alone.batch, rows: problem.rows, dense: problem.dense, logitGradients: logitGradients, scratch: &scratch,
        rowGradients: &summedRows, denseGradients: &summedDense)
    }
    for (whole, parts) in zip(rowGradients + denseGradients, summedRows + summedDense) {
      for (a, b) in zip(whole, parts) { #expect(abs(a - b) <= 1e-4 * max(1, abs(a))) }
    }
  }

  @Test(arguments: learning)
  func `a masked task moves nothing of its own`(kind: String) throws {
    var problem = try Problem(kind: kind, seed: 5)
    problem.batch.weights = problem.batch.weights.map { _ in 0 }
    let (rowGradients, denseGradients) = problem.gradients()
    #expect((rowGradients + denseGradients).allSatisfy { $0.allSatisfy { $0 == 0 } })
  }

  @Test(arguments: learning)
  func `an empty batch has no logits and no gradients`(kind: String) throws {
    let problem = try Problem(kind: kind, seed: 6, examples: 0)
    var scratch = Scratch()
    #expect(problem.logits(&scratch) == [])
    let (rowGradients, _) = problem.gradients()
    #expect(rowGradients.allSatisfy { $0.allSatisfy { $0 == 0 } })
  }

  @Test(arguments: learning)
  func `a NaN in an example's numbers or rows shows in all its logits, and in no other's`(kind: String) throws {
    var scratch = Scratch()
    var problem = try Problem(kind: kind, seed: 13, examples: 4)
    problem.batch.features[0].rows = [0, 1, 2, 3]
    problem.batch.dense[3 * 2] = .nan
    #expect(problem.logits(&scratch).map(\.isNaN) == (0..<12).map { $0 / 3 == 2 })
    problem.batch.dense[3 * 2] = 0
    problem.rows[0] = problem.rows[0].indices.map { $0 < problem.rows[0].count / 4 ? .nan : problem.rows[0][$0] }
    #expect(problem.logits(&scratch).map(\.isNaN) == (0..<12).map { $0 / 3 == 0 })
  }

  @Test func `logistic is its own definition`() throws {
    let problem = try Problem(kind: "logistic", seed: 7)
    var scratch = Scratch()
    let logits = problem.logits(&scratch)
    for example in 0..<problem.batch.exampleCount {
      for task in 0..<3 {
        var expected = problem.linear(example, task)
        for feature in problem.combined(example) { expected += feature[task] }
        #expect(abs(Double(logits[example * 3 + task]) - expected) < 1e-5)
      }
    }
  }

  @Test(arguments: [1, 4, 8, 11, 16, 27]) func `fm is the sum over pairs of features`(dimension: Int) throws {
    let problem = try Problem(kind: "fm", seed: 8, dimension: dimension)
    var scratch = Scratch()
    let logits = problem.logits(&scratch)
    for example in 0..<problem.batch.exampleCount {
      let features = problem.combined(example)
      for task in 0..<3 {
        var expected = problem.linear(example, task)
        for (f, feature) in features.enumerated() {
          expected += feature[task]
          for other in features[(f + 1)...] {
            for k in 0..<dimension {
              let place = 3 + task * dimension + k
              expected += feature[place] * other[place]
            }
          }
        }
        #expect(abs(Double(logits[example * 3 + task]) - expected) < 1e-4)
      }
    }
  }

  @Test func `rows have the segments of their model, and unread tables none`() throws {
    let fm = try Problem(kind: "fm", seed: 9, dimension: 8).model
    #expect(
      fm.rowSegments(table: 0) == [
        RowSegment(name: "bias", width: 3, initialDeviation: 0),
        RowSegment(name: "vector", width: 24, initialDeviation: 0.01),
      ])
    #expect(fm.rowSegments(table: 3) == [])
    #expect(fm.rowWidth(table: 1) == 27)
  }

  @Test func `first values depend on seed and name alone`() {
    let tensor = DenseTensor(name: "hidden.0.weight", shape: [50, 40], initial: .normal(deviation: 0.5))
    let values = tensor.initialValues(seed: 1)
    #expect(values == tensor.initialValues(seed: 1))
    #expect(values != tensor.initialValues(seed: 2))
    #expect(values != DenseTensor(name: "other", shape: [2000], initial: tensor.initial).initialValues(seed: 1))
    let mean = values.reduce(0, +) / 2000
    let deviation = (values.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / 2000).squareRoot()
    #expect(abs(mean) < 0.05)
    #expect(abs(deviation - 0.5) < 0.03)
    let uniform = DenseTensor(name: "u", shape: [2000], initial: .uniform(bound: 2)).initialValues(seed: 1)
    #expect(uniform.allSatisfy { abs($0) <= 2 } && uniform.max()! > 1.9 && uniform.min()! < -1.9)
    #expect(DenseTensor(name: "o", shape: [2], initial: .ones).initialValues(seed: 1) == [1, 1])
  }

  @Test func `an unknown kind lists what exists, with every other problem`() {
    var options = ModelOptions(
      kind: "fmm",
      features: [ModelFeature(name: "user", table: 0), ModelFeature(name: "user", table: -1)],
      tasks: [ModelTask(name: "click", weight: .nan)])
    options.dimension = 0
    let problems = [
      "model.kind is 'fmm'; use one of: \(ModelOptions.kinds.joined(separator: ", "))",
      "model.dimension is 0; use 1 to 4096",
      "model.features[1] ('user') has no table",
      "model.features names 'user' twice; give each feature one entry",
      "model.tasks[0].weight of 'click' is nan; use a number of at least 0",
    ]
    #expect(options.problems() == problems)
    #expect(throws: ModelError(problems: problems)) { try makeModel(options) }
  }

  @Test func `a model without attention says so`() {
    let options = ModelOptions(
      kind: "fm", features: [ModelFeature(name: "tags", table: 0, combiner: .attention)],
      tasks: [ModelTask(name: "click")])
    #expect(
      options.problems() == [
        "model.features: 'tags' has combiner attention, which model 'fm' does not have; use sum or mean"
      ])
  }

  @Test func `a batch of another shape traps`() async {
    await #expect(processExitsWith: .failure) {
      var problem = try Problem(kind: "fm", seed: 10)
      problem.batch.features[0].rows[0] = 1_000_000
      var scratch = Scratch()
      _ = problem.logits(&scratch)
    }
  }
}

extension Batch {
  /// The batch of one of its examples.
  func only(_ example: Int, tasks: Int, denseWidth: Int) -> Batch {
    Batch(
      exampleCount: 1,
      features: features.map { column in
        let occurrences = Int(column.offsets[example])..<Int(column.offsets[example + 1])
        return FeatureColumn(
          table: column.table, offsets: [0, Int32(occurrences.count)], rows: Array(column.rows[occurrences]))
      },
      dense: Array(dense[example * denseWidth..<(example + 1) * denseWidth]),
      labels: Array(labels[example * tasks..<(example + 1) * tasks]),
      weights: Array(weights[example * tasks..<(example + 1) * tasks]))
  }
}

extension Problem {
  /// The combined row of each feature of an example, in double.
  func combined(_ example: Int) -> [[Double]] {
    zip(batch.features, model.options.features).map { column, feature in
      let width = model.rowWidth(table: column.table)
      let occurrences = column.rows[Int(column.offsets[example])..<Int(column.offsets[example + 1])]
      let scale = feature.combiner == .mean ? 1 / Double(max(1, occurrences.count)) : 1
      return (0..<width).map { i in
        occurrences.reduce(0) { $0 + scale * Double(rows[column.table][Int($1) * width + i]) }
      }
    }
  }

  /// Bias and dense numbers, in double.
  func linear(_ example: Int, _ task: Int) -> Double {
    let width = model.options.denseWidth
    return (0..<width).reduce(Double(dense[0][task])) {
      $0 + Double(dense[1][task * width + $1]) * Double(batch.dense[example * width + $1])
    }
  }
}
