import Base
import Joining
import Streams
import Testing

/// Random traffic whose impressions have a user and an item, and features that are computed from it.
struct ComputedTraffic {
  static let schema = EventSchema(
    features: [
      FeatureSpec(name: "user"),
      FeatureSpec(
        name: "clicked", kind: .ids(limit: 5),
        stream: StreamFeatureSpec(.last(of: "item"), event: "click", by: ["user"])),
      FeatureSpec(name: "item"),
      FeatureSpec(
        name: "shown", kind: .dense(width: 1),
        stream: StreamFeatureSpec(.count, event: "impression", by: ["item"], halfLifeMilliseconds: 4000)),
      FeatureSpec(name: "share", stream: StreamFeatureSpec(.share(over: "impression"), event: "hover", by: ["item"])),
    ], tasks: Traffic.rules.tasks)

  var traffic: Traffic

  init(impressions: Int, seed: UInt64, delay: Int64 = 0) {
    traffic = Traffic(impressions: impressions, seed: seed)
    for (input, events) in traffic.streams {
      traffic.streams[input] = events.map { event in
        guard case .impression(var impression) = event else { return event }
        impression.features = FeatureBlock(
          schema: Self.schema,
          values: [
            .ids([UInt64(impression.features.bytes[0]) % 6]), .ids([]), .ids([impression.id.low % 9]), .numbers([0]),
            .ids([]),
          ])
        return .impression(impression)
      }
    }
    traffic.rules.features = StreamFeatureRules(
      schema: Self.schema, delayMilliseconds: delay, memoryMilliseconds: 900 + traffic.rules.graceMilliseconds)
  }

  /// The events that are not late, each impression once.
  func inTime() -> [Event] {
    var events: [Event] = []
    var known: Set<ImpressionID> = []
    for (_, records) in traffic.streams {
      var own = Milliseconds.min
      for event in records {
        switch event {
        case .impression(let impression):
          if impression.time >= own, known.insert(impression.id).inserted { events.append(event) }
        case .action(let action): if action.time >= own { events.append(event) }
        case .watermark: break
        }
        own = max(own, event.time)
      }
    }
    return events
  }

  /// The examples by definition: those of the join, with features as counted by one who takes what is in time, in order.
  func expected() throws -> [Example] {
    var features = StreamFeatures(traffic.rules.features!)
    for event in inTime() {
      if case .impression(let impression) = event {
        features.take(impression, isValued: true)
      } else {
        features.take(event)
      }
    }
    var valued: [StreamFeatures.Valued] = []
    features.advance(to: .max, into: &valued)
    let values = Dictionary(uniqueKeysWithValues: valued.map { ($0.id, $0.values) })
    return try traffic.expected().map { example in
      var example = example
      if let values = values[example.impression] {
        example.features = try #require(features.filled(example.features, with: values))
      }
      return example
    }
  }
}

extension Event {
  var time: Milliseconds {
    switch self {
    case .impression(let impression): impression.time
    case .action(let action): action.time
    case .watermark(let time): time
    }
  }
}

@Suite("Stream features in the join") struct StreamFeatureJoinTests {
  @Test(arguments: [0, 300] as [Int64])
  func `a hundred interleavings freeze the same values into the examples, those of the definition`(
    delay: Int64
  ) throws {
    let computed = ComputedTraffic(impressions: 250, seed: 11, delay: delay)
    let traffic = computed.traffic
    let expected = Set(try computed.expected().map(\.encoded))
    let plain = Set(traffic.expected().map(\.encoded))
    #expect(expected.subtracting(plain).count > 200, "most examples have values")
    for seed in 0..<100 as Range<UInt64> {
      var core = JoinerCore(rules: traffic.rules)
      traffic.feed(&core, seed: seed) { _ in }
      let examples = core.takeExamples().map(\.example)
      #expect(examples.count == expected.count, "interleaving \(seed)")
      let isEqual = Set(examples.map(\.encoded)) == expected
      #expect(isEqual, "interleaving \(seed)")
    }
  }

  @Test func `a joiner decoded at any moment gives the same values`() throws {
    let computed = ComputedTraffic(impressions: 150, seed: 12, delay: 200)
    let traffic = computed.traffic
    let expected = Set(try computed.expected().map(\.encoded))
    for seed in 0..<10 as Range<UInt64> {
      var core = JoinerCore(rules: traffic.rules)
      var examples: [Example] = []
      var random = SeededRandom(seed: seed)
      try traffic.feed(&core, seed: seed) { core throws(DecodeError) in
        examples += core.takeExamples().map(\.example)
        guard random.uniform() < 0.05 else { return }
        var writer = ByteWriter()
        core.encode(into: &writer)
        var reader = ByteReader(writer.finish())
        core = try JoinerCore(rules: traffic.rules, decoding: &reader)
        try reader.expectEnd()
      }
      examples += core.takeExamples().map(\.example)
      let isEqual = Set(examples.map(\.encoded)) == expected
      #expect(isEqual)
    }
  }

  @Test func `a joiner may stop computing features, and begin again`() throws {
    let traffic = ComputedTraffic(impressions: 60, seed: 13).traffic
    var core = JoinerCore(rules: traffic.rules)
    traffic.feed(&core, seed: 1, until: traffic.count / 2) { _ in }
    _ = core.takeExamples()
    var rules = traffic.rules
    rules.features = nil
    for next in [rules, traffic.rules] {
      var writer = ByteWriter()
      core.encode(into: &writer)
      var reader = ByteReader(writer.finish())
      core = try JoinerCore(rules: next, decoding: &reader)
      try reader.expectEnd()
    }
    #expect(core.features?.counters == StreamFeatureCounters())
  }

  @Test func `an impression that its values would make too large keeps what it came with, and is counted`() throws {
    let schema = EventSchema(
      features: [
        FeatureSpec(name: "user"), FeatureSpec(name: "tags", kind: .ids(limit: 65_535)),
        FeatureSpec(name: "words", kind: .ids(limit: 65_535)),
        FeatureSpec(
          name: "clicked", kind: .ids(limit: 5),
          stream: StreamFeatureSpec(.last(of: "user"), event: "click", by: ["user"])),
      ], tasks: [task("click", window: 300)])
    // 65,534 words leave room for no id more, 65,533 for one.
    func shown(_ number: UInt64, at time: Milliseconds, words: Int) -> Event {
      let features = FeatureBlock(
        schema: schema,
        values: [
          .ids([1]), .ids(Array(repeating: 2, count: 65_535)), .ids(Array(repeating: 3, count: words)), .ids([]),
        ])
      return .impression(Impression(id: ImpressionID(number), time: time, arrival: 7, features: features))
    }
    var scenario = Scenario(
      JoinRules(
        tasks: schema.tasks, graceMilliseconds: 1000,
        features: StreamFeatureRules(schema: schema, memoryMilliseconds: 10_000)))
    scenario.shown(shown(1, at: 100, words: 10))
    scenario.done(action("click", 1, at: 110))
    scenario.shown(shown(2, at: 200, words: 65_534))
    scenario.shown(shown(3, at: 200, words: 65_533))
    let examples = scenario.pass(10_000)
    let columns = try examples.map { try $0.features.values(of: schema)[3] }
    #expect(examples.map(\.impression.low) == [1, 2, 3])
    let isEqual = columns == [.ids([]), .ids([]), .ids([1])]
    #expect(isEqual)
    #expect(scenario.core.counters.unfilledImpressions == 1)
  }
}
