// The face of every model. A model is an immutable description: parameters come in with each call (rows pulled from
// shards, dense tensors), what a pass must remember lies in the caller's scratch. So one model serves many threads.

/// A run of numbers in a row that begin alike and share an optimizer.
public struct RowSegment: Sendable, Equatable {
  /// What it holds, `bias` or `vector`.
  public var name: String
  /// Its numbers per row.
  public var width: Int
  /// Standard deviation of its first values; 0 = zeros.
  public var initialDeviation: Float

  /// A segment.
  public init(name: String, width: Int, initialDeviation: Float) {
    self.name = name
    self.width = width
    self.initialDeviation = initialDeviation
  }
}

/// Arithmetic from pulled rows and dense tensors to one logit per example and task, and back.
public protocol Model: Sendable {
  /// The options it was made from.
  var options: ModelOptions { get }

  /// What a row of a table must look like for this model; empty when no feature reads the table.
  func rowSegments(table: Int) -> [RowSegment]

  /// The dense tensors, in the order of `dense` and `denseGradients` below.
  var denseTensors: [DenseTensor] { get }

  /// Fills `logits` (`[examples × tasks]`) for a batch.
  ///
  /// - Parameters:
  ///   - rows: per table its pulled weights, row-major `[uniqueIds × width]`.
  ///   - dense: the values of `denseTensors`.
  ///   - scratch: the thread's own; holds afterwards what `backward` needs.
  func forward(_ batch: Batch, rows: [[Float]], dense: [[Float]], scratch: inout Scratch, logits: inout [Float])

  /// Adds the gradients of Σ `logitGradients` · logits, after `forward` on the same batch and scratch.
  ///
  /// Sums over the batch, never averages. `rowGradients` and `denseGradients` have the shapes of `rows` and `dense`;
  /// whoever reuses them sets them to zero first.
  func backward(
    _ batch: Batch, rows: [[Float]], dense: [[Float]], logitGradients: [Float], scratch: inout Scratch,
    rowGradients: inout [[Float]], denseGradients: inout [[Float]])
}

extension Model {
  /// The numbers in a row of a table.
  public func rowWidth(table: Int) -> Int {
    rowSegments(table: table).reduce(0) { $0 + $1.width }
  }

  /// The tensors' values before any training: a pure function of the seed and their names.
  public func initialDense(seed: UInt64) -> [[Float]] {
    denseTensors.map { $0.initialValues(seed: seed) }
  }
}

/// A model that a configuration can name; `modelTypes` lists them all.
protocol ConfiguredModel: Model {
  /// Its name in the configuration.
  static var kind: String { get }

  /// What this kind finds wrong beyond what holds for every model.
  static func problems(in options: ModelOptions) -> [String]

  /// The model; its options have no problems.
  init(_ options: ModelOptions)
}

extension ConfiguredModel {
  static func problems(in options: ModelOptions) -> [String] { [] }
}

/// Every model there is: a new one is a file of its own and one line here.
let modelTypes: [any ConfiguredModel.Type] = [
  LogisticModel.self,
  FactorizationMachine.self,
  DeepFactorizationMachine.self,
  DeepCrossNetwork.self,
  DeepLearningRecommendationModel.self,
  ScalingUserModel.self,
  CountingModel.self,
]

/// The model that the options describe.
///
/// - Throws: all problems of the options at once.
public func makeModel(_ options: ModelOptions) throws(ModelError) -> any Model {
  let problems = options.problems()
  guard problems.isEmpty, let type = modelTypes.first(where: { $0.kind == options.kind }) else {
    throw ModelError(problems: problems)
  }
  return type.init(options)
}
