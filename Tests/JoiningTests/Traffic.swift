// Random traffic with repeats and late records, and the join's definition written down a second time, naively: what
// `JoinerCore` must give whatever the order in which partitions are read.

import Base
import Joining
import Streams

/// Records per input partition, in the partition's order.
struct Traffic {
  var rules: JoinRules
  var streams: [JoinInput: [Event]] = [:]

  static let rules = JoinRules(
    tasks: [
      task("click", window: 300), task("like", window: 300), task("share", window: 900, closing: []),
      task("open", window: 300, delivery: .eager), task("buy", window: 600, delivery: .eager, rate: 0.5),
      task("hide", window: 300, rate: 0.3),
    ], impressionPartitions: 2, actionPartitions: 3, outputPartitions: 2, graceMilliseconds: 2000)

  /// `impressions` impressions with their actions; of all records 30 % are repeated and 20 % late.
  init(impressions: Int, seed: UInt64) {
    rules = Traffic.rules
    var random = SeededRandom(seed: seed)
    var records: [(order: Milliseconds, input: JoinInput, event: Event)] = []
    func add(_ input: JoinInput, at time: Milliseconds, _ make: (Milliseconds) -> Event) {
      for _ in 0..<(random.uniform() < 0.3 ? 2 : 1) {
        let delay = random.uniform() < 0.2 ? Int64.random(in: 1...4000, using: &random) : 0
        records.append((time + delay, input, make(Int64.random(in: 1...9, using: &random))))
      }
    }
    for number in 0..<UInt64(impressions) {
      let id = ImpressionID(number)
      let time = Int64.random(in: 10_000...30_000, using: &random)
      let content = UInt8.random(in: 0...255, using: &random)
      add(JoinInput(.impressions, Int(id.hash64 >> 32) % rules.impressionPartitions), at: time) { _ in
        impression(number, at: time, feature: content)
      }
      for name in ["click", "like", "share", "open", "buy", "hide", "end", "hover"] where random.uniform() < 0.4 {
        let at = time + Int64.random(in: -50...400, using: &random)
        add(JoinInput(.actions, Int.random(in: 0..<rules.actionPartitions, using: &random)), at: at) {
          action(name, number, at: at, arrival: $0)
        }
      }
    }
    for _ in 0..<(impressions / 10) {
      let time = Int64.random(in: 10_000...30_000, using: &random)
      records.append((time, rules.allInputs.randomElement(using: &random)!, .watermark(time: time)))
    }
    let order = records.indices.sorted { (records[$0].order, $0) < (records[$1].order, $1) }
    for index in order { streams[records[index].input, default: []].append(records[index].event) }
    for input in rules.allInputs { streams[input, default: []].append(.watermark(time: .max)) }
  }

  /// The same but for impressions that come late, so that even the order of examples is given.
  var withoutLateImpressions: Traffic {
    var traffic = self
    for input in streams.keys where input.stream == .impressions {
      var own = Milliseconds.min
      traffic.streams[input]!.removeAll { event in
        guard case .impression(let impression) = event else { return false }
        defer { own = max(own, impression.time) }
        return impression.time < own
      }
      traffic.streams[input]!.removeAll { if case .watermark(let time) = $0 { time != .max } else { false } }
    }
    return traffic
  }

  /// Records that come again, as a share of what is told.
  var repeatedShare: Double {
    var told: Set<String> = []
    var repeated = 0
    for event in streams.values.joined() {
      let name =
        switch event {
        case .impression(let impression): "\(impression.id)"
        case .action(let action): "\(action.impression) \(action.name)"
        case .watermark: ""
        }
      if !name.isEmpty, !told.insert(name).inserted { repeated += 1 }
    }
    return Double(repeated) / Double(told.count)
  }

  /// Records behind their own partition's watermark, as a share of all.
  var lateShare: Double {
    var (late, all) = (0, 0)
    for events in streams.values {
      var own = Milliseconds.min
      for event in events {
        if case .watermark = event {
        } else {
          all += 1
          if event.time < own { late += 1 }
        }
        own = max(own, event.time)
      }
    }
    return Double(late) / Double(all)
  }

  var count: Int { streams.values.reduce(0) { $0 + $1.count } }

