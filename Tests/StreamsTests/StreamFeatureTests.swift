import Base
import Foundation
import Streams
import Testing

/// A schema whose stream features have every kind of value, and random traffic for it.
struct FeatureTraffic {
  static let schema = EventSchema(
    features: [
      FeatureSpec(name: "user"), FeatureSpec(name: "item"), FeatureSpec(name: "maker"),
      FeatureSpec(name: "age", kind: .dense(width: 2)), FeatureSpec(name: "tags", kind: .ids(limit: 3)),
      FeatureSpec(
        name: "shown", kind: .dense(width: 1), stream: StreamFeatureSpec(.count, event: "impression", by: ["item"])),
      FeatureSpec(
        name: "rate", kind: .dense(width: 1),
        stream: StreamFeatureSpec(.count, event: "click", by: ["user", "maker"], halfLifeMilliseconds: 500)),
      FeatureSpec(name: "clicks", stream: StreamFeatureSpec(.count, event: "click", by: ["item"])),
      FeatureSpec(name: "all", stream: StreamFeatureSpec(.count, event: "like", by: [])),
      FeatureSpec(
        name: "share", kind: .dense(width: 1),
        stream: StreamFeatureSpec(
          .share(over: "impression"), event: "click", by: ["item"], halfLifeMilliseconds: 2000)),
      FeatureSpec(
        name: "closed", stream: StreamFeatureSpec(.share(over: "end"), event: "like", by: ["maker"], buckets: 7)),
      FeatureSpec(
        name: "clicked", kind: .ids(limit: 4),
        stream: StreamFeatureSpec(.last(of: "item"), event: "click", by: ["user"])),
      FeatureSpec(
        name: "seen", kind: .ids(limit: 6),
        stream: StreamFeatureSpec(.last(of: "maker"), event: "impression", by: ["user"])),
    ], tasks: [TaskSpec(name: "click")])

  static let memory: Int64 = 3000
  var impressions: [Impression] = []
  var actions: [Action] = []

  init(count: Int, seed: UInt64) {
    var random = SeededRandom(seed: seed)
    for number in 0..<UInt64(count) {
      let time = Int64.random(in: 10_000...20_000, using: &random)
      func id(_ limit: UInt64) -> FeatureValue {
        random.uniform() < 0.1 ? .ids([]) : .ids([UInt64.random(in: 0..<limit, using: &random)])
      }
      let given: [FeatureValue] = [
        id(8), id(5), id(3), .numbers([1, Float(number)]),
        .ids((0..<UInt64(Int.random(in: 0...3, using: &random))).map { $0 }),
      ]
      impressions.append(
        Impression(
          id: ImpressionID(number), time: time, features: FeatureBlock(schema: Self.schema, values: given + Self.empty))
      )
      for name in ["click", "like", "end", "other"] where random.uniform() < 0.5 {
        let at = time + Int64.random(in: 0...(Self.memory * 5 / 4), using: &random)
        actions.append(Action(impression: ImpressionID(number), name: name, time: at))
        guard random.uniform() < 0.2 else { continue }
        actions.append(Action(impression: ImpressionID(number), name: name, time: at + 30))
      }
    }
  }

  static let empty: [FeatureValue] = schema.features.filter { $0.stream != nil }.map {
    $0.kind == .dense(width: 1) ? .numbers([0]) : .ids([])
  }

  func rules(delay: Int64 = 0) -> StreamFeatureRules {
    StreamFeatureRules(schema: Self.schema, delayMilliseconds: delay, memoryMilliseconds: Self.memory)
  }

