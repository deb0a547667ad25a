// Memory that predictions use again. A workspace is lent to one thread at a time; its buffers only grow.

internal import Base
internal import Layers
internal import Streams

/// What one thread needs to answer requests.
///
/// unchecked because: the predictor's pool hands it to one thread at a time.
final class Workspace: @unchecked Sendable {
  let reader: EpochReader
  /// The candidates of the request being answered.
  var columns: FeatureColumns
  var models: [ModelWork]
  /// The request's JSON.
  var json: JSONText
  var parser: FeatureParser
  let names: NameTable
  /// The features of the instance being read.
  var present: Set<Int> = []
  /// The bytes of the candidate being made.
  var block: [UInt8] = []

  init(_ predictor: Predictor) {
    json = JSONText(limit: predictor.bodyByteLimit)
    parser = FeatureParser(schema: predictor.schema, ignored: [])
    names = NameTable(predictor.schema.features.map(\.name))
    reader = EpochReader(predictor.store.epochs)
    columns = FeatureColumns(schema: predictor.schema)
    models = zip(predictor.store.models, predictor.inputs).map { served, input in
      ModelWork(input, tableCount: predictor.store.tableOptions.count)
    }
  }
}

/// What one model needs to be evaluated.
final class ModelWork {
  var assembler: BatchAssembler
  var rows: [[Float]]
  var found: [UInt8] = []
  var batch: Batch
  var scratch = Scratch()
  var logits: [Float] = []

  init(_ input: ModelInput, tableCount: Int) {
    assembler = BatchAssembler(tableOfFeature: input.tableOfColumn, tableCount: tableCount)
    rows = Array(repeating: [], count: tableCount)
    let features = input.columns.map { column in
      FeatureColumn(table: input.tableOfColumn[column] ?? 0, offsets: [], rows: [])
    }
    batch = Batch(exampleCount: 0, features: features)
  }

  /// What one moment of a store has for some columns.
  typealias Reading = (dense: [[Float]], version: VersionInfo, asked: Int, found: Int)

  /// Assembles the columns and reads their rows; nil while there is no base.
  func read(_ columns: FeatureColumns, of store: ReplicaStore, model: Int, _ reader: EpochReader) -> Reading? {
    assembler.assemble(columns)
    return store.read(reader) { snapshot in
      var (asked, found) = (0, 0)
      for table in assembler.uniqueIds.indices where !assembler.uniqueIds[table].isEmpty {
        asked += assembler.uniqueIds[table].count
        found += gather(snapshot.tables[table], table: table)
      }
      return (snapshot.dense[model], snapshot.version, asked, found)
    }
  }

  /// Reads the rows of a table's distinct ids; gives how many there are.
  ///
  /// Inside a read section.
  func gather(_ source: TableView, table: Int) -> Int {
    let ids = assembler.uniqueIds[table]
    var weights: [Float] = []
    swap(&weights, &rows[table])
    defer { swap(&weights, &rows[table]) }
    Self.resize(&weights, to: ids.count * source.rows.dimension, filling: 0)
    Self.resize(&found, to: ids.count, filling: 0)
    return source.read(ids: ids, into: &weights, found: &found)
  }

  /// Makes the batch of the assembled columns.
  ///
  /// It shares their arrays until `emptyBatch`, so nothing is copied.
  func fillBatch(_ columns: FeatureColumns, _ input: ModelInput) {
    batch.exampleCount = columns.exampleCount
    for (feature, column) in input.columns.enumerated() {
      batch.features[feature].offsets = columns.offsets[column]
      batch.features[feature].rows = assembler.rowNumbers[column]
    }
    batch.dense.removeAll(keepingCapacity: true)
    guard !input.dense.isEmpty else { return }
    for example in 0..<columns.exampleCount {
      for (column, width) in input.dense {
        batch.dense.append(contentsOf: columns.numbers[column][(example * width)..<((example + 1) * width)])
      }
    }
  }

  /// Lets go of the shared arrays, so that the next request can fill them in place.
  func emptyBatch() {
    for feature in batch.features.indices {
      batch.features[feature].offsets = []
      batch.features[feature].rows = []
    }
  }

  private static func resize<Element>(_ array: inout [Element], to count: Int, filling: Element) {
    if array.count > count { array.removeLast(array.count - count) }
    if array.count < count { array.append(contentsOf: repeatElement(filling, count: count - array.count)) }
  }
}
