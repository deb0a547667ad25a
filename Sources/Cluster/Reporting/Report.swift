// What a replay gives: how many labels, how good, how fast, how fresh, and whether nothing was lost. docs/report.md
// explains every field; the JSON has exactly these.

internal import Foundation

/// The report of a replay.
public struct Report: Codable, Sendable, Equatable {
  /// Labels by task.
  public var labels: [String: RoleStatus.LabelCounts]
  /// Examples the joiner gave out.
  public var examples: Int
  /// Quality by task, scored by the trainer just before it trained on the example.
  public var prequential: [String: TaskQuality]
  /// Quality by task, scored by a replica when the impression was shown; empty when no prediction was asked.
  public var served: [String: TaskQuality]
  /// How fast the replay went.
  public var throughput: Throughput
  /// From the arrival of an action to its being servable on every replica; nil when nothing was shipped.
  public var freshness: Freshness?
  /// What sync published.
  public var versions: Versions
  /// What each shard applied, by its number.
  public var updates: [Updates]
  /// Rows, by table.
  public var tables: [String: Table]
  /// Whether the replicas hold what the shards hold.
  public var digest: Digest
  /// Predictions that the player asked for.
  public var predictions: Predictions

  /// A report with nothing in it.
  public init() {
    labels = [:]
    examples = 0
    prequential = [:]
    served = [:]
    throughput = Throughput()
    versions = Versions()
    updates = []
    tables = [:]
    digest = Digest()
    predictions = Predictions()
  }

  /// How good predictions were; a figure is nil (null) where it is not defined, AUC with a single class for example.
  public struct Quality: Codable, Sendable, Equatable {
    /// Area under the ROC curve, from (impression, score, label) records.
    public var auc: Double?
    /// Mean negative log-likelihood, nats; predictions clipped to [1e-7, 1 − 1e-7], sampled negatives weighted 1/r.
    public var logLoss: Double?
    /// Log-loss divided by the entropy of the same labels' mean: 1 is as good as always saying the mean.
    public var ne: Double?
    /// Mean prediction divided by the share of positives.
    public var calibration: Double?
    /// Labels scored.
    public var count: Int

    /// Figures of `count` labels.
    public init(
      auc: Double? = nil, logLoss: Double? = nil, ne: Double? = nil, calibration: Double? = nil, count: Int = 0
    ) {
      self.auc = auc
      self.logLoss = logLoss
      self.ne = ne
      self.calibration = calibration
      self.count = count
    }
  }

  /// Quality over all impressions, and over the last 20 % of them in impression order.
  public struct TaskQuality: Codable, Sendable, Equatable {
    /// Over all; its fields are those of the task itself in JSON.
    public var all: Quality
    /// Over the last 20 % of impressions.
    public var last20: Quality

    /// Quality over both.
    public init(all: Quality, last20: Quality) {
      self.all = all
      self.last20 = last20
    }
  }

  /// How fast the replay went, from the first event sent to the last example trained.
  public struct Throughput: Codable, Sendable, Equatable {
    /// Impressions per second.
    public var impressionsPerSecond = 0.0
    /// Examples per second.
    public var examplesPerSecond = 0.0

    /// Nothing yet.
    public init() {}
  }

  /// Seconds from the arrival of an action to its being servable on every replica.
  public struct Freshness: Codable, Sendable, Equatable {
    /// Median.
    public var p50: Double
    /// 95th percentile.
    public var p95: Double
    /// 99th percentile.
    public var p99: Double
    /// The longest.
    public var max: Double

    /// Percentiles in seconds.
    public init(p50: Double, p95: Double, p99: Double, max: Double) {
      self.p50 = p50
      self.p95 = p95
      self.p99 = p99
      self.max = max
    }
  }

  /// What sync published.
  public struct Versions: Codable, Sendable, Equatable {
    /// Versions.
    public var count = 0
    /// Rows in them, a row counted once per version.
    public var rows = 0
    /// Deleted ids in them.
    public var tombstones = 0
    /// Their bytes as shipped.
    public var bytes = 0

    /// Nothing yet.
    public init() {}
  }

  /// What one shard applied.
  public struct Updates: Codable, Sendable, Equatable {
    /// Examples whose updates are in its rows.
    public var appliedExamples = 0
    /// Examples applied more than once.
    public var repeated = 0
    /// Pushes refused, because they did not follow what was applied; they were sent again.
    public var refused = 0
    /// Examples of the stream minus examples applied.
    public var missing = 0

    /// Nothing yet.
    public init() {}
  }

  /// One table, over all shards.
  public struct Table: Codable, Sendable, Equatable {
    /// Rows held.
    public var rows = 0
    /// Ids that were given a row.
    public var admitted = 0
    /// Updates dropped because their id had no row.
    public var refused = 0
    /// Rows dropped by time-to-live or row limit.
    public var expired = 0
    /// Bytes of memory.
    public var bytes = 0

    /// Nothing yet.
    public init() {}
  }

  /// Fingerprints of the weights of all admitted rows, rounded to the version's type.
  public struct Digest: Codable, Sendable, Equatable {
    /// Of all shards together, hexadecimal.
    public var shards = ""
    /// Of each replica, by its number.
    public var replicas: [String] = []
    /// Whether all are the same.
    public var equal = false

    /// Nothing yet.
    public init() {}
  }

  /// Predictions that the player asked for.
  public struct Predictions: Codable, Sendable, Equatable {
    /// Asked.
    public var asked = 0
    /// Answered.
    public var answered = 0
    /// Answered without any row: from default rows only.
    public var defaultRowsOnly = 0

    /// Nothing yet.
    public init() {}
  }
}

extension Report.Quality {
  private enum Key: String, CodingKey { case auc, logLoss, ne, calibration, count }

  /// Writes every figure, undefined ones as null.
  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: Key.self)
    try container.encode(auc, forKey: .auc)
    try container.encode(logLoss, forKey: .logLoss)
    try container.encode(ne, forKey: .ne)
    try container.encode(calibration, forKey: .calibration)
    try container.encode(count, forKey: .count)
  }
}

extension Report.TaskQuality {
  private enum Key: String, CodingKey { case last20 }

  /// Reads the figures over all from the task itself, and `last20` beside them.
  public init(from decoder: any Decoder) throws {
    all = try Report.Quality(from: decoder)
    last20 = try decoder.container(keyedBy: Key.self).decode(Report.Quality.self, forKey: .last20)
  }

  /// Writes the figures over all into the task itself, and `last20` beside them.
  public func encode(to encoder: any Encoder) throws {
    try all.encode(to: encoder)
    var container = encoder.container(keyedBy: Key.self)
    try container.encode(last20, forKey: .last20)
  }
}

extension Report {
  /// The report as JSON, keys in alphabetical order.
  /// - Throws: when a figure is not a finite number.
  public func json() throws -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    return String(decoding: try encoder.encode(self), as: UTF8.self) + "\n"
  }

  /// Reads what `json` wrote.
  public init(json: String) throws {
    self = try JSONDecoder().decode(Report.self, from: Data(json.utf8))
  }
}
