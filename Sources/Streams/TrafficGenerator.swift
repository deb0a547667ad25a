// Endless synthetic traffic for those who have no data: as real traffic it is repeated, late and out of order, and unlike
// real traffic the true probabilities are known. The same options give the same traffic, event for event.

public import Base
internal import Glibc

/// What synthetic traffic is like.
///
/// Times are event time.
public struct TrafficOptions: Equatable, Sendable {
  /// Everything random comes from it.
  public var seed: UInt64 = 1
  /// How many impressions; nil never ends.
  public var impressions: Int?
  /// The time of the first impression.
  ///
  /// Default 2025-01-01.
  public var startTime: Milliseconds = 1_735_689_600_000
  /// Impressions a second of event time, on average.
  public var impressionsPerSecond = 50.0
  /// How many users there are.
  public var users = 20_000
  /// How many items are in the catalogue at a time.
  public var items = 5_000
  /// How many categories the items fall into.
  public var categories = 20
  /// How unevenly users and items occur; 0 is evenly.
  public var zipfExponent = 1.05
  /// The time after which a share of 1/e of a user's taste is left.
  public var tasteDrift = Duration.seconds(2 * 86_400)
  /// How much more or less a user clicks as moods come and go: the standard deviation of the logit; 0 for no moods.
  public var mood = 0.0
  /// The time after which a share of 1/e of a mood is left.
  public var moodDrift = Duration.seconds(2 * 3600)
  /// How long an item lives, on average; then one with a new id takes its place.
  public var itemLifetime = Duration.seconds(3 * 86_400)
  /// The share of events delivered twice.
  public var repeatedShare = 0.02
  /// The share of events delivered up to `disorder` after their time.
  public var disorderedShare = 0.05
  /// How far behind later events a disordered one may be.
  public var disorder = Duration.seconds(5)
  /// The share of actions delivered later than that, by up to `lateness`.
  public var lateShare = 0.01
  /// How late an action may be.
  public var lateness = Duration.seconds(20 * 60)

  /// The defaults.
  public init() {}
}

/// The truth about an impression, which no model sees.
public struct TrafficTruth: Equatable, Sendable, Codable {
  /// The impression's integer id.
  public var impression: UInt64
  /// The probability of a click.
  public var click: Double
  /// The probability of a like.
  public var like: Double
}

/// One delivered event.
public struct TrafficRecord: Equatable, Sendable {
  /// The event.
  public var event: Event
  /// The event time at which it is delivered; records come in this order.
  public var delivery: Milliseconds
  /// The truth, with the first delivery of an impression.
  public var truth: TrafficTruth?
}

/// Makes synthetic traffic, record by record.
public struct TrafficGenerator: IteratorProtocol, Sendable {
  private let options: TrafficOptions
  private var random: SeededRandom
  private var model: TrafficModel
  private var pending = MinHeap<Delivery>()
  private var nextTime: Double
  private var impressions = 0
  private var sequence: UInt64 = 0
  private let schema = EventSchema.synthetic

  private struct Delivery: Comparable {
    let record: TrafficRecord
    let sequence: UInt64

    static func < (left: Self, right: Self) -> Bool {
      (left.record.delivery, left.sequence) < (right.record.delivery, right.sequence)
    }

    static func == (left: Self, right: Self) -> Bool { left.sequence == right.sequence }
  }

  /// A generator at its beginning.
  public init(_ options: TrafficOptions = TrafficOptions()) {
    self.options = options
    random = SeededRandom(seed: options.seed)
    model = TrafficModel(options: options, random: &random)
    nextTime = Double(options.startTime)
  }

  /// How far a record may lie behind a later one without being meant as late.
  public var latenessMilliseconds: Int64 { options.disorder.milliseconds }

  /// The next record; nil when the last impression's events are delivered.
  public mutating func next() -> TrafficRecord? {
    while options.impressions.map({ impressions < $0 }) ?? true {
      if let first = pending.first, Double(first.record.delivery) < nextTime { break }
      show()
    }
    return pending.popFirst()?.record
  }

