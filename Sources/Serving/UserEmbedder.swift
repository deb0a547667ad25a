// From users' features to their embeddings, with the predictor's own batch assembly and the model's user tower. An
// embedder belongs to one thread at a time.

internal import Base
internal import Layers
public import Streams

/// What the user tower made of some users.
public struct UserEmbeddings: Equatable, Sendable {
  /// `[users × embeddings × numbers in one]`.
  public var values: [Float]
  /// The version the rows are at least of.
  public var version: VersionInfo
}

/// Runs the user tower of one model over what a store holds.
///
/// unchecked because: whoever holds it lends it to one thread at a time.
public final class UserEmbedder: @unchecked Sendable {
  /// Embeddings per user.
  public let embeddings: Int
  /// Numbers in an embedding.
  public let embeddingDimension: Int
  private let store: ReplicaStore
  private let model: any UserModel
  private let modelIndex: Int
  private let input: ModelInput
  private let reader: EpochReader
  private let work: ModelWork
  /// Per feature of the model whether the user tower reads it.
  private let isUsers: [Bool]

  /// An embedder of a model; nil when there is no such model, or it has no user tower.
  public init?(_ predictor: Predictor, model name: String) {
    guard let index = predictor.store.model(named: name),
      let model = predictor.store.models[index].model as? any UserModel
    else { return nil }
    store = predictor.store
    self.model = model
    modelIndex = index
    let shape = model.options.userModel
    (embeddings, embeddingDimension) = (shape.embeddings, shape.embeddingDimension)
    let isUsers = model.options.features.indices.map { model.userFeatures.contains($0) }
    self.isUsers = isUsers
    input = predictor.inputs[index].without { !isUsers[$0] }
    reader = EpochReader(predictor.store.epochs)
    work = ModelWork(input, tableCount: predictor.store.tableOptions.count)
  }

  /// The embeddings of every user in the columns; nil while there is no base.
  ///
  /// Features that are not the user's are not looked at.
  public func embed(_ columns: FeatureColumns) -> UserEmbeddings? {
    guard let seen = work.read(columns, of: store, model: modelIndex, reader) else { return nil }
    work.fillBatch(columns, input)
    for feature in isUsers.indices where !isUsers[feature] {
      work.batch.features[feature].offsets = [Int32](repeating: 0, count: columns.exampleCount + 1)
      work.batch.features[feature].rows = []
      work.batch.features[feature].table = model.options.features[feature].table
    }
    var values: [Float] = []
    model.embed(work.batch, rows: work.rows, dense: seen.dense, scratch: &work.scratch, embeddings: &values)
    work.emptyBatch()
    return UserEmbeddings(values: values, version: seen.version)
  }
}

extension UserEmbedder {
  /// By id whether it has a row in the table of a feature; nil before the first base, or when the model does not read it.
  public func hasRows(_ ids: [UInt64], of feature: String) -> [Bool]? {
    guard let table = model.options.features.first(where: { $0.name == feature })?.table else { return nil }
    var found = [UInt8](repeating: 0, count: ids.count)
    var weights = [Float](repeating: 0, count: ids.count * store.tableOptions[table].defaultRow.count)
    let seen = store.read(reader) { $0.tables[table].read(ids: ids, into: &weights, found: &found) }
    return seen == nil ? nil : found.map { $0 == 1 }
  }

  /// Whether the model has rows of a feature's ids.
  public func hasTable(of feature: String) -> Bool { model.options.features.contains { $0.name == feature } }

  /// By id whether its row in the table of a feature is of a later version than `version`; nil as for `hasRows`.
  public func isChanged(_ ids: [UInt64], of feature: String, since version: UInt64) -> [Bool]? {
    guard let table = model.options.features.first(where: { $0.name == feature })?.table else { return nil }
    return store.read(reader) { snapshot in
      snapshot.tables[table].stamps(ids: ids).map { $0?.isLater(than: version) ?? false }
    }
  }
}

extension ModelInput {
  /// The same, but for features whose ids nobody looks up.
  func without(_ isLeftOut: (Int) -> Bool) -> ModelInput {
    var copy = self
    for (feature, column) in columns.enumerated() where isLeftOut(feature) { copy.tableOfColumn[column] = nil }
    return copy
  }
}
