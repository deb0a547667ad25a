// DLRM: the dense numbers become one more vector, all pairs of vectors are multiplied, and a perceptron reads the
// products. Source: Naumov et al. 2019, "Deep Learning Recommendation Model", figure 1.

/// b = MLP(dense) `[dimension]`; Z = [b, v_1, …, v_F]; T = [b, pairs of Z]; logit[t] = head[t] · MLP(T) + bias[t].
///
/// Row: `vector` [dimension]. Without dense numbers there is no b.
struct DeepLearningRecommendationModel: ConfiguredModel {
  static let kind = "dlrm"
  let options: ModelOptions
  let denseTensors: [DenseTensor]
  /// The width of b: the dimension, or 0 without dense numbers.
  private let leading: Int
  private let bottom: Perceptron?
  private let pooling: Pooling
  private let interaction: DotInteraction
  private let top: Perceptron
  private let head: Linear
  /// Z and dZ, shape `[examples, vectors, dimension]`.
  private let vectors: Int
  private let vectorGradient: Int
  /// T and dT, shape `[examples, top.inputs]`.
  private let products: Int
  private let productGradient: Int
  /// The gradients of what bottom and top give.
  private let bottomGradient: Int
  private let topGradient: Int

  static func problems(in options: ModelOptions) -> [String] {
    options.features.count + (options.denseWidth > 0 ? 1 : 0) < 2
      ? ["model.features: '\(kind)' multiplies pairs; name two features, or one and model.denseWidth"] : []
  }

  init(_ options: ModelOptions) {
    self.options = options
    var plan = Plan()
    leading = options.denseWidth > 0 ? options.dimension : 0
    bottom =
      options.denseWidth > 0
      ? Perceptron(
        "bottom", inputs: options.denseWidth, widths: options.bottom + [options.dimension], options: options,
        plan: &plan)
      : nil
    pooling = Pooling(options, biasWidth: 0, leading: leading, appendsDense: false, plan: &plan)
    interaction = DotInteraction(
      vectors: pooling.width / options.dimension, dimension: options.dimension, plan: &plan)
    top = Perceptron(
      "top", inputs: leading + interaction.pairs, widths: options.hidden, options: options, plan: &plan)
    head = Linear("head", inputs: top.outputs, outputs: options.tasks.count, plan: &plan)
    vectors = plan.slot()
    vectorGradient = plan.slot()
    products = plan.slot()
    productGradient = plan.slot()
    bottomGradient = plan.slot()
    topGradient = plan.slot()
    denseTensors = plan.tensors
  }

  func rowSegments(table: Int) -> [RowSegment] { pooling.rowSegments(table: table) }

  func forward(_ batch: Batch, rows: [[Float]], dense: [[Float]], scratch: inout Scratch, logits: inout [Float]) {
    batch.requireShape(options, rows: rows, dense: dense, expecting: denseTensors)
    let examples = batch.exampleCount
    var z = scratch.take(vectors, count: examples * pooling.width)
    var t = scratch.take(products, count: examples * top.inputs)
    logits.setCount(examples * options.tasks.count)
    var zs = z.mutableSpan
    pooling.forward(batch, rows: rows, dense: dense, scratch: &scratch, logits: &logits, to: &zs)
    var ts = t.mutableSpan
    if let bottom {
      bottom.forward(batch.dense.span, examples: examples, dense: dense, scratch: &scratch)
      let b = bottom.takeOutput(&scratch)
      for example in 0..<examples {
        Kernel.copy(b.span, at: example * leading, to: &zs, at: example * pooling.width, count: leading)
        Kernel.copy(b.span, at: example * leading, to: &ts, at: example * top.inputs, count: leading)
      }
      bottom.putOutput(b, &scratch)
    }
    interaction.forward(
      z.span, examples: examples, scratch: &scratch, to: &ts, stride: top.inputs, offset: leading)
    top.forward(t.span, examples: examples, dense: dense, scratch: &scratch)
    let hidden = top.takeOutput(&scratch)
    var output = logits.mutableSpan
    head.forward(hidden.span, examples: examples, dense: dense, to: &output)
    top.putOutput(hidden, &scratch)
    scratch.put(vectors, z)
    scratch.put(products, t)
  }

  func backward(
    _ batch: Batch, rows: [[Float]], dense: [[Float]], logitGradients: [Float], scratch: inout Scratch,
    rowGradients: inout [[Float]], denseGradients: inout [[Float]]
  ) {
    let examples = batch.exampleCount
    let z = scratch.take(vectors, count: examples * pooling.width)
    let t = scratch.take(products, count: examples * top.inputs)
    var dz = scratch.takeCleared(vectorGradient, count: examples * pooling.width)
    var dt = scratch.takeCleared(productGradient, count: examples * top.inputs)
    var dh = scratch.take(topGradient, count: examples * top.outputs)
    let hidden = top.takeOutput(&scratch)
    head.backwardParameters(logitGradients.span, x: hidden.span, examples: examples, gradients: &denseGradients)
    top.putOutput(hidden, &scratch)
    var dhs = dh.mutableSpan
    head.backwardInput(logitGradients.span, examples: examples, dense: dense, to: &dhs)
    top.backward(
      &dh, x: t.span, examples: examples, dense: dense, gradients: &denseGradients, scratch: &scratch,
      addingInputGradientTo: &dt)
    var dzs = dz.mutableSpan
    interaction.backward(
      dt.span, stride: top.inputs, offset: leading, z: z.span, examples: examples, scratch: &scratch,
      addingTo: &dzs)
    if let bottom {
      var db = scratch.take(bottomGradient, count: examples * leading)
      var dbs = db.mutableSpan
      for example in 0..<examples {
        Kernel.copy(dz.span, at: example * pooling.width, to: &dbs, at: example * leading, count: leading)
        Kernel.addScaled(
          1, dt.span, at: example * top.inputs, to: &dbs, at: example * leading, count: leading)
      }
      var none: [Float] = []
      bottom.backward(
        &db, x: batch.dense.span, examples: examples, dense: dense, gradients: &denseGradients, scratch: &scratch,
        addingInputGradientTo: &none)
      scratch.put(bottomGradient, db)
    }
    pooling.backward(
      batch, rows: rows, dense: dense, logitGradients: logitGradients, dx: dz.span, scratch: &scratch,
      rowGradients: &rowGradients, denseGradients: &denseGradients)
    scratch.put(vectors, z)
    scratch.put(products, t)
    scratch.put(vectorGradient, dz)
    scratch.put(productGradient, dt)
    scratch.put(topGradient, dh)
  }
}