  private mutating func show() {
    let time = Milliseconds(nextTime)
    nextTime += random.exponential(mean: 1000 / options.impressionsPerSecond)
    impressions += 1
    let shown = model.show(at: time, &random)
    let number = UInt64(impressions)
    let id = ImpressionID(number)
    let features = FeatureBlock(
      schema: schema, values: [.ids([shown.user]), .ids([shown.item]), .ids([shown.category]), .ids([shown.hour])])
    let truth = TrafficTruth(impression: number, click: shown.click, like: shown.like)
    deliver(.impression(Impression(id: id, time: time, features: features)), truth: truth)

    let isClicked = random.chance(shown.click)
    let isLiked = isClicked && random.chance(shown.like / shown.click)
    let clickTime = time + 500 + Milliseconds(random.exponential(mean: 1500))
    let stay = isClicked ? exp(2.5 + 0.8 * random.normal()) : 1 + random.exponential(mean: 2)
    let end = max(clickTime, time + Milliseconds(min(stay, 200) * 1000))
    if isClicked { deliver(.action(Action(impression: id, name: "click", time: min(clickTime, end)))) }
    if isLiked {
      let likeTime = clickTime + Milliseconds(random.uniform() * Double(end - clickTime))
      deliver(.action(Action(impression: id, name: "like", time: likeTime)))
    }
    deliver(.action(Action(impression: id, name: "view_end", time: end)))
  }

  /// Puts an event on its way: mostly at its time, sometimes behind others, now and then twice.
  private mutating func deliver(_ event: Event, truth: TrafficTruth? = nil) {
    var truth = truth
    let copies = random.chance(options.repeatedShare) ? 2 : 1
    for _ in 0..<copies {
      var delay: Milliseconds = 0
      if case .action = event, random.chance(options.lateShare) {
        delay = options.disorder.milliseconds + Milliseconds(random.uniform() * Double(options.lateness.milliseconds))
      } else if random.chance(options.disorderedShare) {
        delay = Milliseconds(random.uniform() * Double(options.disorder.milliseconds))
      }
      let record = TrafficRecord(event: event, delivery: event.time + delay, truth: truth)
      pending.insert(Delivery(record: record, sequence: sequence))
      sequence += 1
      truth = nil
    }
  }
}

extension TrafficGenerator {
  /// The file of truths beside the events of generated traffic: one JSON object per impression.
  public static let truthName = "truth.jsonl"

  /// Writes a dataset directory of synthetic traffic, with the truths beside it.
  /// - Parameter options: `impressions` must be set: a file ends.
  /// - Throws: `outputExists` when `output` holds something; `file`.
  public static func write(_ options: TrafficOptions, into output: String) throws(StreamError) -> Dataset {
    guard let count = options.impressions, count > 0 else {
      preconditionFailure("a file of endless traffic")
    }
    var staging = try DatasetStaging(output: output)
    var events = try JSONLinesFile(path: "\(staging.directory)/\(Dataset.eventsName)")
    var truths = try JSONLinesFile(path: "\(staging.directory)/\(truthName)")
    let encoder = EventEncoder(schema: .synthetic)
    var generator = TrafficGenerator(options)
    var first = Milliseconds.max
    var last = Milliseconds.min
    while let record = generator.next() {
      first = min(first, record.event.time)
      last = max(last, record.event.time)
      do throws(DecodeError) {
        try encoder.append(record.event, to: &events.line)
      } catch {
        preconditionFailure("generated features do not read: \(error)")
      }
      try events.endLine()
      guard let truth = record.truth else { continue }
      truths.line.append(text: "{\"impression\":")
      truths.line.append(decimal: truth.impression)
      truths.line.append(utf8: ",\"click\":\(truth.click),\"like\":\(truth.like)}")
      try truths.endLine()
    }
    try events.finish()
    try truths.finish()
    let dataset = Dataset(
      origin: "synthetic traffic, seed \(options.seed)", schema: .synthetic, actions: ["click", "like", "view_end"],
      latenessMilliseconds: generator.latenessMilliseconds, impressions: count, firstTime: first, lastTime: last)
    try staging.publish(dataset)
    return dataset
  }
}