  /// The values of one impression by definition, looking at everything at once.
  func expected(_ impression: Impression, delay: Int64) -> [FeatureValue] {
    let schema = Self.schema
    func ids(_ impression: Impression) -> [String: UInt64] {
      let values = (try? impression.features.values(of: schema)) ?? []
      return Dictionary(
        uniqueKeysWithValues: zip(schema.features, values).compactMap { feature, value in
          if feature.kind == .id, case .ids(let ids) = value, let id = ids.first { (feature.name, id) } else { nil }
        })
    }
    let own = ids(impression)
    let known = Dictionary(uniqueKeysWithValues: impressions.map { ($0.id, $0) })
    // What counts: event, when it was, whose it is; in the order of time, then of impressions and actions, then of ids.
    var events: [(name: String, time: Int64, impression: Impression)] = []
    events += impressions.map { ("impression", $0.time, $0) }
    events += Dictionary(grouping: actions) { "\($0.impression) \($0.name)" }.values.compactMap { same in
      let first = same.min { $0.time < $1.time }!
      guard let shown = known[first.impression], first.time <= shown.time + Self.memory else { return nil }
      return (first.name, first.time, shown)
    }
    events = events.filter { $0.time + delay < impression.time }
    events.sort {
      ($0.time, $0.name == "impression" ? 0 : 1, $0.impression.id) < (
        $1.time, $1.name == "impression" ? 0 : 1, $1.impression.id
      )
    }
    func matching(_ name: String, by: [String]) -> [(name: String, time: Int64, impression: Impression)]? {
      guard by.allSatisfy({ own[$0] != nil }) else { return nil }
      return events.filter { event in
        event.name == name && by.allSatisfy { ids(event.impression)[$0] == own[$0] }
      }
    }
    func weight(_ name: String, by: [String], _ halfLife: Int64?) -> Double? {
      matching(name, by: by)?.reduce(0) { sum, event in
        sum + (halfLife.map { pow(0.5, Double(impression.time - event.time) / Double($0)) } ?? 1)
      }
    }
    return schema.features.compactMap { feature -> FeatureValue? in
      guard let stream = feature.stream else { return nil }
      let number: Double?
      switch stream.value {
      case .count: number = weight(stream.event, by: stream.by, stream.halfLifeMilliseconds).map { log1p($0) }
      case .share(let over):
        let halfLife = stream.halfLifeMilliseconds
        let prior = (weight(stream.event, by: [], halfLife)! + 1) / (weight(over, by: [], halfLife)! + 2)
        number = weight(stream.event, by: stream.by, halfLife).map {
          min(1, ($0 + 10 * prior) / (weight(over, by: stream.by, halfLife)! + 10))
        }
      case .last(let of):
        guard case .ids(let limit) = feature.kind else { return nil }
        let found = (matching(stream.event, by: stream.by) ?? []).compactMap { ids($0.impression)[of] }
        return .ids(found.suffix(limit).reversed())
      }
      guard feature.kind == .id else { return .numbers([Float(number ?? 0)]) }
      guard let number else { return .ids([]) }
      if case .share = stream.value {
        return .ids([min(UInt64(stream.buckets) - 1, UInt64(number * Double(stream.buckets)))])
      }
      return .ids([UInt64(number / log(2) * Double(stream.buckets) + 1e-9)])
    }
  }

  /// Events in an order in which no event comes after the frontier has passed it, and how far the frontier may go.
  func steps(seed: UInt64, disorder: Int64) -> [(event: Event, frontier: Int64)] {
    var random = SeededRandom(seed: seed)
    var order: [(at: Int64, event: Event)] = impressions.map {
      ($0.time + Int64.random(in: 0...disorder, using: &random), .impression($0))
    }
    order += actions.map { ($0.time + Int64.random(in: 0...disorder, using: &random), .action($0)) }
    // Some come twice.
    order += order.filter { _ in random.uniform() < 0.3 }.map {
      ($0.at - Int64.random(in: 0...10, using: &random), $0.event)
    }
    order.sort { $0.at < $1.at }
    return order.map { ($0.event, $0.at - disorder - 10) }
  }
}

extension FeatureValue {
  /// Equal, but for the last digits of a number.
  func isClose(to other: FeatureValue) -> Bool {
    guard case .numbers(let mine) = self, case .numbers(let theirs) = other else { return self == other }
    return zip(mine, theirs).allSatisfy { abs($0 - $1) <= 1e-5 * max(1, abs($0)) }
  }
}

