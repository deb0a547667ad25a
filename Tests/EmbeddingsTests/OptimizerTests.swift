import Base
import Foundation
import Testing

@testable import Embeddings

/// An optimizer in plain scalar arithmetic: what the kernels are held to, bit for bit.
struct ScalarTwin {
  let options: OptimizerOptions
  var weights: [Float]
  var state: [Float]

  init(_ options: OptimizerOptions, weights: [Float]) {
    self.options = options
    self.weights = weights
    state = [Float](repeating: 0, count: options.stateCount(width: weights.count))
    switch options.rule {
    case .adagrad(let start), .rowWiseAdagrad(let start): state = state.map { _ in start }
    case .ftrl(let alpha, let beta, let l1, let l2):
      for (index, weight) in weights.enumerated() where weight != 0 {
        state[index] = -weight * (beta / alpha + l2) - (weight > 0 ? l1 : -l1)
      }
    default: break
    }
  }

  /// A sum in sixteen lanes, as the kernels add.
  private func sum(_ values: [Float]) -> Float {
    var lanes = [Float](repeating: 0, count: 16)
    for (index, value) in values.enumerated() { lanes[index % 16] += value }
    var half = 8
    while half > 0 {
      for lane in 0..<half { lanes[lane] += lanes[lane + half] }
      half /= 2
    }
    return lanes[0]
  }

  mutating func step(_ gradient: [Float]) {
    let width = weights.count
    var g = gradient
    if let bound = options.clipValue { g = g.map { min(max($0, -bound), bound) } }
    if let bound = options.clipNorm {
      let norm = sum(g.map { $0 * $0 }).squareRoot()
      if norm > bound { g = g.map { $0 * (bound / norm) } }
    }
    for index in 0..<width { g[index] += options.l2 * weights[index] }
    let rate = options.learningRate
    let keep = 1 - rate * options.weightDecay
    switch options.rule {
    case .sgd:
      for i in 0..<width { weights[i] = weights[i] * keep - rate * g[i] }
    case .momentum(let beta):
      for i in 0..<width {
        state[i] = beta * state[i] + g[i]
        weights[i] = weights[i] * keep - rate * state[i]
      }
    case .adagrad:
      for i in 0..<width {
        state[i] += g[i] * g[i]
        weights[i] = weights[i] * keep - rate * g[i] / (state[i].squareRoot() + 1e-10)
      }
    case .rowWiseAdagrad:
      state[0] += sum(g.map { $0 * $0 }) / Float(width)
      let scaled = rate / (state[0].squareRoot() + 1e-10)
      for i in 0..<width { weights[i] = weights[i] * keep - scaled * g[i] }
    case .adam(let beta1, let beta2, let epsilon):
      state[2 * width] += 1
      var (power1, power2) = (1.0, 1.0)
      for _ in 0..<Int(state[2 * width]) { (power1, power2) = (power1 * Double(beta1), power2 * Double(beta2)) }
      for i in 0..<width {
        state[i] += (1 - beta1) * (g[i] - state[i])
        state[width + i] = beta2 * state[width + i] + (1 - beta2) * g[i] * g[i]
        let denominator = state[width + i].squareRoot() / Float((1 - power2).squareRoot()) + epsilon
        weights[i] = weights[i] * keep - Float(Double(rate) / (1 - power1)) * state[i] / denominator
      }
    case .ftrl(let alpha, let beta, let l1, let l2):
      for i in 0..<width {
        let grown = state[width + i] + g[i] * g[i]
        state[i] += g[i] - (grown.squareRoot() - state[width + i].squareRoot()) / alpha * weights[i]
        state[width + i] = grown
        let shrunk = state[i] > l1 ? state[i] - l1 : state[i] < -l1 ? state[i] + l1 : 0
        weights[i] = -shrunk / ((beta + grown.squareRoot()) / alpha + l2) * (1 - alpha * options.weightDecay)
      }
    }
  }
}

@Suite("Optimizers") struct OptimizerTests {
  static let rules: [OptimizerOptions.Rule] = [
    .sgd, .momentum(beta: 0.9), .adagrad(initialAccumulator: 0.1), .rowWiseAdagrad(initialAccumulator: 0.1),
    .adam(beta1: 0.9, beta2: 0.999, epsilon: 1e-8), .ftrl(alpha: 0.1, beta: 1, l1: 0.01, l2: 0.1),
  ]

  /// A rule alone, and with everything that can change a step.
  static let choices: [OptimizerOptions] = rules.flatMap { rule in
    [
      OptimizerOptions(rule: rule, learningRate: 0.05),
      OptimizerOptions(rule: rule, learningRate: 0.05, l2: 0.01, weightDecay: 0.1, clipValue: 0.8, clipNorm: 1.5),
    ]
  }

