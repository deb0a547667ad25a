// What sync says of itself, as JSON on the wire.

public import Base
internal import Foundation

/// What sync says of itself when asked; JSON on the wire.
public struct SyncStatus: Codable, Sendable, Equatable {
  /// The store's random number.
  public var store: UInt64
  /// The newest version.
  public var newest: UInt64
  /// The newest base; 0 while the first is made.
  public var base: UInt64
  /// Per shard: the last epoch merged.
  public var cursors: [UInt64]
  /// Per shard: the last synced epoch it told of.
  public var durableEpochs: [UInt64]
  /// Whether something is merged but not published, or not merged yet.
  public var isBehind: Bool
  /// Followers seen within 30 s.
  public var replicas: [Replica]
  /// What was published since the cluster began.
  public var totals: VersionContent.Totals
  /// Counts since the process started: bases, blocks, resets, malformed messages.
  public var counters: [String: UInt64]
  /// The newest event time published.
  public var newestEventTime: Milliseconds
  /// Arrival → servable on every replica, milliseconds.
  public var freshness: Histogram
  /// The version replicas are pinned to; 0 while they follow the shards.
  public var pinned: UInt64
  /// Rows that are in no version yet.
  public var waiting: Waiting
  /// How long ago the oldest action arrived that is not servable on every replica; 0 when all are.
  public var lagMilliseconds: Int64

  /// What waits to be published.
  public struct Waiting: Codable, Sendable, Equatable {
    /// Rows.
    public var rows: Int
    /// Since the block that holds the oldest of them was merged.
    public var milliseconds: Int64
  }

  /// One replica as sync sees it.
  public struct Replica: Codable, Sendable, Equatable {
    /// Which.
    public var index: Int
    /// The version it serves; 0 before its base is whole.
    public var version: UInt64
    /// Since its last message.
    public var silentMilliseconds: Int64
  }

  /// As JSON text.
  public var json: String {
    guard let data = try? JSONEncoder().encode(self) else { return "{}" }
    return String(decoding: data, as: UTF8.self)
  }

  /// Reads the JSON text; nil when it is not a status.
  public init?(json: String) {
    guard let value = try? JSONDecoder().decode(Self.self, from: Data(json.utf8)) else { return nil }
    self = value
  }

  init(
    store: UInt64, newest: UInt64, base: UInt64, cursors: [UInt64], durableEpochs: [UInt64], isBehind: Bool,
    replicas: [Replica], totals: VersionContent.Totals, counters: [String: UInt64], newestEventTime: Milliseconds,
    freshness: Histogram, pinned: UInt64, waiting: Waiting, lagMilliseconds: Int64
  ) {
    self.store = store
    self.newest = newest
    self.base = base
    self.cursors = cursors
    self.durableEpochs = durableEpochs
    self.isBehind = isBehind
    self.replicas = replicas
    self.totals = totals
    self.counters = counters
    self.newestEventTime = newestEventTime
    self.freshness = freshness
    self.pinned = pinned
    self.waiting = waiting
    self.lagMilliseconds = lagMilliseconds
  }
}
