// SUM, the upstream user model: a user tower turns the user's features into a few embeddings, and a mix tower predicts
// from them and everything else. Source: Zhang et al. 2023, "Scaling User Modeling", figure 2.

/// A model that can stop at its user embeddings.
public protocol UserModel: Model {
  /// The places of the features that the user tower reads.
  var userFeatures: [Int] { get }

  /// Fills `embeddings` `[examples × embeddings × embeddingDimension]` for a batch whose other features may be empty.
  ///
  /// Parameters are those of `forward`.
  func embed(_ batch: Batch, rows: [[Float]], dense: [[Float]], scratch: inout Scratch, embeddings: inout [Float])

  /// Fills `embeddings` with those of the batch that `forward` was called for last with this scratch.
  func embeddings(_ examples: Int, scratch: inout Scratch, into embeddings: inout [Float])

  /// Adds the gradients of Σ `logitGradients` · logits + Σ `embeddingGradients` · embeddings, otherwise as `backward` does.
  ///
  /// - Parameter embeddingGradients: `[examples × embeddings × embeddingDimension]`, or empty for none.
  func backward(
    _ batch: Batch, rows: [[Float]], dense: [[Float]], logitGradients: [Float], embeddingGradients: [Float],
    scratch: inout Scratch, rowGradients: inout [[Float]], denseGradients: inout [[Float]])
}

/// E = user tower(U) `[embeddings × embeddingDimension]`; logit[t] = head[t] · mix tower([E, M]) + bias[t].
///
/// U holds the vectors of the user's features, M those of all others; each side's dense numbers become one more vector. The
/// mix tower reads E as tokens of `dimension` numbers. Row: `vector` [dimension].
struct ScalingUserModel: ConfiguredModel, UserModel {
  static let kind = "sum"
  let options: ModelOptions
  let denseTensors: [DenseTensor]
  let userFeatures: [Int]
  private let userInput: TowerInput
  private let userTower: InteractionTower
  private let mixInput: TowerInput
  private let mixTower: InteractionTower
  private let head: Linear
  /// U and dU, shape `[examples, userInput.width]`.
  private let user: Int
  private let userGradient: Int
  /// [E, M] and its gradient, shape `[examples, mixInput.width]`.
  private let mixed: Int
  private let mixedGradient: Int
  /// The gradients of what the towers give.
  private let embeddingGradient: Int
  private let topGradient: Int

  static func problems(in options: ModelOptions) -> [String] { options.userModel.problems(in: options) }

  init(_ options: ModelOptions) {
    self.options = options
    let shape = options.userModel
    let channels = options.dimension
    let isUser = options.features.map { shape.features.contains($0.name) }
    userFeatures = options.features.indices.filter { isUser[$0] }
    let userNumbers = Set(shape.dense.joined())
    var plan = Plan()
    userInput = TowerInput(
      "user", features: userFeatures, numbers: (0..<options.denseWidth).filter { userNumbers.contains($0) },
      leading: 0, options: options, plan: &plan)
    userTower = InteractionTower(
      "user", tokens: userInput.width / channels, channels: channels, layers: shape.userTokens, outputs: shape.width,
      options: options, plan: &plan)
    mixInput = TowerInput(
      "mix", features: options.features.indices.filter { !isUser[$0] },
      numbers: (0..<options.denseWidth).filter { !userNumbers.contains($0) }, leading: shape.width, options: options,
      plan: &plan)
    mixTower = InteractionTower(
      "mix", tokens: mixInput.width / channels, channels: channels, layers: shape.mixTokens.dropLast(),
      outputs: (shape.mixTokens.last ?? 1) * channels, options: options, plan: &plan)
    head = Linear("head", inputs: mixTower.outputs, outputs: options.tasks.count, plan: &plan)
    user = plan.slot()
    userGradient = plan.slot()
    mixed = plan.slot()
    mixedGradient = plan.slot()
    embeddingGradient = plan.slot()
    topGradient = plan.slot()
    denseTensors = plan.tensors
  }

  func rowSegments(table: Int) -> [RowSegment] {
    let segments = userInput.pooling.rowSegments(table: table)
    return segments.isEmpty ? mixInput.pooling.rowSegments(table: table) : segments
  }

