// Features that are computed from the stream itself: running counts, shares, last items. A pure state machine: events in,
// values out; joiner, replica and experiments run this same code, so training and serving see the same values.
//
// An event counts for an impression when event time + delay is before the impression's time, whatever order they were
// taken in: events wait in a heap until the frontier has passed them, and are then counted in one total order.

public import Base
internal import Glibc

/// What stream features have seen, since the beginning.
public struct StreamFeatureCounters: Equatable, Sendable, Codable {
  /// Impressions counted.
  public var impressions: UInt64 = 0
  /// Actions counted.
  public var actions: UInt64 = 0
  /// Impressions and actions of impressions that had been counted already.
  public var repeated: UInt64 = 0
  /// Actions whose impression is not known: it was late, it was too long ago, or there was none.
  public var unmatched: UInt64 = 0
  /// Keys that gave way to others because of the limit of bytes.
  public var evictedKeys: UInt64 = 0
  /// Impressions forgotten before their actions were due, because of the limit of bytes.
  public var forgottenImpressions: UInt64 = 0

  /// Zeros.
  public init() {}
}

/// Computes the stream features of a schema.
public struct StreamFeatures: Sendable {
  /// The impression a list of values is for.
  public struct Valued: Equatable, Sendable {
    /// The impression.
    public var id: ImpressionID
    /// One value per stream feature, in schema order.
    public var values: [FeatureValue]
  }

  /// What happens at a moment; of one moment valuations come first, then impressions, then actions.
  struct Moment: Comparable, Sendable, BitwiseCopyable {
    enum Step: UInt8 { case valuation, impression, action }
    var time: Milliseconds
    var step: Step
    /// The action's number among the events that count.
    var kind: UInt8
    /// Where the impression waits.
    var place: Int32
    var id: ImpressionID

    static func < (left: Self, right: Self) -> Bool {
      if left.time != right.time { return left.time < right.time }
      if left.step != right.step { return left.step.rawValue < right.step.rawValue }
      if left.id != right.id { return left.id < right.id }
      return left.kind < right.kind
    }
  }

  /// An impression that does not count yet.
  struct Waiting: Sendable {
    var present: UInt64 = 0
    var ids: [UInt64] = []
  }

  /// The rules in effect.
  public let rules: StreamFeatureRules
  /// All that counts before this time is counted; it never goes back.
  public internal(set) var frontier = Milliseconds.min
  let plan: StreamFeaturePlan
  private let layout: BlockLayout
  var seen = StreamFeatureCounters()
  var groups: [FeatureGroup]
  var recent: RecentImpressions
  var moments = MinHeap<Moment>()
  var waiting: [Waiting] = []
  var freePlaces: [Int32] = []

  /// Stream features that have seen nothing.
  public init(_ rules: StreamFeatureRules) {
    let problems = rules.problems()
    precondition(problems.isEmpty, "stream features: \(problems.joined(separator: "; "))")
    self.rules = rules
    let plan = StreamFeaturePlan(rules.schema)
    self.plan = plan
    layout = BlockLayout(rules.schema)
    let limits = plan.limits(bytes: rules.byteLimit)
    groups = plan.groups.map { group in
      FeatureGroup(
        halfLives: group.numbers.map { $0.halfLifeMilliseconds == 0 ? .infinity : Double($0.halfLifeMilliseconds) },
        listLimits: group.listLimits, limit: limits.keys)
    }
    recent = RecentImpressions(width: plan.fields.count, limit: limits.impressions)
  }

  /// What was counted, and what the limit of bytes made forget.
  public var counters: StreamFeatureCounters {
    var counters = seen
    counters.evictedKeys = groups.reduce(0) { $0 + $1.evicted }
    counters.forgottenImpressions = recent.forgotten
    return counters
  }

  /// How many keys have numbers or lists.
  public var keyCount: Int { groups.reduce(0) { $0 + $1.count } }

  /// How many events wait for the frontier.
  public var waitingEvents: Int { moments.count }

  // MARK: - Events

