// What all update rules share: how much state a segment needs, what it begins with, and the kernel that steps a batch of
// rows. Each rule has a file of its own here and in CKernels. Arithmetic is the same bits on every CPU.

internal import CKernels

/// A segment's rule, ready to run: where its weights and state lie in a row, and the kernel with its numbers.
@safe struct Optimizer {
  typealias Kernel =
    @convention(c) (
      UnsafePointer<UnsafeMutablePointer<Float>?>?, UnsafePointer<UnsafePointer<Float>?>?, Int,
      UnsafePointer<guira_step>?
    ) -> Void

  let options: OptimizerOptions
  private(set) var step: guira_step
  private let kernel: Kernel

  /// A rule for the `width` weights at `weights` with state at `state`, in floats from the start of a row.
  init(_ options: OptimizerOptions, width: Int, weights: Int, state: Int) {
    self.options = options
    var numbers: (Float, Float, Float, Float) = (0, 0, 0, 0)
    switch options.rule {
    case .sgd: unsafe kernel = guira_sgd
    case .adagrad: unsafe kernel = guira_adagrad
    case .rowWiseAdagrad: unsafe kernel = guira_row_wise_adagrad
    case .momentum(let beta):
      unsafe kernel = guira_momentum
      numbers.0 = beta
    case .adam(let beta1, let beta2, let epsilon):
      unsafe kernel = guira_adam
      numbers = (beta1, beta2, epsilon, 0)
    case .ftrl(let alpha, let beta, let l1, let l2):
      unsafe kernel = guira_ftrl
      numbers = (alpha, beta, l1, l2)
    }
    step = guira_step(
      weights: UInt32(weights), state: UInt32(state), width: UInt32(width), rate: options.learningRate,
      l2: options.l2, keep: 1 - options.rate * options.weightDecay, clip_value: options.clipValue ?? .infinity,
      clip_norm: options.clipNorm ?? .infinity, a: numbers.0, b: numbers.1, c: numbers.2, d: numbers.3)
  }

  /// Multiplies the configured step size, for warm-up and decay.
  mutating func setRateFactor(_ factor: Float) {
    step.rate = options.learningRate * factor
    step.keep = 1 - options.rate * factor * options.weightDecay
  }

  /// Steps `count` rows with their gradients, in order.
  func apply(
    _ rows: UnsafePointer<UnsafeMutablePointer<Float>?>, _ gradients: UnsafePointer<UnsafePointer<Float>?>, count: Int
  ) {
    unsafe withUnsafePointer(to: step) { unsafe kernel(rows, gradients, count, $0) }
  }

  /// Writes the state a new row begins with; its weights are there already.
  func initializeState(of row: UnsafeMutablePointer<Float>) {
    let count = options.stateCount(width: Int(step.width))
    let state = unsafe row + Int(step.state)
    unsafe state.update(repeating: options.initialState, count: count)
    if case .ftrl(let alpha, let beta, let l1, let l2) = options.rule {
      for index in 0..<Int(step.width) {
        unsafe state[index] = FTRL.initialZ(
          of: row[Int(step.weights) + index], alpha: alpha, beta: beta, l1: l1, l2: l2)
      }
    }
  }
}

extension OptimizerOptions {
  /// Floats of state that a segment of `width` weights needs.
  public func stateCount(width: Int) -> Int {
    switch rule {
    case .sgd: SGD.stateCount(width: width)
    case .momentum: Momentum.stateCount(width: width)
    case .adagrad: AdaGrad.stateCount(width: width)
    case .rowWiseAdagrad: RowWiseAdaGrad.stateCount(width: width)
    case .adam: Adam.stateCount(width: width)
    case .ftrl: FTRL.stateCount(width: width)
    }
  }

  fileprivate var initialState: Float {
    switch rule {
    case .adagrad(let start), .rowWiseAdagrad(let start): start
    case .sgd, .momentum, .adam, .ftrl: 0
    }
  }

  fileprivate var rate: Float {
    if case .ftrl(let alpha, _, _, _) = rule { alpha } else { learningRate }
  }
}
