// What the platform stores and answers. Values that cross threads freely.

public import Base

/// How many embeddings a user has, and how long they are.
///
/// Entries of different shapes lie side by side in a store and are never pooled together.
public struct EmbeddingShape: Hashable, Sendable, CustomStringConvertible {
  /// The most numbers that all embeddings of a user may have together.
  public static let widthLimit = 1 << 16

  /// Embeddings per user.
  public var count: Int
  /// Numbers in each.
  public var dimension: Int

  /// `count` embeddings of `dimension` numbers.
  public init(count: Int, dimension: Int) {
    self.count = count
    self.dimension = dimension
  }

  /// Numbers in all of them together.
  public var width: Int { count * dimension }

  /// `2 × 96`.
  public var description: String { "\(count) × \(dimension)" }
}

/// What the user tower made of a user at one moment.
public struct EmbeddingEntry: Equatable, Sendable {
  /// The version of the model that made it.
  public var version: UInt64
  /// The event time of what it was made from.
  public var eventTime: Milliseconds
  /// When it was made, wall clock.
  public var madeAt: Milliseconds
  /// Its shape.
  public var shape: EmbeddingShape
  /// The embeddings one after the other, `[shape.width]`.
  public var values: [Float]
  /// Whether the model had a row of the user's when it was made, so that something learned of the user is in it.
  public var hadRow: Bool

  /// An entry from its parts.
  public init(
    version: UInt64, eventTime: Milliseconds, madeAt: Milliseconds, shape: EmbeddingShape, values: [Float],
    hadRow: Bool = false
  ) {
    self.version = version
    self.eventTime = eventTime
    self.madeAt = madeAt
    self.shape = shape
    self.values = values
    self.hadRow = hadRow
  }
}

/// Where an answer comes from.
public enum EmbeddingSource: UInt8, Sendable, CaseIterable {
  /// The user is not known here, or all entries are too old: the configured default.
  case `default` = 0
  /// Stored entries; newer inputs may be waiting.
  case stored = 1
  /// The newest entry is of the newest version and of the newest inputs.
  case current = 2

  /// The word for it in answers.
  public var name: String {
    switch self {
    case .default: "default"
    case .stored: "stored"
    case .current: "current"
    }
  }
}

/// The answer for one user.
public struct UserVector: Equatable, Sendable {
  /// The pooled embeddings, `[shape.width]`.
  public var values: [Float]
  /// Where they come from.
  public var source: EmbeddingSource
  /// How many entries were pooled; 0 for the default.
  public var pooled: Int
  /// The version of the newest of them; 0 for the default.
  public var version: UInt64
  /// The event time of the newest of them; 0 for the default.
  public var eventTime: Milliseconds
  /// How long ago the newest of them was made, by the wall clock; 0 for the default.
  public var age: Milliseconds
  /// Whether it is the default because no entry is of a version that is served to the models that ask.
  public var isWithheld = false
}
