import Base
import Glibc
import Streams
import Testing

@testable import Joining

/// What a run with a store did.
private struct Tally {
  var stored = 0
  var loaded = 0
}

extension Traffic {
  /// Feeds everything in one random interleaving with a store beside the core.
  fileprivate func feed(
    _ core: inout JoinerCore, _ store: PendingStore, seed: UInt64,
    each step: (inout JoinerCore) throws -> Void = { _ in }
  ) throws -> Tally {
    var random = SeededRandom(seed: seed ^ 77)
    var tally = Tally()
    var left = 1
    try feed(&core, seed: seed) { core throws(any Error) in
      left -= 1
      guard left == 0 else { return }
      left = Int.random(in: 1...40, using: &random)
      try settle(&core, store, &tally)
      try step(&core)
    }
    try settle(&core, store, &tally)
    return tally
  }

  private func settle(_ core: inout JoinerCore, _ store: PendingStore, _ tally: inout Tally) throws {
    let before = core.storedImpressions
    while true {
      let (loaded, isDone) = try core.settle(store)
      tally.loaded += loaded
      if isDone { break }
    }
    tally.stored += max(0, core.storedImpressions - before)
  }
}

@Suite("Pending impressions on disk", .serialized) struct StoredTests {
  private func makeCore(_ rules: JoinRules, _ seed: UInt64) -> JoinerCore {
    var core = JoinerCore(rules: rules)
    core.limitMemory(to: bound(seed))
    return core
  }

  /// Next to nothing in memory, and ever other sizes of what is read at once.
  private func bound(_ seed: UInt64) -> PendingBound {
    PendingBound(
      bytes: [0, 20_000, 60_000][Int(seed % 3)], aheadMilliseconds: [0, 20, 200][Int(seed / 3 % 3)],
      loadLimit: [1, 7, 50][Int(seed / 9 % 3)], settleLimit: seed % 2 == 0 ? 3 : 1000)
  }

