// The interaction module and the tower of them. Sources: Zhang et al. 2023, "Scaling User Modeling", 3.1 (parallel
// extractors, concatenated, residual); Zhang et al. 2022, "DHEN", equation 3 (ensemble + shortcut, then normalised).

/// Y = LayerNorm(concat_i(W_i · extractor_i(X) + b_i) + R · X), with X `[examples, tokens × channels]`, Y `[examples, outputs]`.
///
/// Each extractor has an equal share of Y's columns, the first ones one more where it does not divide. R is the identity
/// where X is as wide as Y.
struct InteractionModule: Extractor {
  private struct Branch: Sendable {
    let extractor: any Extractor
    let projection: Linear
    /// Where its share of Y begins.
    let offset: Int
  }

  let outputs: Int
  private let inputs: Int
  private let branches: [Branch]
  private let residual: Linear?
  private let norm: LayerNorm
  /// Y; one branch's share and the gradient of its features.
  private let output: Int
  private let share: Int
  private let featureGradient: Int

  init(
    _ name: String, tokens: Int, channels: Int, outputs: Int, options: ModelOptions, plan: inout Plan
  ) {
    inputs = tokens * channels
    self.outputs = outputs
    let kinds = options.userModel.extractors
    precondition(!kinds.isEmpty && kinds.count <= outputs, "\(kinds.count) extractors for \(outputs) outputs")
    var branches: [Branch] = []
    for (index, kind) in kinds.enumerated() {
      let (begin, end) = (index * outputs / kinds.count, (index + 1) * outputs / kinds.count)
      let extractor = kind.make(name, tokens: tokens, channels: channels, options: options, plan: &plan)
      let projection = Linear(
        "\(name).\(kind.rawValue).output", inputs: extractor.outputs, outputs: end - begin, plan: &plan)
      branches.append(Branch(extractor: extractor, projection: projection, offset: begin))
    }
    self.branches = branches
    residual =
      inputs == outputs
      ? nil : Linear("\(name).residual", inputs: inputs, outputs: outputs, hasBias: false, plan: &plan)
    norm = LayerNorm("\(name).norm", width: outputs, plan: &plan)
    output = plan.slot()
    share = plan.slot()
    featureGradient = plan.slot()
  }

  func forward(_ x: Span<Float>, examples: Int, dense: [[Float]], scratch: inout Scratch) {
    var y = scratch.take(output, count: examples * outputs)
    var part = scratch.take(share, count: examples * outputs)
    var ys = y.mutableSpan
    if let residual {
      residual.forward(x, examples: examples, dense: dense, to: &ys)
    } else {
      Kernel.copy(x, at: 0, to: &ys, at: 0, count: examples * outputs)
    }
    for branch in branches {
      let width = branch.projection.outputs
      branch.extractor.forward(x, examples: examples, dense: dense, scratch: &scratch)
      let features = branch.extractor.takeOutput(&scratch)
      var parts = part.mutableSpan
      branch.projection.forward(features.span, examples: examples, dense: dense, to: &parts)
      branch.extractor.putOutput(features, &scratch)
      for example in 0..<examples {
        Kernel.addScaled(
          1, part.span, at: example * width, to: &ys, at: example * outputs + branch.offset, count: width)
      }
    }
    norm.forward(&ys, rows: examples, dense: dense, scratch: &scratch)
    scratch.put(output, y)
    scratch.put(share, part)
  }

  func takeOutput(_ scratch: inout Scratch) -> [Float] { scratch.take(output, count: 0) }

  func putOutput(_ output: consuming [Float], _ scratch: inout Scratch) { scratch.put(self.output, output) }

