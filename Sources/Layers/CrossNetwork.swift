// Cross layers: explicit feature products of growing degree.
// Source: Wang et al. 2021, "DCN V2", equation 1.

/// x_{l+1} = x_0 ⊙ (W_l x_l + b_l) + x_l for each layer l, all x `[examples, width]`.
struct CrossNetwork: Extractor {
  private struct Layer: Sendable {
    let linear: Linear
    /// u_l = W_l x_l + b_l.
    let inner: Int
    /// x_{l+1}.
    let output: Int
  }

  let width: Int
  var outputs: Int { width }
  private let layers: [Layer]
  private let spare: Int

  init(_ name: String, width: Int, layers count: Int, plan: inout Plan) {
    precondition(count > 0, "a cross network needs a layer")
    self.width = width
    spare = plan.slot()
    var layers: [Layer] = []
    for index in 0..<count {
      let linear = Linear("\(name).\(index)", inputs: width, outputs: width, plan: &plan)
      layers.append(Layer(linear: linear, inner: plan.slot(), output: plan.slot()))
    }
    self.layers = layers
  }

  /// Works out all layers; `takeOutput` shows the last one.
  func forward(_ x0: Span<Float>, examples: Int, dense: [[Float]], scratch: inout Scratch) {
    let count = examples * width
    for (index, layer) in layers.enumerated() {
      let below = index > 0 ? scratch.take(layers[index - 1].output, count: 0) : []
      var inner = scratch.take(layer.inner, count: count)
      var output = scratch.take(layer.output, count: count)
      let x = index > 0 ? below.span : x0
      var u = inner.mutableSpan
      layer.linear.forward(x, examples: examples, dense: dense, to: &u)
      var next = output.mutableSpan
      Kernel.require(0, count, min(u.count, next.count))
      Kernel.require(0, count, min(x.count, x0.count))
      for i in 0..<count {
        unsafe next[unchecked: i] = x0[unchecked: i] * u[unchecked: i] + x[unchecked: i]
      }
      if index > 0 { scratch.put(layers[index - 1].output, below) }
      scratch.put(layer.inner, inner)
      scratch.put(layer.output, output)
    }
  }

  /// Moves x of the last layer `[examples, width]` out of scratch; `putOutput` brings it back.
  func takeOutput(_ scratch: inout Scratch) -> [Float] {
    scratch.take(layers[layers.count - 1].output, count: 0)
  }

  /// Brings back what `takeOutput` moved out.
  func putOutput(_ output: consuming [Float], _ scratch: inout Scratch) {
    scratch.put(layers[layers.count - 1].output, output)
  }

  /// Adds the gradients of parameters and of x_0; `gradient`, of the output on the way in, is used up.
  ///
  /// With d the gradient of x_{l+1}: du_l = d ⊙ x_0, dx_0 += d ⊙ u_l, dx_l = d + du_l W_l.
  func backward(
    _ gradient: inout [Float], x x0: Span<Float>, examples: Int, dense: [[Float]], gradients: inout [[Float]],
    scratch: inout Scratch, addingInputGradientTo dx0: inout [Float]
  ) {
    let count = examples * width
    var spareBuffer = scratch.take(spare, count: count)
    for (index, layer) in layers.enumerated().reversed() {
      let below = index > 0 ? scratch.take(layers[index - 1].output, count: 0) : []
      let inner = scratch.take(layer.inner, count: count)
      Kernel.addProduct(gradient.span, at: 0, inner.span, at: 0, to: &dx0, count: count)
      var du = spareBuffer.mutableSpan
      Kernel.copy(gradient.span, at: 0, to: &du, at: 0, count: count)
      Kernel.multiply(&du, at: 0, by: x0, at: 0, count: count)
      layer.linear.backwardParameters(
        spareBuffer.span, x: index > 0 ? below.span : x0, examples: examples, gradients: &gradients)
      var d = gradient.mutableSpan
      layer.linear.backwardInput(spareBuffer.span, examples: examples, dense: dense, adding: true, to: &d)
      if index > 0 { scratch.put(layers[index - 1].output, below) }
      scratch.put(layer.inner, inner)
    }
    Kernel.addScaled(1, gradient.span, at: 0, to: &dx0, count: count)
    scratch.put(spare, spareBuffer)
  }
}
