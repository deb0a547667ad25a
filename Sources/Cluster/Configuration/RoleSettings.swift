// How many processes of each role there are, and what bounds them.

public import Serving

/// How numbers travel.
public enum Precision: String, Sendable, CaseIterable, Codable {
  /// As the shards hold them.
  case float32
  /// Rounded: half the bytes.
  case float16
}

/// `shards`: the parameter servers.
public struct ShardsSettings: Sendable, Equatable, Settings {
  /// How many shards.
  ///
  /// Default 2. Cannot change later: rows are where the number puts them.
  public var count = 2
  /// How often a shard writes down what changed, running time.
  ///
  /// Default 1s: what bounds freshness from below, and what trainers must be able to send again.
  public var epoch: Duration = .seconds(1)
  /// How many bytes of blocks a shard keeps in memory for sync; when it stays away longer it takes a new base.
  ///
  /// Default 512MiB.
  public var blockBytes = 512 << 20
  /// How often a shard writes a checkpoint of all its rows, running time; only when something has changed.
  ///
  /// Default 10m: a shard that comes back reads the newest checkpoint and the blocks after it.
  public var checkpointEvery: Duration = .seconds(600)
  /// How many checkpoints of its own a shard keeps, and the blocks after the oldest of them.
  ///
  /// Default 2: when one is damaged, the other and its blocks hold everything.
  public var keepCheckpoints = 2

  /// The defaults.
  public init() {}

  mutating func bind(_ section: Section) {
    section.value("count", &count, .integer(1...1024))
    section.value("epoch", &epoch, .duration(.milliseconds(10) ... .seconds(60)))
    section.value("blockBytes", &blockBytes, .size(1 << 20...1 << 40))
    section.value("checkpointEvery", &checkpointEvery, .duration(.milliseconds(100) ... .seconds(30 * 86_400)))
    section.value("keepCheckpoints", &keepCheckpoints, .integer(1...1000))
  }
}

/// `trainers`: the processes that train.
public struct TrainersSettings: Sendable, Equatable, Settings {
  /// How many trainers; partitions of `examples` are dealt out among them.
  ///
  /// Default 1.
  public var count = 1
  /// How many bytes of pushes a trainer keeps until shards have them on disk; when full, it waits and asks for an early
  /// epoch.
  ///
  /// Must hold more than two epochs of pushes. Default 256MiB.
  public var pushBufferBytes = 256 << 20
  /// How many pushes may be unanswered when the next batch is pulled: the bound on staleness.
  ///
  /// Default 8; 0 waits for each push before the next pull.
  public var maxAhead = 8
  /// Threads that compute one batch of a trainer; each takes a run of at least 64 examples.
  ///
  /// From two on they are beside the trainer's own thread, which gets other batches ready meanwhile.
  /// Default 1. More pay where a model has wide layers and the batch some hundred examples.
  public var threads = 1
  /// How many bytes of score records a trainer keeps per model; the oldest go first.
  ///
  /// Default 1GiB: 19 million examples of one task. `guira up --events` keeps all, for its report.
  public var keepScores = 1 << 30
  /// How rows and gradients travel between trainers and shards; dense tensors always travel as float32.
  ///
  /// Default `float32`. `float16` halves the bytes and rounds to three digits; a gradient above 65,504 is refused.
  public var wire = Precision.float32

  /// The defaults.
  public init() {}

  mutating func bind(_ section: Section) {
    section.value("count", &count, .integer(1...1024))
    section.value("pushBufferBytes", &pushBufferBytes, .size(1 << 20...1 << 36))
    section.value("maxAhead", &maxAhead, .integer(0...1024))
    section.value("threads", &threads, .integer(1...256))
    section.value("keepScores", &keepScores, .size(1 << 20...1 << 50))
    section.value("wire", &wire, .word)
  }
}

/// `sync`: what is shipped to the replicas, and when.
public struct SyncSettings: Sendable, Equatable, Settings {
  /// How often changed rows are shipped, running time.
  ///
  /// Default 60s.
  public var sparseEvery: Duration = .seconds(60)
  /// How often dense tensors are shipped, running time, counted from `denseAt`; and once at the first start.
  ///
  /// Default 24h: they change slowly.
  public var denseEvery: Duration = .seconds(86_400)
  /// The time of day, UTC, that `denseEvery` counts from.
  ///
  /// Default 04:00, when few people look.
  public var denseAt: Duration = .seconds(4 * 3600)
  /// How numbers travel.
  ///
  /// Default `float32`.
  public var precision = Precision.float32
  /// How long versions are kept to roll back to, running time.
  ///
  /// Default 1h.
  public var keepVersions: Duration = .seconds(3600)
  /// Most bytes of rows in one version; what moved most goes first, the rest with the next ones.
  ///
  /// Default nil: all that changed. Sync then remembers the rows it shipped.
  public var versionBytes: Int?

  /// The defaults.
  public init() {}

  mutating func bind(_ section: Section) {
    section.value("sparseEvery", &sparseEvery, .duration(.seconds(1) ... .seconds(86_400)))
    section.value("denseEvery", &denseEvery, .duration(.seconds(1) ... .seconds(30 * 86_400)))
    section.value("denseAt", &denseAt, .timeOfDay)
    section.value("precision", &precision, .word)
    section.value("versionBytes", &versionBytes, Scalar.size(1024...1 << 40).orWord("none"))
    section.value("keepVersions", &keepVersions, .duration(.zero ... .seconds(30 * 86_400)))
  }
}

/// `replicas`: the processes that answer predictions.
public struct ReplicasSettings: Sendable, Equatable, Settings {
  /// How many replicas; each holds everything.
  ///
  /// Default 2: one may be away.
  public var count = 2
  /// The address they answer HTTP on.
  ///
  /// Default 127.0.0.1.
  public var host = "127.0.0.1"
  /// The HTTP port of replica 0; replica i answers on `port` + i.
  ///
  /// Default 8501.
  public var port = 8501
  /// A replica that heard nothing of the shards for this long says it is not ready, running time.
  ///
  /// Default 5m: several times `sync.sparseEvery`.
  public var staleAfter: Duration = .seconds(300)
  /// When readers see the rows of a version: `relaxed`, one by one as they are applied, or `consistent`, all at once.
  ///
  /// Default `relaxed`. `consistent` holds the rows of one version twice while it is applied.
  public var visibility = RowVisibility.relaxed
  /// Whether rows are held in float16: half the memory, 3 digits.
  ///
  /// Default false.
  public var halfPrecision = false

  /// The defaults.
  public init() {}

  mutating func bind(_ section: Section) {
    section.value("count", &count, .integer(1...256))
    section.value("host", &host, .host)
    section.value("port", &port, .integer(1...65_000))
    section.value("staleAfter", &staleAfter, .duration(.seconds(1) ... .seconds(7 * 86_400)))
    section.value("visibility", &visibility, .word)
    section.value("halfPrecision", &halfPrecision, .flag)
  }
}
