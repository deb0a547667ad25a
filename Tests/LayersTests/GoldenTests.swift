// Our arithmetic against PyTorch's: Tests/Golden/layers.py works the same problems out from its own modules.

import Layers
import Testing

#if canImport(Glibc)
  import Glibc
#endif

@Suite("Golden numbers from PyTorch") struct GoldenTests {
  /// The formula of all parameters and inputs.
  func fill(_ count: Int, _ number: Int, amplitude: Double = 0.5) -> [Float] {
    (0..<count).map { Float(amplitude * sin(1.3 * Double($0) + Double(number) + 1)) }
  }

  func expectClose(_ values: [Float], _ expected: [Float], _ name: String) {
    #expect(values.count == expected.count, "\(name)")
    for (index, pair) in zip(values, expected).enumerated() {
      #expect(abs(pair.0 - pair.1) <= 1e-5 * max(1, abs(pair.1)), "\(name)[\(index)]: \(pair.0), not \(pair.1)")
    }
  }

  @Test(arguments: [
    ("logistic", Combiner.mean, Golden.logistic), ("fm", .mean, Golden.fm), ("deepfm", .mean, Golden.deepfm),
    ("dcn", .attention, Golden.dcn), ("dlrm", .attention, Golden.dlrm),
  ])
  func `logits, losses and gradients of a model`(kind: String, combiner: Combiner, golden: [[Float]]) throws {
    let (names, ours) = try worked(kind, combiner)
    #expect(ours.count == golden.count)
    for (name, pair) in zip(names, zip(ours, golden)) { expectClose(pair.0, pair.1, "\(kind) \(name)") }
  }

  @Test func `logits, losses and gradients of the user model`() throws {
    let (names, ours) = try worked("sum", .attention)
    for (name, pair) in zip(names[..<2], zip(ours, Golden.sum)) { expectClose(pair.0, pair.1, name) }
    for (index, gradient) in ours[2..<ours.count - 3].enumerated() {
      let product = zip(gradient, fill(gradient.count, 500 + index)).reduce(0) { $0 + Double($1.0) * Double($1.1) }
      expectClose([Float(product)], [Golden.sum[2][index]], names[2 + index])
    }
    #expect(Golden.sum[2].count == ours.count - 5)
    for (name, pair) in zip(names.suffix(3), zip(ours.suffix(3), Golden.sum[3...])) {
      expectClose(pair.0, pair.1, name)
    }
  }

  /// Logits, losses, and the gradients of all tensors and tables, with their names.
  func worked(_ kind: String, _ combiner: Combiner) throws -> (names: [String], values: [[Float]]) {
    var options = ModelOptions(
      kind: kind,
      features: [
        ModelFeature(name: "user", table: 0), ModelFeature(name: "last_items", table: 1, combiner: combiner),
        ModelFeature(name: "item", table: 1), ModelFeature(name: "tags", table: 2),
      ], tasks: ["click", "like", "share"].map { ModelTask(name: $0) })
    options.dimension = 4
    options.denseWidth = 3
    options.hidden = [6, 5]
    options.bottom = [5]
    options.crossLayers = 2
    options.layerNorm = kind == "deepfm"
    options.userModel.features = ["user", "last_items"]
    options.userModel.dense = [1..<2]
    options.userModel.embeddingDimension = 8
    options.userModel.userTokens = [2]
    options.userModel.mixTokens = [2]
    options.userModel.mixtures = 2
    let model = try makeModel(options)
    let rows = (0..<3).map { fill(4 * model.rowWidth(table: $0), 100 + $0) }
    let dense = model.denseTensors.enumerated().map { fill($1.count, $0) }
    let cells = (0..<4).flatMap { example in (0..<3).map { (example, $0) } }
    let batch = Batch(
      exampleCount: 4,
      features: [
        FeatureColumn(table: 0, rows: [0, 1, 2, 0]),
        FeatureColumn(table: 1, offsets: [0, 3, 3, 4, 6], rows: [0, 1, 1, 3, 2, 0]),
        FeatureColumn(table: 1, rows: [3, 2, 0, 1]),
        FeatureColumn(table: 2, offsets: [0, 2, 3, 3, 6], rows: [1, 2, 0, 3, 3, 1]),
      ], dense: fill(12, 200, amplitude: 1),
      labels: cells.map { ($0 + 2 * $1) % 3 == 0 ? 1 : 0 }, weights: cells.map { Float(($0 + $1) % 3) })
    var scratch = Scratch()
    var (logits, logitGradients): ([Float], [Float]) = ([], [])
    model.forward(batch, rows: rows, dense: dense, scratch: &scratch, logits: &logits)
    let losses = Losses.weightedLogLoss(logits: logits, batch: batch, gradients: &logitGradients)
    var rowGradients = rows.map { [Float](repeating: 0, count: $0.count) }
    var denseGradients = dense.map { [Float](repeating: 0, count: $0.count) }
    model.backward(
      batch, rows: rows, dense: dense, logitGradients: logitGradients, scratch: &scratch,
      rowGradients: &rowGradients, denseGradients: &denseGradients)
    let names = ["logits", "losses"] + model.denseTensors.map(\.name) + (0..<3).map { "table \($0)" }
    return (names, [logits, losses.map { Float($0) }] + denseGradients + rowGradients)
  }

  @Test func `a mixer block and its gradients`() {
    var plan = Plan()
    let block = MixerBlock("mixer", tokens: 3, channels: 5, tokenHidden: 4, channelHidden: 6, plan: &plan)
    let dense = plan.tensors.enumerated().map { fill($1.count, $0) }
    let x = fill(60, 300, amplitude: 1)
    var y = [Float](repeating: .nan, count: 60)
    var output = y.mutableSpan
    var scratch = Scratch()
    block.forward(x.span, examples: 4, dense: dense, scratch: &scratch, to: &output)
    var gradient = fill(60, 301)
    var gradients = dense.map { [Float](repeating: 0, count: $0.count) }
    block.backward(&gradient, examples: 4, dense: dense, gradients: &gradients, scratch: &scratch)
    let names = ["output", "input gradient"] + plan.tensors.map(\.name)
    #expect(names.count == Golden.mixer.count)
    for (name, pair) in zip(names, zip([y, gradient] + gradients, Golden.mixer)) {
      expectClose(pair.0, pair.1, name)
    }
  }

  @Test(arguments: [
    (DenseOptimizerOptions.Rule.sgd, Float(0), Golden.sgd), (.adagrad, 0, Golden.adagrad), (.adam, 0, Golden.adam),
    (.adam, 0.2, Golden.adamw),
  ])
  func `five steps of an optimizer`(rule: DenseOptimizerOptions.Rule, weightDecay: Float, golden: [[Float]]) {
    var options = DenseOptimizerOptions(rule: rule, learningRate: 0.1)
    options.weightDecay = weightDecay
    let optimizer = DenseOptimizer(options)
    var values = fill(6, 0)
    var state = optimizer.initialState(parameters: 6)
    for step in 1...5 {
      #expect(optimizer.apply(gradient: fill(6, step).span, values: &values, state: &state, rateFactor: 1))
    }
    expectClose(values, golden[0], "\(rule)")
  }
}
