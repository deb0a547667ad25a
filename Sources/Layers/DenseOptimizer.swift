// Optimizers of dense tensors. They run on the shard that holds the tensor; values and state are flat arrays, so that
// both can be written down as they are.

internal import Glibc

/// How dense tensors are trained.
public struct DenseOptimizerOptions: Sendable, Equatable {
  /// The update rules.
  public enum Rule: String, Sendable, CaseIterable, Codable {
    /// value −= rate · gradient.
    case sgd
    /// Duchi, Hazan and Singer 2011, diagonal case.
    case adagrad
    /// Kingma and Ba 2015, with bias correction.
    case adam
  }

  /// The rule; default Adam.
  public var rule: Rule = .adam
  /// Step size, unitless; default 0.001.
  public var learningRate: Float = 0.001
  /// What AdaGrad's sums of squares begin with; default 0.1, so that the first steps stay small.
  public var initialAccumulator: Float = 0.1
  /// Adam's decay of the mean gradient; default 0.9.
  public var firstDecay: Float = 0.9
  /// Adam's decay of the mean squared gradient; default 0.999.
  public var secondDecay: Float = 0.999
  /// Added to the root before dividing, in AdaGrad and Adam; default 1e-8.
  public var epsilon: Float = 1e-8
  /// Decoupled decay: each step also takes rate · weightDecay · value away; default 0.
  public var weightDecay: Float = 0

  /// The defaults.
  public init() {}

  /// A rule and its step size, everything else by default.
  public init(rule: Rule, learningRate: Float) {
    self.rule = rule
    self.learningRate = learningRate
  }

  /// All that is wrong with these options, in the configuration's key names.
  public func problems() -> [String] {
    var found: [String] = []
    func require(_ condition: Bool, _ problem: @autoclosure () -> String) {
      if !condition { found.append(problem()) }
    }
    require(
      learningRate.isFinite && learningRate >= 0, "dense.learningRate is \(learningRate); use a number of at least 0")
    require(
      initialAccumulator.isFinite && initialAccumulator >= 0,
      "dense.initialAccumulator is \(initialAccumulator); use a number of at least 0")
    require((0..<1).contains(firstDecay), "dense.firstDecay is \(firstDecay); use 0 or more, below 1")
    require((0..<1).contains(secondDecay), "dense.secondDecay is \(secondDecay); use 0 or more, below 1")
    require(epsilon.isFinite && epsilon > 0, "dense.epsilon is \(epsilon); use a small number above 0, such as 1e-8")
    require(
      weightDecay.isFinite && weightDecay >= 0, "dense.weightDecay is \(weightDecay); use a number of at least 0")
    return found
  }
}

/// One optimizer for any number of dense tensors, each with a state array of its own.
public struct DenseOptimizer: Sendable, Equatable {
  /// What it was made from.
  public let options: DenseOptimizerOptions

  /// An optimizer; the options have no problems.
  public init(_ options: DenseOptimizerOptions) {
    self.options = options
  }

  /// How many numbers of state a tensor of `parameters` numbers has.
  ///
  /// SGD: none. AdaGrad: `[parameters]` sums of squares. Adam: `[parameters]` means, `[parameters]` mean squares, and
  /// the step count, which stops at 2²⁴ where the bias correction has long been 1.
  public func stateCount(parameters: Int) -> Int {
    switch options.rule {
    case .sgd: 0
    case .adagrad: parameters
    case .adam: 2 * parameters + 1
    }
  }

  /// The state of a tensor that has had no step.
  public func initialState(parameters: Int) -> [Float] {
    let first = options.rule == .adagrad ? options.initialAccumulator : 0
    return [Float](repeating: first, count: stateCount(parameters: parameters))
  }

  /// Applies one summed gradient to a tensor, or nothing at all when the gradient holds a NaN or an infinity.
  ///
  /// - Parameters:
  ///   - gradient: `[parameters]`, summed over the batch.
  ///   - values: `[parameters]`, updated in place.
  ///   - state: `stateCount` numbers, updated in place.
  ///   - rateFactor: scales the learning rate of this step, for warm-up and decay; 1 otherwise.
  /// - Returns: whether it was applied.
  public func apply(gradient: Span<Float>, values: inout [Float], state: inout [Float], rateFactor: Float) -> Bool {
    let count = values.count
    precondition(
      gradient.count == count && state.count == stateCount(parameters: count),
      "\(gradient.count) gradients and \(state.count) numbers of state do not fit \(count) values")
    guard rateFactor.isFinite, Kernel.isFinite(gradient) else { return false }
    let rate = options.learningRate * rateFactor
    let keep = 1 - rate * options.weightDecay
    let epsilon = options.epsilon
    var value = values.mutableSpan
    switch options.rule {
    case .sgd:
      for i in 0..<count { unsafe value[unchecked: i] = keep * value[unchecked: i] - rate * gradient[unchecked: i] }
    case .adagrad:
      var sums = state.mutableSpan
      for i in 0..<count {
        let g = unsafe gradient[unchecked: i]
        let sum = unsafe sums[unchecked: i] + g * g
        unsafe sums[unchecked: i] = sum
        unsafe value[unchecked: i] = keep * value[unchecked: i] - rate * g / (sum.squareRoot() + epsilon)
      }
    case .adam:
      var moments = state.mutableSpan
      let step = min(moments[2 * count] + 1, 0x1p24)
      moments[2 * count] = step
      let (first, second) = (options.firstDecay, options.secondDecay)
      let stepRate = rate / Float(1 - pow(Double(first), Double(step)))
      let correction = 1 / Float(1 - pow(Double(second), Double(step))).squareRoot()
      for i in 0..<count {
        let g = unsafe gradient[unchecked: i]
        let mean = unsafe first * moments[unchecked: i] + (1 - first) * g
        let square = unsafe second * moments[unchecked: count &+ i] + (1 - second) * g * g
        unsafe moments[unchecked: i] = mean
        unsafe moments[unchecked: count &+ i] = square
        unsafe value[unchecked: i] =
          keep * value[unchecked: i] - stepRate * mean / (square.squareRoot() * correction + epsilon)
      }
    }
    return true
  }
}
