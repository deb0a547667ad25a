// What the tests of the join share: short ways to write events, and running them through a core.

import Base
import Joining
import Streams

func impression(_ id: UInt64, at time: Milliseconds, feature: UInt8 = 0) -> Event {
  .impression(
    Impression(
      id: ImpressionID(id), time: time, arrival: 7, features: FeatureBlock(bytes: [feature, UInt8(id % 251)]),
      predictions: [Float(id)]))
}

func action(_ name: String, _ id: UInt64, at time: Milliseconds, arrival: Milliseconds = 1) -> Event {
  .action(Action(impression: ImpressionID(id), name: name, time: time, arrival: arrival))
}

/// One core and how far each of its inputs has been written.
struct Scenario: ~Copyable {
  var core: JoinerCore
  private var ends: [JoinInput: UInt64] = [:]

  init(_ rules: JoinRules) { core = JoinerCore(rules: rules) }

  init(_ tasks: TaskSpec..., lateness: Int64 = 0, grace: Int64 = 1000) {
    self.init(JoinRules(tasks: tasks, allowedLatenessMilliseconds: lateness, graceMilliseconds: grace))
  }

  mutating func shown(_ event: Event, partition: Int = 0) { put(event, JoinInput(.impressions, partition)) }
  mutating func done(_ event: Event, partition: Int = 0) { put(event, JoinInput(.actions, partition)) }

  mutating func put(_ event: Event, _ input: JoinInput) {
    ends[input, default: 0] += 1
    core.take(event, from: input, at: Position(low: ends[input]!))
  }

  /// Moves every input's watermark to `time` and takes what is due.
  mutating func pass(_ time: Milliseconds) -> [Example] {
    for partition in 0..<core.rules.impressionPartitions { shown(.watermark(time: time), partition: partition) }
    for partition in 0..<core.rules.actionPartitions { done(.watermark(time: time), partition: partition) }
    return core.takeExamples().map(\.example)
  }
}

extension Example {
  /// "7@100 due 130 [+ - .]": what the rules are about, for short expectations.
  var brief: String {
    let signs = labels.map { $0 == .positive ? "+" : $0 == .negative ? "-" : "." }
    return "\(impression)@\(time) due \(due) [\(signs.joined(separator: " "))]"
  }

  var encoded: [UInt8] {
    var writer = ByteWriter()
    encode(into: &writer)
    return writer.finish().array
  }
}

func task(
  _ name: String, window: Int64 = 100, closing: [String] = ["end"], delivery: LabelDelivery = .onClose, rate: Double = 1
) -> TaskSpec {
  TaskSpec(
    name: name, closingActions: closing, windowMilliseconds: window, delivery: delivery, negativeRate: rate)
}
