// What each process says about itself, in a file of its own: read by `guira status`, the live view and the report, also
// after the process has died.

public import Base
internal import Foundation
internal import Glibc

/// What one process says about itself.
public struct RoleStatus: Codable, Sendable, Equatable {
  /// How it is doing.
  public enum State: String, Codable, Sendable {
    /// Not yet at work: reading its state, connecting.
    case starting
    /// At work.
    case ready
    /// Able to work, but something it needs is missing; `message` says what.
    case waiting
    /// Finishing what it has.
    case stopping
    /// It cannot go on; `message` says why.
    case failed
  }

  /// How many labels the joiner gave out for a task.
  public struct LabelCounts: Codable, Sendable, Equatable {
    /// Labels given out, positive and negative.
    public var emitted: Int
    /// Positive ones among them.
    public var positive: Int

    /// Counts.
    public init(emitted: Int = 0, positive: Int = 0) {
      self.emitted = emitted
      self.positive = positive
    }
  }

  /// Which process.
  public var instance: RoleInstance
  /// Its process number.
  public var pid: Int32
  /// When it said this, UTC milliseconds.
  public var time: Milliseconds
  /// How it is doing.
  public var state: State
  /// What it waits for or what is wrong, in words: "actions 40 s behind".
  ///
  /// Empty when all is well.
  public var message: String
  /// Numbers, by the names of `StatusKey`.
  public var counters: [String: Double]
  /// Words, by the names of `StatusKey`.
  public var texts: [String: String]
  /// Labels by task; the joiner's.
  public var labels: [String: LabelCounts]

  /// The status of this process, now.
  public init(
    _ instance: RoleInstance, state: State = .starting, message: String = "", counters: [String: Double] = [:],
    texts: [String: String] = [:], labels: [String: LabelCounts] = [:]
  ) {
    self.instance = instance
    pid = getpid()
    time = Clocks.wall()
    self.state = state
    self.message = message
    self.counters = counters
    self.texts = texts
    self.labels = labels
  }
}

/// The names of what roles count, so that writer and reader agree.
public enum StatusKey {
  /// Trainer: examples trained per second, over the last few seconds.
  public static let examplesPerSecond = "examplesPerSecond"
  /// Trainer, joiner: examples so far.
  public static let examples = "examples"
  /// Joiner, player: impressions so far.
  public static let impressions = "impressions"
  /// Joiner, player: impressions per second, over the last few seconds.
  public static let impressionsPerSecond = "impressionsPerSecond"
  /// Shard, replica: rows held.
  public static let rows = "rows"
  /// Shard, replica: bytes of its tables.
  public static let bytes = "bytes"
  /// Shard: the open epoch.
  public static let epoch = "epoch"
  /// Sync, replica: the newest version published or served.
  public static let version = "version"
  /// Sync, replica: median delay from an action's arrival to being servable, seconds.
  public static let freshnessP50 = "freshnessP50"
  /// Sync, replica: 99th percentile of that delay, seconds.
  public static let freshnessP99 = "freshnessP99"
  /// Replica: predictions answered per second.
  public static let predictionsPerSecond = "predictionsPerSecond"
  /// Supervisor: how often a process was started again.
  public static func restarts(_ instance: RoleInstance) -> String { "\(restartsPrefix)\(instance.directoryName)" }
  static let restartsPrefix = "restarts."
  /// The version of the upstream model that a downstream model is served.
  public static func servedVersion(_ model: String) -> String { "servedVersion.\(model)" }
  /// Answers of later versions that it was trained on.
  public static func seenExamples(_ model: String) -> String { "seenExamples.\(model)" }
  /// How many of them have the next version served.
  public static let seenExamplesNeeded = "seenExamplesNeeded"
  /// Trainer: prequential AUC of a task.
  public static func auc(_ task: String) -> String { "auc.\(task)" }
  /// Trainer: prequential normalised entropy of a task.
  public static func ne(_ task: String) -> String { "ne.\(task)" }
  /// Trainer: the version that a user model is pulled towards.
  public static func teacherVersion(of model: String) -> String { "teacherVersion.\(model)" }
  /// Trainer: the mean square of the distance between a user model's embeddings and those of that version.
  public static func teacherDistance(of model: String) -> String { "teacherDistance.\(model)" }
  /// Shard: rows in a table.
  public static func rows(table: String) -> String { "rows.\(table)" }
}

/// Writes a process's status file, at most twice a second; belongs to one thread.
///
/// A reader sees one status or the next, never a mix; on a full disk, where the file is written over, the mix does not
/// parse and is read again. What cannot be written is tried again with the next update: a full disk must not stop a role
/// from working, nor from saying so.
public struct StatusWriter: Sendable {
  private let path: String
  private var lastWrite: Int64?
  private var lastState: RoleStatus.State?
  private static let interval: Int64 = 500_000_000

  /// A writer for one process's file.
  public init(_ instance: RoleInstance, in paths: StatePaths) { path = paths.status(instance) }

  /// Whether an update would be written now: ask before gathering costly numbers.
  public func isDue(now: Int64 = Clocks.monotonic()) -> Bool {
    lastWrite.map { now - $0 >= Self.interval } ?? true
  }

  /// Writes the status when half a second has passed, or at once when the state has changed.
  /// - Returns: whether the file was written.
  @discardableResult
  public mutating func update(_ status: RoleStatus, now: Int64 = Clocks.monotonic()) -> Bool {
    guard isDue(now: now) || status.state != lastState else { return false }
    let encoder = JSONEncoder()
    encoder.outputFormatting = .sortedKeys
    encoder.nonConformingFloatEncodingStrategy = .statusWords
    guard let bytes = try? encoder.encode(status) else { return false }
    lastWrite = now
    do throws(FileError) {
      try Files.replace(path, with: Array(bytes), durable: false)
    } catch {
      guard (try? Files.overwrite(path, with: Array(bytes))) != nil else { return false }
    }
    lastState = status.state
    return true
  }
}

extension JSONEncoder.NonConformingFloatEncodingStrategy {
  static var statusWords: Self {
    .convertToString(positiveInfinity: "infinity", negativeInfinity: "-infinity", nan: "nan")
  }
}

extension JSONDecoder.NonConformingFloatDecodingStrategy {
  static var statusWords: Self {
    .convertFromString(positiveInfinity: "infinity", negativeInfinity: "-infinity", nan: "nan")
  }
}
