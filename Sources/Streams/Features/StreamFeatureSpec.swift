// What the configuration may ask to be computed from the stream: counts, shares and last items, and how much memory all
// of it may take. docs/features.md explains every word.

/// What a feature that is computed from the stream counts or lists.
public struct StreamFeatureSpec: Equatable, Sendable {
  /// The kinds of values.
  public enum Value: Equatable, Sendable {
    /// How many events there were.
    case count
    /// The share of events that were followed by ours, smoothed towards everybody's share.
    case share(over: String)
    /// The ids that the newest events had in a feature, newest first.
    case last(of: String)
  }

  /// The event that stands for impressions; all others are names of actions.
  public static let impression = "impression"

  /// What the value is.
  public var value: Value
  /// The events that count: `impression`, or the name of an action.
  public var event: String
  /// The features whose ids an event must share with the impression to count; none: every event counts.
  public var by: [String]
  /// Event time after which an event counts half; nil: for ever the same.
  public var halfLifeMilliseconds: Int64?
  /// Bucketized values: how many buckets a doubling of a count has, or how many the shares from 0 to 1 have.
  public var buckets: Int

  /// A spec from its parts; the defaults are those of the configuration file.
  public init(
    _ value: Value, event: String, by: [String], halfLifeMilliseconds: Int64? = nil, buckets: Int? = nil
  ) {
    self.value = value
    self.event = event
    self.by = by
    self.halfLifeMilliseconds = halfLifeMilliseconds
    self.buckets = buckets ?? value.defaultBuckets
  }
}

extension StreamFeatureSpec.Value {
  /// Two buckets a doubling, and shares in steps of 5 %.
  public var defaultBuckets: Int {
    if case .share = self { 20 } else { 2 }
  }
}

/// How stream features are computed; the same for the joiner and for those who answer requests.
public struct StreamFeatureRules: Equatable, Sendable {
  /// All features, given and computed.
  public var schema: EventSchema
  /// An event counts for impressions that are more than this later.
  ///
  /// It covers the way of an event to a replica, so that a replica knows at an impression what training will count.
  public var delayMilliseconds: Int64
  /// How long after an impression its actions count.
  public var memoryMilliseconds: Int64
  /// About the most bytes that counts, lists and remembered impressions take; the longest unused go first.
  public var byteLimit: Int

  /// The smallest `byteLimit`.
  public static let leastBytes = 1 << 20

  /// Rules from their parts.
  public init(
    schema: EventSchema, delayMilliseconds: Int64 = 0, memoryMilliseconds: Int64 = 25 * 60 * 1000,
    byteLimit: Int = 256 << 20
  ) {
    self.schema = schema
    self.delayMilliseconds = delayMilliseconds
    self.memoryMilliseconds = memoryMilliseconds
    self.byteLimit = byteLimit
  }

  /// Everything that is wrong, in words; empty when features can be computed.
  public func problems() -> [String] {
    var problems = schema.streamFeatureProblems().map { "\($0.feature).\($0.key) \($0.fault); \($0.advice)" }
    if delayMilliseconds < 0 { problems.append("the delay is \(delayMilliseconds) ms; use at least 0") }
    if memoryMilliseconds < 0 { problems.append("the memory is \(memoryMilliseconds) ms; use at least 0") }
    if byteLimit < Self.leastBytes { problems.append("the bytes are \(byteLimit); use at least \(Self.leastBytes)") }
    return problems
  }
}

/// What is wrong with one key of a stream feature.
public struct StreamFeatureProblem: Equatable, Sendable {
  /// The feature's name.
  public var feature: String
  /// The key of its settings, `by` say.
  public var key: String
  /// What is wrong.
  public var fault: String
  /// What to do about it.
  public var advice: String
}

extension EventSchema {
  /// The most different events that stream features may count.
  public static let streamEventLimit = 64
  /// The most features that one count may be by.
  public static let streamKeyLimit = 4
  /// The most ids a list of the last ones may have.
  public static let streamListLimit = 1024

  /// Whether any feature is computed from the stream.
  public var hasStreamFeatures: Bool { features.contains { $0.stream != nil } }

  /// The features that events carry themselves.
  public var givenFeatures: [FeatureSpec] { features.filter { $0.stream == nil } }

  /// What is wrong with the features that are computed from the stream; empty when they can be.
  public func streamFeatureProblems() -> [StreamFeatureProblem] {
    var problems: [StreamFeatureProblem] = []
    var events: Set<String> = []
    var fields: Set<String> = []
    for feature in features {
      guard let stream = feature.stream else { continue }
      func report(_ key: String, _ fault: String, _ advice: String) {
        problems.append(StreamFeatureProblem(feature: feature.name, key: key, fault: fault, advice: advice))
      }
      events.insert(stream.event)
      if stream.by.count > Self.streamKeyLimit {
        report("by", "names \(stream.by.count) features", "use at most \(Self.streamKeyLimit)")
      }
      if Set(stream.by).count < stream.by.count { report("by", "names a feature twice", "name it once") }
      for name in stream.by {
        fields.insert(name)
        if let fault = unusableKey(name) { report("by", fault, "use features of one id that events carry") }
      }
      if let halfLife = stream.halfLifeMilliseconds, halfLife <= 0 {
        report("halfLife", "is \(halfLife) ms", "use a positive duration, or leave it out")
      }
      if !(1...1_000_000).contains(stream.buckets) {
        report("buckets", "is \(stream.buckets)", "use 1 to 1000000")
      }
      switch stream.value {
      case .count, .share:
        if case .share(let over) = stream.value { events.insert(over) }
        if feature.kind != .id && feature.kind != .dense(width: 1) {
          report("kind", "is \(feature.kind.words)", "use id, which is bucketized, or dense with width 1")
        }
      case .last(let of):
        fields.insert(of)
        if let fault = unusableKey(of) { report("of", fault, "use a feature of one id that events carry") }
        if stream.by.isEmpty { report("by", "names no feature", "say whose last ids these are, [user_id] say") }
        guard case .ids(let limit) = feature.kind else {
          report("kind", "is \(feature.kind.words)", "use ids: the last ones are a list")
          continue
        }
        if limit > Self.streamListLimit {
          report("limit", "is \(limit)", "use at most \(Self.streamListLimit) for last ids")
        }
      }
    }
    // Impressions are always followed, counted or not.
    events.insert(StreamFeatureSpec.impression)
    if events.count > Self.streamEventLimit || fields.count > 64,
      let first = features.first(where: { $0.stream != nil })
    {
      problems.append(
        StreamFeatureProblem(
          feature: first.name, key: "by",
          fault: "and the others use \(events.count) events and \(fields.count) features",
          advice: "use at most \(Self.streamEventLimit) events and 64 features in all"))
    }
    return problems
  }

  /// Why a feature cannot be a key; nil when it can.
  private func unusableKey(_ name: String) -> String? {
    guard let feature = features.first(where: { $0.name == name }) else {
      return "names '\(name)', which is not a feature"
    }
    if feature.stream != nil { return "names '\(name)', which is computed itself" }
    return feature.kind == .id ? nil : "names '\(name)', which is \(feature.kind.words)"
  }
}
