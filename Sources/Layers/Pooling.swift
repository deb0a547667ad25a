// From pulled rows to one vector per feature and example, and back: the input of every model with hidden layers.
// Goes feature by feature, so that one table's rows stay in the cache while a batch reads them.

internal import Glibc

/// X[example, f] = Σ_j a_j · v_j over the occurrences j of feature f; nothing for none.
///
/// a is 1 for `sum`, 1/n for `mean`, and for `attention` the softmax over the occurrences of ⟨q, v_j⟩ / √dimension with a
/// learned query q per feature, which begins as zeros, that is as the mean. A row is `bias` [biasWidth] (its weighted
/// sum goes straight to the logits) and `vector` [dimension].
struct Pooling: Sendable {
  private let features: [ModelFeature]
  /// Per feature its column of the batch.
  private let columns: [Int]
  private let biasWidth: Int
  private let dimension: Int
  private let deviation: Float
  private let rowWidth: Int
  /// Floats per example in X: `leading` for others to fill, the features' vectors, the dense numbers if wanted.
  let width: Int
  private let leading: Int
  private let denseWidth: Int
  /// Per feature with attention the tensor of its query `[dimension]` and the slot of a, shape `[occurrences]`.
  private let attention: [(query: Int, weights: Int)?]

  /// - Parameter only: the places of the features to combine among the model's; nil for all.
  init(
    _ options: ModelOptions, biasWidth: Int, leading: Int = 0, appendsDense: Bool, only: [Int]? = nil,
    plan: inout Plan
  ) {
    columns = only ?? Array(options.features.indices)
    features = columns.map { options.features[$0] }
    self.biasWidth = biasWidth
    dimension = options.dimension
    deviation = options.initialDeviation
    rowWidth = biasWidth + dimension
    self.leading = leading
    denseWidth = appendsDense ? options.denseWidth : 0
    width = leading + features.count * dimension + denseWidth
    var attention: [(query: Int, weights: Int)?] = []
    for feature in features {
      guard feature.combiner == .attention else {
        attention.append(nil)
        continue
      }
      let query = plan.tensor("attention.\(feature.name).query", [dimension], .zeros)
      attention.append((query, plan.slot()))
    }
    self.attention = attention
  }

  /// The segments of a row of a table.
  func rowSegments(table: Int) -> [RowSegment] {
    guard features.contains(where: { $0.table == table }) else { return [] }
    let vector = RowSegment(name: "vector", width: dimension, initialDeviation: deviation)
    return biasWidth == 0 ? [vector] : [RowSegment(name: "bias", width: biasWidth, initialDeviation: 0), vector]
  }

  /// Fills X `[examples, width]` behind `leading` and adds the rows' biases to `logits` `[examples, biasWidth]`.
  func forward(
    _ batch: Batch, rows: [[Float]], dense: [[Float]], scratch: inout Scratch, logits: inout [Float],
    to x: inout MutableSpan<Float>
  ) {
    var biases = logits.mutableSpan
    Kernel.clear(&x, at: 0, count: batch.exampleCount * width)
    for (index, feature) in features.enumerated() {
      let column = batch.features[columns[index]]
      let pulled = rows[column.table]
      let table = pulled.span
      guard let attention = attention[index] else {
        let rows = ColumnRows(column, table.count, width: rowWidth, isMean: feature.combiner == .mean)
        rows.add(table, from: biasWidth, count: dimension, to: &x, at: start(of: index), stride: width)
        rows.add(table, from: 0, count: biasWidth, to: &biases, at: 0, stride: biasWidth)
        continue
      }
      let numbers = column.rows.span
      let offsets = column.offsets.span
      let weights = attend(index, column, table, dense: dense, scratch: &scratch)
      for example in 0..<batch.exampleCount {
        let place = example * width + start(of: index)
        for occurrence in Int(offsets[example])..<Int(offsets[example + 1]) {
          let row = Int(numbers[occurrence]) * rowWidth
          let weight = weights[occurrence]
          Kernel.addScaled(weight, table, at: row + biasWidth, to: &x, at: place, count: dimension)
          Kernel.addScaled(weight, table, at: row, to: &biases, at: example * biasWidth, count: biasWidth)
        }
      }
      scratch.put(attention.weights, weights)
    }
    let numbers = batch.dense.span
    for example in 0..<batch.exampleCount where denseWidth > 0 {
      Kernel.copy(
        numbers, at: example * denseWidth, to: &x, at: (example + 1) * width - denseWidth, count: denseWidth)
    }
  }

