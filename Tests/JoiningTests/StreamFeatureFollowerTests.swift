import Base
import Streams
import Testing

@testable import Joining

@Suite("Following stream features") struct StreamFeatureFollowerTests {
  /// What a replica that has read everything says about every user and item.
  func values(_ shared: SharedStreamFeatures) -> [FeatureBlock] {
    (0..<54 as Range<UInt64>).map { number in
      let values: [FeatureValue] = [.ids([number % 6]), .ids([]), .ids([number / 6]), .numbers([0]), .ids([])]
      return shared.filled(FeatureBlock(schema: ComputedTraffic.schema, values: values), at: 40_000)
    }
  }

  @Test func `a replica counts what the joiner counts, from the beginning and from the joiner's checkpoint`() throws {
    let scratch = ScratchDirectory()
    let computed = ComputedTraffic(impressions: 200, seed: 21, delay: 100)
    var cluster = try Cluster(root: scratch.path, computed.traffic)
    let rules = computed.traffic.rules
    let features = try #require(rules.features)
    func follower(_ shared: SharedStreamFeatures) throws -> StreamFeatureFollower {
      try StreamFeatureFollower(
        rules, stateDirectory: cluster.options.stateDirectory, streams: cluster.streams, into: shared)
    }
    let early = SharedStreamFeatures(StreamFeatures(features))
    let first = try follower(early)
    var joiner: Joiner? = try cluster.joiner()
    var number = 0
    var isMore = true
    while isMore {
      isMore = false
      for input in rules.allInputs where try cluster.write(input, count: 40) { isMore = true }
      while try joiner?.step() == true {}
      while try first.step(now: .max) {}
      number += 1
      if number == 3 { try joiner?.checkpoint() }
    }
    joiner = nil
    let late = SharedStreamFeatures(StreamFeatures(features))
    let second = try follower(late)
    #expect(second.frontier > .min, "it begins with the joiner's state")
    while try second.step(now: .max) {}

    var reference = StreamFeatures(features)
    for event in computed.inTime() { reference.take(event) }
    reference.advance(to: .max)
    let expected = values(SharedStreamFeatures(reference))
    #expect(values(early) == expected)
    #expect(values(late) == expected)
    #expect(Set(expected).count > 40)
    let counters = late.update { $0.counters }
    #expect(counters.impressions == reference.counters.impressions && counters.actions == reference.counters.actions)
  }

  @Test func `nothing counts before it would count in training`() throws {
    let scratch = ScratchDirectory()
    let computed = ComputedTraffic(impressions: 50, seed: 22, delay: 100)
    var cluster = try Cluster(root: scratch.path, computed.traffic)
    for input in computed.traffic.rules.allInputs { _ = try cluster.write(input, count: .max) }
    let shared = SharedStreamFeatures(StreamFeatures(computed.traffic.rules.features!))
    let follower = try StreamFeatureFollower(
      computed.traffic.rules, stateDirectory: cluster.options.stateDirectory, streams: cluster.streams, into: shared)
    while try follower.step(now: 20_000) {}
    #expect(follower.frontier == 20_000)
    var reference = StreamFeatures(computed.traffic.rules.features!)
    for event in computed.inTime() { reference.take(event) }
    reference.advance(to: 20_000)
    #expect(values(shared) == values(SharedStreamFeatures(reference)))
  }
}