  @Test func `with next to no memory every interleaving gives the same examples byte for byte`() throws {
    let traffic = Traffic(impressions: 250, seed: 1)
    var tally = Tally()
    for seed in 0..<27 as Range<UInt64> {
      var unbound = JoinerCore(rules: traffic.rules)
      traffic.feed(&unbound, seed: seed) { _ in }
      let expected = unbound.takeExamples()
      let scratch = ScratchDirectory()
      let store = PendingStore(in: scratch.path, memory: 0)
      var core = makeCore(traffic.rules, seed)
      let run = try traffic.feed(&core, store, seed: seed)
      tally.stored += run.stored
      tally.loaded += run.loaded
      let found = core.takeExamples()
      #expect(found.count == expected.count, "interleaving \(seed)")
      #expect(Set(found.map(\.example.encoded)) == Set(expected.map(\.example.encoded)), "interleaving \(seed)")
      let (labels, unboundLabels) = (core.counters.labels, unbound.counters.labels)
      #expect(labels == unboundLabels)
      let (hits, unboundHits) = (core.counters, unbound.counters)
      #expect(
        hits.hit + hits.duplicateActions + hits.expiredActions
          == unboundHits.hit + unboundHits.duplicateActions + unboundHits.expiredActions)
      #expect(core.pendingImpressions == 0 && core.storedImpressions == 0)
    }
    #expect(tally.stored > 2000 && tally.loaded > 2000)
  }

  @Test func `without late impressions even the order is that of a run without a bound`() throws {
    let traffic = Traffic(impressions: 200, seed: 2).withoutLateImpressions
    var unbound = JoinerCore(rules: traffic.rules)
    traffic.feed(&unbound, seed: 0) { _ in }
    let expected = unbound.takeExamples()
    #expect(expected.count > 200)
    for seed in 0..<9 as Range<UInt64> {
      let scratch = ScratchDirectory()
      var core = makeCore(traffic.rules, seed)
      let run = try traffic.feed(&core, PendingStore(in: scratch.path, memory: 0), seed: seed)
      #expect(core.takeExamples() == expected, "interleaving \(seed)")
      #expect(run.stored > 10)
    }
  }

  @Test func `stream features are frozen into impressions before they go to disk`() throws {
    let traffic = ComputedTraffic(impressions: 200, seed: 8).traffic
    for seed in 0..<6 as Range<UInt64> {
      var unbound = JoinerCore(rules: traffic.rules)
      traffic.feed(&unbound, seed: seed) { _ in }
      let expected = Set(unbound.takeExamples().map(\.example.encoded))
      let scratch = ScratchDirectory()
      var core = makeCore(traffic.rules, seed)
      let run = try traffic.feed(&core, PendingStore(in: scratch.path, memory: 0), seed: seed)
      #expect(Set(core.takeExamples().map(\.example.encoded)) == expected)
      #expect(run.stored > 20)
    }
  }

  @Test func `what a store holds is a key and a value that read back`() throws {
    var random = SeededRandom(seed: 3)
    let scratch = ScratchDirectory()
    let store = PendingStore(in: scratch.path, memory: 0)
    var expected: [StoredImpression] = []
    for number in 0..<500 as Range<UInt64> {
      let due = Int64.random(in: -40...40, using: &random) << Int64.random(in: 0...50, using: &random)
      var stored = StoredImpression(
        due: due,
        impression: Impression(
          id: number % 2 == 0 ? ImpressionID(number) : ImpressionID("\(number)"),
          time: .random(in: .min ... .max, using: &random),
          features: FeatureBlock(bytes: (0..<UInt8.random(in: 0...40, using: &random)).map { $0 }),
          predictions: (0..<Int.random(in: 0...3, using: &random)).map { Float($0) / 3 }),
        ordinal: Position(high: number, low: number * 3), floor: .random(in: .min ... .max, using: &random),
        done: .random(in: 0 ... .max, using: &random))
      for name in 0..<UInt16.random(in: 0...3, using: &random) {
        stored.actions.append(
          SeenAction(
            time: .random(in: -5...5, using: &random), arrival: .random(in: .min ... .max, using: &random), next: -1,
            name: name))
      }
      expected.append(stored)
      store.put(stored)
    }
    try store.commit()
    expected.sort { ($0.due, $0.impression.id) < ($1.due, $1.impression.id) }
    for index in expected.indices {
      expected[index].actions.sort { ($0.time, $0.arrival, $0.name) < ($1.time, $1.arrival, $1.name) }
    }
    var found: [StoredImpression] = []
    var cursor = try store.cursor()
    while let next = try cursor.next() { found.append(next) }
    #expect(found == expected)
    #expect(store.bytes > 10_000)
  }

  @Test func `a snapshot is the store of its moment, whatever came later`() throws {
    let scratch = ScratchDirectory()
    func stored(_ number: UInt64, due: Milliseconds) -> StoredImpression {
      StoredImpression(
        due: due, impression: Impression(id: ImpressionID(number), time: 0, features: FeatureBlock(bytes: [1])),
        ordinal: .start, floor: 0, done: 0)
    }
    do {
      let store = PendingStore(in: scratch.path, memory: 0)
      try store.begin(with: 0)
      for number in 0..<100 as Range<UInt64> { store.put(stored(number, due: Int64(number))) }
      store.deleteAll(before: StoreKey(beginningOf: 10))
      store.delete(stored(50, due: 50))
      try store.snapshot(7)
      store.put(stored(500, due: 500))
      store.delete(stored(60, due: 60))
      store.deleteAll(before: StoreKey(beginningOf: 90))
      try store.commit()
    }
    for _ in 0..<2 {
      let store = PendingStore(in: scratch.path, memory: 0)
      try store.begin(with: 7)
      var ids: [ImpressionID] = []
      var cursor = try store.cursor(isWhole: true)
      while let next = try cursor.next() { ids.append(next.impression.id) }
      #expect(ids == (10..<100).filter { $0 != 50 }.map { ImpressionID($0) })
      store.put(stored(1000, due: 1000))  // lost with this store
      try store.commit()
    }
  }
}