@Suite("Stream features") struct StreamFeatureTests {
  @Test(arguments: [0, 40] as [Int64]) func `values are those of the definition, whatever the order of events`(
    delay: Int64
  ) {
    let traffic = FeatureTraffic(count: 300, seed: 1)
    var first: [StreamFeatures.Valued] = []
    for seed in 0..<10 as Range<UInt64> {
      var features = StreamFeatures(traffic.rules(delay: delay))
      var valued: [StreamFeatures.Valued] = []
      for (event, frontier) in traffic.steps(seed: seed, disorder: 60) {
        if case .impression(let impression) = event {
          features.take(impression, isValued: true)
        } else {
          features.take(event)
        }
        features.advance(to: frontier, into: &valued)
      }
      features.advance(to: .max, into: &valued)
      var known: Set<ImpressionID> = []
      valued.removeAll { !known.insert($0.id).inserted }
      #expect(valued.count == 300)
      if seed == 0 {
        first = valued
        for impression in traffic.impressions {
          let expected = traffic.expected(impression, delay: delay)
          let found = valued.first { $0.id == impression.id }!.values
          #expect(zip(found, expected).allSatisfy { $0.isClose(to: $1) }, "\(impression.id): \(found), not \(expected)")
        }
        #expect(first.contains { $0.values[1] != .numbers([0]) })
        #expect(first.contains { if case .ids(let ids) = $0.values[6] { ids.count == 4 } else { false } })
      } else {
        #expect(valued == first, "order \(seed)")
      }
      #expect(features.counters.repeated > 100 && features.counters.unmatched > 20)
    }
  }

  @Test func `a state decoded at any moment goes on as the one that was encoded`() throws {
    let traffic = FeatureTraffic(count: 300, seed: 2)
    var expected: [StreamFeatures.Valued] = []
    for isRestarted in [false, true] {
      var random = SeededRandom(seed: 3)
      var features = StreamFeatures(traffic.rules(delay: 25))
      var valued: [StreamFeatures.Valued] = []
      for (event, frontier) in traffic.steps(seed: 4, disorder: 60) {
        if case .impression(let impression) = event {
          features.take(impression, isValued: true)
        } else {
          features.take(event)
        }
        features.advance(to: frontier, into: &valued)
        guard isRestarted, random.uniform() < 0.05 else { continue }
        var reader = ByteReader(Blob(encoded(features)))
        features = try StreamFeatures(traffic.rules(delay: 25), decoding: &reader)
        try reader.expectEnd()
      }
      features.advance(to: .max, into: &valued)
      if isRestarted { #expect(valued == expected) } else { expected = valued }
    }
  }

  func encoded(_ features: StreamFeatures) -> [UInt8] {
    var writer = ByteWriter()
    features.encode(into: &writer)
    return writer.finish().array
  }

  @Test func `an action counts from its own time and the delay on, and nothing looks ahead`() {
    let schema = EventSchema(
      features: [
        FeatureSpec(name: "item"),
        FeatureSpec(
          name: "clicks", kind: .dense(width: 1), stream: StreamFeatureSpec(.count, event: "click", by: ["item"])),
      ], tasks: [TaskSpec(name: "click")])
    let block = FeatureBlock(schema: schema, values: [.ids([7]), .numbers([0])])
    for (delay, at) in [(0, 151), (50, 201)] as [(Int64, Int64)] {
      var features = StreamFeatures(StreamFeatureRules(schema: schema, delayMilliseconds: delay))
      features.take(Impression(id: ImpressionID(1), time: 100, features: block))
      features.take(Action(impression: ImpressionID(1), name: "click", time: 150))
      features.advance(to: at - 1)
      #expect(features.values(of: block, at: at - 1) == [.numbers([0])])
      features.advance(to: at)
      #expect(features.values(of: block, at: at) == [.numbers([Float(log1p(1.0))])])
      let isTaken = features.take(Action(impression: ImpressionID(1), name: "click", time: 10))
      #expect(!isTaken, "the frontier has passed it")
      #expect(
        features.filled(block, at: at)
          == FeatureBlock(schema: schema, values: [.ids([7]), .numbers([Float(log1p(1.0))])]))
    }
  }

