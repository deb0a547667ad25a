import Base
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
    // A version knows a user as of its newest example; inputs that are newer still are newer.
    #expect(after.map(\.eventTime) == [8_000, 5_000, 9_500])
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
    fixture.store.begin(version: 2, created: 2_000)
    try fixture.load(version: 2, seed: 5)
    while soap.workOnce() {}
    #expect(try soap.vectors(of: [7, 8, 9]).allSatisfy { $0.version == 2 })
    #expect(soap.status.changed == 3)
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
    for version in 4...8 as ClosedRange<UInt64> {
      try fixture.change(rowsOf: [7, 8], version: version, newestEventTime: 8_000)
      soap.versionCame()
      #expect(!soap.workOnce())
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
    #expect(try soap.vectors(of: [8])[0].version == 6 && soap.status.changed == 1)
  }

  @Test func `inputs are remembered of the users who came last, the newest of each`() throws {
    var recent = RecentInputs(limit: 100)
    for user in 0..<1_000 as Range<UInt64> {
      recent.keep(Fixture.request(user, at: 10))
      recent.keep(Fixture.request(3, at: Milliseconds(user)))
      #expect(recent.count <= 101)
    }
    #expect(recent[3]?.eventTime == 999)
    recent.keep(Fixture.request(3, at: 500))
    #expect(recent[3]?.eventTime == 999)
    #expect(recent[999] != nil && recent[960] != nil && recent[100] == nil)
    #expect(Set(recent.users).count == recent.count && recent.users.allSatisfy { recent[$0] != nil })
    recent.remove([3, 999])
    #expect(recent[3] == nil && recent[999] == nil && recent[998] != nil)
  }
}
