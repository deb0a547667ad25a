import Base
import Joining
import Streams
import Testing

@Suite("Determinism") struct DeterminismTests {
  @Test func `a hundred interleavings give the same examples byte for byte, and those of the definition`() {
    let traffic = Traffic(impressions: 250, seed: 1)
    let expected = Set(traffic.expected().map(\.encoded))
    #expect(expected.count > 400)
    #expect((0.27...0.33).contains(traffic.repeatedShare), "\(traffic.repeatedShare)")
    #expect((0.18...0.22).contains(traffic.lateShare), "\(traffic.lateShare)")
    for seed in 0..<100 as Range<UInt64> {
      var core = JoinerCore(rules: traffic.rules)
      traffic.feed(&core, seed: seed) { _ in }
      let examples = core.takeExamples().map(\.example.encoded)
      #expect(examples.count == expected.count, "interleaving \(seed)")
      #expect(Set(examples) == expected, "interleaving \(seed)")
      let counters = core.counters
      #expect(counters.lateActions > 50 && counters.lateImpressions > 20 && counters.duplicateImpressions > 20)
    }
  }

  @Test func `without late impressions even the order of the examples is the same`() {
    let traffic = Traffic(impressions: 200, seed: 2).withoutLateImpressions
    var first: [Example] = []
    for seed in 0..<20 as Range<UInt64> {
      var core = JoinerCore(rules: traffic.rules)
      traffic.feed(&core, seed: seed) { _ in }
      let examples = core.takeExamples().map(\.example)
      if seed == 0 { first = examples }
      #expect(examples == first, "interleaving \(seed)")
    }
    #expect(first.count > 200)
    #expect(zip(first, first.dropFirst()).allSatisfy { ($0.due, $0.impression) <= ($1.due, $1.impression) })
  }
}

@Suite("Joiner state") struct StateTests {
  func encoded(_ core: borrowing JoinerCore) -> Blob {
    var writer = ByteWriter()
    core.encode(into: &writer)
    return writer.finish()
  }

  @Test func `a core decoded at any moment goes on as the one that was encoded`() throws {
    let traffic = Traffic(impressions: 120, seed: 3)
    let expected = Set(traffic.expected().map(\.encoded))
    for seed in 0..<20 as Range<UInt64> {
      var core = JoinerCore(rules: traffic.rules)
      var examples: [Example] = []
      var random = SeededRandom(seed: seed)
      try traffic.feed(&core, seed: seed) { core throws(DecodeError) in
        examples += core.takeExamples().map(\.example)
        guard random.uniform() < 0.02 else { return }
        var reader = ByteReader(encoded(core))
        core = try JoinerCore(rules: traffic.rules, decoding: &reader)
        try reader.expectEnd()
      }
      examples += core.takeExamples().map(\.example)
      #expect(examples.count == expected.count)
      #expect(Set(examples.map(\.encoded)) == expected)
      let counters = core.counters
      #expect(counters.examples == UInt64(expected.count))
      #expect(core.pendingImpressions == 0 && core.waitingActions == 0)
    }
  }

  @Test func `labels withheld are counted and not handed over again, even through another restart`() throws {
    let traffic = Traffic(impressions: 150, seed: 4)
    let expected = traffic.expected()
    for seed in 0..<10 as Range<UInt64> {
      var core = JoinerCore(rules: traffic.rules)
      for example in expected.dropLast(40) { core.withhold(example) }
      var random = SeededRandom(seed: seed)
      var fresh: [[UInt8]] = []
      try traffic.feed(&core, seed: seed) { core throws(DecodeError) in
        fresh += core.takeExamples().map(\.example.encoded)
        guard random.uniform() < 0.01 else { return }
        var reader = ByteReader(encoded(core))
        core = try JoinerCore(rules: traffic.rules, decoding: &reader)
      }
      fresh += core.takeExamples().map(\.example.encoded)
      #expect(Set(fresh) == Set(expected.suffix(40).map(\.encoded)))
      #expect(fresh.count == 40)
      let counters = core.counters
      #expect(counters.examples == UInt64(expected.count))
      for (index, labels) in counters.labels.enumerated() {
        #expect(labels.emitted == UInt64(expected.count { $0.labels[index] != .masked }))
        #expect(labels.positive == UInt64(expected.count { $0.labels[index] == .positive }))
      }
      #expect(core.withheldImpressions == 0)
    }
  }

  @Test func `damaged state is an error or a state, never a trap`() {
    let traffic = Traffic(impressions: 80, seed: 5)
    var core = JoinerCore(rules: traffic.rules)
    traffic.feed(&core, seed: 1, until: traffic.count * 9 / 10) { _ in }
    _ = core.takeExamples()
    #expect(core.pendingImpressions > 5 && core.waitingActions > 5 && core.rememberedImpressions > 5)
    let bytes = encoded(core).array
    for length in 0..<bytes.count {
      var reader = ByteReader(Blob(Array(bytes[..<length])))
      #expect(throws: DecodeError.self) { _ = try JoinerCore(rules: traffic.rules, decoding: &reader) }
    }
    var random = SeededRandom(seed: 6)
    var refused = 0
    for _ in 0..<500 {
      var damaged = bytes
      for _ in 0..<Int.random(in: 1...4, using: &random) {
        damaged[Int.random(in: damaged.indices, using: &random)] = UInt8.random(in: 0...255, using: &random)
      }
      var reader = ByteReader(Blob(damaged))
      do {
        var revived = try JoinerCore(rules: traffic.rules, decoding: &reader)
        traffic.feed(&revived, seed: 2, until: 200) { _ in }
        _ = revived.takeExamples()
      } catch { refused += 1 }
    }
    #expect(refused > 30)
  }

  @Test func `tasks may come and go between two runs`() throws {
    var before = Scenario(task("click", window: 100), task("like", window: 500), task("old", window: 500))
    before.shown(impression(1, at: 1000))
    before.done(action("like", 1, at: 1010))
    #expect(before.pass(1200).map(\.brief) == ["1@1000 due 1100 [- . .]"])
    var reader = ByteReader(encoded(before.core))
    let rules = JoinRules(tasks: [task("new", window: 500), task("like", window: 600), task("click")])
    var core = try JoinerCore(rules: rules, decoding: &reader)
    for stream in JoinStream.allCases {
      core.take(.watermark(time: 5000), from: JoinInput(stream, 0), at: Position(low: 99))
    }
    let briefs = core.takeExamples().map(\.example.brief)
    #expect(briefs == ["1@1000 due 1500 [- . .]", "1@1000 due 1600 [. + .]"])
    let counts = core.counters.labels
    #expect(counts.map(\.task) == ["new", "like", "click"])
    #expect(counts.map(\.emitted) == [1, 1, 1])
  }

  @Test func `a state with more partitions than the rules is refused`() {
    let core = JoinerCore(rules: JoinRules(tasks: [task("click")], actionPartitions: 2))
    var reader = ByteReader(encoded(core))
    #expect(throws: DecodeError.overLimit(field: "actions partitions of a joiner state", value: 2, limit: 1)) {
      _ = try JoinerCore(rules: JoinRules(tasks: [task("click")]), decoding: &reader)
    }
  }
}