  /// Takes an impression; it counts from its time and the delay on.
  ///
  /// - Parameter isValued: whether `advance` gives its values when the frontier passes its time.
  /// - Returns: false when the frontier has passed it already: it is late, and nothing happens.
  @discardableResult
  public mutating func take(_ impression: Impression, isValued: Bool = false) -> Bool {
    let counted = impression.time.later(by: rules.delayMilliseconds)
    guard (isValued ? impression.time : counted) >= frontier else { return false }
    guard let (present, ids) = impression.features.ids(of: plan.fields, layout: layout) else { return false }
    let place: Int32
    if let free = freePlaces.popLast() {
      place = free
      waiting[Int(place)] = Waiting(present: present, ids: ids)
    } else {
      place = Int32(waiting.count)
      waiting.append(Waiting(present: present, ids: ids))
    }
    if isValued {
      moments.insert(Moment(time: impression.time, step: .valuation, kind: 0, place: place, id: impression.id))
    }
    moments.insert(Moment(time: counted, step: .impression, kind: 0, place: place, id: impression.id))
    return true
  }

  /// Takes an action; it counts from its own time and the delay on, never for what was shown before.
  ///
  /// - Returns: false when the frontier has passed it already, or no feature counts actions of its name.
  @discardableResult
  public mutating func take(_ action: Action) -> Bool {
    guard let kind = plan.kindNumbers[action.name], kind > 0 else { return false }
    let counted = action.time.later(by: rules.delayMilliseconds)
    guard counted >= frontier else { return false }
    moments.insert(Moment(time: counted, step: .action, kind: UInt8(kind), place: -1, id: action.impression))
    return true
  }

  /// Takes an event; a watermark says nothing here.
  @discardableResult
  public mutating func take(_ event: Event) -> Bool {
    switch event {
    case .impression(let impression): take(impression)
    case .action(let action): take(action)
    case .watermark: false
    }
  }

  /// Counts all that counts before `time`; nothing earlier may be taken afterwards.
  ///
  /// - Parameter valued: gets the values of impressions whose time was passed, in the order of time.
  public mutating func advance(to time: Milliseconds, into valued: inout [Valued]) {
    guard time > frontier else { return }
    frontier = time
    while let next = moments.first, next.time < time {
      _ = moments.popFirst()
      switch next.step {
      case .valuation:
        let waiting = waiting[Int(next.place)]
        valued.append(Valued(id: next.id, values: values(at: next.time) { waiting.id($0) }))
      case .impression: countImpression(next)
      case .action: countAction(next)
      }
    }
    recent.forget(before: time.earlier(by: rules.memoryMilliseconds))
  }

  /// Counts all that counts before `time`; nothing earlier may be taken afterwards.
  public mutating func advance(to time: Milliseconds) {
    var valued: [Valued] = []
    advance(to: time, into: &valued)
  }

  private mutating func countImpression(_ moment: Moment) {
    let impression = waiting[Int(moment.place)]
    waiting[Int(moment.place)] = Waiting()
    freePlaces.append(moment.place)
    guard recent.place(of: moment.id) == nil else {
      seen.repeated += 1
      return
    }
    seen.impressions += 1
    recent.forget(before: moment.time.earlier(by: rules.memoryMilliseconds))
    recent.append(
      RecentImpressions.Entry(id: moment.id, counted: moment.time, present: impression.present),
      ids: impression.ids[...])
    guard let place = recent.place(of: moment.id) else { return }
    count(0, of: place, at: moment.time)
  }

  private mutating func countAction(_ moment: Moment) {
    recent.forget(before: moment.time.earlier(by: rules.memoryMilliseconds))
    guard let place = recent.place(of: moment.id) else {
      seen.unmatched += 1
      return
    }
    guard recent.mark(Int(moment.kind), at: place) else {
      seen.repeated += 1
      return
    }
    seen.actions += 1
    count(Int(moment.kind), of: place, at: moment.time)
  }

  /// Counts an event of a remembered impression in every group that has a number or list of its kind.
  private mutating func count(_ kind: Int, of place: Int, at counted: Milliseconds) {
    let time = counted.earlier(by: rules.delayMilliseconds)
    for group in plan.groups.indices {
      let numbers = plan.groups[group].numbers
      let lists = plan.groups[group].lists
      guard numbers.contains(where: { $0.kind == kind }) || lists.contains(where: { $0.kind == kind }) else { continue }
      guard let key = plan.key(of: group, { recent.id($0, at: place) }) else { continue }
      let entry = groups[group].touch(key, at: time)
      for number in numbers.indices where numbers[number].kind == kind { groups[group].add(to: number, at: entry) }
      for list in lists.indices where lists[list].kind == kind {
        guard let id = recent.id(lists[list].field, at: place) else { continue }
        groups[group].append(Occurrence(id: id, time: time), to: list, at: entry)
      }
    }
  }