  /// Works U and E out; the tower's output is in scratch afterwards.
  private func forwardUser(_ batch: Batch, rows: [[Float]], dense: [[Float]], scratch: inout Scratch) {
    var u = scratch.take(user, count: batch.exampleCount * userInput.width)
    var us = u.mutableSpan
    userInput.forward(batch, rows: rows, dense: dense, scratch: &scratch, to: &us)
    userTower.forward(u.span, examples: batch.exampleCount, dense: dense, scratch: &scratch)
    scratch.put(user, u)
  }

  func embed(
    _ batch: Batch, rows: [[Float]], dense: [[Float]], scratch: inout Scratch, embeddings: inout [Float]
  ) {
    batch.requireShape(options, rows: rows, dense: dense, expecting: denseTensors)
    forwardUser(batch, rows: rows, dense: dense, scratch: &scratch)
    self.embeddings(batch.exampleCount, scratch: &scratch, into: &embeddings)
  }

  func embeddings(_ examples: Int, scratch: inout Scratch, into embeddings: inout [Float]) {
    let output = userTower.takeOutput(&scratch)
    let count = examples * userTower.outputs
    embeddings.setCount(count)
    var target = embeddings.mutableSpan
    Kernel.copy(output.span, at: 0, to: &target, at: 0, count: count)
    userTower.putOutput(output, &scratch)
  }

  func forward(_ batch: Batch, rows: [[Float]], dense: [[Float]], scratch: inout Scratch, logits: inout [Float]) {
    batch.requireShape(options, rows: rows, dense: dense, expecting: denseTensors)
    let examples = batch.exampleCount
    forwardUser(batch, rows: rows, dense: dense, scratch: &scratch)
    var m = scratch.take(mixed, count: examples * mixInput.width)
    var ms = m.mutableSpan
    mixInput.forward(batch, rows: rows, dense: dense, scratch: &scratch, to: &ms)
    let embeddings = userTower.takeOutput(&scratch)
    let width = userTower.outputs
    for example in 0..<examples {
      Kernel.copy(embeddings.span, at: example * width, to: &ms, at: example * mixInput.width, count: width)
    }
    userTower.putOutput(embeddings, &scratch)
    mixTower.forward(m.span, examples: examples, dense: dense, scratch: &scratch)
    scratch.put(mixed, m)
    let top = mixTower.takeOutput(&scratch)
    logits.setCount(examples * options.tasks.count)
    var output = logits.mutableSpan
    head.forward(top.span, examples: examples, dense: dense, to: &output)
    mixTower.putOutput(top, &scratch)
  }

  func backward(
    _ batch: Batch, rows: [[Float]], dense: [[Float]], logitGradients: [Float], scratch: inout Scratch,
    rowGradients: inout [[Float]], denseGradients: inout [[Float]]
  ) {
    backward(
      batch, rows: rows, dense: dense, logitGradients: logitGradients, embeddingGradients: [], scratch: &scratch,
      rowGradients: &rowGradients, denseGradients: &denseGradients)
  }

  func backward(
    _ batch: Batch, rows: [[Float]], dense: [[Float]], logitGradients: [Float], embeddingGradients: [Float],
    scratch: inout Scratch, rowGradients: inout [[Float]], denseGradients: inout [[Float]]
  ) {
    let examples = batch.exampleCount
    let dz = logitGradients.span
    var dt = scratch.take(topGradient, count: examples * mixTower.outputs)
    let top = mixTower.takeOutput(&scratch)
    head.backwardParameters(dz, x: top.span, examples: examples, gradients: &denseGradients)
    mixTower.putOutput(top, &scratch)
    var dts = dt.mutableSpan
    head.backwardInput(dz, examples: examples, dense: dense, to: &dts)

    let m = scratch.take(mixed, count: examples * mixInput.width)
    var dm = scratch.takeCleared(mixedGradient, count: examples * mixInput.width)
    mixTower.backward(
      &dt, x: m.span, examples: examples, dense: dense, gradients: &denseGradients, scratch: &scratch,
      addingInputGradientTo: &dm)
    mixInput.backward(
      batch, rows: rows, dense: dense, dx: dm.span, scratch: &scratch, rowGradients: &rowGradients,
      denseGradients: &denseGradients)
    scratch.put(topGradient, dt)
    scratch.put(mixed, m)

    let width = userTower.outputs
    var de = scratch.take(embeddingGradient, count: examples * width)
    var des = de.mutableSpan
    for example in 0..<examples {
      Kernel.copy(dm.span, at: example * mixInput.width, to: &des, at: example * width, count: width)
    }
    if !embeddingGradients.isEmpty {
      Kernel.addScaled(1, embeddingGradients.span, at: 0, to: &des, at: 0, count: examples * width)
    }
    scratch.put(mixedGradient, dm)
    let u = scratch.take(user, count: examples * userInput.width)
    var du = scratch.takeCleared(userGradient, count: examples * userInput.width)
    userTower.backward(
      &de, x: u.span, examples: examples, dense: dense, gradients: &denseGradients, scratch: &scratch,
      addingInputGradientTo: &du)
    userInput.backward(
      batch, rows: rows, dense: dense, dx: du.span, scratch: &scratch, rowGradients: &rowGradients,
      denseGradients: &denseGradients)
    scratch.put(embeddingGradient, de)
    scratch.put(user, u)
    scratch.put(userGradient, du)
  }
}

