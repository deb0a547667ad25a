// What comes in: features, tasks, streams, and how the joiner waits.

public import Streams

/// One entry of `features`: something an impression carries.
public struct FeatureSettings: Sendable, Equatable, Settings {
  private enum Kind: String, CaseIterable { case id, ids, dense }

  /// How several ids of one impression become one vector.
  public enum Combiner: String, Sendable, CaseIterable, Codable {
    /// Their rows are added.
    case sum
    /// Their rows are averaged.
    case mean
    /// Their rows are averaged with learned weights.
    case attention
  }

  /// The name in events.
  public var name = ""
  /// What its values are: `id` (exactly one), `ids` with `limit`, `dense` with `width`.
  ///
  /// Default `id`.
  public var kind = FeatureKind.id
  /// How several ids become one vector.
  ///
  /// Default `sum`; without meaning for `id` and `dense`.
  public var combiner = Combiner.sum
  /// The table its rows live in.
  ///
  /// Default nil: a table named as the feature. Features that really are the same thing (the item shown, the items
  /// clicked before) may name one table.
  public var table: String?
  /// How it is computed from the stream.
  ///
  /// Default nil: events carry it. docs/features.md explains.
  public var stream: StreamFeatureSettings?

  /// Without a name yet.
  public init() {}

  /// A feature with a table of its own.
  public init(name: String, kind: FeatureKind = .id) {
    self.name = name
    self.kind = kind
  }

  /// The name of its table; nil for dense features, which have none.
  public var tableName: String? {
    if case .dense = kind { return nil }
    return table ?? name
  }

  mutating func bind(_ section: Section) {
    section.value("name", &name, .name)
    var word = Kind.id
    var limit: Int?
    var width: Int?
    switch kind {
    case .id: word = .id
    case .ids(let count): (word, limit) = (.ids, count)
    case .dense(let count): (word, width) = (.dense, count)
    }
    section.value("kind", &word, .word)
    section.optional("limit", &limit, .integer(1...65_535))
    section.optional("width", &width, .integer(1...65_535))
    section.value("combiner", &combiner, .word)
    section.optional("table", &table, .name)
    section.optionalSection("stream", &stream)
    switch word {
    case .id: kind = .id
    case .ids: kind = .ids(limit: limit ?? 32)
    case .dense: kind = .dense(width: width ?? 1)
    }
    if !section.binding.isWriting { check(section, word, limit: limit, width: width) }
  }

  private func check(_ section: Section, _ word: Kind, limit: Int?, width: Int?) {
    if name.isEmpty && !section.isGiven("name") { section.report("name", "is missing", "name the feature") }
    if limit != nil && word != .ids {
      section.report("limit", "is given for kind \(word.rawValue)", "remove it, or use 'kind: ids'")
    }
    if width != nil && word != .dense {
      section.report("width", "is given for kind \(word.rawValue)", "remove it, or use 'kind: dense'")
    }
    if table != nil && word == .dense {
      section.report("table", "is given for kind dense", "remove it: dense numbers have no rows")
    }
  }
}

/// One entry of `tasks`: something that is predicted.
public struct TaskSettings: Sendable, Equatable, Settings {
  /// The name in labels, predictions and reports.
  public var name = ""
  /// Actions that make the label positive.
  ///
  /// Default: the one named as the task.
  public var positive: [String]?
  /// Actions that close the impression before its window ends.
  ///
  /// Default `view_end`; may be empty.
  public var closing = ["view_end"]
  /// How long after the impression it is closed in any case, event time.
  ///
  /// Default 15m: longer than nearly every view.
  public var window: Duration = .seconds(15 * 60)
  /// When labels leave the joiner: both at the close, or positives at once.
  ///
  /// Default `onClose`, which keeps order free of bias.
  public var delivery = LabelDelivery.onClose
  /// Share of negatives kept, above 0, at most 1; positives are always kept, and predictions are corrected.
  ///
  /// Default 1.
  public var negativeRate = 1.0
  /// What the task's loss counts beside the others.
  ///
  /// Default 1.
  public var weight = 1.0

  /// Without a name yet.
  public init() {}

  /// A task with everything at its default.
  public init(name: String) { self.name = name }

