// DCN v2 in its parallel form: a cross network and a perceptron over the same input, and each task's head over both.
// Source: Wang et al. 2021, "DCN V2", figure 1b.

/// logit[t] = bias[t] + ⟨cross.head[t], Cross(X)⟩ + ⟨head[t], MLP(X)⟩.
///
/// Row: `vector` [dimension]. X holds the combined vectors and the dense numbers.
struct DeepCrossNetwork: ConfiguredModel {
  static let kind = "dcn"
  let options: ModelOptions
  let denseTensors: [DenseTensor]
  private let pooling: Pooling
  private let cross: CrossNetwork
  private let crossHead: Linear
  private let perceptron: Perceptron
  private let head: Linear
  /// X and dX, shape `[examples, pooling.width]`.
  private let input: Int
  private let inputGradient: Int
  /// The gradients of what the heads read.
  private let crossGradient: Int
  private let hiddenGradient: Int

  init(_ options: ModelOptions) {
    self.options = options
    let tasks = options.tasks.count
    var plan = Plan()
    pooling = Pooling(options, biasWidth: 0, appendsDense: true, plan: &plan)
    cross = CrossNetwork("cross", width: pooling.width, layers: options.crossLayers, plan: &plan)
    crossHead = Linear("cross.head", inputs: pooling.width, outputs: tasks, hasBias: false, plan: &plan)
    perceptron = Perceptron("hidden", inputs: pooling.width, widths: options.hidden, options: options, plan: &plan)
    head = Linear("head", inputs: perceptron.outputs, outputs: tasks, plan: &plan)
    input = plan.slot()
    inputGradient = plan.slot()
    crossGradient = plan.slot()
    hiddenGradient = plan.slot()
    denseTensors = plan.tensors
  }

  func rowSegments(table: Int) -> [RowSegment] { pooling.rowSegments(table: table) }

  func forward(_ batch: Batch, rows: [[Float]], dense: [[Float]], scratch: inout Scratch, logits: inout [Float]) {
    batch.requireShape(options, rows: rows, dense: dense, expecting: denseTensors)
    let examples = batch.exampleCount
    var x = scratch.take(input, count: examples * pooling.width)
    logits.setCount(examples * options.tasks.count)
    var xs = x.mutableSpan
    pooling.forward(batch, rows: rows, dense: dense, scratch: &scratch, logits: &logits, to: &xs)
    cross.forward(x.span, examples: examples, dense: dense, scratch: &scratch)
    perceptron.forward(x.span, examples: examples, dense: dense, scratch: &scratch)
    let crossed = cross.takeOutput(&scratch)
    let hidden = perceptron.takeOutput(&scratch)
    var output = logits.mutableSpan
    crossHead.forward(crossed.span, examples: examples, dense: dense, to: &output)
    head.forward(hidden.span, examples: examples, dense: dense, adding: true, to: &output)
    cross.putOutput(crossed, &scratch)
    perceptron.putOutput(hidden, &scratch)
    scratch.put(input, x)
  }

  func backward(
    _ batch: Batch, rows: [[Float]], dense: [[Float]], logitGradients: [Float], scratch: inout Scratch,
    rowGradients: inout [[Float]], denseGradients: inout [[Float]]
  ) {
    let examples = batch.exampleCount
    let x = scratch.take(input, count: examples * pooling.width)
    var dx = scratch.takeCleared(inputGradient, count: examples * pooling.width)
    var dc = scratch.take(crossGradient, count: examples * pooling.width)
    var dh = scratch.take(hiddenGradient, count: examples * perceptron.outputs)
    let dz = logitGradients.span
    let crossed = cross.takeOutput(&scratch)
    let hidden = perceptron.takeOutput(&scratch)
    crossHead.backwardParameters(dz, x: crossed.span, examples: examples, gradients: &denseGradients)
    head.backwardParameters(dz, x: hidden.span, examples: examples, gradients: &denseGradients)
    cross.putOutput(crossed, &scratch)
    perceptron.putOutput(hidden, &scratch)
    var dcs = dc.mutableSpan
    crossHead.backwardInput(dz, examples: examples, dense: dense, to: &dcs)
    var dhs = dh.mutableSpan
    head.backwardInput(dz, examples: examples, dense: dense, to: &dhs)
    cross.backward(
      &dc, x: x.span, examples: examples, dense: dense, gradients: &denseGradients, scratch: &scratch,
      addingInputGradientTo: &dx)
    perceptron.backward(
      &dh, x: x.span, examples: examples, dense: dense, gradients: &denseGradients, scratch: &scratch,
      addingInputGradientTo: &dx)
    pooling.backward(
      batch, rows: rows, dense: dense, logitGradients: logitGradients, dx: dx.span, scratch: &scratch,
      rowGradients: &rowGradients, denseGradients: &denseGradients)
    scratch.put(input, x)
    scratch.put(inputGradient, dx)
    scratch.put(crossGradient, dc)
    scratch.put(hiddenGradient, dh)
  }
}
