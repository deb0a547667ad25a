// What a shard's checkpoint says of itself: the manifest behind the sections (docs/formats.md, "A shard's checkpoint").
//
// A checkpoint holds a scan of all rows and, behind it, the blocks that closed while the scan went on. So it is a state of
// its own, that of the end of one epoch: it needs no journal to be restored from.

public import Base
internal import Foundation

/// The manifest of a shard's checkpoint, JSON on the disk.
public struct ShardCheckpoint: Codable, Sendable, Equatable {
  /// Rows of one table when they were scanned.
  public struct TableRows: Codable, Sendable, Equatable {
    /// The table's name.
    public var name: String
    /// How many rows the scan wrote.
    public var rows: Int
  }

  /// How far one chain had been applied.
  public struct Chain: Codable, Sendable, Equatable {
    /// Hash of the consumer's name.
    public var consumer: UInt64
    /// Hash of the stream's name.
    public var stream: UInt64
    /// The partition.
    public var partition: UInt64
    /// The position's upper half.
    public var high: UInt64
    /// The position's lower half.
    public var low: UInt64
    /// Examples applied since the chain began.
    public var examples: UInt64
  }

  /// The version of this manifest.
  public var format = 1
  /// The name it was given.
  public var name: String
  /// Which shard.
  public var shard: Int
  /// Of how many.
  public var shardCount: Int
  /// The epoch that was open when the scan began.
  public var beginEpoch: UInt64
  /// The epoch whose end the checkpoint is the state of.
  public var epoch: UInt64
  /// Where in the journal the blocks after `epoch` begin.
  public var journalOffset: UInt64
  /// When it was finished, UTC milliseconds.
  public var finished: Milliseconds
  /// Rows by table.
  public var tables: [TableRows]
  /// Where the chains stood at the end of `epoch`.
  public var chains: [Chain]
  /// Whether everything older was to be deleted.
  public var compacts: Bool

  /// The prefix of the names that shards give themselves; such checkpoints are deleted when newer ones are there.
  public static let automaticPrefix = "auto-"

  /// The prefixes that nobody may ask for.
  static let reservedPrefixes = [automaticPrefix, "before-restore-"]

  /// Whether retention may delete it.
  public var isAutomatic: Bool { name.hasPrefix(Self.automaticPrefix) }

  /// As JSON.
  public var json: String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys]
    guard let data = try? encoder.encode(self) else { return "{}" }
    return String(decoding: data, as: UTF8.self)
  }

  /// Reads the JSON text; nil when it is no manifest of a format this program knows.
  public init?(json: String) {
    guard let value = try? JSONDecoder().decode(Self.self, from: Data(json.utf8)), value.format == 1 else { return nil }
    self = value
  }

  init(
    name: String, shard: Int, shardCount: Int, beginEpoch: UInt64, epoch: UInt64, journalOffset: UInt64,
    tables: [TableRows], chains: [Chain], compacts: Bool
  ) {
    self.name = name
    self.shard = shard
    self.shardCount = shardCount
    self.beginEpoch = beginEpoch
    self.epoch = epoch
    self.journalOffset = journalOffset
    finished = 0
    self.tables = tables
    self.chains = chains
    self.compacts = compacts
  }
}
