// A whole user model as a version has it: embeddings and logits of the same examples by one pass, for whoever compares a
// version with what is learned since. Belongs to one thread at a time.

internal import Base
internal import Layers
public import Streams

/// What a user model makes of some examples.
public struct UserModelOutput: Equatable, Sendable {
  /// Shape `[examples × embeddings × numbers in one]`.
  public var embeddings: [Float]
  /// Before any correction for sampled negatives; shape `[examples × tasks]`.
  public var logits: [Float]
  /// The version the rows are at least of.
  public var version: VersionInfo
}

/// Evaluates one user model over what a store holds.
///
/// unchecked because: whoever holds it lends it to one thread at a time.
public final class UserModelReading: @unchecked Sendable {
  private let store: ReplicaStore
  private let model: any UserModel
  private let modelIndex: Int
  private let input: ModelInput
  private let reader: EpochReader
  private let work: ModelWork

  /// Of a predictor's model; nil when there is no such model, or it has no user tower.
  public init?(_ predictor: Predictor, model name: String) {
    guard let index = predictor.store.model(named: name),
      let model = predictor.store.models[index].model as? any UserModel
    else { return nil }
    store = predictor.store
    self.model = model
    modelIndex = index
    input = predictor.inputs[index]
    reader = EpochReader(predictor.store.epochs)
    work = ModelWork(input, tableCount: predictor.store.tableOptions.count)
  }

  /// What the model makes of every example in the columns; nil while there is no base.
  public func output(of columns: FeatureColumns) -> UserModelOutput? {
    guard let seen = work.read(columns, of: store, model: modelIndex, reader) else { return nil }
    work.fillBatch(columns, input)
    var output = UserModelOutput(embeddings: [], logits: [], version: seen.version)
    model.forward(work.batch, rows: work.rows, dense: seen.dense, scratch: &work.scratch, logits: &output.logits)
    model.embeddings(columns.exampleCount, scratch: &work.scratch, into: &output.embeddings)
    work.emptyBatch()
    return output
  }
}
