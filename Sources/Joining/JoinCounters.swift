// What a join has seen and done, counted; part of its checkpoint, so the numbers go on through restarts.

internal import Base

/// The labels of one task that left the joiner.
public struct LabelCounts: Equatable, Sendable, Codable {
  /// The task's name.
  public var task: String
  /// Labels emitted, positive and negative.
  public var emitted: UInt64 = 0
  /// Positive labels emitted.
  public var positive: UInt64 = 0
  /// Negatives that sampling dropped.
  public var sampled: UInt64 = 0

  /// Zeros for a task.
  public init(task: String) { self.task = task }
}

/// Counts since the stream began.
///
/// `labels` and `examples` are the same for every interleaving of the inputs; of actions that changed no label, the
/// split between hit, duplicate and expired may differ.
public struct JoinCounters: Equatable, Sendable, Codable {
  /// Impressions read, late and repeated ones included.
  public var impressions: UInt64 = 0
  /// Actions read, late and repeated ones included.
  public var actions: UInt64 = 0
  /// Actions that met their impression.
  public var hit: UInt64 = 0
  /// Impressions behind their partition's watermark; they joined all the same.
  public var lateImpressions: UInt64 = 0
  /// Impressions so late that their id and actions may be forgotten; they were dropped.
  public var refusedImpressions: UInt64 = 0
  /// Actions behind their partition's watermark; they took no part in labels.
  public var lateActions: UInt64 = 0
  /// Actions whose impression did not come in time.
  public var expiredActions: UInt64 = 0
  /// Impressions whose id was known.
  public var duplicateImpressions: UInt64 = 0
  /// Actions whose name and time were known of that impression.
  public var duplicateActions: UInt64 = 0
  /// Actions with a name that no task uses.
  public var unusedActions: UInt64 = 0
  /// Records that could not be decoded.
  public var malformed: UInt64 = 0
  /// Impressions that stream features would have made too large; they keep the values they came with.
  public var unfilledImpressions: UInt64 = 0
  /// Examples emitted.
  public var examples: UInt64 = 0
  /// Per task, in the rules' order.
  public var labels: [LabelCounts]

  /// Zeros for some tasks.
  public init(tasks: [String]) { labels = tasks.map(LabelCounts.init) }

  /// How many of `numbers` the first formats of a joiner's state have.
  static let firstNumbers = 12

  /// The numbers but for the labels, in the order they are stored in.
  static let numbers: [any WritableKeyPath<JoinCounters, UInt64> & Sendable] = [
    \.impressions, \.actions, \.hit, \.lateImpressions, \.refusedImpressions, \.lateActions, \.expiredActions,
    \.duplicateImpressions, \.duplicateActions, \.unusedActions, \.malformed, \.examples,
    \.unfilledImpressions,
  ]
}
