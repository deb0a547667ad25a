// What wide models begin with: a bias per task and a weight per task for each dense number.
// It overwrites the logits, so it comes before every term that adds to them.

/// logit[t] = bias[t] + Σ_d weight[t, d] · dense[d].
struct LinearTerm: Sendable {
  private let taskCount: Int
  private let denseWidth: Int
  private let bias: Int
  private let weight: Int?

  /// A term with the tensors `bias` [tasks] and, with dense numbers, `dense.weight` [tasks, denseWidth].
  init(_ options: ModelOptions, plan: inout Plan) {
    taskCount = options.tasks.count
    denseWidth = options.denseWidth
    bias = plan.tensor("bias", [taskCount], .zeros)
    weight = denseWidth > 0 ? plan.tensor("dense.weight", [taskCount, denseWidth], .zeros) : nil
  }

  /// Overwrites `logits` with the term.
  func forward(_ batch: Batch, dense: [[Float]], logits: inout [Float]) {
    let count = batch.exampleCount * taskCount
    logits.setCount(count)
    let biases = dense[bias]
    var output = logits.mutableSpan
    for example in 0..<batch.exampleCount {
      for task in 0..<taskCount { output[example * taskCount + task] = biases[task] }
    }
    guard let weight else { return }
    let matrix = dense[weight]
    let weights = matrix.span
    let numbers = batch.dense.span
    for example in 0..<batch.exampleCount {
      for task in 0..<taskCount {
        output[example * taskCount + task] += Kernel.dot(
          numbers, at: example * denseWidth, weights, at: task * denseWidth, count: denseWidth)
      }
    }
  }

  /// Adds the gradients of the term's tensors.
  func backward(_ batch: Batch, logitGradients: [Float], denseGradients: inout [[Float]]) {
    let gradients = logitGradients.span
    for example in 0..<batch.exampleCount {
      Kernel.addScaled(1, gradients, at: example * taskCount, to: &denseGradients[bias], count: taskCount)
    }
    guard let weight else { return }
    let numbers = batch.dense.span
    var weights = denseGradients[weight].mutableSpan
    for example in 0..<batch.exampleCount {
      for task in 0..<taskCount {
        Kernel.addScaled(
          gradients[example * taskCount + task], numbers, at: example * denseWidth, to: &weights,
          at: task * denseWidth, count: denseWidth)
      }
    }
  }
}
