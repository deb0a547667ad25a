import Base
import Serving
import Streams
import Testing

@testable import UserModeling

@Suite("Users' state from the stream") struct StreamStateTests {
  private static let schema: EventSchema = {
    var schema = Fixture.schema
    schema.features[1].stream = StreamFeatureSpec(.last(of: "item"), event: "like", by: ["user_id"])
    return schema
  }()

  private static func shown(_ id: UInt64, user: UInt64, item: UInt64, at time: Milliseconds) -> Impression {
    Impression(
      id: ImpressionID(id), time: time,
      features: FeatureBlock(schema: schema, values: [.ids([user]), .ids([]), .ids([item]), .numbers([0, 0])]))
  }

  private func rules() -> StreamFeatureRules {
    StreamFeatureRules(schema: Self.schema, delayMilliseconds: 10, memoryMilliseconds: 1000, byteLimit: 1 << 20)
  }

  private func triggers(limit: Int = 100) -> ActionTriggers {
    ActionTriggers(actions: ["like"], delayMilliseconds: 10, memoryMilliseconds: 1000, limit: limit)
  }

  private func user(_ block: FeatureBlock) -> UInt64? {
    guard case .ids(let ids)? = try? block.values(of: Self.schema)[0] else { return nil }
    return ids.first
  }

  @Test func `an action moves its user's embedding, to what training would make of it, and nobody else's`() throws {
    let shared = SharedStreamFeatures(StreamFeatures(rules()))
    let fixture = try Fixture(schema: Self.schema, streamFeatures: shared)
    try fixture.load(version: 1)
    let soap = try fixture.soap(store: MemoryStore()) { $0.pooling.entries = 1 }
    var triggers = triggers()
    var reference = StreamFeatures(rules())
    func take(_ events: [Event], frontier: Milliseconds) {
      for event in events {
        triggers.take(event, user: user)
        reference.take(event)
        shared.update { _ = $0.take(event) }
      }
      reference.advance(to: frontier)
      shared.update { $0.advance(to: frontier) }
      soap.recompute(triggers.due(before: frontier), countedBefore: frontier)
    }
    take(
      [.impression(Self.shown(1, user: 7, item: 3, at: 100)), .impression(Self.shown(2, user: 8, item: 4, at: 100))],
      frontier: 120)
    // A request of the application, which knows nothing of what the user did.
    soap.offer([
      ComputeRequest(user: 7, features: Self.shown(1, user: 7, item: 3, at: 0).features, eventTime: 120),
      ComputeRequest(user: 8, features: Self.shown(2, user: 8, item: 4, at: 0).features, eventTime: 120),
    ])
    #expect(soap.workOnce())
    let before = try soap.vectors(of: [7, 8])
    // The action comes, and counts ten milliseconds after its time, not before.
    take([.action(Action(impression: ImpressionID(1), name: "like", time: 130))], frontier: 140)
    #expect(!soap.workOnce())
    take([], frontier: 141)
    #expect(soap.workOnce())
    let after = try soap.vectors(of: [7, 8])
    #expect(after[0].values != before[0].values && after[0].eventTime == 141)
    #expect(after[1].values == before[1].values)
    // The joiner fills an impression of that moment the same way, and the tower gives the same numbers.
    let filled = try #require(reference.filled(Self.shown(9, user: 7, item: 0, at: 141).features, at: 141))
    #expect(try filled.values(of: Self.schema)[1] == .ids([3]))
    var columns = FeatureColumns(schema: Self.schema)
    try filled.append(to: &columns, schema: Self.schema)
    let embedder = try #require(UserEmbedder(fixture.predictor, model: "users"))
    let expected = try #require(embedder.embed(columns)).values
    for (a, b) in zip(after[0].values, expected) { #expect(abs(a - b) < 1e-5) }
  }

  @Test func `an action is not lost on a user whose entry is of a later event time`() throws {
    let shared = SharedStreamFeatures(StreamFeatures(rules()))
    let fixture = try Fixture(schema: Self.schema, streamFeatures: shared)
    try fixture.load(version: 1)
    let soap = try fixture.soap(store: MemoryStore()) { $0.pooling.entries = 1 }
    let block = Self.shown(1, user: 7, item: 3, at: 100).features
    soap.offer([ComputeRequest(user: 7, features: block, eventTime: 5000)])
    #expect(soap.workOnce())
    let before = try soap.vectors(of: [7])[0]
    shared.update { features in
      features.take(Self.shown(1, user: 7, item: 3, at: 100))
      features.take(Action(impression: ImpressionID(1), name: "like", time: 110))
      features.advance(to: 200)
    }
    soap.recompute([(7, block)], countedBefore: 200)
    #expect(soap.workOnce())
    let after = try soap.vectors(of: [7])[0]
    #expect(after.eventTime == 5000 && after.values != before.values)
  }

  @Test func `each user is given once, when the first of their actions counts, with their newest features`() {
    var triggers = triggers()
    for (id, item) in [(1, 3), (2, 4)] as [(UInt64, UInt64)] {
      triggers.take(.impression(Self.shown(id, user: 7, item: item, at: 100 + Int64(id))), user: user)
    }
    triggers.take(.impression(Self.shown(3, user: 8, item: 5, at: 100)), user: { _ in nil })
    // An action may come before the impression it is of.
    triggers.take(.action(Action(impression: ImpressionID(4), name: "like", time: 150)), user: user)
    for (id, name) in [(1, "like"), (2, "like"), (2, "share"), (3, "like")] as [(UInt64, String)] {
      triggers.take(.action(Action(impression: ImpressionID(id), name: name, time: 110)), user: user)
    }
    triggers.take(.impression(Self.shown(4, user: 9, item: 6, at: 149)), user: user)
    #expect(triggers.due(before: 120).isEmpty)
    let due = triggers.due(before: 121)
    #expect(due.map(\.user) == [7] && due[0].features == Self.shown(2, user: 7, item: 4, at: 0).features)
    #expect(triggers.due(before: 161).map(\.user) == [9])
    #expect(triggers.due(before: 200).isEmpty && triggers.unmatched == 1)
  }

  @Test func `impressions are remembered as long as their actions count, and no more than the limit`() {
    var triggers = triggers(limit: 50)
    for id in 0..<5000 as Range<UInt64> {
      triggers.take(.impression(Self.shown(id, user: id % 7, item: 1, at: 100)), user: user)
    }
    #expect(triggers.impressionCount == 50)
    triggers.take(.action(Action(impression: ImpressionID(4999), name: "like", time: 101)), user: user)
    triggers.take(.action(Action(impression: ImpressionID(1), name: "like", time: 101)), user: user)
    #expect(triggers.due(before: 1110).map(\.user) == [4999 % 7])
    #expect(triggers.unmatched == 1)
    _ = triggers.due(before: 1111)
    #expect(triggers.impressionCount == 0)
  }
}
