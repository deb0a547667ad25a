// DeepFM: the pairs of a factorization machine and a perceptron over the same vectors, which all tasks share; each task
// has a head of its own over both. Source: Guo et al. 2017, "DeepFM".

/// logit[t] = bias[t] + Σ_f w_f[t] + ⟨pair[t], P⟩ + ⟨head[t], MLP(X)⟩ (+ the dense numbers' term).
///
/// Row: `bias` [tasks], `vector` [dimension]. X holds the combined vectors and the dense numbers, P is
/// `PairInteraction`'s vector. `pair` begins as ones, which for one task is the published model, and lets each task
/// weigh the shared pairs.
struct DeepFactorizationMachine: ConfiguredModel {
  static let kind = "deepfm"
  let options: ModelOptions
  let denseTensors: [DenseTensor]
  private let linear: LinearTerm
  private let pooling: Pooling
  private let pairs: PairInteraction
  private let pairHead: Linear
  private let perceptron: Perceptron
  private let head: Linear
  /// X and dX, shape `[examples, pooling.width]`.
  private let input: Int
  private let inputGradient: Int
  /// P and dP, shape `[examples, dimension]`.
  private let pair: Int
  private let pairGradient: Int
  /// The gradient of the perceptron's output, shape `[examples, hidden.last]`.
  private let hiddenGradient: Int

  init(_ options: ModelOptions) {
    self.options = options
    let tasks = options.tasks.count
    var plan = Plan()
    linear = LinearTerm(options, plan: &plan)
    pooling = Pooling(options, biasWidth: tasks, appendsDense: true, plan: &plan)
    pairs = PairInteraction(
      features: options.features.count, dimension: options.dimension, width: pooling.width, plan: &plan)
    pairHead = Linear(
      "pair", inputs: options.dimension, outputs: tasks, initial: .ones, hasBias: false, plan: &plan)
    perceptron = Perceptron("hidden", inputs: pooling.width, widths: options.hidden, options: options, plan: &plan)
    head = Linear("head", inputs: perceptron.outputs, outputs: tasks, hasBias: false, plan: &plan)
    input = plan.slot()
    inputGradient = plan.slot()
    pair = plan.slot()
    pairGradient = plan.slot()
    hiddenGradient = plan.slot()
    denseTensors = plan.tensors
  }

  func rowSegments(table: Int) -> [RowSegment] { pooling.rowSegments(table: table) }

  func forward(_ batch: Batch, rows: [[Float]], dense: [[Float]], scratch: inout Scratch, logits: inout [Float]) {
    batch.requireShape(options, rows: rows, dense: dense, expecting: denseTensors)
    let examples = batch.exampleCount
    var x = scratch.take(input, count: examples * pooling.width)
    var p = scratch.take(pair, count: examples * options.dimension)
    linear.forward(batch, dense: dense, logits: &logits)
    var xs = x.mutableSpan
    pooling.forward(batch, rows: rows, dense: dense, scratch: &scratch, logits: &logits, to: &xs)
    var ps = p.mutableSpan
    pairs.forward(x.span, examples: examples, scratch: &scratch, to: &ps)
    perceptron.forward(x.span, examples: examples, dense: dense, scratch: &scratch)
    let hidden = perceptron.takeOutput(&scratch)
    var output = logits.mutableSpan
    pairHead.forward(p.span, examples: examples, dense: dense, adding: true, to: &output)
    head.forward(hidden.span, examples: examples, dense: dense, adding: true, to: &output)
    perceptron.putOutput(hidden, &scratch)
    scratch.put(input, x)
    scratch.put(pair, p)
  }

  func backward(
    _ batch: Batch, rows: [[Float]], dense: [[Float]], logitGradients: [Float], scratch: inout Scratch,
    rowGradients: inout [[Float]], denseGradients: inout [[Float]]
  ) {
    let examples = batch.exampleCount
    let x = scratch.take(input, count: examples * pooling.width)
    let p = scratch.take(pair, count: examples * options.dimension)
    var dx = scratch.takeCleared(inputGradient, count: examples * pooling.width)
    var dp = scratch.take(pairGradient, count: examples * options.dimension)
    var dh = scratch.take(hiddenGradient, count: examples * perceptron.outputs)
    let dz = logitGradients.span
    linear.backward(batch, logitGradients: logitGradients, denseGradients: &denseGradients)
    pairHead.backwardParameters(dz, x: p.span, examples: examples, gradients: &denseGradients)
    var dps = dp.mutableSpan
    pairHead.backwardInput(dz, examples: examples, dense: dense, to: &dps)
    let hidden = perceptron.takeOutput(&scratch)
    head.backwardParameters(dz, x: hidden.span, examples: examples, gradients: &denseGradients)
    perceptron.putOutput(hidden, &scratch)
    var dhs = dh.mutableSpan
    head.backwardInput(dz, examples: examples, dense: dense, to: &dhs)
    perceptron.backward(
      &dh, x: x.span, examples: examples, dense: dense, gradients: &denseGradients, scratch: &scratch,
      addingInputGradientTo: &dx)
    var dxs = dx.mutableSpan
    pairs.backward(dp.span, x: x.span, examples: examples, scratch: &scratch, addingTo: &dxs)
    pooling.backward(
      batch, rows: rows, dense: dense, logitGradients: logitGradients, dx: dx.span, scratch: &scratch,
      rowGradients: &rowGradients, denseGradients: &denseGradients)
    scratch.put(input, x)
    scratch.put(pair, p)
    scratch.put(inputGradient, dx)
    scratch.put(pairGradient, dp)
    scratch.put(hiddenGradient, dh)
  }
}
