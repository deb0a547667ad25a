// From the features of candidates to a probability per task, with the trainer's own batch assembly and model arithmetic.
// Any number of threads predict at once; each takes a workspace from a pool, so that a prediction allocates next to
// nothing.

public import Base
internal import Layers
public import Streams
internal import Synchronization

/// The answer for some candidates.
public struct Prediction: Equatable, Sendable {
  /// Probabilities, row-major.
  ///
  /// Shape `[candidates × tasks]`.
  public var probabilities: [Float]
  /// How many tasks there are.
  public var taskCount: Int
  /// How many distinct ids were looked up.
  public var rowsAsked: Int
  /// How many of them had a row.
  public var rowsFound: Int
  /// The version the rows are at least of.
  public var version: VersionInfo

  /// Whether no id had a row, so that the answer knows nothing of these candidates.
  public var isFromDefaultRowsOnly: Bool { rowsFound == 0 }
}

/// Why a model cannot be served from events of a schema.
public enum PredictorError: Error, Equatable, Sendable, CustomStringConvertible {
  /// The model reads a feature that events do not have, or one of another kind.
  case unknownFeature(model: String, feature: String)
  /// The schema's dense features do not add up to the model's dense width.
  case denseWidth(model: String, expected: Int, got: Int)

  /// What is wrong, with what was expected.
  public var description: String {
    switch self {
    case .unknownFeature(let model, let feature):
      "model '\(model)' reads feature '\(feature)', which is not an id feature of the event schema"
    case .denseWidth(let model, let expected, let got):
      "model '\(model)' reads \(expected) dense numbers, the event schema has \(got)"
    }
  }
}

/// How one model reads the columns of a schema.
struct ModelInput: Sendable {
  /// Per feature of the model its column.
  let columns: [Int]
  /// Per column its table, or nil.
  var tableOfColumn: [Int?]
  /// The dense columns with their widths, in schema order; none for a model without dense numbers.
  let dense: [(column: Int, width: Int)]
  /// The columns a request must have.
  let required: [Int]

  init(_ served: ServedModel, schema: EventSchema) throws(PredictorError) {
    var columns: [Int] = []
    var tableOfColumn = [Int?](repeating: nil, count: schema.features.count)
    let options = served.model.options
    for feature in options.features {
      let column = schema.features.firstIndex { $0.name == feature.name && !$0.kind.isDense }
      guard let column else { throw .unknownFeature(model: served.name, feature: feature.name) }
      columns.append(column)
      tableOfColumn[column] = feature.table
    }
    var dense: [(column: Int, width: Int)] = []
    if options.denseWidth > 0 {
      for (column, feature) in schema.features.enumerated() where options.denseFeatures?.contains(feature.name) ?? true
      {
        if case .dense(let width) = feature.kind { dense.append((column, width)) }
      }
      let got = dense.reduce(0) { $0 + $1.width }
      guard got == options.denseWidth else {
        throw .denseWidth(model: served.name, expected: options.denseWidth, got: got)
      }
    }
    self.columns = columns
    self.tableOfColumn = tableOfColumn
    self.dense = dense
    required = (columns + dense.map(\.column)).filter { schema.features[$0].stream == nil }.sorted()
  }
}

extension FeatureKind {
  var isDense: Bool { if case .dense = self { true } else { false } }
}

/// Scores candidates with the models of one store.
public final class Predictor: Sendable {
  /// The schema the candidates' columns follow.
  public let schema: EventSchema
  /// Where rows and dense tensors come from.
  public let store: ReplicaStore
  /// The most bytes a request body may have.
  public let bodyByteLimit: Int
  let inputs: [ModelInput]
  private let streamFeatures: SharedStreamFeatures?
  private let pool = Mutex<[Workspace]>([])

  /// A predictor for all models of a store.
  ///
  /// - Parameter streamFeatures: where the values come from that requests do not give.
  /// - Throws: `PredictorError` when a model needs features that the schema does not have.
  public init(
    store: ReplicaStore, schema: EventSchema, streamFeatures: SharedStreamFeatures? = nil, bodyByteLimit: Int = 8 << 20
  ) throws(PredictorError) {
    self.streamFeatures = streamFeatures
    self.store = store
    self.schema = schema
    self.bodyByteLimit = bodyByteLimit
    var inputs: [ModelInput] = []
    for served in store.models { inputs.append(try ModelInput(served, schema: schema)) }
    self.inputs = inputs
  }

  /// The probabilities of every candidate; nil while there is no base, or no model of this name.
  public func predict(model name: String, _ columns: FeatureColumns) -> Prediction? {
    guard let model = store.model(named: name) else { return nil }
    return withWorkspace { predict(model: model, columns, $0) }
  }

  /// The features of a candidate shown at `time`, or now, with those that are computed from the stream.
  public func filled(_ features: FeatureBlock, at time: Milliseconds?) -> FeatureBlock {
    guard let streamFeatures else { return features }
    return streamFeatures.filled(features, at: time ?? Clocks.wall())
  }

  /// Lends a workspace to `body`.
  func withWorkspace<Result, Failure: Error>(
    _ body: (Workspace) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    let workspace = pool.withLock { $0.popLast() } ?? Workspace(self)
    defer { pool.withLock { $0.append(workspace) } }
    return try body(workspace)
  }

  /// The probabilities of every candidate; nil while there is no base.
  func predict(model index: Int, _ columns: FeatureColumns, _ workspace: Workspace) -> Prediction? {
    let served = store.models[index]
    let input = inputs[index]
    let work = workspace.models[index]
    guard let seen = work.read(columns, of: store, model: index, workspace.reader) else { return nil }
    work.fillBatch(columns, input)
    served.model.forward(
      work.batch, rows: work.rows, dense: seen.dense, scratch: &work.scratch, logits: &work.logits)
    work.emptyBatch()
    let tasks = served.corrections.count
    var probabilities = [Float](repeating: 0, count: columns.exampleCount * tasks)
    for place in probabilities.indices {
      probabilities[place] = Losses.sigmoid(work.logits[place] + served.corrections[place % tasks])
    }
    return Prediction(
      probabilities: probabilities, taskCount: tasks, rowsAsked: seen.asked, rowsFound: seen.found,
      version: seen.version)
  }
}
