// The factorization machine, once per task: no task disturbs another's vectors, which on KuaiRand is worth 0.002 AUC
// over shared ones. Source: Rendle 2010, "Factorization Machines", lemma 3.1 for the sum-square form.

/// logit[t] = bias[t] + Σ_f w_f[t] + Σ_{f<g} ⟨v_f[t], v_g[t]⟩, where (w_f, v_f) is feature f's combined row.
///
/// Row: `bias` [tasks], `vector` [tasks, dimension]. With S = Σ_f v_f the pair term is ½ Σ_k (S² − Σ_f v_f²), and its
/// gradient by v_f is S − v_f. All loops run over tasks × dimension at once.
struct FactorizationMachine: ConfiguredModel {
  static let kind = "fm"
  let options: ModelOptions
  let denseTensors: [DenseTensor]
  private let linear: LinearTerm
  private let taskCount: Int
  private let dimension: Int
  /// tasks × dimension, the numbers in a row's vectors.
  private let vectorWidth: Int
  private let rowWidth: Int

  /// Scratch slots.
  private enum Slot {
    /// S of every example, shape `[examples, tasks, dimension]`.
    static let sums = 0
    /// Forward Σ_f v_f², backward the logit gradients, each repeated over its dimension; same shape.
    static let squares = 1
    /// One combined row, for features with several occurrences, shape `[rowWidth]`.
    static let combined = 2
  }

  static func problems(in options: ModelOptions) -> [String] { attentionProblems(in: options) }

  init(_ options: ModelOptions) {
    self.options = options
    var plan = Plan()
    linear = LinearTerm(options, plan: &plan)
    denseTensors = plan.tensors
    taskCount = options.tasks.count
    dimension = options.dimension
    vectorWidth = taskCount * dimension
    rowWidth = taskCount + vectorWidth
  }

  func rowSegments(table: Int) -> [RowSegment] {
    guard options.features.contains(where: { $0.table == table }) else { return [] }
    return [
      RowSegment(name: "bias", width: taskCount, initialDeviation: 0),
      RowSegment(name: "vector", width: vectorWidth, initialDeviation: options.initialDeviation),
    ]
  }

  func forward(_ batch: Batch, rows: [[Float]], dense: [[Float]], scratch: inout Scratch, logits: inout [Float]) {
    batch.requireShape(options, rows: rows, dense: dense, expecting: denseTensors)
    linear.forward(batch, dense: dense, logits: &logits)
    let total = batch.exampleCount * vectorWidth
    var sumBuffer = scratch.take(Slot.sums, count: total)
    var squareBuffer = scratch.take(Slot.squares, count: total)
    var combinedBuffer = scratch.take(Slot.combined, count: rowWidth)
    var sums = sumBuffer.mutableSpan
    var squares = squareBuffer.mutableSpan
    var output = logits.mutableSpan
    Kernel.clear(&sums, at: 0, count: total)
    Kernel.clear(&squares, at: 0, count: total)
    for (column, feature) in zip(batch.features, options.features) {
      let pulled = rows[column.table]
      let table = pulled.span
      let offsets = column.offsets.span
      let rowNumbers = column.rows.span
      for example in 0..<batch.exampleCount {
        let occurrences = Int(offsets[example])..<Int(offsets[example + 1])
        if occurrences.count == 1 {
          let row = Int(rowNumbers[occurrences.lowerBound]) * rowWidth
          Kernel.addScaled(1, table, at: row, to: &output, at: example * taskCount, count: taskCount)
          accumulate(table, at: row + taskCount, &sums, &squares, at: example * vectorWidth)
        } else if occurrences.count > 1 {
          combine(table, rowNumbers, occurrences, feature.combiner, into: &combinedBuffer)
          Kernel.addScaled(1, combinedBuffer.span, at: 0, to: &output, at: example * taskCount, count: taskCount)
          accumulate(combinedBuffer.span, at: taskCount, &sums, &squares, at: example * vectorWidth)
        }
      }
    }
    for cell in 0..<batch.exampleCount * taskCount {
      let start = cell * dimension
      output[cell] +=
        0.5
        * (Kernel.dot(sums.span, at: start, sums.span, at: start, count: dimension)
          - Kernel.sum(squares.span, at: start, count: dimension))
    }
    scratch.put(Slot.sums, sumBuffer)
    scratch.put(Slot.squares, squareBuffer)
    scratch.put(Slot.combined, combinedBuffer)
  }

