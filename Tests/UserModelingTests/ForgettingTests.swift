import Base
import Synchronization
import Testing

@testable import UserModeling

/// A store in which something happens before each write.
private final class InterruptedStore: FeatureStore {
  private let store = MemoryStore()
  let interruption = Mutex<(@Sendable () -> Void)?>(nil)

  func entries(of users: [UInt64], asOf: Milliseconds?) -> [[EmbeddingEntry]] { store.entries(of: users, asOf: asOf) }
  func write(_ writes: [EmbeddingWrite]) {
    interruption.withLock { $0 }?()
    store.write(writes)
  }
  func keep(_ served: [ServedVersions]) { store.keep(served) }
  func remove(_ users: [UInt64]) { store.remove(users) }
  func learnedUsers(_ body: ([UInt64]) -> Void) { store.learnedUsers(body) }
  func sync() { store.sync() }
  var extent: FeatureStoreExtent { store.extent }
}

@Suite("Forgotten users") struct ForgettingTests {
  @Test func `whose row is gone leaves the store and the queue, and comes back with the next request`() throws {
    let fixture = try Fixture()
    try fixture.load(version: 1)
    let soap = try fixture.soap(store: MemoryStore())
    _ = try soap.vectors(for: [Fixture.request(7), Fixture.request(8)])
    #expect(soap.workOnce())
    soap.offer([Fixture.request(7, at: 6000), Fixture.request(8, at: 6000)])
    try fixture.removeRows(of: [7])
    soap.rowsGone(of: [7])
    #expect(try soap.vectors(of: [7, 8]).map(\.source) == [.default, .stored])
    #expect(soap.workOnce())
    #expect(try soap.vectors(of: [7, 8]).map(\.source) == [.default, .current])
    #expect(soap.status.forgotten == 1)
    soap.offer([Fixture.request(7, at: 7000)])
    #expect(soap.workOnce())
    #expect(try soap.vectors(of: [7])[0].source == .current)
  }

  @Test func `an entry that is being worked out when its user is forgotten does not stay`() throws {
    let fixture = try Fixture()
    try fixture.load(version: 1)
    let store = InterruptedStore()
    let soap = try fixture.soap(store: store)
    soap.offer([Fixture.request(7), Fixture.request(8)])
    store.interruption.withLock { $0 = { soap.rowsGone(of: [7]) } }
    #expect(soap.workOnce())
    #expect(store.entries(of: [7, 8], asOf: nil).map(\.count) == [0, 1])
    store.interruption.withLock { $0 = nil }
    soap.offer([Fixture.request(7)])
    #expect(soap.workOnce())
    #expect(store.entries(of: [7], asOf: nil)[0].count == 1)
  }

  @Test func `nothing is made of a forgotten user's old row before versions came that know of it`() throws {
    let fixture = try Fixture()
    try fixture.load(version: 1)
    let soap = try fixture.soap(store: MemoryStore()) { $0.mode = .realtime }
    #expect(try soap.vectors(for: [Fixture.request(7)])[0].source == .current)
    try soap.forget([7])
    for _ in 0..<2 {
      #expect(try soap.vectors(for: [Fixture.request(7), Fixture.request(8)]).map(\.source) == [.default, .current])
      soap.versionCame()
    }
    #expect(try soap.vectors(for: [Fixture.request(7)])[0].source == .current)
  }

  @Test func `after a base those go who had a row and have none, and those stay of whom nothing was learned`() throws {
    let fixture = try Fixture()
    try fixture.load(version: 1)
    let soap = try fixture.soap(store: MemoryStore())
    // 500 and 501 have no row: nothing is known of them yet.
    soap.offer([7, 8, 500, 501].map { Fixture.request($0) })
    #expect(soap.workOnce())
    try fixture.load(version: 2)
    try fixture.removeRows(of: [7])
    #expect(soap.forgetUsersWithoutRows())
    #expect(try soap.vectors(of: [7, 8, 500, 501]).map(\.source) == [.default, .current, .current, .current])
  }

  @Test func `another process's users are left to it`() throws {
    let fixture = try Fixture()
    try fixture.load(version: 1)
    let users = Array(0..<40 as Range<UInt64>)
    let store = MemoryStore()
    store.write(users.map { EmbeddingWrite(user: $0, entry: Fixture.entry(1, at: 1)) })
    let soap = try fixture.soap(store: store) { $0.part = (1, 2) }
    soap.rowsGone(of: users)
    #expect(store.extent.users == users.filter { UserPart.index(of: $0, count: 2) == 0 }.count)
  }
}
