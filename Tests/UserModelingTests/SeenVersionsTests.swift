import Base
import Testing

@testable import UserModeling

@Suite("Seen versions") struct SeenVersionsTests {
  private static let feed = Hashing.xxh3("feed")
  private static let ads = Hashing.xxh3("ads")

  private func seen(
    examples: UInt64 = 10, share: Double = 0.1, parts: Int = 1, window: Int64 = 1000,
    served: [String: ServedVersions] = [:]
  ) -> SeenVersions {
    let models = ["feed", "ads"].map { DownstreamModel(name: $0, windowMilliseconds: window) }
    var seen = SeenVersions(
      SeenOptions(models: models, examples: examples, share: share), served: served, parts: parts, now: 100)
    seen.comes(5, of: 77, at: 100)
    for model in [Self.feed, Self.ads] { seen.progressed(model, examples: 0, watermark: .min) }
    return seen
  }

  /// Serves what is seen, as the platform does.
  private func serve(_ seen: inout SeenVersions) -> [UInt64] {
    for (place, version) in seen.seen() { seen.serve(version, to: place) }
    return seen.status.map(\.served)
  }

  @Test func `a version is served when the watermark has passed the window of enough of its answers`() {
    var seen = seen()
    seen.progressed(Self.feed, examples: 1000, watermark: 0)
    seen.answered([0], version: 5, eventTime: 5000, count: 9)
    seen.answered([0], version: 5, eventTime: 9000, count: 1)
    #expect(seen.status[0].waiting == 10 && seen.status[0].candidate == 5)
    seen.progressed(Self.feed, examples: 5000, watermark: 9999)
    #expect(seen.status[0].examples == 9 && serve(&seen) == [0, 0])
    // Times are told apart by a thirty-second of the window: 9,000 counts as 9,020. An example due at the watermark may be
    // in the next batch.
    seen.progressed(Self.feed, examples: 5000, watermark: 10_020)
    #expect(serve(&seen) == [0, 0])
    seen.progressed(Self.feed, examples: 5000, watermark: 10_021)
    #expect(serve(&seen) == [5, 0])
    #expect(seen.status[0].examples == 0 && seen.status[0].candidate == nil)
  }

  @Test func `answers of later versions count for earlier ones, and the newest that has enough is served`() {
    var seen = seen()
    seen.comes(9, of: 77, at: 200)
    for version in 5...9 as ClosedRange<UInt64> { seen.answered([0], version: version, eventTime: 1, count: 4) }
    // Of a version that is not known here nothing is counted.
    seen.answered([0], version: 10, eventTime: 1, count: 100)
    seen.progressed(Self.feed, examples: 1000, watermark: 5000)
    // 9 has 4, 8 has 8, 7 has 12.
    #expect(serve(&seen) == [7, 0])
    #expect(seen.status[0].examples == 8 && seen.status[0].candidate == 8)
    seen.answered([0], version: 8, eventTime: 4500, count: 1)
    seen.answered([0], version: 9, eventTime: 4500, count: 1)
    seen.progressed(Self.feed, examples: 1100, watermark: 6000)
    #expect(serve(&seen) == [8, 0])
  }

  @Test func `examples from before anything was known of a model do not count`() {
    var seen = seen()
    seen.comes(1, of: 78, at: 900)
    seen.answered([0], version: 1, eventTime: 1, count: 50)
    seen.progressed(Self.feed, examples: 5000, watermark: 50_000)
    #expect(seen.status[0].examples == 50 && serve(&seen) == [0, 0])
    seen.progressed(Self.feed, examples: 5010, watermark: 50_000)
    #expect(serve(&seen) == [1, 0])
  }

  @Test func `answers that bring no examples do not count`() {
    var seen = seen()
    seen.progressed(Self.feed, examples: 1000, watermark: 0)
    seen.answered([0], version: 5, eventTime: 1, count: 500)
    seen.progressed(Self.feed, examples: 1009, watermark: 50_000)
    #expect(seen.status[0].examples == 500 && serve(&seen) == [0, 0])
    seen.progressed(Self.feed, examples: 1010, watermark: 50_000)
    #expect(serve(&seen) == [5, 0])
  }

  @Test func `models are at different points, and an answer for both holds what both are served`() {
    var seen = seen()
    seen.comes(6, of: 77, at: 200)
    seen.answered([0, 1], version: 5, eventTime: 1, count: 10)
    seen.answered([0], version: 6, eventTime: 1, count: 10)
    seen.progressed(Self.feed, examples: 1000, watermark: 5000)
    seen.progressed(Self.ads, examples: 1000, watermark: 5000)
    seen.progressed(Hashing.xxh3("other"), examples: 1000, watermark: 5000)
    #expect(serve(&seen) == [6, 5])
    #expect(seen.served(toAll: [0]).covers(6, madeAt: 300) && !seen.served(toAll: [1]).covers(6, madeAt: 300))
    #expect(!seen.served(toAll: [0, 1]).covers(6, madeAt: 300) && seen.served(toAll: [1, 0]).covers(5, madeAt: 300))
    #expect(Set(seen.states) == Set(seen.served.values))
  }

