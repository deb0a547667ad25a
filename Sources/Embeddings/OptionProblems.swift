// What is wrong with a table's options, all of it at once, each with the key it is about and what to write instead.

internal import Base

extension TableOptions {
  /// The largest number of weights in a row.
  public static let largestWidth = 16_384

  /// All that is wrong, with key names; empty when valid.
  public func problems() -> [String] {
    var problems: [String] = []
    func require(_ condition: Bool, _ key: String, _ problem: @autoclosure () -> String) {
      if !condition { problems.append("table '\(name)': \(key) \(problem())") }
    }
    require(!name.isEmpty && name.utf8.count <= 256, "name", "must have 1 to 256 bytes")
    require(!segments.isEmpty, "segments", "is empty; a row needs at least one")
    require(Set(segments.map(\.name)).count == segments.count, "segments", "has two of the same name")
    for segment in segments {
      let key = "segments.\(segment.name)"
      require(
        (1...Self.largestWidth).contains(segment.width), "\(key).width",
        "is \(segment.width); use 1 to \(Self.largestWidth)")
      for problem in segment.initializer.problems() + segment.optimizer.problems() {
        problems.append("table '\(name)': \(key).\(problem)")
      }
    }
    let total = segments.reduce(0.0) { $0 + Double($1.width) }
    require(
      total <= Double(Self.largestWidth), "segments", "have \(Int(total)) weights; use at most \(Self.largestWidth)")
    for problem in admission.problems() { problems.append("table '\(name)': \(problem)") }
    require(defaultWeight.isFinite, "defaultWeight", "is \(defaultWeight); use a finite number")
    if let timeToLive {
      require(
        timeToLive >= .seconds(1) && timeToLive <= .seconds(3_155_760_000), "timeToLive",
        "is \(timeToLive); use a second to a hundred years")
    }
    if let rowLimit {
      require(
        rowLimit >= 1 && rowLimit <= 1 << 30, "rowLimit", "is \(rowLimit); use 1 to \(1 << 30)")
    }
    if let memoryLimitBytes {
      require(memoryLimitBytes >= 1 << 16, "memoryLimitBytes", "is \(memoryLimitBytes); use at least \(1 << 16)")
    }
    require(
      allowedSkew >= .zero && allowedSkew <= .seconds(31_557_600), "allowedSkew",
      "is \(allowedSkew); use zero to a year")
    return problems
  }
}

extension Initializer {
  fileprivate func problems() -> [String] {
    switch self {
    case .zeros: []
    case .constant(let value): value.isFinite ? [] : ["initializer is \(value); use a finite number"]
    case .uniform(let bound), .normal(let bound):
      bound.isFinite && bound >= 0 ? [] : ["initializer is \(bound); use a finite number from 0 on"]
    }
  }
}

extension Admission {
  fileprivate func problems() -> [String] {
    let thresholds = 1...Self.largestThreshold
    switch self {
    case .always: return []
    case .count(let n):
      return thresholds.contains(n) ? [] : ["admission.count is \(n); use 1 to \(Self.largestThreshold)"]
    case .sketch(let n, let ids, let ageing):
      var problems: [String] = []
      if !thresholds.contains(n) { problems.append("admission.sketch is \(n); use 1 to \(Self.largestThreshold)") }
      if !(1...1 << 32).contains(ids) { problems.append("admission.ids is \(ids); use 1 to \(1 << 32)") }
      if let ageing, ageing < .seconds(1) { problems.append("admission.ageing is \(ageing); use at least a second") }
      return problems
    case .probability(let p):
      return p >= 0 && p <= 1 ? [] : ["admission.probability is \(p); use 0 to 1"]
    }
  }
}

extension OptimizerOptions {
  fileprivate func problems() -> [String] {
    var problems: [String] = []
    func require(_ value: Float, _ key: String, _ condition: (Float) -> Bool, _ expected: String) {
      if !(value.isFinite && condition(value)) { problems.append("optimizer.\(key) is \(value); use \(expected)") }
    }
    require(learningRate, "learningRate", { $0 >= 0 }, "a finite number from 0 on")
    require(l2, "l2", { $0 >= 0 }, "a finite number from 0 on")
    require(weightDecay, "weightDecay", { $0 >= 0 }, "a finite number from 0 on")
    if let clipValue { require(clipValue, "clipValue", { $0 > 0 }, "a finite number above 0") }
    if let clipNorm { require(clipNorm, "clipNorm", { $0 > 0 }, "a finite number above 0") }
    switch rule {
    case .sgd: break
    case .momentum(let beta): require(beta, "beta", { $0 >= 0 && $0 < 1 }, "0 to less than 1")
    case .adagrad(let start), .rowWiseAdagrad(let start):
      require(start, "initialAccumulator", { $0 >= 0 }, "a finite number from 0 on")
    case .adam(let beta1, let beta2, let epsilon):
      require(beta1, "beta1", { $0 >= 0 && $0 < 1 }, "0 to less than 1")
      require(beta2, "beta2", { $0 >= 0 && $0 < 1 }, "0 to less than 1")
      require(epsilon, "epsilon", { $0 > 0 }, "a finite number above 0")
    case .ftrl(let alpha, let beta, let l1, let l2):
      require(alpha, "alpha", { $0 > 0 }, "a finite number above 0")
      require(beta, "beta", { $0 >= 0 }, "a finite number from 0 on")
      require(l1, "l1", { $0 >= 0 }, "a finite number from 0 on")
      require(l2, "l2", { $0 >= 0 }, "a finite number from 0 on")
      if beta == 0 && l2 == 0 { problems.append("optimizer.beta is 0 with l2 0; make one of them positive") }
    }
    return problems
  }
}
