// What a replica is told to hold and to serve, and what can be wrong with that or with what arrives for it.

public import Base
public import Layers

/// When readers see the rows of a version.
public enum RowVisibility: String, Sendable, CaseIterable, Codable {
  /// One by one, as they are applied.
  case relaxed
  /// All at once, with the dense tensors, at the end.
  case consistent
}

/// The shape of one replica table.
public struct ReplicaTableOptions: Equatable, Sendable {
  /// The table's name in the configuration.
  public var name: String
  /// What an id without a row reads; its count is the weights per row.
  public var defaultRow: [Float]
  /// Whether rows are stored as float16: half the memory, 11 bits of precision.
  ///
  /// Default false.
  public var halfPrecision: Bool

  /// A table from its parts.
  public init(name: String, defaultRow: [Float], halfPrecision: Bool = false) {
    self.name = name
    self.defaultRow = defaultRow
    self.halfPrecision = halfPrecision
  }
}

/// One model a replica answers for.
public struct ServedModelOptions: Equatable, Sendable {
  /// The name in request paths.
  public var name: String
  /// The model; its tables are numbers in the store's list of tables.
  public var model: ModelOptions
  /// Per task the share r of negatives that training saw, whose ln r is added to the logit.
  ///
  /// Default 1 for every task.
  ///
  /// Leave it at 1 for a task whose loss already corrects for the sampling.
  public var negativeRates: [Float]

  /// A served model from its parts.
  public init(name: String, model: ModelOptions, negativeRates: [Float]? = nil) {
    self.name = name
    self.model = model
    self.negativeRates = negativeRates ?? model.tasks.map { _ in 1 }
  }
}

/// What a replica serves since which version.
public struct VersionInfo: Equatable, Sendable {
  /// The version's number; grows by one.
  public var number: UInt64
  /// The newest event time among the examples in it.
  public var newestEventTime: Milliseconds
  /// How many examples, over all shards' models, its parameters have seen.
  public var modelStep: UInt64
  /// Per shard the last epoch in it.
  public var shardEpochs: [UInt64]
  /// When this replica had applied it, wall clock.
  public var appliedAt: Milliseconds
  /// When sync made it, by sync's wall clock.
  public var created: Milliseconds

  /// A version from its parts.
  public init(
    number: UInt64, newestEventTime: Milliseconds, modelStep: UInt64 = 0, shardEpochs: [UInt64] = [],
    appliedAt: Milliseconds, created: Milliseconds? = nil
  ) {
    self.number = number
    self.newestEventTime = newestEventTime
    self.modelStep = modelStep
    self.shardEpochs = shardEpochs
    self.appliedAt = appliedAt
    self.created = created ?? appliedAt
  }

  /// Milliseconds from when it was made to when it was applied; what another process says may be anything.
  var wait: Int64 {
    guard created < appliedAt else { return 0 }
    let (wait, overflow) = appliedAt.subtractingReportingOverflow(created)
    return overflow ? .max : wait
  }
}

/// Why a store cannot be made, or does not take what it is given.
public enum StoreError: Error, Equatable, Sendable, CustomStringConvertible {
  /// The model's options have problems of their own.
  case badModel(name: String, problems: [String])
  /// A table or model by that name is there already.
  case repeatedName(String)
  /// A model reads a table the store does not have.
  case tableMissing(model: String, table: Int, tables: Int)
  /// A table's rows are not as wide as a model reads them.
  case widthMismatch(table: String, expected: Int, got: Int)
  /// As many sampling rates as tasks are needed, each above 0 and at most 1.
  case badRates(model: String, tasks: Int, rates: [Float])
  /// No table has this name or number.
  case unknownTable(String)
  /// No model has this name.
  case unknownModel(String)
  /// The weights are not one row per id.
  case countMismatch(table: String, ids: Int, weights: Int, width: Int)
  /// Dense tensors whose counts are not the model's.
  case denseMismatch(model: String, expected: [Int], got: [Int])
  /// A base without a model's dense tensors.
  case denseMissing(model: String)
  /// Rows of a version came before any base.
  case noBase
  /// A base was ended that was not begun.
  case noBaseBegun

  /// What is wrong, with what was expected.
  public var description: String {
    switch self {
    case .badModel(let name, let problems): "model '\(name)': \(problems.joined(separator: "; "))"
    case .repeatedName(let name): "two tables or two models are named '\(name)'; give each a name of its own"
    case .tableMissing(let model, let table, let tables):
      "model '\(model)' reads table \(table), the replica has \(tables) tables"
    case .widthMismatch(let table, let expected, let got):
      "table '\(table)' has \(got) weights per row, its model reads \(expected); compare the configuration of both"
    case .badRates(let model, let tasks, let rates):
      "model '\(model)' has the negative rates \(rates); expected \(tasks) of them, each above 0 and at most 1"
    case .unknownTable(let name): "there is no table '\(name)'"
    case .unknownModel(let name): "there is no model '\(name)'"
    case .countMismatch(let table, let ids, let weights, let width):
      "table '\(table)': \(weights) weights for \(ids) rows of \(width)"
    case .denseMismatch(let model, let expected, let got):
      "the dense tensors of model '\(model)' have \(got) numbers; expected \(expected)"
    case .denseMissing(let model): "the base has no dense tensors for model '\(model)'"
    case .noBase: "rows of a version came before a base"
    case .noBaseBegun: "no base was begun"
    }
  }
}