  func backward(
    _ batch: Batch, rows: [[Float]], dense: [[Float]], logitGradients: [Float], scratch: inout Scratch,
    rowGradients: inout [[Float]], denseGradients: inout [[Float]]
  ) {
    linear.backward(batch, logitGradients: logitGradients, denseGradients: &denseGradients)
    let sumBuffer = scratch.take(Slot.sums, count: batch.exampleCount * vectorWidth)
    var spreadBuffer = scratch.take(Slot.squares, count: batch.exampleCount * vectorWidth)
    var combinedBuffer = scratch.take(Slot.combined, count: rowWidth)
    let sums = sumBuffer.span
    let gradients = logitGradients.span
    spreadOverDimension(gradients, into: &spreadBuffer)
    let spread = spreadBuffer.span
    for (column, feature) in zip(batch.features, options.features) {
      let pulled = rows[column.table]
      let table = pulled.span
      var tableGradients = rowGradients[column.table].mutableSpan
      let offsets = column.offsets.span
      let rowNumbers = column.rows.span
      for example in 0..<batch.exampleCount {
        let occurrences = Int(offsets[example])..<Int(offsets[example + 1])
        let scale = feature.combiner.scale(occurrences.count)
        if occurrences.count > 1 {
          combine(table, rowNumbers, occurrences, feature.combiner, into: &combinedBuffer)
        }
        for occurrence in occurrences {
          let row = Int(rowNumbers[occurrence]) * rowWidth
          Kernel.addScaled(
            scale, gradients, at: example * taskCount, to: &tableGradients, at: row, count: taskCount)
          if occurrences.count == 1 {
            addPairGradient(
              table, at: row + taskCount, sums, spread, at: example * vectorWidth, scale, to: &tableGradients,
              at: row + taskCount)
          } else {
            addPairGradient(
              combinedBuffer.span, at: taskCount, sums, spread, at: example * vectorWidth, scale,
              to: &tableGradients, at: row + taskCount)
          }
        }
      }
    }
    scratch.put(Slot.sums, sumBuffer)
    scratch.put(Slot.squares, spreadBuffer)
    scratch.put(Slot.combined, combinedBuffer)
  }

  /// sums += v, squares += v².
  @inline(__always)
  private func accumulate(
    _ vector: Span<Float>, at start: Int, _ sums: inout MutableSpan<Float>, _ squares: inout MutableSpan<Float>,
    at place: Int
  ) {
    Kernel.require(start, vectorWidth, vector.count)
    Kernel.require(place, vectorWidth, min(sums.count, squares.count))
    for i in 0..<vectorWidth {
      let value = unsafe vector[unchecked: start &+ i]
      unsafe sums[unchecked: place &+ i] += value
      unsafe squares[unchecked: place &+ i] += value * value
    }
  }

  /// gradient += scale · spread · (S − v).
  @inline(__always)
  private func addPairGradient(
    _ vector: Span<Float>, at start: Int, _ sums: Span<Float>, _ spread: Span<Float>, at place: Int, _ scale: Float,
    to gradients: inout MutableSpan<Float>, at target: Int
  ) {
    Kernel.require(start, vectorWidth, vector.count)
    Kernel.require(place, vectorWidth, min(sums.count, spread.count))
    Kernel.require(target, vectorWidth, gradients.count)
    for i in 0..<vectorWidth {
      unsafe gradients[unchecked: target &+ i] +=
        scale * spread[unchecked: place &+ i] * (sums[unchecked: place &+ i] - vector[unchecked: start &+ i])
    }
  }

  /// spread[cell, k] = gradients[cell].
  private func spreadOverDimension(_ gradients: Span<Float>, into buffer: inout [Float]) {
    var spread = buffer.mutableSpan
    Kernel.require(0, gradients.count * dimension, spread.count)
    for cell in 0..<gradients.count {
      let gradient = gradients[cell]
      for k in 0..<dimension { unsafe spread[unchecked: cell &* dimension &+ k] = gradient }
    }
  }

  /// The combined row of several occurrences.
  private func combine(
    _ table: Span<Float>, _ rowNumbers: Span<Int32>, _ occurrences: Range<Int>, _ combiner: Combiner,
    into buffer: inout [Float]
  ) {
    var combined = buffer.mutableSpan
    Kernel.clear(&combined, at: 0, count: rowWidth)
    let scale = combiner.scale(occurrences.count)
    for occurrence in occurrences {
      Kernel.addScaled(
        scale, table, at: Int(rowNumbers[occurrence]) * rowWidth, to: &combined, at: 0, count: rowWidth)
    }
  }
}