  func backward(
    _ gradient: inout [Float], x: Span<Float>, examples: Int, dense: [[Float]], gradients: inout [[Float]],
    scratch: inout Scratch, addingInputGradientTo dx: inout [Float]
  ) {
    var dy = gradient.mutableSpan
    norm.backward(&dy, rows: examples, dense: dense, gradients: &gradients, scratch: &scratch)
    if let residual {
      residual.backwardParameters(gradient.span, x: x, examples: examples, gradients: &gradients)
      var target = dx.mutableSpan
      residual.backwardInput(gradient.span, examples: examples, dense: dense, adding: true, to: &target)
    } else {
      Kernel.addScaled(1, gradient.span, at: 0, to: &dx, count: examples * outputs)
    }
    var part = scratch.take(share, count: examples * outputs)
    for branch in branches {
      let width = branch.projection.outputs
      var parts = part.mutableSpan
      for example in 0..<examples {
        Kernel.copy(
          gradient.span, at: example * outputs + branch.offset, to: &parts, at: example * width, count: width)
      }
      let features = branch.extractor.takeOutput(&scratch)
      branch.projection.backwardParameters(
        part.span, x: features.span, examples: examples, gradients: &gradients)
      branch.extractor.putOutput(features, &scratch)
      var df = scratch.take(featureGradient, count: examples * branch.extractor.outputs)
      var dfs = df.mutableSpan
      branch.projection.backwardInput(part.span, examples: examples, dense: dense, to: &dfs)
      branch.extractor.backward(
        &df, x: x, examples: examples, dense: dense, gradients: &gradients, scratch: &scratch,
        addingInputGradientTo: &dx)
      scratch.put(featureGradient, df)
    }
    scratch.put(share, part)
  }
}

/// Interaction modules one after the other, from `tokens` of `channels` numbers to fewer and fewer of them.
struct InteractionTower: Extractor {
  let outputs: Int
  private let modules: [InteractionModule]
  /// The gradient of each module's input; the first one's is the caller's.
  private let inputGradients: [Int]

  /// - Parameters:
  ///   - layers: how many tokens each module but the last gives.
  ///   - outputs: what the last one gives, in numbers.
  init(
    _ name: String, tokens: Int, channels: Int, layers: [Int], outputs: Int, options: ModelOptions, plan: inout Plan
  ) {
    self.outputs = outputs
    var modules: [InteractionModule] = []
    var tokens = tokens
    for (index, next) in (layers.map { $0 * channels } + [outputs]).enumerated() {
      modules.append(
        InteractionModule(
          "\(name).\(index)", tokens: tokens, channels: channels, outputs: next, options: options, plan: &plan))
      tokens = next / channels
    }
    self.modules = modules
    inputGradients = modules.indices.map { _ in plan.slot() }
  }

  func forward(_ x: Span<Float>, examples: Int, dense: [[Float]], scratch: inout Scratch) {
    for (index, module) in modules.enumerated() {
      let below = index > 0 ? modules[index - 1].takeOutput(&scratch) : []
      module.forward(index > 0 ? below.span : x, examples: examples, dense: dense, scratch: &scratch)
      if index > 0 { modules[index - 1].putOutput(below, &scratch) }
    }
  }

  func takeOutput(_ scratch: inout Scratch) -> [Float] { modules[modules.count - 1].takeOutput(&scratch) }

  func putOutput(_ output: consuming [Float], _ scratch: inout Scratch) {
    modules[modules.count - 1].putOutput(output, &scratch)
  }

  func backward(
    _ gradient: inout [Float], x: Span<Float>, examples: Int, dense: [[Float]], gradients: inout [[Float]],
    scratch: inout Scratch, addingInputGradientTo dx: inout [Float]
  ) {
    for (index, module) in modules.enumerated().reversed() {
      guard index > 0 else {
        module.backward(
          &gradient, x: x, examples: examples, dense: dense, gradients: &gradients, scratch: &scratch,
          addingInputGradientTo: &dx)
        return
      }
      let below = modules[index - 1].takeOutput(&scratch)
      var next = scratch.takeCleared(inputGradients[index], count: examples * modules[index - 1].outputs)
      module.backward(
        &gradient, x: below.span, examples: examples, dense: dense, gradients: &gradients, scratch: &scratch,
        addingInputGradientTo: &next)
      modules[index - 1].putOutput(below, &scratch)
      swap(&next, &gradient)
      scratch.put(inputGradients[index], next)
    }
  }
}
