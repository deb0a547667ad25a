// What a model reads: examples side by side, ids already resolved to pulled rows. The trainer and the predictor build
// batches from their own look-ups, so a batch of the wrong shape is a bug of ours and traps.

/// One feature of a model: its occurrences in a batch, in CSR form.
///
/// Example `e` has the occurrences `offsets[e] ..< offsets[e + 1]`, none included. Row numbers index the table's pulled
/// rows, so features that share a table share its numbers.
public struct FeatureColumn: Sendable, Equatable {
  /// The table whose pulled rows `rows` counts.
  public var table: Int
  /// Where each example's occurrences begin and the last one's end, shape `[examples + 1]`.
  public var offsets: [Int32]
  /// The row of each occurrence.
  public var rows: [Int32]

  /// A column of the given occurrences.
  public init(table: Int, offsets: [Int32], rows: [Int32]) {
    self.table = table
    self.offsets = offsets
    self.rows = rows
  }

  /// A column in which every example has exactly one occurrence.
  public init(table: Int, rows: [Int32]) {
    self.init(table: table, offsets: [Int32](0...Int32(rows.count)), rows: rows)
  }
}

/// Examples for one forward and backward pass.
public struct Batch: Sendable, Equatable {
  /// The number of examples.
  public var exampleCount: Int
  /// One column per feature, in the model's feature order.
  public var features: [FeatureColumn]
  /// The dense-number features, row-major, shape `[examples × denseWidth]`.
  public var dense: [Float]
  /// Labels, 0 or 1, shape `[examples × tasks]`.
  public var labels: [Float]
  /// Task weight × example weight of every label, 0 masks it, shape `[examples × tasks]`.
  public var weights: [Float]
  /// A hash of each example's place in its stream, shape `[examples]`, or empty: what `counting` adds up.
  public var identities: [UInt64] = []

  /// A batch of the given parts; a prediction leaves labels and weights empty.
  public init(
    exampleCount: Int, features: [FeatureColumn], dense: [Float] = [], labels: [Float] = [], weights: [Float] = []
  ) {
    self.exampleCount = exampleCount
    self.features = features
    self.dense = dense
    self.labels = labels
    self.weights = weights
  }

  /// Some of the examples; row numbers stay those of the whole batch.
  public func slice(_ range: Range<Int>) -> Batch {
    func part<Value>(_ values: [Value], _ width: Int) -> [Value] {
      values.isEmpty ? [] : Array(values[range.lowerBound * width..<range.upperBound * width])
    }
    let columns = features.map { column in
      let (first, end) = (column.offsets[range.lowerBound], column.offsets[range.upperBound])
      return FeatureColumn(
        table: column.table, offsets: column.offsets[range.lowerBound...range.upperBound].map { $0 - first },
        rows: Array(column.rows[Int(first)..<Int(end)]))
    }
    var slice = Batch(
      exampleCount: range.count, features: columns, dense: part(dense, dense.count / max(1, exampleCount)),
      labels: part(labels, labels.count / max(1, exampleCount)),
      weights: part(weights, weights.count / max(1, exampleCount)))
    slice.identities = part(identities, 1)
    return slice
  }

  /// Traps when the batch does not have the model's shape: one check per batch, so that inner loops need fewer.
  func requireShape(_ options: ModelOptions, rows: [[Float]], dense tensors: [[Float]], expecting: [DenseTensor]) {
    precondition(
      features.count == options.features.count,
      "the batch has \(features.count) features, the model \(options.features.count)")
    precondition(
      dense.count == exampleCount * options.denseWidth,
      "the batch has \(dense.count) dense numbers, the model needs \(exampleCount) × \(options.denseWidth)")
    precondition(
      tensors.count == expecting.count, "the model has \(expecting.count) dense tensors, got \(tensors.count)")
    for (values, tensor) in zip(tensors, expecting) {
      precondition(
        values.count == tensor.count, "tensor '\(tensor.name)' has \(tensor.count) numbers, got \(values.count)")
    }
    for (column, feature) in zip(features, options.features) {
      precondition(
        column.table == feature.table && column.table < rows.count,
        "feature '\(feature.name)' reads table \(feature.table), its column table \(column.table) of \(rows.count)")
      precondition(
        column.offsets.count == exampleCount + 1 && column.offsets[0] == 0
          && Int(column.offsets[exampleCount]) == column.rows.count,
        "the offsets of feature '\(feature.name)' do not fit \(exampleCount) examples and \(column.rows.count) rows")
    }
  }
}
