// Logistic regression: one weight per id and task.
// The smallest model, and the one to compare others with.

/// logit[t] = bias[t] + Σ over features of the combined row[t] (+ the dense numbers' term).
///
/// Row: `bias` [tasks].
struct LogisticModel: ConfiguredModel {
  static let kind = "logistic"
  let options: ModelOptions
  let denseTensors: [DenseTensor]
  private let linear: LinearTerm

  static func problems(in options: ModelOptions) -> [String] { attentionProblems(in: options) }

  init(_ options: ModelOptions) {
    self.options = options
    var plan = Plan()
    linear = LinearTerm(options, plan: &plan)
    denseTensors = plan.tensors
  }

  func rowSegments(table: Int) -> [RowSegment] {
    guard options.features.contains(where: { $0.table == table }) else { return [] }
    return [RowSegment(name: "bias", width: options.tasks.count, initialDeviation: 0)]
  }

  func forward(_ batch: Batch, rows: [[Float]], dense: [[Float]], scratch: inout Scratch, logits: inout [Float]) {
    batch.requireShape(options, rows: rows, dense: dense, expecting: denseTensors)
    linear.forward(batch, dense: dense, logits: &logits)
    var output = logits.mutableSpan
    let tasks = options.tasks.count
    for (column, feature) in zip(batch.features, options.features) {
      let pulled = rows[column.table]
      let table = pulled.span
      let offsets = column.offsets.span
      let rowNumbers = column.rows.span
      for example in 0..<batch.exampleCount {
        let occurrences = Int(offsets[example])..<Int(offsets[example + 1])
        let scale = feature.combiner.scale(occurrences.count)
        for occurrence in occurrences {
          Kernel.addScaled(
            scale, table, at: Int(rowNumbers[occurrence]) * tasks, to: &output, at: example * tasks, count: tasks)
        }
      }
    }
  }

  func backward(
    _ batch: Batch, rows: [[Float]], dense: [[Float]], logitGradients: [Float], scratch: inout Scratch,
    rowGradients: inout [[Float]], denseGradients: inout [[Float]]
  ) {
    linear.backward(batch, logitGradients: logitGradients, denseGradients: &denseGradients)
    let gradients = logitGradients.span
    let tasks = options.tasks.count
    for (column, feature) in zip(batch.features, options.features) {
      var table = rowGradients[column.table].mutableSpan
      let offsets = column.offsets.span
      let rowNumbers = column.rows.span
      for example in 0..<batch.exampleCount {
        let occurrences = Int(offsets[example])..<Int(offsets[example + 1])
        let scale = feature.combiner.scale(occurrences.count)
        for occurrence in occurrences {
          Kernel.addScaled(
            scale, gradients, at: example * tasks, to: &table, at: Int(rowNumbers[occurrence]) * tasks, count: tasks)
        }
      }
    }
  }
}

extension Combiner {
  /// What each of `count` occurrences counts: 1 in a sum, 1/count in a mean.
  @inline(__always)
  func scale(_ count: Int) -> Float {
    self == .mean && count > 1 ? 1 / Float(count) : 1
  }
}

extension ConfiguredModel {
  /// For models without attention: which features ask for it.
  static func attentionProblems(in options: ModelOptions) -> [String] {
    options.features.filter { $0.combiner == .attention }.map {
      "model.features: '\($0.name)' has combiner attention, which model '\(kind)' does not have; use sum or mean"
    }
  }
}
