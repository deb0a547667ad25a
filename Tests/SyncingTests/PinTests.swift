// Back to an earlier version and on again: what replicas serve meanwhile, and what never comes back.

import Base
import Testing
import Wire

@testable import Syncing

@Suite("Pinned replicas") struct PinTests {
  private func reply(_ trio: Trio) throws -> PinReply {
    var reader = ByteReader(try #require(trio.answers.last))
    let header = try MessageHeader(decoding: &reader)
    if header.kind == .error { throw try ErrorReply(decoding: &reader) }
    return try #require(PinReply(json: PlainMessage.text(decoding: &reader)))
  }

  @Test func `a rollback brings the earlier rows, and nothing that was erased since`() throws {
    let trio = try Trio()
    trio.push([1, 2, 3])
    try trio.run(250)
    let early = trio.replica.number
    let before = trio.replica.rows
    #expect(before.keys.sorted() == [1, 2, 3])
    trio.push([1, 4], by: { _ in 5 })
    trio.forget([3])
    try trio.run(20)
    #expect(trio.replica.rows.keys.sorted() == [1, 2, 4])
    try trio.ask(PinRequest(version: early).encoded(request: 1))
    try trio.run(20)
    #expect(try reply(trio) == PinReply(version: trio.sync.newest, pinned: early))
    #expect(trio.replica.rows == before.filter { $0.key != 3 })
    #expect(trio.replica.tensors["bias"] == [1, -1])

    // What is learned meanwhile waits; what is erased does not.
    trio.push([1, 2, 5])
    trio.forget([2])
    try trio.run(20)
    #expect(trio.replica.rows == before.filter { $0.key == 1 })
    #expect(trio.sync.status(now: trio.now).pinned == early)

    try trio.ask(PlainMessage.empty(.resume, request: 2))
    try trio.run(20)
    #expect(try reply(trio).pinned == 0)
    #expect(try trio.replica.rows == trio.held())
    #expect(trio.replica.tensors["bias"] == [3, -3])
    #expect(trio.replica.bases == 1)
  }

  @Test func `a new replica of a pinned cluster serves the pinned state`() throws {
    let trio = try Trio()
    for step in 0..<5 as Range<UInt64> {
      trio.push([step, step + 1])
      try trio.run(step == 0 ? 250 : 8)
    }
    let target = trio.replica.number - 1
    try trio.ask(PinRequest(version: target).encoded(request: 1))
    trio.push([0, 9])
    try trio.run(20)
    let pinned = trio.replica.rows
    #expect(pinned == trio.replica.history[target])
    trio.follower = ReplicaFollower(replica: 0, incarnation: 2, target: trio.replica)
    try trio.run(250)
    #expect(trio.replica.bases == 2)
    #expect(trio.replica.rows == pinned)
  }

  @Test func `a pin outlives sync, and going on then takes a new base`() throws {
    let trio = try Trio()
    trio.push([1])
    try trio.run(250)
    try trio.ask(PinRequest(version: 0).encoded(request: 1))
    try trio.run(10)
    let pinned = trio.replica.rows
    trio.push([1, 2])
    try trio.run(10)
    try trio.restartSync()
    trio.push([3])
    trio.forget([2])
    try trio.run(250)
    #expect(trio.replica.rows == pinned)
    try trio.ask(PlainMessage.empty(.resume, request: 2))
    #expect(try reply(trio) == PinReply(version: 0, pinned: 0))
    try trio.run(500)
    #expect(try trio.replica.rows == trio.held())
  }

  @Test(arguments: [false, true]) func `sync that ends in the middle of a return, or of going on, takes a new store`(
    goesOn: Bool
  ) throws {
    var options = Trio.options
    options.messageBytes = 100
    let trio = try Trio(options)
    trio.push(Array(1...40))
    try trio.run(250)
    let early = trio.replica.number
    trio.push(Array(1...40), by: { _ in 5 })
    try trio.run(20)
    if goesOn {
      try trio.ask(PinRequest(version: early).encoded(request: 1))
      try trio.run(20)
      #expect(trio.sync.status(now: trio.now).pinned == early)
    }
    trio.storesLeft = 2
    #expect(throws: Trio.Ended.self) {
      try trio.ask(goesOn ? PlainMessage.empty(.resume, request: 1) : PinRequest(version: early).encoded(request: 1))
      try trio.run(20)
    }
    try trio.restartSync()
    try trio.run(300)
    #expect(trio.sync.status(now: trio.now).pinned == 0)
    #expect(trio.replica.bases == 2)
    #expect(try trio.replica.rows == trio.held())
  }