  /// Feeds records `from...` of one random interleaving; `step` is called after each.
  func feed<Failure: Error>(
    _ core: inout JoinerCore, seed: UInt64, until stop: Int = .max, step: (inout JoinerCore) throws(Failure) -> Void
  ) throws(Failure) {
    var random = SeededRandom(seed: seed)
    var inputs = rules.allInputs.filter { core.position(of: $0).low < streams[$0]!.count }
    var fed = 0
    while !inputs.isEmpty, fed < stop {
      let chosen = Int.random(in: inputs.indices, using: &random)
      let input = inputs[chosen]
      // Runs of one partition, short and long: a partition may be read far ahead of the others.
      for _ in 0..<(1 << Int.random(in: 0...7, using: &random)) where fed < stop {
        let place = Int(core.position(of: input).low)
        guard place < streams[input]!.count else { break }
        core.take(streams[input]![place], from: input, at: Position(low: UInt64(place + 1)))
        fed += 1
        try step(&core)
      }
      if core.position(of: input).low == streams[input]!.count { inputs.remove(at: chosen) }
    }
  }

  /// The examples by definition, looking at everything at once.
  func expected() -> [Example] {
    let memory = rules.tasks.map(\.windowMilliseconds).max()! + rules.graceMilliseconds
    var shown: [ImpressionID: (impression: Impression, ordinal: Position, floor: Milliseconds)] = [:]
    var seen: [ImpressionID: [Action]] = [:]
    for (_, events) in streams {
      var own = Milliseconds.min
      for (place, event) in events.enumerated() {
        switch event {
        case .impression(let impression):
          if impression.time >= own || impression.time + memory >= own, shown[impression.id] == nil {
            let floor = max(own, impression.time) - memory
            shown[impression.id] = (impression, Position(low: UInt64(place + 1)), floor)
          }
          own = max(own, impression.time)
        case .action(let action):
          if action.time >= own { seen[action.impression, default: []].append(action) }
          own = max(own, action.time)
        case .watermark(let time): own = max(own, time)
        }
      }
    }
    return shown.values.flatMap { impression, ordinal, floor in
      let actions = (seen[impression.id] ?? []).filter { $0.time >= floor }
      let labels = rules.tasks.map { task in
        Traffic.label(of: task, impression, actions)
      }
      return Dictionary(grouping: rules.tasks.indices, by: { labels[$0].due }).compactMap { due, group -> Example? in
        let kept = group.filter { labels[$0].isPositive || Traffic.keeps(rules.tasks[$0], impression.id) }
        guard !kept.isEmpty else { return nil }
        return Example(
          impression: impression.id, time: impression.time, ordinal: ordinal, due: due,
          arrival: kept.map { labels[$0].arrival }.max()!,
          labels: rules.tasks.indices.map {
            kept.contains($0) ? labels[$0].isPositive ? .positive : .negative : .masked
          },
          rates: rules.tasks.map { Float($0.negativeRate) }, predictions: impression.predictions,
          features: impression.features)
      }
    }
  }

  private static func keeps(_ task: TaskSpec, _ id: ImpressionID) -> Bool {
    Double(Hashing.mix(id.hash64 ^ Hashing.xxh3(task.name)) >> 11) / Double(1 << 53) < task.negativeRate
  }

  private static func label(
    of task: TaskSpec, _ impression: Impression, _ actions: [Action]
  ) -> (isPositive: Bool, due: Milliseconds, arrival: Milliseconds) {
    func first(_ names: [String]) -> Action? {
      actions.filter { names.contains($0.name) }.min { ($0.time, $0.arrival) < ($1.time, $1.arrival) }
    }
    let window = impression.time + task.windowMilliseconds
    let closing = first(task.closingActions).flatMap { $0.time <= window ? $0 : nil }
    let close = closing?.time ?? window
    let positive = first(task.positiveActions).flatMap { $0.time <= close ? $0 : nil }
    if task.delivery == .eager, let positive { return (true, positive.time, positive.arrival) }
    return (positive != nil, close, max(positive?.arrival ?? 0, closing?.arrival ?? 0))
  }
}

extension JoinRules {
  var allInputs: [JoinInput] {
    (0..<impressionPartitions).map { JoinInput(.impressions, $0) }
      + (0..<actionPartitions).map { JoinInput(.actions, $0) }
  }
}
