// Versions that must not grow: what goes first, what follows, and what counts as servable meanwhile. Beside it versions
// cut into several, and versions that are no longer there.

import Base
import Testing
import Wire

@testable import Syncing

@Suite("Budgets and pieces") struct BudgetTests {
  private func limited(_ bytes: Int) -> SyncOptions {
    var options = Trio.options
    options.versionBytes = bytes
    return options
  }

  @Test func `rows that moved most go first, and the rest follows`() throws {
    // Rows of two float32 count 13 bytes: four fit, one of them because it waits longest.
    let trio = try Trio(limited(60))
    trio.push(Array(1...40))
    try trio.run(400)
    #expect(try trio.replica.rows == trio.held())
    let start = trio.replica.number
    trio.push(Array(1...40), by: { $0 == 17 || $0 == 23 || $0 == 31 ? 100 : 0 })
    try trio.run(400)
    let changed = (start + 1...trio.replica.number).map { number in
      let (now, before) = (trio.replica.history[number] ?? [:], trio.replica.history[number - 1] ?? [:])
      return now.keys.filter { now[$0] != before[$0] }.sorted()
    }
    let first = try #require(changed.first { !$0.isEmpty })
    #expect(Set(first).isSuperset(of: [17, 23, 31]))
    #expect(changed.allSatisfy { $0.count <= 4 })
    #expect(changed.joined().count == 40)
    #expect(try trio.replica.rows == trio.held())
  }

  @Test func `erased ids are outside the budget`() throws {
    let trio = try Trio(limited(30))
    trio.push(Array(1...40))
    try trio.run(400)
    trio.push(Array(1...40))
    trio.forget(Array(10...30))
    try trio.run(12)
    #expect(trio.replica.rows.keys.allSatisfy { !(10...30).contains($0) })
  }

  @Test func `an action counts as servable when all its rows are, and the lag tells of it`() throws {
    let trio = try Trio(limited(30), wall: 5_000)
    trio.push(Array(1...4))
    try trio.run(250)
    trio.push(Array(1...40), arrival: 1_000)
    try trio.run(12)
    #expect(trio.replica.arrivals.filter { $0.arrival == 1_000 }.isEmpty)
    let status = trio.sync.status(now: trio.now)
    #expect(status.waiting.rows > 0 && status.waiting.milliseconds > 0)
    #expect(status.lagMilliseconds == 4_000)
    try trio.run(400)
    #expect(trio.replica.arrivals.filter { $0.arrival == 1_000 }.map(\.count) == [1])
    #expect(trio.sync.status(now: trio.now).lagMilliseconds == 0)
    #expect(trio.sync.status(now: trio.now).waiting.rows == 0)
  }

  @Test func `rows that wait survive a restart of sync`() throws {
    let trio = try Trio(limited(30))
    trio.push(Array(1...4))
    try trio.run(250)
    trio.push(Array(1...40))
    try trio.run(8)
    #expect(trio.sync.status(now: trio.now).waiting.rows > 0)
    try trio.restartSync()
    try trio.run(500)
    #expect(try trio.replica.rows == trio.held())
    #expect(trio.replica.bases == 1)
  }

  @Test func `a large version travels in pieces that are served together`() throws {
    var options = Trio.options
    options.messageBytes = 100
    let trio = try Trio(options)
    trio.push([1])
    try trio.run(250)
    let before = trio.replica.number
    trio.push(Array(1...40), arrival: 7)
    try trio.run(20)
    #expect(try trio.replica.rows == trio.held())
    // Pieces of six rows: only the last is a version that readers see.
    #expect(trio.sync.newest >= before + 7)
    #expect(!trio.replica.history.keys.contains(before + 1))
    #expect(trio.replica.arrivals.filter { $0.arrival == 7 }.count == 1)
    let list = trio.store.list
    #expect(list.filter(\.continues).count == 6)
    #expect(list.allSatisfy { !$0.continues || !$0.canReturn })
  }

  @Test(arguments: 1...6) func `sync that ends between two pieces of a version publishes the rest again`(pieces: Int)
    throws
  {
    var options = Trio.options
    options.messageBytes = 100
    let trio = try Trio(options)
    trio.push(Array(1...50))
    try trio.run(250)
    trio.push(Array(1...40))
    trio.forget(Array(41...50))
    trio.storesLeft = pieces
    #expect(throws: Trio.Ended.self) { try trio.run(20) }
    try trio.restartSync()
    try trio.run(100)
    #expect(try trio.replica.rows == trio.held())
    #expect(trio.replica.rows.count == 40)
    #expect(trio.replica.bases == 1)
  }

  @Test func `a newest version that does not read makes a new store, so that its number is not given twice`() throws {
    let trio = try Trio()
    trio.push([1])
    try trio.run(250)
    trio.push([2])
    try trio.run(20)
    #expect(trio.replica.number == trio.sync.newest)
    try Files.replace("\(trio.directory)/\(trio.sync.newest).version", with: [1, 2, 3])
    trio.push([3])
    try trio.restartSync()
    try trio.run(300)
    #expect(trio.replica.bases == 2)
    #expect(try trio.replica.rows == trio.held())
  }

  @Test func `a version that is gone from the disk leads to a new base`() throws {
    let trio = try Trio()
    trio.push([1])
    try trio.run(250)
    // The replica misses some versions, and one of them vanishes.
    trio.loses = { _ in true }
    for step in 0..<4 as Range<UInt64> {
      trio.push([step])
      try trio.run(8)
    }
    let lost = trio.replica.number + 2
    try Files.remove("\(trio.directory)/\(lost).version")
    try trio.restartStore()
    trio.loses = { _ in false }
    try trio.run(300)
    #expect(trio.replica.bases == 2)
    #expect(try trio.replica.rows == trio.held())
    #expect(trio.sync.status(now: trio.now).counters["missingVersions"] ?? 0 > 0)
  }

  @Test func `what a replica holds beside what it serves is not acknowledged as served`() throws {
    let trio = try Trio()
    trio.push([1])
    try trio.run(250)
    trio.follower = ReplicaFollower(replica: 0, incarnation: 2, target: trio.replica)
    trio.push([2], arrival: 9)
    // The base arrives, the version after it does not.
    trio.loses = { $0.basePart == nil }
    try trio.run(150)
    #expect(trio.sync.status(now: trio.now).replicas.map(\.version) == [0])
    #expect(trio.sync.freshness.count == 0)
    trio.loses = { _ in false }
    try trio.run(150)
    #expect(trio.sync.status(now: trio.now).replicas.map(\.version) == [trio.sync.newest])
  }
}