  @Test func `what waits behind a pin that cannot be gone on from is let go of`() throws {
    let trio = try Trio()
    trio.push([1])
    try trio.run(250)
    try trio.ask(PinRequest(version: 0).encoded(request: 1))
    try trio.run(10)
    try trio.restartSync()
    for step in 0..<20 as Range<UInt64> {
      trio.push([step])
      try trio.run(10)
    }
    #expect(trio.sync.status(now: trio.now).waiting.rows == 0)
    #expect(trio.sync.shards[0].merged.isEmpty)
  }

  @Test func `what cannot be done is refused with the reason`() throws {
    let trio = try Trio()
    try trio.ask(PinRequest(version: 3).encoded(request: 1))
    #expect(throws: ErrorReply(.busy, "sync has no base yet")) { try reply(trio) }
    trio.push([1])
    try trio.run(250)
    try trio.ask(PlainMessage.empty(.resume, request: 1))
    #expect(throws: ErrorReply(.mismatch, "replicas are not pinned")) { try reply(trio) }
    try trio.ask(PinRequest(version: 1 << 40).encoded(request: 1))
    #expect(throws: ErrorReply.self) { try reply(trio) }
    try trio.ask(PinRequest(version: 1).encoded(request: 1))
    try trio.run(10)
    #expect(throws: ErrorReply.self) { try reply(trio) }
    #expect(trio.sync.status(now: trio.now).pinned == 0)
  }

  @Test(arguments: 1...12 as ClosedRange<UInt64>)
  func `any sequence of orders ends with the shard's rows, and pinned ones are those of their version`(
    seed: UInt64
  ) throws {
    var random = SeededRandom(seed: seed)
    var options = Trio.options
    options.rebaseBytes = 2000
    let trio = try Trio(options)
    trio.push(Array(0..<30))
    try trio.run(250)
    var erased: Set<UInt64> = []
    for _ in 0..<40 {
      switch Int.random(in: 0..<10, using: &random) {
      case 0:
        let target = UInt64.random(in: 2...trio.sync.newest, using: &random)
        try trio.ask(PinRequest(version: target).encoded(request: 1))
        try trio.run(30)
        guard let reply = try? reply(trio), let then = trio.replica.history[target] else { continue }
        #expect(reply.pinned > 0)
        // Ids erased at some time after the version are not there; all else is as it was.
        let now = trio.replica.rows
        for (id, row) in then where !erased.contains(id) { #expect(now[id] == row, "seed \(seed), id \(id)") }
        for id in now.keys { #expect(then[id] != nil, "seed \(seed), id \(id) came with the rollback") }
      case 1:
        try trio.ask(PlainMessage.empty(.resume, request: 1))
        try trio.run(300)
      case 2 where seed % 3 == 0:
        try trio.restartSync()
        try trio.run(250)
      case 3:
        let ids = (0..<3).map { _ in UInt64.random(in: 0..<60, using: &random) }
        trio.forget(ids)
        erased.formUnion(ids)
        try trio.run(20)
        for id in ids { #expect(trio.replica.rows[id] == nil, "seed \(seed): erased id \(id) is served") }
      default:
        trio.push(Array(Set((0..<10).map { _ in UInt64.random(in: 0..<60, using: &random) })).sorted())
        try trio.run(Int.random(in: 1...12, using: &random))
      }
    }
    try trio.ask(PlainMessage.empty(.resume, request: 1))
    try trio.run(600)
    #expect(try trio.replica.rows == trio.held())
  }
}
