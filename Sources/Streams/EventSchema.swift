// What events look like: the features an impression carries and the tasks whose labels its actions give. Configuration
// builds it; importers, ingest, joiner, trainer and predictor all read the same value.

internal import Base

/// What a feature's values are.
public enum FeatureKind: Equatable, Sendable, Codable {
  /// Exactly one id (an integer, or a string that is hashed with the feature's name).
  case id
  /// Up to `limit` ids.
  case ids(limit: Int)
  /// `width` float32 numbers.
  case dense(width: Int)
}

extension FeatureKind {
  /// The kind as it enters the schema number; part of stored formats.
  var code: String {
    switch self {
    case .id: "id"
    case .ids(let limit): "ids(limit: \(limit))"
    case .dense(let width): "dense(width: \(width))"
    }
  }
}

/// One feature of an impression.
public struct FeatureSpec: Equatable, Sendable, Codable {
  /// The name in events and configuration.
  public var name: String
  /// What its values are.
  public var kind: FeatureKind
  /// Whether it is filled in when an impression is served, so that datasets need not have it; not encoded.
  public var isServed = false
  /// How it is computed from the stream; nil: events carry it.
  ///
  /// Datasets have only features of the second sort, so it is not encoded.
  public var stream: StreamFeatureSpec?

  /// A feature from its parts.
  public init(name: String, kind: FeatureKind = .id, stream: StreamFeatureSpec? = nil) {
    self.name = name
    self.kind = kind
    self.stream = stream
  }
}

extension FeatureKind {
  private enum Key: String, CodingKey { case kind, limit, width }

  /// `{"kind": "id"}`, `{"kind": "ids", "limit": 20}` or `{"kind": "dense", "width": 4}`.
  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: Key.self)
    switch self {
    case .id: try container.encode("id", forKey: .kind)
    case .ids(let limit):
      try container.encode("ids", forKey: .kind)
      try container.encode(limit, forKey: .limit)
    case .dense(let width):
      try container.encode("dense", forKey: .kind)
      try container.encode(width, forKey: .width)
    }
  }

  /// Reads what `encode` wrote.
  public init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: Key.self)
    switch try container.decode(String.self, forKey: .kind) {
    case "id": self = .id
    case "ids": self = .ids(limit: try container.decode(Int.self, forKey: .limit))
    case "dense": self = .dense(width: try container.decode(Int.self, forKey: .width))
    case let other:
      throw DecodingError.dataCorruptedError(
        forKey: .kind, in: container, debugDescription: "kind is '\(other)'; expected id, ids or dense")
    }
  }
}

extension FeatureSpec {
  private enum Key: String, CodingKey { case name }

  /// `{"name": "tags", "kind": "ids", "limit": 20}`: the kind's keys stand beside the name.
  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: Key.self)
    try container.encode(name, forKey: .name)
    try kind.encode(to: encoder)
  }

  /// Reads what `encode` wrote.
  public init(from decoder: any Decoder) throws {
    name = try decoder.container(keyedBy: Key.self).decode(String.self, forKey: .name)
    kind = try FeatureKind(from: decoder)
  }
}

/// When a task's label leaves the joiner (DESIGN, "Joining").
public enum LabelDelivery: String, Equatable, Sendable, Codable, CaseIterable {
  /// Positive and negative labels both leave when the impression is closed, so that order carries no bias.
  case onClose
  /// A positive label leaves at its action, a negative one when the impression is closed.
  case eager
}

/// One task: which actions make its label positive, what closes the impression for it, how long to wait.
public struct TaskSpec: Equatable, Sendable, Codable {
  /// The name in configuration, labels and reports.
  public var name: String
  /// Actions that make the label positive.
  public var positiveActions: [String]
  /// Actions that close the impression for this task before its window ends; may be empty.
  public var closingActions: [String]
  /// Event time after the impression at which it is closed in any case.
  public var windowMilliseconds: Int64
  /// When labels leave.
  public var delivery: LabelDelivery
  /// Share of negatives kept, in `0 < rate ≤ 1`, chosen by the impression id; positives are always kept.
  public var negativeRate: Double

  /// A task from its parts; the defaults are those of the configuration file.
  public init(
    name: String, positiveActions: [String]? = nil, closingActions: [String] = ["view_end"],
    windowMilliseconds: Int64 = 15 * 60 * 1000, delivery: LabelDelivery = .onClose, negativeRate: Double = 1
  ) {
    self.name = name
    self.positiveActions = positiveActions ?? [name]
    self.closingActions = closingActions
    self.windowMilliseconds = windowMilliseconds
    self.delivery = delivery
    self.negativeRate = negativeRate
  }
}

/// The features and tasks of a cluster, in their fixed order.
public struct EventSchema: Equatable, Sendable, Codable {
  /// Features in order; a record's feature block follows it.
  public var features: [FeatureSpec]
  /// Tasks in order; a record's labels and predictions follow it.
  public var tasks: [TaskSpec]

  /// A schema from its parts.
  public init(features: [FeatureSpec], tasks: [TaskSpec]) {
    self.features = features
    self.tasks = tasks
  }

  /// The most features a schema may have.
  public static let featureLimit = 1024
  /// The most tasks a schema may have.
  public static let taskLimit = 64
  /// The most bytes a feature block may have.
  public static let featureBytesLimit = 1 << 20

  /// A number that changes when features are added, removed, reordered or change kind; stored in every feature block.
  public var number: UInt32 {
    let text = features.map { "\($0.name):\($0.kind.code)" }.joined(separator: "|")
    return UInt32(truncatingIfNeeded: Hashing.xxh3(text))
  }
}
