// The linear layer. It remembers nothing: whoever goes back brings the input along. Parameters and input have ways back
// of their own, since the first layer of a model needs no gradient of its input.

/// Y = X · Wᵀ + b, with X `[examples, inputs]`, W `[outputs, inputs]`, b `[outputs]`, Y `[examples, outputs]`.
struct Linear: Sendable {
  let inputs: Int
  let outputs: Int
  private let weight: Int
  private let bias: Int?

  /// A layer with tensors `name.weight` and, unless another layer brings the bias, `name.bias`.
  ///
  /// Weights begin uniform within ±1/√inputs unless `initial` says otherwise.
  init(
    _ name: String, inputs: Int, outputs: Int, initial: DenseInitial? = nil, hasBias: Bool = true, plan: inout Plan
  ) {
    self.inputs = inputs
    self.outputs = outputs
    let bound = 1 / Float(max(1, inputs)).squareRoot()
    weight = plan.tensor("\(name).weight", [outputs, inputs], initial ?? .uniform(bound: bound))
    bias = hasBias ? plan.tensor("\(name).bias", [outputs], .zeros) : nil
  }

  /// Y = X · Wᵀ + b; with `adding`, Y += X · Wᵀ + b; with `rectifying`, max(…, 0) of it.
  func forward(
    _ x: Span<Float>, examples: Int, dense: [[Float]], adding: Bool = false, rectifying: Bool = false,
    to y: inout MutableSpan<Float>
  ) {
    let matrix = dense[weight]
    Matrix.multiply(x, matrix.span, bTransposed: true, m: examples, n: outputs, k: inputs, adding: adding, to: &y)
    guard let bias else { return precondition(!rectifying, "only a layer with a bias rectifies") }
    let offsets = dense[bias]
    Kernel.addBias(offsets.span, to: &y, rows: examples, rectifying: rectifying)
  }

  /// dW += dYᵀ · X, db += Σ over examples of dY.
  func backwardParameters(_ dy: Span<Float>, x: Span<Float>, examples: Int, gradients: inout [[Float]]) {
    var matrix = gradients[weight].mutableSpan
    Matrix.multiply(dy, x, aTransposed: true, m: outputs, n: inputs, k: examples, adding: true, to: &matrix)
    guard let bias else { return }
    var offsets = gradients[bias].mutableSpan
    Kernel.addRows(dy, rows: examples, to: &offsets)
  }

  /// dX = dY · W; with `adding`, dX += dY · W.
  func backwardInput(
    _ dy: Span<Float>, examples: Int, dense: [[Float]], adding: Bool = false, to dx: inout MutableSpan<Float>
  ) {
    let matrix = dense[weight]
    Matrix.multiply(dy, matrix.span, m: examples, n: inputs, k: outputs, adding: adding, to: &dx)
  }
}
