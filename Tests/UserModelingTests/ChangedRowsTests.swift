import Base
import Layers
import Testing

@testable import UserModeling

/// What a version that changed users' rows has worked out without anybody asking.
@Suite("Users whose row a version changed") struct ChangedRowsTests {
  private func soap(_ fixture: Fixture, _ adjust: (inout SoapOptions) -> Void = { _ in }) throws -> Soap {
    try fixture.load(version: 3)
    let soap = try fixture.soap(store: MemoryStore(), adjust)
    _ = try soap.vectors(for: [
      Fixture.request(7, liked: [1], at: 5_000), Fixture.request(8, at: 5_000), Fixture.request(9, at: 9_500),
    ])
    while soap.workOnce() {}
    return soap
  }

  @Test func `they are worked out from their last inputs, and only they`() throws {
    let fixture = try Fixture()
    let soap = try soap(fixture) { $0.pooling.entries = 1 }
    let before = try soap.vectors(of: [7, 8, 9])
    try fixture.change(rowsOf: [7, 9, 50], version: 4, newestEventTime: 8_000)
    while soap.workOnce() {}
    let after = try soap.vectors(of: [7, 8, 9])
    #expect(after.map(\.version) == [4, 3, 4])
    // The entry is of the version's newest example, and in any case later than the user's last one, which stays.
    #expect(after.map(\.eventTime) == [8_000, 5_000, 9_501])
    #expect(try soap.vectors(of: [9], asOf: 9_500)[0].version == 3)
    #expect(after[0].values != before[0].values && after[1].values == before[1].values)
    #expect(soap.status.changed == 2 && soap.status.computed == 5)

    // It is what a request with the same inputs would be answered with that waits for its embedding.
    let waiting = try fixture.soap(store: MemoryStore()) { ($0.mode, $0.pooling.entries) = (.realtime, 1) }
    #expect(try waiting.vectors(for: [Fixture.request(7, liked: [1], at: 8_000)])[0].values == after[0].values)
  }

  @Test func `a version that changes nobody who came has nothing worked out`() throws {
    let fixture = try Fixture()
    let soap = try soap(fixture)
    try fixture.change(rowsOf: [50, 60], version: 4, newestEventTime: 8_000)
    #expect(!soap.workOnce())
    // What a version skipped is found by the next one that is looked at.
    try fixture.change(rowsOf: [8], version: 5, newestEventTime: 8_000)
    try fixture.change(rowsOf: [50], version: 6, newestEventTime: 8_100)
    #expect(soap.workOnce() && !soap.workOnce())
    #expect(try soap.vectors(of: [7, 8])[1].version == 6)
    #expect(soap.status.changed == 1)
  }

  @Test func `the base of another store, whose numbers begin anew, changes everybody`() throws {
    let fixture = try Fixture()
    let soap = try soap(fixture)
    try fixture.change(rowsOf: [7], version: 4, newestEventTime: 8_000)
    while soap.workOnce() {}
    try fixture.load(version: 2, seed: 5)
    while soap.workOnce() {}
    #expect(try soap.vectors(of: [7, 8, 9]).allSatisfy { $0.version == 2 })
    #expect(soap.status.changed == 4)
  }

  @Test(arguments: [SoapMode.async, .realtime, .offline, .frozen])
  func `only async does so, and only when it is told to`(_ mode: SoapMode) throws {
    for isTold in [true, false] {
      let fixture = try Fixture()
      let soap = try soap(fixture) { ($0.mode, $0.recomputesOnVersion) = (mode, isTold) }
      try fixture.change(rowsOf: [7], version: 4, newestEventTime: 8_000)
      #expect(soap.workOnce() == (mode == .async && isTold))
    }
  }

  @Test func `nothing is worked out again for one who was forgotten`() throws {
    let fixture = try Fixture()
    let soap = try soap(fixture)
    try soap.forget([7])
    soap.rowsGone(of: [8])
    // What still comes of them is not remembered either.
    soap.offer([Fixture.request(7, at: 6_000)])
    soap.recompute([(7, Fixture.block(user: 7))], countedBefore: 6_500)
    for version in 4...8 as ClosedRange<UInt64> {
      try fixture.change(rowsOf: [7, 8], version: version, newestEventTime: 8_000)
      while soap.workOnce() {}
      soap.versionCame()
    }
    #expect(try soap.vectors(of: [7, 8]).map(\.source) == [.default, .default])
  }

  @Test func `a version that is held back waits until a later one is used`() throws {
    let fixture = try Fixture()
    let soap = try soap(fixture) { $0.holdAbove = 0.2 }
    try fixture.load(version: 4, seed: 99)
    #expect(!soap.workOnce() && soap.status.heldVersion == 4)
    try fixture.load(version: 5)
    try fixture.change(rowsOf: [8], version: 6, newestEventTime: 8_000)
    while soap.workOnce() {}
    // Version 5 is a base: all of its rows are new.
    #expect(try soap.vectors(of: [7, 8, 9]).allSatisfy { $0.version == 6 } && soap.status.changed == 3)
  }

