// The multilayer perceptron: linear, normalisation if asked for, ReLU, dropout if asked for; again for each width.
// All it remembers is each layer's activations, and what the normalisations remember.

internal import Base

/// Hidden layers over X `[examples, inputs]`; each keeps its output, which is all that ReLU and dropout need to go back.
struct Perceptron: Extractor {
  private struct Hidden: Sendable {
    let linear: Linear
    let norm: LayerNorm?
    /// Activations, shape `[examples, width]`.
    let output: Int
  }

  let inputs: Int
  /// The width of the last layer.
  let outputs: Int
  private let hidden: [Hidden]
  private let dropout: Float
  /// The gradient of one layer's output, while the layer above it reads its own.
  private let spare: Int

  init(_ name: String, inputs: Int, widths: [Int], options: ModelOptions, plan: inout Plan) {
    self.inputs = inputs
    precondition(!widths.isEmpty, "a perceptron needs a layer")
    outputs = widths[widths.count - 1]
    dropout = options.dropout
    spare = plan.slot()
    var hidden: [Hidden] = []
    for (index, width) in widths.enumerated() {
      let name = "\(name).\(index)"
      let linear = Linear(name, inputs: hidden.last?.linear.outputs ?? inputs, outputs: width, plan: &plan)
      let norm = options.layerNorm ? LayerNorm("\(name).norm", width: width, plan: &plan) : nil
      hidden.append(Hidden(linear: linear, norm: norm, output: plan.slot()))
    }
    self.hidden = hidden
  }

  /// Works out all layers; `withOutput` shows the last one.
  func forward(_ x: Span<Float>, examples: Int, dense: [[Float]], scratch: inout Scratch) {
    for (index, layer) in hidden.enumerated() {
      let width = layer.linear.outputs
      let input = index > 0 ? scratch.take(hidden[index - 1].output, count: 0) : []
      var output = scratch.take(layer.output, count: examples * width)
      var y = output.mutableSpan
      layer.linear.forward(
        index > 0 ? input.span : x, examples: examples, dense: dense, rectifying: layer.norm == nil, to: &y)
      if let norm = layer.norm {
        norm.forward(&y, rows: examples, dense: dense, scratch: &scratch)
        Kernel.rectify(&y, count: examples * width)
      }
      if dropout > 0, let seed = scratch.dropoutSeed {
        drop(&y, count: examples * width, random: SeededRandom(seed: seed &+ UInt64(layer.output)))
      }
      if index > 0 { scratch.put(hidden[index - 1].output, input) }
      scratch.put(layer.output, output)
    }
  }

  /// Moves the last layer's activations `[examples, outputs]` out of scratch; `putOutput` brings them back.
  func takeOutput(_ scratch: inout Scratch) -> [Float] {
    scratch.take(hidden[hidden.count - 1].output, count: 0)
  }

  /// Brings back what `takeOutput` moved out.
  func putOutput(_ output: consuming [Float], _ scratch: inout Scratch) {
    scratch.put(hidden[hidden.count - 1].output, output)
  }

  /// Adds the parameters' gradients.
  ///
  /// - Parameters:
  ///   - gradient: of the output on the way in, and used as working memory.
  ///   - dx: the input's gradient `[examples, inputs]` is added to it; an empty array when nobody asks for it.
  func backward(
    _ gradient: inout [Float], x: Span<Float>, examples: Int, dense: [[Float]], gradients: inout [[Float]],
    scratch: inout Scratch, addingInputGradientTo dx: inout [Float]
  ) {
    let scale = dropout > 0 && scratch.dropoutSeed != nil ? 1 / (1 - dropout) : 1
    for (index, layer) in hidden.enumerated().reversed() {
      let width = layer.linear.outputs
      let output = scratch.take(layer.output, count: examples * width)
      var dy = gradient.mutableSpan
      Kernel.rectifyGradient(&dy, output: output.span, scale: scale, count: examples * width)
      scratch.put(layer.output, output)
      layer.norm?.backward(&dy, rows: examples, dense: dense, gradients: &gradients, scratch: &scratch)
      if index > 0 {
        let below = hidden[index - 1].output
        let input = scratch.take(below, count: 0)
        layer.linear.backwardParameters(gradient.span, x: input.span, examples: examples, gradients: &gradients)
        scratch.put(below, input)
        var next = scratch.take(spare, count: examples * layer.linear.inputs)
        var target = next.mutableSpan
        layer.linear.backwardInput(gradient.span, examples: examples, dense: dense, to: &target)
        swap(&next, &gradient)
        scratch.put(spare, next)
      } else {
        layer.linear.backwardParameters(gradient.span, x: x, examples: examples, gradients: &gradients)
        guard !dx.isEmpty else { return }
        var target = dx.mutableSpan
        layer.linear.backwardInput(gradient.span, examples: examples, dense: dense, adding: true, to: &target)
      }
    }
  }

  /// Each activation is dropped with the probability `dropout`; the others grow so that the mean stays.
  private func drop(_ y: inout MutableSpan<Float>, count: Int, random: consuming SeededRandom) {
    let threshold = UInt64(dropout * 65_536)
    let scale = 1 / (1 - dropout)
    var word: UInt64 = 0
    for i in 0..<count {
      if i & 3 == 0 { word = random.next() }
      y[i] = word & 0xFFFF < threshold ? 0 : y[i] * scale
      word >>= 16
    }
  }
}