  // MARK: - Values

  /// The values of an impression with these features, shown at `time`, as of the frontier.
  ///
  /// One per stream feature, in schema order; nil when the features are not of the schema. They are exact when all that
  /// counts before `time` has been taken and the frontier is `time`.
  public func values(of features: FeatureBlock, at time: Milliseconds) -> [FeatureValue]? {
    guard let (present, ids) = features.ids(of: plan.fields, layout: layout) else { return nil }
    let keys = Waiting(present: present, ids: ids)
    return values(at: time) { keys.id($0) }
  }

  /// The features with the values of the stream features put in; nil when they are not of the schema, or would be larger
  /// than features may be.
  public func filled(_ features: FeatureBlock, with values: [FeatureValue]) -> FeatureBlock? {
    precondition(values.count == plan.outputs.count, "\(values.count) values of \(plan.outputs.count) stream features")
    let filled = features.replacing(zip(plan.outputs, values).map { ($0.feature, $1) }, layout: layout)
    return filled.flatMap { $0.bytes.count <= EventSchema.featureBytesLimit ? $0 : nil }
  }

  /// The features of an impression shown at `time`, with the stream features as of the frontier.
  public func filled(_ features: FeatureBlock, at time: Milliseconds) -> FeatureBlock? {
    values(of: features, at: time).flatMap { filled(features, with: $0) }
  }

  /// The last events behind a feature that lists ids, newest first; nil when the feature is none.
  public func occurrences(of feature: String, for features: FeatureBlock) -> [Occurrence]? {
    guard let place = rules.schema.features.firstIndex(where: { $0.name == feature }),
      let output = plan.outputs.first(where: { $0.feature == place }), case .last(let list, let limit) = output.source,
      let (present, ids) = features.ids(of: plan.fields, layout: layout)
    else { return nil }
    let keys = Waiting(present: present, ids: ids)
    guard let key = plan.key(of: output.group, { keys.id($0) }), let entry = groups[output.group].place(of: key) else {
      return []
    }
    return groups[output.group].list(list, at: entry).suffix(limit).reversed()
  }

  private func values(at time: Milliseconds, _ id: (Int) -> UInt64?) -> [FeatureValue] {
    plan.outputs.map { output in
      guard let key = plan.key(of: output.group, id) else { return output.nothing }
      let entry = groups[output.group].place(of: key)
      switch output.source {
      case .last(let list, let limit):
        guard let entry else { return .ids([]) }
        return .ids(groups[output.group].list(list, at: entry).suffix(limit).reversed().map(\.id))
      case .count(let number):
        let count = entry.map { groups[output.group].number(number, at: $0, time: time) } ?? 0
        return output.value(ofCount: count)
      case .share(let ours, let all, let everybody, let oursOfEverybody, let allOfEverybody):
        func number(_ number: Int, _ group: Int, _ entry: Int?) -> Double {
          entry.map { groups[group].number(number, at: $0, time: time) } ?? 0
        }
        let total = groups[everybody].place(of: 0)
        let prior =
          (number(oursOfEverybody, everybody, total) + 1) / (number(allOfEverybody, everybody, total) + 2)
        let share =
          (number(ours, output.group, entry) + Self.priorWeight * prior)
          / (number(all, output.group, entry) + Self.priorWeight)
        return output.value(ofShare: min(1, max(0, share)))
      }
    }
  }

  /// How many events everybody's share counts as, beside those of a key.
  public static let priorWeight = 10.0
}

extension StreamFeatures.Waiting {
  func id(_ field: Int) -> UInt64? { present >> UInt64(field) & 1 == 1 ? ids[field] : nil }
}

extension StreamFeaturePlan.Output {
  /// The value when the impression has no id to count by.
  var nothing: FeatureValue {
    if case .last = source { return .ids([]) }
    return buckets == nil ? .numbers([0]) : .ids([])
  }

  /// ln(1 + count), or its bucket on a scale of doublings.
  func value(ofCount count: Double) -> FeatureValue {
    guard let buckets else { return .numbers([Float(log1p(count))]) }
    return .ids([UInt64(max(0, log2(1 + count) * Double(buckets)))])
  }

  /// The share, or its bucket on a scale from 0 to 1.
  func value(ofShare share: Double) -> FeatureValue {
    guard let buckets else { return .numbers([Float(share)]) }
    return .ids([min(UInt64(share * Double(buckets)), UInt64(buckets - 1))])
  }
}
