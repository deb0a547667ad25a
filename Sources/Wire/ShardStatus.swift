// What a shard says of itself when asked; JSON on the wire, so that operators can read it too.

internal import Foundation

/// The state of a shard, for status, report and the end of a replay.
public struct ShardStatus: Codable, Sendable, Equatable {
  /// Which shard.
  public var shard: Int
  /// The open epoch.
  public var epoch: UInt64
  /// The last epoch whose block is synced.
  public var durableEpoch: UInt64
  /// Whether everything applied is in a synced block.
  public var isQuiet: Bool
  /// Per chain, as consumer, stream and partition hashes: examples applied and the position.
  public var chains: [Chain]
  /// Counters since the process started.
  public var counters: [String: UInt64]
  /// Per table.
  public var tables: [String: Table]
  /// What is wrong, in words; empty when nothing is.
  public var problem: String
  /// Whether pushes are refused for now, because blocks cannot be written.
  public var isStalled = false

  /// One chain's state.
  public struct Chain: Codable, Sendable, Equatable {
    /// Hash of the consumer's name.
    public var consumer: UInt64
    /// Hash of the stream's name.
    public var stream: UInt64
    /// The partition.
    public var partition: UInt64
    /// Examples applied since the chain began.
    public var examples: UInt64
    /// The lower half of the applied position.
    public var applied: UInt64

    /// The status of a chain's state.
    public init(_ state: ChainState) {
      consumer = state.chain.consumer
      stream = state.chain.stream
      partition = state.chain.partition
      examples = state.exampleCount
      applied = state.applied.low
    }
  }

  /// One table's figures.
  public struct Table: Codable, Sendable, Equatable {
    /// Rows held.
    public var rows: UInt64
    /// Ids admitted since the process started.
    public var admitted: UInt64
    /// Sightings of ids not admitted.
    public var refused: UInt64
    /// Rows expired, evicted or forgotten.
    public var expired: UInt64
    /// Bytes of index and rows.
    public var bytes: UInt64

    /// Figures of a table.
    public init(rows: UInt64, admitted: UInt64, refused: UInt64, expired: UInt64, bytes: UInt64) {
      self.rows = rows
      self.admitted = admitted
      self.refused = refused
      self.expired = expired
      self.bytes = bytes
    }
  }

  /// A status from its parts.
  public init(
    shard: Int, epoch: UInt64, durableEpoch: UInt64, isQuiet: Bool, chains: [Chain], counters: [String: UInt64],
    tables: [String: Table], problem: String
  ) {
    self.shard = shard
    self.epoch = epoch
    self.durableEpoch = durableEpoch
    self.isQuiet = isQuiet
    self.chains = chains
    self.counters = counters
    self.tables = tables
    self.problem = problem
  }

  /// As JSON text.
  public var json: String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys]
    guard let data = try? encoder.encode(self) else { return "{}" }
    return String(decoding: data, as: UTF8.self)
  }

  /// Reads the JSON text; nil when it is not a status.
  public init?(json: String) {
    guard let value = try? JSONDecoder().decode(Self.self, from: Data(json.utf8)) else { return nil }
    self = value
  }
}