  @Test(arguments: choices, [1, 7, 16, 33])
  func `steps are those of plain scalar arithmetic`(choice: OptimizerOptions, width: Int) {
    var told = options(width: width)
    told.segments[0].optimizer = choice
    var table = Table(told)
    var twin = ScalarTwin(choice, weights: table.pull([9]))
    var random = SeededRandom(seed: 3)
    var largest: Float = 0
    for _ in 0..<40 {
      let gradient = (0..<width).map { _ in Float.random(in: -1...1, using: &random) }
      table.push([9], gradients: gradient)
      twin.step(gradient)
      for (weight, expected) in zip(table.pull([9]), twin.weights) {
        largest = max(largest, abs(weight - expected) / max(abs(expected), 1e-3))
      }
    }
    // Adam's powers of beta are taken by squaring, in another order than the twin's; all else is the same bits.
    if case .adam = choice.rule { #expect(largest < 1e-5) } else { #expect(largest == 0) }
  }

  struct Golden: Decodable {
    struct Case: Decodable {
      var rule: String
      var settings: [String: Float]
      var initial: [Float]
      var gradients: [[Float]]
      var weights: [[Float]]
    }
    var provenance: String
    var cases: [Case]
  }

  @Test func `steps are those of PyTorch where it has the rule`() throws {
    let file = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "Golden/optimizers.json")
    let golden = try JSONDecoder().decode(Golden.self, from: Data(contentsOf: file))
    #expect(golden.cases.count >= 8)
    for example in golden.cases {
      let settings = example.settings
      let rule: OptimizerOptions.Rule =
        switch example.rule {
        case "sgd": .sgd
        case "momentum": .momentum(beta: settings["beta"]!)
        case "adagrad": .adagrad(initialAccumulator: settings["initialAccumulator"]!)
        default: .adam(beta1: settings["beta1"]!, beta2: settings["beta2"]!, epsilon: settings["epsilon"]!)
        }
      var told = options(width: example.initial.count, initializer: .zeros)
      told.segments[0].optimizer = OptimizerOptions(
        rule: rule, learningRate: settings["learningRate"]!, l2: settings["l2"] ?? 0,
        weightDecay: settings["weightDecay"] ?? 0, clipNorm: settings["clipNorm"])
      let optimizer = Optimizer(
        told.segments[0].optimizer, width: example.initial.count, weights: 0, state: example.initial.count)
      let row = UnsafeMutablePointer<Float>.allocate(capacity: told.floatCount)
      defer { row.deallocate() }
      for (index, weight) in example.initial.enumerated() { row[index] = weight }
      optimizer.initializeState(of: row)
      for (gradient, expected) in zip(example.gradients, example.weights) {
        gradient.withUnsafeBufferPointer { gradient in
          optimizer.apply([row], [gradient.baseAddress], count: 1)
        }
        for index in expected.indices {
          #expect(abs(row[index] - expected[index]) <= 2e-6 * max(1, abs(expected[index])), "\(example.rule)")
        }
      }
    }
  }

  @Test func `a bias learns by its own rule beside a vector`() {
    let vector = Segment(
      name: "vector", width: 2, initializer: .uniform(0.5),
      optimizer: OptimizerOptions(rule: .adagrad(initialAccumulator: 0), learningRate: 0.1))
    let bias = Segment(
      name: "bias", width: 1, initializer: .zeros, optimizer: OptimizerOptions(rule: .sgd, learningRate: 1))
    var table = Table(TableOptions(name: "item", seed: 1, segments: [vector, bias]))
    let before = table.pull([5])
    #expect(before[2] == 0 && before[0] != 0)
    table.push([5], gradients: [4, -4, 0.25])
    let after = table.pull([5])
    #expect(abs(after[0] - (before[0] - 0.1)) < 1e-6 && abs(after[1] - (before[1] + 0.1)) < 1e-6)
    #expect(after[2] == -0.25)
    #expect(table.inspect(5)?.state == [16, 16])
  }

  @Test(arguments: [Float.nan, .infinity, -.infinity, 1e30])
  func `a gradient row that is not finite is rejected whole, and the sighting still counts`(bad: Float) {
    var table = Table(options(.adagrad(initialAccumulator: 0.1), width: 19))
    table.push([1], at: 0)
    let before = table.pull([1])
    for place in [0, 18] {
      var gradient = [Float](repeating: 1, count: 19)
      gradient[place] = bad
      let counts = table.push([1], gradients: gradient, at: 5000)
      #expect(counts.rejectedNonFinite == 1 && counts.updated == 0)
    }
    #expect(table.pull([1]) == before)
    #expect(table.inspect(1)?.lastSeen == 5000)
    #expect(table.push([2], gradient: bad).admitted == 1)
    #expect(table.pull([2]) == Table(options(width: 19)).pull([2]))
  }

  @Test func `FTRL keeps the weight a row begins with until a gradient moves it`() {
    var table = Table(options(.ftrl(alpha: 0.1, beta: 1, l1: 0.01, l2: 0.5), width: 4))
    let before = table.pull([3])
    table.push([3], gradient: 0)
    for (weight, expected) in zip(table.pull([3]), before) { #expect(abs(weight - expected) < 1e-6) }
  }
}