/// X[example] = [leading, b, v_1, …, v_F]: what others fill, the side's dense numbers as one vector, its features' vectors.
///
/// b = MLP(numbers) `[dimension]`; a side without dense numbers has no b.
struct TowerInput: Sendable {
  let pooling: Pooling
  var width: Int { pooling.width }
  private let leading: Int
  private let dimension: Int
  private let bottom: Perceptron?
  /// The places of the side's numbers among an example's.
  private let numbers: [Int]
  private let denseWidth: Int
  /// The side's numbers `[examples, numbers]`, and the gradient of b.
  private let gathered: Int
  private let bottomGradient: Int

  init(
    _ name: String, features: [Int], numbers: [Int], leading: Int, options: ModelOptions, plan: inout Plan
  ) {
    self.leading = leading
    self.numbers = numbers
    dimension = options.dimension
    denseWidth = options.denseWidth
    bottom =
      numbers.isEmpty
      ? nil
      : Perceptron(
        "\(name).bottom", inputs: numbers.count, widths: options.bottom + [options.dimension], options: options,
        plan: &plan)
    pooling = Pooling(
      options, biasWidth: 0, leading: leading + (numbers.isEmpty ? 0 : options.dimension), appendsDense: false,
      only: features, plan: &plan)
    gathered = plan.slot()
    bottomGradient = plan.slot()
  }

  /// Fills X behind `leading`.
  func forward(
    _ batch: Batch, rows: [[Float]], dense: [[Float]], scratch: inout Scratch, to x: inout MutableSpan<Float>
  ) {
    var none: [Float] = []
    pooling.forward(batch, rows: rows, dense: dense, scratch: &scratch, logits: &none, to: &x)
    guard let bottom else { return }
    var side = scratch.take(gathered, count: batch.exampleCount * numbers.count)
    for example in 0..<batch.exampleCount {
      for (place, number) in numbers.enumerated() {
        side[example * numbers.count + place] = batch.dense[example * denseWidth + number]
      }
    }
    bottom.forward(side.span, examples: batch.exampleCount, dense: dense, scratch: &scratch)
    scratch.put(gathered, side)
    let b = bottom.takeOutput(&scratch)
    for example in 0..<batch.exampleCount {
      Kernel.copy(b.span, at: example * dimension, to: &x, at: example * width + leading, count: dimension)
    }
    bottom.putOutput(b, &scratch)
  }

  /// Adds the gradients of rows and tensors, given those of X.
  func backward(
    _ batch: Batch, rows: [[Float]], dense: [[Float]], dx: Span<Float>, scratch: inout Scratch,
    rowGradients: inout [[Float]], denseGradients: inout [[Float]]
  ) {
    pooling.backward(
      batch, rows: rows, dense: dense, logitGradients: [], dx: dx, scratch: &scratch, rowGradients: &rowGradients,
      denseGradients: &denseGradients)
    guard let bottom else { return }
    let side = scratch.take(gathered, count: batch.exampleCount * numbers.count)
    var db = scratch.take(bottomGradient, count: batch.exampleCount * dimension)
    var dbs = db.mutableSpan
    for example in 0..<batch.exampleCount {
      Kernel.copy(dx, at: example * width + leading, to: &dbs, at: example * dimension, count: dimension)
    }
    var none: [Float] = []
    bottom.backward(
      &db, x: side.span, examples: batch.exampleCount, dense: dense, gradients: &denseGradients, scratch: &scratch,
      addingInputGradientTo: &none)
    scratch.put(gathered, side)
    scratch.put(bottomGradient, db)
  }
}
