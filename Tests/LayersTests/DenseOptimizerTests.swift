import Layers
import Testing

@Suite("Dense optimizers") struct DenseOptimizerTests {
  /// Values after three steps from [1, −2, 0.5] with the gradients below.
  func run(_ options: DenseOptimizerOptions, factor: Float = 1) -> [Float] {
    let optimizer = DenseOptimizer(options)
    var values: [Float] = [1, -2, 0.5]
    var state = optimizer.initialState(parameters: 3)
    for gradient in [[0.5, -1, 0], [0.25, 2, -0.125], [-1, 0.5, 4]] as [[Float]] {
      #expect(optimizer.apply(gradient: gradient.span, values: &values, state: &state, rateFactor: factor))
    }
    return values
  }

  func expectClose(_ values: [Float], _ expected: [Float]) {
    for (a, b) in zip(values, expected) { #expect(abs(a - b) < 2e-6) }
  }

  @Test func `SGD follows the gradient`() {
    expectClose(run(DenseOptimizerOptions(rule: .sgd, learningRate: 0.1)), [1.025, -2.15, 0.1125])
    expectClose(run(DenseOptimizerOptions(rule: .sgd, learningRate: 0.2), factor: 0.5), [1.025, -2.15, 0.1125])
  }

  @Test func `weight decay shrinks values without any gradient`() {
    var options = DenseOptimizerOptions(rule: .sgd, learningRate: 0.1)
    options.weightDecay = 0.5
    let optimizer = DenseOptimizer(options)
    var values: [Float] = [2]
    var state: [Float] = []
    _ = optimizer.apply(gradient: ([0] as [Float]).span, values: &values, state: &state, rateFactor: 1)
    expectClose(values, [1.9])
  }

  @Test(arguments: DenseOptimizerOptions.Rule.allCases)
  func `a gradient with a NaN changes nothing`(rule: DenseOptimizerOptions.Rule) {
    let optimizer = DenseOptimizer(DenseOptimizerOptions(rule: rule, learningRate: 0.1))
    for position in 0..<11 {
      for bad in [Float.nan, .infinity, -.infinity] {
        var gradient = [Float](repeating: 1, count: 11)
        gradient[position] = bad
        var values = [Float](repeating: 3, count: 11)
        var state = optimizer.initialState(parameters: 11)
        let before = state
        #expect(!optimizer.apply(gradient: gradient.span, values: &values, state: &state, rateFactor: 1))
        #expect(values == [Float](repeating: 3, count: 11) && state == before)
      }
    }
  }

  @Test func `every problem is named by its key`() {
    var options = DenseOptimizerOptions(rule: .adam, learningRate: -1)
    options.secondDecay = 1
    #expect(
      options.problems() == [
        "dense.learningRate is -1.0; use a number of at least 0",
        "dense.secondDecay is 1.0; use 0 or more, below 1",
      ])
    #expect(DenseOptimizerOptions().problems() == [])
  }
}