  @Test func `memory is bounded: the key that was longest without an event goes, and it is counted`() {
    let schema = EventSchema(
      features: [
        FeatureSpec(name: "user"),
        FeatureSpec(
          name: "shown", kind: .dense(width: 1), stream: StreamFeatureSpec(.count, event: "impression", by: ["user"])),
      ], tasks: [TaskSpec(name: "click")])
    func block(_ user: UInt64) -> FeatureBlock { FeatureBlock(schema: schema, values: [.ids([user]), .numbers([0])]) }
    var features = StreamFeatures(StreamFeatureRules(schema: schema, byteLimit: StreamFeatureRules.leastBytes))
    var time: Int64 = 1000
    for user in 0..<20_000 as Range<UInt64> {
      for known in [user, 1] {
        time += 1
        features.take(Impression(id: ImpressionID(UInt64(time)), time: time, features: block(known)))
      }
      features.advance(to: time)
    }
    features.advance(to: .max)
    let counters = features.counters
    #expect(features.keyCount < 10_000 && features.keyCount > 5000)
    #expect(counters.evictedKeys == UInt64(20_000 - features.keyCount))
    #expect(counters.forgottenImpressions > 30_000)
    #expect(features.values(of: block(1), at: time) == [.numbers([Float(log1p(20_001.0))])])
    #expect(features.values(of: block(2), at: time) == [.numbers([0])])
    #expect(features.values(of: block(19_999), at: time) == [.numbers([Float(log1p(1.0))])])
    #expect(encoded(features).count < StreamFeatureRules.leastBytes)
  }

  @Test func `features may come and go between two runs`() throws {
    func schema(_ features: [FeatureSpec]) -> EventSchema {
      EventSchema(
        features: [FeatureSpec(name: "user"), FeatureSpec(name: "item")] + features, tasks: [TaskSpec(name: "click")])
    }
    let items = FeatureSpec(
      name: "items", kind: .ids(limit: 2), stream: StreamFeatureSpec(.last(of: "item"), event: "click", by: ["user"]))
    let clicks = FeatureSpec(
      name: "clicks", kind: .dense(width: 1), stream: StreamFeatureSpec(.count, event: "click", by: ["item"]))
    let shown = FeatureSpec(
      name: "shown", kind: .dense(width: 1), stream: StreamFeatureSpec(.count, event: "impression", by: ["user"]))
    let before = schema([clicks, items])
    let after = schema([shown, items])
    func block(_ schema: EventSchema) -> FeatureBlock {
      FeatureBlock(
        schema: schema,
        values: [.ids([3]), .ids([9])]
          + schema.features.dropFirst(2).map {
            $0.kind == .dense(width: 1) ? .numbers([0]) : .ids([])
          })
    }
    var features = StreamFeatures(StreamFeatureRules(schema: before))
    features.take(Impression(id: ImpressionID(1), time: 100, features: block(before)))
    features.take(Impression(id: ImpressionID(2), time: 120, features: block(before)))
    features.take(Action(impression: ImpressionID(1), name: "click", time: 110))
    features.advance(to: 115)
    var reader = ByteReader(Blob(encoded(features)))
    var changed = try StreamFeatures(StreamFeatureRules(schema: after), decoding: &reader)
    try reader.expectEnd()
    changed.take(Action(impression: ImpressionID(2), name: "click", time: 130))
    changed.advance(to: 140)
    #expect(changed.values(of: block(after), at: 140) == [.numbers([Float(log1p(1.0))]), .ids([9, 9])])
    #expect(changed.occurrences(of: "items", for: block(after))?.map(\.time) == [130, 110])
  }