  /// Adds the gradients of rows and queries, given those of X and, where rows have biases, of the logits.
  func backward(
    _ batch: Batch, rows: [[Float]], dense: [[Float]], logitGradients: [Float], dx: Span<Float>,
    scratch: inout Scratch, rowGradients: inout [[Float]], denseGradients: inout [[Float]]
  ) {
    for (index, feature) in features.enumerated() {
      let column = batch.features[columns[index]]
      if let attention = attention[index] {
        let weights = scratch.take(attention.weights, count: column.rows.count)
        scatterAttended(
          index, column, rows[column.table], weights, query: dense[attention.query], logitGradients, dx,
          to: &rowGradients[column.table], &denseGradients[attention.query])
        scratch.put(attention.weights, weights)
        continue
      }
      var table = rowGradients[column.table].mutableSpan
      let rows = ColumnRows(column, table.count, width: rowWidth, isMean: feature.combiner == .mean)
      rows.addBack(dx, at: start(of: index), stride: width, to: &table, from: biasWidth, count: dimension)
      rows.addBack(logitGradients.span, at: 0, stride: biasWidth, to: &table, from: 0, count: biasWidth)
    }
  }

  /// Where a feature's vector begins among an example's numbers in X.
  private func start(of feature: Int) -> Int { leading + feature * dimension }

  /// The softmax weights of every occurrence, out of their slot; empty for features without attention.
  private func attend(
    _ index: Int, _ column: FeatureColumn, _ table: Span<Float>, dense: [[Float]], scratch: inout Scratch
  ) -> [Float] {
    guard let attention = attention[index] else { return [] }
    let query = dense[attention.query]
    let scale = 1 / Float(dimension).squareRoot()
    // One more than the occurrences, so that a batch without any still has weights.
    var weights = scratch.take(attention.weights, count: column.rows.count + 1)
    for example in 0..<column.offsets.count - 1 {
      let occurrences = Int(column.offsets[example])..<Int(column.offsets[example + 1])
      var highest = -Float.infinity
      for occurrence in occurrences {
        let vector = Int(column.rows[occurrence]) * rowWidth + biasWidth
        let score = scale * Kernel.dot(table, at: vector, query.span, at: 0, count: dimension)
        weights[occurrence] = score
        highest = max(highest, score)
      }
      var total: Float = 0
      for occurrence in occurrences {
        let weight = expf(weights[occurrence] - highest)
        weights[occurrence] = weight
        total += weight
      }
      for occurrence in occurrences { weights[occurrence] /= total }
    }
    return weights
  }

  /// With g the gradient of the combined row: row_j gets a_j · g; the score s_j gets a_j · (⟨g, row_j⟩ − Σ_i a_i ⟨g, row_i⟩),
  /// which goes on to v_j and q as s_j = ⟨q, v_j⟩ / √dimension.
  private func scatterAttended(
    _ index: Int, _ column: FeatureColumn, _ pulled: [Float], _ weights: [Float], query: [Float],
    _ logitGradients: [Float], _ dx: Span<Float>, to gradients: inout [Float], _ queryGradient: inout [Float]
  ) {
    let table = pulled.span
    let biases = logitGradients.span
    var rows = gradients.mutableSpan
    var queries = queryGradient.mutableSpan
    let scale = 1 / Float(dimension).squareRoot()
    for example in 0..<column.offsets.count - 1 {
      let occurrences = Int(column.offsets[example])..<Int(column.offsets[example + 1])
      let place = example * width + start(of: index)
      var mean: Float = 0
      for occurrence in occurrences {
        let row = Int(column.rows[occurrence]) * rowWidth
        mean += weights[occurrence] * gain(table, at: row, biases, at: example * biasWidth, dx, at: place)
      }
      for occurrence in occurrences {
        let row = Int(column.rows[occurrence]) * rowWidth
        let weight = weights[occurrence]
        let gain = gain(table, at: row, biases, at: example * biasWidth, dx, at: place)
        let score = scale * weight * (gain - mean)
        Kernel.addScaled(weight, biases, at: example * biasWidth, to: &rows, at: row, count: biasWidth)
        Kernel.addScaled(weight, dx, at: place, to: &rows, at: row + biasWidth, count: dimension)
        Kernel.addScaled(score, query.span, at: 0, to: &rows, at: row + biasWidth, count: dimension)
        Kernel.addScaled(score, table, at: row + biasWidth, to: &queries, at: 0, count: dimension)
      }
    }
  }

  /// ⟨g, row⟩ over bias and vector.
  private func gain(
    _ table: Span<Float>, at row: Int, _ biases: Span<Float>, at bias: Int, _ dx: Span<Float>, at place: Int
  ) -> Float {
    Kernel.dot(table, at: row, biases, at: bias, count: biasWidth)
      + Kernel.dot(table, at: row + biasWidth, dx, at: place, count: dimension)
  }
}