  mutating func bind(_ section: Section) {
    section.value("name", &name, .name)
    var actions = positive ?? (section.binding.isWriting ? [name] : [])
    section.values("positive", &actions, .name, atMost: 64)
    positive = actions == [name] || !section.isGiven("positive") && actions.isEmpty ? nil : actions
    section.values("closing", &closing, .name, atMost: 64)
    section.value("window", &window, .duration(.milliseconds(1) ... .seconds(90 * 86_400)))
    section.value("delivery", &delivery, .word)
    section.value("negativeRate", &negativeRate, .positive(upTo: 1))
    section.value("weight", &weight, .number(0...1000))
    if section.binding.isWriting { return }
    if name.isEmpty && !section.isGiven("name") { section.report("name", "is missing", "name the task") }
    if positive?.isEmpty == true && section.isGiven("positive") {
      section.report("positive", "names no action", "name one, or leave it out to use the task's name")
    }
  }
}

/// `streams`: what lies between the stages.
public struct StreamsSettings: Sendable, Equatable, Settings {
  /// What was shown.
  ///
  /// Partitioned by impression.
  public var impressions = StreamSettings()
  /// What people did.
  ///
  /// Partitioned by impression.
  public var actions = StreamSettings()
  /// What the joiner made of both.
  public var examples = StreamSettings()
  /// A file with settings of librdkafka for streams on Kafka, for its security say: `name=value`, one a line.
  ///
  /// Default none. Those that Guira's promises rest on are not taken from it.
  public var kafkaProperties: String?

  /// The defaults.
  public init() {}

  mutating func bind(_ section: Section) {
    section.section("impressions", &impressions)
    section.section("actions", &actions)
    section.section("examples", &examples)
    section.value("kafkaProperties", &kafkaProperties, Scalar<String>.path.orWord("none"))
  }
}

/// One stream.
public struct StreamSettings: Sendable, Equatable, Settings {
  /// How many partitions it has; each is in order and read by one consumer.
  ///
  /// Default 1. Cannot change later.
  public var partitions = 1
  /// What carries it: `journal`, or a server and a name there, as in `redis://127.0.0.1:6379/guira` or
  /// `kafka://broker-1:9092,broker-2:9092/impressions`.
  ///
  /// Default `journal`, below the state directory. Cannot change later; docs/streams.md explains.
  public var carrier = StreamPlace.journal

  /// The defaults.
  public init() {}

  mutating func bind(_ section: Section) {
    section.value("partitions", &partitions, .integer(1...1024))
    section.value("carrier", &carrier, .streamPlace)
  }
}

/// `joiner`: how impressions and actions become examples.
public struct JoinerSettings: Sendable, Equatable, Settings {
  /// How far records of one partition may be out of order, event time: the watermark stays this far behind the newest
  /// record.
  ///
  /// Default 2s; larger waits longer for stragglers and delays every label by as much.
  public var allowedLateness: Duration = .seconds(2)
  /// How often the joiner writes down what is pending, running time.
  ///
  /// Default 10s: what a restart reads again.
  public var checkpointEvery: Duration = .seconds(10)
  /// How many bytes of a stream may wait for the joiner before new events are refused at the door.
  ///
  /// Default 1GiB.
  public var backlogBytes = 1 << 30
  /// How many bytes of examples of each partition are kept after all trainers have made them durable.
  ///
  /// Default 4GiB: a shard that is restored to an older state catches up from them.
  public var keepExamples = 4 << 30
  /// Features from the stream: an event counts for impressions that are more than this later, event time.
  ///
  /// Default 5s: by then a replica has it too, so that training and serving count the same. At most an hour: events wait
  /// in memory that long.
  public var featureDelay: Duration = .seconds(5)
  /// About the most bytes that features from the stream take, in the joiner and in each replica.
  ///
  /// Default 256MiB; what was longest without an event goes first.
  public var featureMemory = 256 << 20
  /// About the most memory that pending impressions and known ids take; impressions beyond it are put on disk.
  ///
  /// Default 1GiB: some 20 million pending impressions. A known id takes 40 bytes of it wherever its impression is.
  public var memory = 1 << 30

  /// How long beyond the largest window an impression is remembered.
  static let graceMilliseconds: Int64 = 10 * 60 * 1000

  /// The defaults.
  public init() {}

  mutating func bind(_ section: Section) {
    section.value("allowedLateness", &allowedLateness, .duration(.zero ... .seconds(86_400)))
    section.value("checkpointEvery", &checkpointEvery, .duration(.milliseconds(100) ... .seconds(3600)))
    section.value("backlogBytes", &backlogBytes, .size(1 << 20...1 << 42))
    section.value("keepExamples", &keepExamples, .size(0...1 << 50))
    section.value("featureDelay", &featureDelay, .duration(.zero ... .seconds(3600)))
    section.value("featureMemory", &featureMemory, .size(StreamFeatureRules.leastBytes...1 << 40))
    section.value("memory", &memory, .size(1 << 20...1 << 40))
  }
}