  @Test func `damaged state is an error or a state, never a trap`() {
    let traffic = FeatureTraffic(count: 60, seed: 5)
    var features = StreamFeatures(traffic.rules(delay: 500))
    for (event, frontier) in traffic.steps(seed: 6, disorder: 60).dropLast(60) {
      if case .impression(let impression) = event {
        features.take(impression, isValued: true)
      } else {
        features.take(event)
      }
      features.advance(to: frontier)
    }
    #expect(features.waitingEvents > 5 && features.keyCount > 10)
    let bytes = encoded(features)
    for length in 0..<bytes.count {
      var reader = ByteReader(Blob(Array(bytes[..<length])))
      #expect(throws: DecodeError.self) { _ = try StreamFeatures(traffic.rules(), decoding: &reader) }
    }
    var random = SeededRandom(seed: 7)
    var refused = 0
    for _ in 0..<500 {
      var damaged = bytes
      for _ in 0..<Int.random(in: 1...4, using: &random) {
        damaged[Int.random(in: damaged.indices, using: &random)] = UInt8.random(in: 0...255, using: &random)
      }
      var reader = ByteReader(Blob(damaged))
      do {
        var revived = try StreamFeatures(traffic.rules(), decoding: &reader)
        var valued: [StreamFeatures.Valued] = []
        for impression in traffic.impressions { revived.take(impression, isValued: true) }
        revived.advance(to: .max, into: &valued)
      } catch { refused += 1 }
    }
    #expect(refused > 30)
  }

  @Test func `what cannot be computed is told with the key that is wrong`() {
    func problems(_ kind: FeatureKind, _ stream: StreamFeatureSpec) -> [String] {
      EventSchema(
        features: [
          FeatureSpec(name: "user"), FeatureSpec(name: "tags", kind: .ids(limit: 3)),
          FeatureSpec(name: "x", kind: kind, stream: stream),
        ], tasks: [TaskSpec(name: "click")]
      ).streamFeatureProblems().map { "\($0.feature).\($0.key) \($0.fault); \($0.advice)" }
    }
    #expect(problems(.id, StreamFeatureSpec(.count, event: "click", by: ["user"])).isEmpty)
    #expect(
      problems(.ids(limit: 3), StreamFeatureSpec(.count, event: "click", by: ["usr"])) == [
        "x.by names 'usr', which is not a feature; use features of one id that events carry",
        "x.kind is up to 3 ids; use id, which is bucketized, or dense with width 1",
      ])
    #expect(
      problems(.id, StreamFeatureSpec(.last(of: "tags"), event: "click", by: [])) == [
        "x.of names 'tags', which is up to 3 ids; use a feature of one id that events carry",
        "x.by names no feature; say whose last ids these are, [user_id] say",
        "x.kind is one id; use ids: the last ones are a list",
      ])
    #expect(
      problems(.id, StreamFeatureSpec(.count, event: "click", by: ["x"], halfLifeMilliseconds: 0, buckets: 0)) == [
        "x.by names 'x', which is computed itself; use features of one id that events carry",
        "x.halfLife is 0 ms; use a positive duration, or leave it out", "x.buckets is 0; use 1 to 1000000",
      ])
  }

  @Test(arguments: [63, 64]) func `as many events as checkpoints can name are let in, impressions among them`(
    actions: Int
  ) throws {
    let features =
      [FeatureSpec(name: "user")]
      + (0..<actions).map {
        FeatureSpec(
          name: "x\($0)", kind: .dense(width: 1), stream: StreamFeatureSpec(.count, event: "a\($0)", by: ["user"]))
      }
    let schema = EventSchema(features: features, tasks: [TaskSpec(name: "click")])
    #expect(schema.streamFeatureProblems().isEmpty == (actions == 63))
    guard actions == 63 else { return }
    let rules = StreamFeatureRules(schema: schema)
    var writer = ByteWriter()
    StreamFeatures(rules).encode(into: &writer)
    var reader = ByteReader(writer.finish())
    _ = try StreamFeatures(rules, decoding: &reader)
  }
}
