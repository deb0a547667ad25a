// Where a shard keeps things.

/// The directories of one shard.
public struct ShardFiles: Sendable, Equatable {
  /// The shard's own directory.
  public let directory: String

  /// The places below a shard's directory.
  public init(directory: String) { self.directory = directory }

  /// Blocks.
  public var journal: String { "\(directory)/journal" }
  /// Checkpoints.
  public var checkpoints: String { "\(directory)/checkpoints" }
  /// The ids that were forgotten.
  public var forgotten: String { "\(directory)/forgotten" }
}
