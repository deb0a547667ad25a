// What every model begins with: a bias per task and a weight per task for each dense number.

/// logit[t] = bias[t] + Σ_d weight[t, d] · dense[d].
struct LinearTerm: Sendable {
  let taskCount: Int
  let denseWidth: Int

  init(_ options: ModelOptions) {
    taskCount = options.tasks.count
    denseWidth = options.denseWidth
  }

  /// `bias` [tasks] and, with dense numbers, `dense.weight` [tasks, denseWidth]: the first tensors of the model.
  var tensors: [DenseTensor] {
    let bias = DenseTensor(name: "bias", shape: [taskCount], initial: .zeros)
    guard denseWidth > 0 else { return [bias] }
    return [bias, DenseTensor(name: "dense.weight", shape: [taskCount, denseWidth], initial: .zeros)]
  }

  /// Overwrites `logits` with the term.
  func forward(_ batch: Batch, dense: [[Float]], logits: inout [Float]) {
    let count = batch.exampleCount * taskCount
    if logits.count != count { logits = [Float](repeating: 0, count: count) }
    let biases = dense[0]
    let bias = biases.span
    var output = logits.mutableSpan
    for example in 0..<batch.exampleCount {
      for task in 0..<taskCount { output[example * taskCount + task] = bias[task] }
    }
    guard denseWidth > 0 else { return }
    let matrix = dense[1]
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
    var bias = denseGradients[0].mutableSpan
    for example in 0..<batch.exampleCount {
      Kernel.addScaled(1, gradients, at: example * taskCount, to: &bias, at: 0, count: taskCount)
    }
    guard denseWidth > 0 else { return }
    let numbers = batch.dense.span
    var weights = denseGradients[1].mutableSpan
    for example in 0..<batch.exampleCount {
      for task in 0..<taskCount {
        Kernel.addScaled(
          gradients[example * taskCount + task], numbers, at: example * denseWidth, to: &weights,
          at: task * denseWidth, count: denseWidth)
      }
    }
  }
}
