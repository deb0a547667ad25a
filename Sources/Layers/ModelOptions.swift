// What the configuration says about a model, and everything that can be wrong with it.
// Problems are named by the keys of the file, all of them at once.

/// How the rows of one feature of one example become one vector.
public enum Combiner: String, Sendable, CaseIterable, Codable {
  /// Their sum.
  case sum
  /// Their mean; nothing when there are none.
  case mean
  /// A mean weighted by the softmax of each row's product with a learned query.
  case attention
}

/// One feature of a model and the table its rows come from; several features may share one table.
public struct ModelFeature: Sendable, Equatable {
  /// The feature's name in events and configuration.
  public var name: String
  /// The number of its table.
  public var table: Int
  /// How several ids of one example are combined; with one id it makes no difference.
  public var combiner: Combiner

  /// A feature that reads a table.
  public init(name: String, table: Int, combiner: Combiner = .sum) {
    self.name = name
    self.table = table
    self.combiner = combiner
  }
}

/// One label the model predicts.
public struct ModelTask: Sendable, Equatable {
  /// The task's name in examples and configuration.
  public var name: String
  /// What its loss counts beside the other tasks'; whoever builds a batch multiplies it into `Batch.weights`.
  public var weight: Float

  /// A task and its weight.
  public init(name: String, weight: Float = 1) {
    self.name = name
    self.weight = weight
  }
}

/// The shape of a model.
public struct ModelOptions: Sendable, Equatable {
  /// The kind of model, one of `ModelOptions.kinds`.
  public var kind: String
  /// Numbers in an embedding vector (per task in `fm`); default 8.
  public var dimension: Int = 8
  /// The features, in the order of `Batch.features`.
  public var features: [ModelFeature]
  /// The tasks, in the order of labels and logits.
  public var tasks: [ModelTask]
  /// How many dense numbers an example carries; default 0.
  public var denseWidth: Int = 0
  /// Widths of the hidden layers over the vectors (`deepfm`, `dcn`; in `dlrm` the top ones); default 64, 32.
  public var hidden: [Int] = [64, 32]
  /// Widths of the hidden layers over the dense numbers in `dlrm`; an output of `dimension` is added; default 64.
  public var bottom: [Int] = [64]
  /// Cross layers in `dcn`; default 3.
  public var crossLayers: Int = 3
  /// Whether hidden layers normalise before their activation; default false.
  public var layerNorm: Bool = false
  /// The share of hidden activations that training drops, 0 for none; default 0.
  public var dropout: Float = 0
  /// Standard deviation of new embedding vectors; default 0.01: small beside learned values, yet not all equal.
  public var initialDeviation: Float = 0.01
  /// The dense features it reads, in order; nil, the default, for all that events have.
  public var denseFeatures: [String]?
  /// The two towers of `sum`.
  public var userModel = UserModelOptions()

  /// A model of a kind over features and tasks, everything else by default.
  public init(kind: String, features: [ModelFeature], tasks: [ModelTask]) {
    self.kind = kind
    self.features = features
    self.tasks = tasks
  }

  /// The kinds of models there are.
  public static var kinds: [String] { modelTypes.map { $0.kind } }

  /// All that is wrong with these options, in the configuration's key names; empty when a model can be made.
  public func problems() -> [String] {
    var found: [String] = []
    func require(_ condition: Bool, _ problem: @autoclosure () -> String) {
      if !condition { found.append(problem()) }
    }
    let type = modelTypes.first { $0.kind == kind }
    require(
      type != nil,
      "model.kind is '\(kind)'; use one of: \(Self.kinds.joined(separator: ", "))")
    require((1...4096).contains(dimension), "model.dimension is \(dimension); use 1 to 4096")
    require(!features.isEmpty, "model.features is empty; name at least one feature")
    require(!tasks.isEmpty, "model.tasks is empty; name at least one task")
    require((0...65_536).contains(denseWidth), "model.denseWidth is \(denseWidth); use 0 to 65536")
    require(
      initialDeviation.isFinite && initialDeviation >= 0,
      "model.initialDeviation is \(initialDeviation); use a number of at least 0")
    for (index, feature) in features.enumerated() {
      require(!feature.name.isEmpty, "model.features[\(index)].name is empty")
      require(feature.table >= 0, "model.features[\(index)] ('\(feature.name)') has no table")
      require(
        !features[..<index].contains { $0.name == feature.name },
        "model.features names '\(feature.name)' twice; give each feature one entry")
    }
    for (index, task) in tasks.enumerated() {
      require(!task.name.isEmpty, "model.tasks[\(index)].name is empty")
      require(
        task.weight.isFinite && task.weight >= 0,
        "model.tasks[\(index)].weight of '\(task.name)' is \(task.weight); use a number of at least 0")
      require(
        !tasks[..<index].contains { $0.name == task.name },
        "model.tasks names '\(task.name)' twice; give each task one entry")
    }
    require(
      (0..<1).contains(dropout), "model.dropout is \(dropout); use a share of at least 0 and below 1")
    for (key, widths) in [("hidden", hidden), ("bottom", bottom)] {
      require(
        (1...64).contains(widths.count) && widths.allSatisfy { (1...65_536).contains($0) },
        "model.\(key) is \(widths); use 1 to 64 widths of 1 to 65536")
    }
    require((1...64).contains(crossLayers), "model.crossLayers is \(crossLayers); use 1 to 64")
    return found + (type?.problems(in: self) ?? [])
  }

  /// One more than the highest table number a feature names.
  public var tableCount: Int { (features.map(\.table).max() ?? -1) + 1 }
}

/// Why a model cannot be made: everything that is wrong with its options.
public struct ModelError: Error, Equatable, Sendable, CustomStringConvertible {
  /// All problems, in the configuration's key names.
  public let problems: [String]

  /// An error of these problems.
  public init(problems: [String]) {
    self.problems = problems
  }

  /// The problems, one a line.
  public var description: String { problems.joined(separator: "\n") }
}
