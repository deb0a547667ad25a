// What the sync role is told.

internal import Base

/// How versions are made and kept.
public struct SyncOptions: Sendable, Equatable {
  /// How many shards there are.
  public var shardCount: Int
  /// How many replicas will follow; an event counts as servable everywhere when all have acknowledged.
  public var replicaCount: Int
  /// How often changed rows are published (monotonic).
  ///
  /// Default 60 s.
  public var sparseEvery: Duration = .seconds(60)
  /// While nothing changes, an empty version is published at the first sparse interval after this time (monotonic).
  ///
  /// Default 10 s: replicas that hear nothing for long say they are stale.
  public var quietEvery: Duration = .seconds(10)
  /// How often dense tensors are published (monotonic).
  ///
  /// Default 24 h, and at the first start.
  public var denseEvery: Duration = .seconds(86_400)
  /// Time of day, UTC, that `denseEvery` is counted from (wall clock, looked at once); nil to count from the start.
  public var denseAt: Duration?
  /// Rounds rows to float16.
  ///
  /// Default false.
  public var halfPrecision: Bool = false
  /// How long versions behind the newest base are kept on disk (wall clock).
  ///
  /// Default 1 h.
  public var keepVersions: Duration = .seconds(3600)
  /// Rows asked for by one scan request while a base is made.
  ///
  /// Default 8,192.
  public var scanRows: Int = 8192
  /// A new base is made when the versions behind the last one have more bytes than this and than twice the base's.
  ///
  /// Default 256 MiB.
  public var rebaseBytes: Int = 256 << 20
  /// The most bytes of rows in one version; nil for all that changed.
  ///
  /// Default nil.
  public var versionBytes: Int?
  /// A version larger than this is sent as several that belong together.
  ///
  /// Default 16 MiB: a replica has it long before it would be sent again, and buffers of its size are used again.
  public var messageBytes: Int = 16 << 20
  /// How much may wait in memory while replicas are pinned; beyond it, going on takes a new base.
  ///
  /// Default 1 GiB.
  public var withheldBytes: Int = 1 << 30
  /// How long an answer may take before it is asked for again.
  ///
  /// Default 2 s.
  public var retryAfter: Duration = .seconds(2)

  /// Options with defaults for all but the cluster's size.
  public init(shardCount: Int, replicaCount: Int) {
    self.shardCount = shardCount
    self.replicaCount = replicaCount
  }
}