  @Test func `numbers of another store are other versions`() {
    var seen = seen()
    seen.answered([0], version: 5, eventTime: 1, count: 10)
    seen.progressed(Self.feed, examples: 1000, watermark: 5000)
    #expect(serve(&seen) == [5, 0])
    seen.answered([0], version: 5, eventTime: 1, count: 10)
    seen.comes(1, of: 78, at: 900)
    let served = seen.served(toAll: [0])
    #expect(served.covers(5, madeAt: 899) && !served.covers(6, madeAt: 899) && !served.covers(1, madeAt: 900))
    // What was made before the setting was turned on was answered to everybody.
    #expect(served.covers(999, madeAt: 99))
    // Counts of the old store are nothing in the new one, and neither are its answers.
    seen.answered([0], version: 5, eventTime: 1, count: 10)
    seen.progressed(Self.feed, examples: 1000, watermark: 50_000)
    #expect(serve(&seen) == [0, 0])
    seen.answered([0], version: 1, eventTime: 1, count: 10)
    seen.progressed(Self.feed, examples: 1010, watermark: 50_000)
    #expect(serve(&seen) == [1, 0])
    for store in 0..<20 as Range<UInt64> { seen.comes(1, of: 100 + store, at: 1000 + Int64(store)) }
    #expect(seen.served(toAll: [0]).isPlausible && !seen.served(toAll: [0]).covers(1, madeAt: 950))
  }

  @Test func `each of several processes counts its part of the examples`() {
    var seen = seen(examples: 10, parts: 3)
    #expect(seen.status.map(\.needed) == [4, 4])
    seen.answered([0], version: 5, eventTime: 1, count: 4)
    seen.progressed(Self.feed, examples: 9, watermark: 5000)
    #expect(serve(&seen) == [0, 0])
    seen.progressed(Self.feed, examples: 10, watermark: 5000)
    #expect(serve(&seen) == [5, 0])
  }

  @Test func `the early part of the users is as large as asked for, and the same in every process`() {
    let share = seen(share: 0.1)
    let early = (0..<20_000 as Range<UInt64>).filter(share.isEarly)
    #expect((1800...2200).contains(early.count))
    for part in 0..<4 {
      let own = early.filter { UserPart.index(of: $0, count: 4) == part }
      #expect((400...600).contains(own.count))
    }
    #expect(Set(early).isSuperset(of: (0..<20_000 as Range<UInt64>).filter(seen(share: 0.02).isEarly)))
    #expect((0..<1000 as Range<UInt64>).allSatisfy(seen(share: 1).isEarly))
  }

  /// Counts everything one by one: what the machine, in bounded memory, may serve at most.
  @Test(arguments: 1...8 as ClosedRange<UInt64>) func `however many versions and times, none is served too early`(
    seed: UInt64
  ) {
    var random = SeededRandom(seed: seed)
    var seen = seen(examples: 200, window: 64_000)
    var answers: [(version: UInt64, due: Milliseconds)] = []
    var (published, served, watermark) = (5 as UInt64, 0 as UInt64, 0 as Int64)
    for round in 1...3000 as ClosedRange<Int64> {
      if Bool.random(using: &random) {
        published += 1
        seen.comes(published, of: 77, at: 100 + round)
      }
      let version = max(5, published - min(published - 5, UInt64.random(in: 0..<6, using: &random)))
      let time = round * 500 + Int64.random(in: -40_000...0, using: &random)
      seen.answered([0], version: version, eventTime: time, count: 1)
      answers.append((version, time + 64_000))
      if round % 50 == 0 {
        watermark = round * 500 - 1000
        seen.progressed(Self.feed, examples: UInt64(round) * 1000, watermark: watermark)
        let before = served
        served = serve(&seen)[0]
        #expect(served >= before)
        if served > before {
          let trained = answers.count { $0.version >= served && $0.due < watermark }
          #expect(trained >= 200, "version \(served) is served with \(trained)")
        }
      }
    }
    // It is not held back much longer than need be either.
    #expect(served + 1100 > published, "\(served) of \(published)")
  }

  @Test func `event times at the ends of the range do not trap`() {
    var seen = seen()
    for time in [Int64.min, .min + 1, -1, 0, .max - 1, .max] {
      seen.answered([0, 1], version: 5, eventTime: time, count: 3)
    }
    for step in 0..<200 as Range<Int64> { seen.answered([0], version: 5, eventTime: step << 55, count: 1) }
    seen.progressed(Self.feed, examples: 1000, watermark: .max)
    #expect(seen.status[0].examples > 100)
  }

  @Test func `what is served to two is what is served to each`() {
    var random = SeededRandom(seed: 5)
    func state() -> ServedVersions {
      var served = ServedVersions(before: Int64.random(in: 0..<10, using: &random))
      for step in 1...Int.random(in: 1...10, using: &random) {
        served.begin(store: UInt64(step), at: Int64.random(in: 0..<100, using: &random))
        served.serve(UInt64.random(in: 0..<8, using: &random))
      }
      return served
    }
    for _ in 0..<200 {
      let (one, two) = (state(), state())
      let both = one.intersected(with: two)
      for madeAt in -1...101 as ClosedRange<Int64> {
        for version in 0...8 as ClosedRange<UInt64> {
          let right = one.covers(version, madeAt: madeAt) && two.covers(version, madeAt: madeAt)
          #expect(both.covers(version, madeAt: madeAt) == right)
        }
      }
    }
  }
}
