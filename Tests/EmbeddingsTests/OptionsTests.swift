import Base
import Testing

@testable import Embeddings

@Suite("Table options") struct OptionsTests {
  @Test func `valid options have no problems`() {
    #expect(options().problems().isEmpty)
  }

  @Test func `all problems are reported at once, with their keys`() {
    var told = options()
    told.name = "item"
    told.segments[0].width = 0
    told.segments[0].optimizer.learningRate = .nan
    told.segments[0].initializer = .uniform(-1)
    told.admission = .count(70_000)
    told.timeToLive = .milliseconds(5)
    told.rowLimit = 0
    told.memoryLimitBytes = 10
    told.allowedSkew = .seconds(-1)
    told.defaultWeight = .infinity
    #expect(
      told.problems() == [
        "table 'item': segments.vector.width is 0; use 1 to 16384",
        "table 'item': segments.vector.initializer is -1.0; use a finite number from 0 on",
        "table 'item': segments.vector.optimizer.learningRate is nan; use a finite number from 0 on",
        "table 'item': admission.count is 70000; use 1 to 65535",
        "table 'item': defaultWeight is inf; use a finite number",
        "table 'item': timeToLive is 0.005 seconds; use a second to a hundred years",
        "table 'item': rowLimit is 0; use 1 to 1073741824",
        "table 'item': memoryLimitBytes is 10; use at least 65536",
        "table 'item': allowedSkew is -1.0 seconds; use zero to a year",
      ])
  }

  @Test(arguments: [
    OptimizerOptions.Rule.momentum(beta: 1), .adagrad(initialAccumulator: -1),
    .rowWiseAdagrad(initialAccumulator: .nan),
    .adam(beta1: 2, beta2: 0.9, epsilon: 1e-8), .adam(beta1: 0.9, beta2: 0.9, epsilon: 0),
    .ftrl(alpha: 0, beta: 1, l1: 0, l2: 0), .ftrl(alpha: 0.1, beta: 0, l1: 0, l2: 0),
  ])
  func `a rule's own numbers are checked`(rule: OptimizerOptions.Rule) {
    #expect(options(rule).problems().count == 1)
  }

  @Test(arguments: [
    Admission.count(0), .sketch(65_536, ids: 10, ageing: nil), .sketch(2, ids: 0, ageing: nil),
    .sketch(2, ids: 5, ageing: .zero), .probability(1.5), .probability(.nan),
  ])
  func `admission is checked`(admission: Admission) {
    #expect(options(admission: admission).problems().count == 1)
  }

  @Test func `widths are those of all segments, with their state`() {
    var told = options(.adam(beta1: 0.9, beta2: 0.99, epsilon: 1e-8), width: 4)
    told.segments.append(
      Segment(
        name: "bias", width: 1, initializer: .zeros,
        optimizer: OptimizerOptions(rule: .rowWiseAdagrad(initialAccumulator: 0), learningRate: 1)))
    #expect(told.weightCount == 5 && told.floatCount == 5 + 9 + 1)
  }
}