  @Test func `requests have their turn first, and their inputs are not given up for remembered ones`() throws {
    let fixture = try Fixture()
    let soap = try soap(fixture) { ($0.pooling.entries, $0.batchSize) = (1, 1) }
    try fixture.change(rowsOf: [7, 8], version: 4, newestEventTime: 8_000)
    // 7 waits with inputs that are older than the version's newest example; 9 comes when 8 waits already.
    soap.offer([Fixture.request(7, liked: [2], at: 7_000)])
    #expect(soap.workOnce())
    soap.offer([Fixture.request(9, liked: [3], at: 9_900)])
    #expect(soap.workOnce())
    #expect(try soap.vectors(of: [7, 8, 9]).map(\.version) == [4, 3, 4])
    #expect(try soap.vectors(of: [7, 9]).map(\.eventTime) == [7_000, 9_900])
    #expect(soap.workOnce() && !soap.workOnce())
    #expect(try soap.vectors(of: [8])[0].version == 4 && soap.status.changed == 1)
  }

  @Test func `an entry of a version whose newest example is older is read all the same`() throws {
    let fixture = try Fixture()
    let soap = try soap(fixture) { $0.pooling.entries = 1 }
    try fixture.change(rowsOf: [7], version: 4, newestEventTime: 8_000)
    while soap.workOnce() {}
    // As after a rollback.
    try fixture.change(rowsOf: [7], version: 5, newestEventTime: 6_000)
    while soap.workOnce() {}
    let vector = try soap.vectors(of: [7])[0]
    #expect(vector.version == 5 && vector.eventTime == 8_001)
  }

  @Test func `nothing is remembered of a model without rows of users`() throws {
    let other = try Fixture { model in
      model.features = [
        ModelFeature(name: "liked", table: 0, combiner: .mean), ModelFeature(name: "item", table: 1),
      ]
      model.userModel.features = ["liked"]
    }
    let soap = try soap(other)
    #expect(soap.recent.withLock { $0.count } == 0)
  }

  @Test func `versions, readers and forgetting at once leave nobody behind, and no one who was forgotten`() throws {
    let fixture = try Fixture()
    let soap = try soap(fixture)
    let compute = OwnedThread(named: "compute") { soap.run() }
    let readers = (0..<2 as Range<UInt64>).map { reader in
      OwnedThread(named: "reader") {
        for round in 0..<200 as Range<UInt64> {
          let user = 10 + (round * 2 + reader) % 60
          _ = try? soap.vectors(for: [Fixture.request(user, at: 9_600 + Int64(round))])
        }
      }
    }
    for version in 4...60 as ClosedRange<UInt64> {
      try fixture.change(rowsOf: Array(7..<70), version: version, newestEventTime: 8_000)
      soap.versionCame()
      if version == 30 { try soap.forget([7, 8]) }
    }
    for reader in readers { reader.join() }
    try fixture.change(rowsOf: Array(7..<70), version: 61, newestEventTime: 8_000)
    let users = Array(9..<70 as Range<UInt64>)
    let deadline = Clocks.monotonic() + 60_000_000_000
    while try soap.vectors(of: users).contains(where: { $0.version != 61 }), Clocks.monotonic() < deadline {}
    soap.stop()
    compute.join()
    #expect(try soap.vectors(of: users).allSatisfy { $0.version == 61 })
    #expect(try soap.vectors(of: [7, 8]).map(\.source) == [.default, .default])
  }

  @Test func `inputs are remembered of the users who came last, the newest of each`() throws {
    var recent = RecentInputs(limit: 100)
    for user in 0..<1_000 as Range<UInt64> {
      recent.keep(Fixture.request(user, at: 10), at: Milliseconds(user))
      recent.keep(Fixture.request(3, at: Milliseconds(user)), at: Milliseconds(user))
      #expect(recent.count <= 100)
    }
    #expect(recent[3]?.eventTime == 999)
    recent.keep(Fixture.request(3, at: 500), at: 2_000)
    #expect(recent[3]?.eventTime == 999)
    #expect(recent[999] != nil && recent[960] != nil && recent[100] == nil)
    let all = recent.users(since: .min)
    #expect(Set(all).count == recent.count && all.count == recent.count && all.allSatisfy { recent[$0] != nil })
    recent.remove([3, 999])
    #expect(recent[3] == nil && recent[999] == nil && recent[998] != nil)
    // By when they came, whatever the events' own time: those of a replay are old.
    #expect(Set(recent.users(since: 990)) == Set(990...998))
    #expect(recent.count == 9 && recent[989] == nil)
  }
}
