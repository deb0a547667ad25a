import Base
import Serving
import Streams
import Synchronization
import Testing

@testable import UserModeling

@Suite("User-modelling platform") struct SoapTests {
  private func store() throws -> EmbeddedStore { try EmbeddedStore(directory: try Fixture.directory()) }

  @Test func `an async request is answered at once, and the next one from what it had worked out`() throws {
    let fixture = try Fixture()
    try fixture.load(version: 3)
    let soap = try fixture.soap(store: try store())
    let first = try soap.vectors(for: [Fixture.request(7, liked: [1])])
    #expect(first[0].source == .default && first[0].values == [Float](repeating: 0, count: 16))
    #expect(try soap.vectors(of: [7])[0].source == .default)
    #expect(soap.workOnce())
    let second = try soap.vectors(of: [7])[0]
    #expect(second.source == .current && second.version == 3 && second.eventTime == 5_000 && second.pooled == 1)
    // The user acts: what waits makes the stored entry old news, until it is worked out and moves the vector.
    let stale = try soap.vectors(for: [Fixture.request(7, liked: [1, 2], at: 6_000)])[0]
    // The answer knows of no newer inputs than those of 5,000, and says so.
    #expect(stale.values == second.values && stale.source == .stored)
    #expect(try soap.vectors(of: [7])[0].source == .stored)
    #expect(soap.workOnce())
    let third = try soap.vectors(of: [7])[0]
    #expect(third.source == .current && third.pooled == 2 && third.values != second.values)
    #expect(third.eventTime == 6_000)
    #expect(!soap.workOnce())
    let status = soap.status
    #expect(status.computed == 2 && status.queued == 0)
    #expect(status.defaultReads == 2 && status.currentReads == 2 && status.storedReads == 2)
  }

  @Test func `a realtime answer holds what was worked out for it`() throws {
    let fixture = try Fixture()
    try fixture.load(version: 3)
    let soap = try fixture.soap(store: try store()) {
      $0.mode = .realtime
      $0.pooling.entries = 1
    }
    let a = try soap.vectors(for: [Fixture.request(7, liked: [1], at: 1), Fixture.request(8, at: 1)])
    #expect(a.map(\.source) == [.current, .current])
    let b = try soap.vectors(for: [Fixture.request(7, liked: [2], at: 2)])
    #expect(b[0].source == .current && b[0].values != a[0].values)
  }

  @Test func `a frozen embedding is worked out once`() throws {
    let fixture = try Fixture()
    try fixture.load(version: 3)
    let soap = try fixture.soap(store: try store()) { $0.mode = .frozen }
    _ = try soap.vectors(for: [Fixture.request(7, liked: [1], at: 1)])
    #expect(soap.workOnce())
    let once = try soap.vectors(of: [7])[0].values
    try fixture.load(version: 4, seed: 2)
    _ = try soap.vectors(for: [Fixture.request(7, liked: [2], at: 2)])
    #expect(!soap.workOnce())
    #expect(try soap.vectors(of: [7])[0].values == once)
  }

  @Test func `without a base requests wait, and stored entries are read`() throws {
    let fixture = try Fixture()
    let store = try store()
    try store.write([EmbeddingWrite(user: 7, entry: Fixture.entry(1, at: 1))])
    let soap = try fixture.soap(store: store)
    #expect(try soap.vectors(for: [Fixture.request(7)])[0].source == .stored)
    #expect(!soap.workOnce())
    #expect(soap.status.queued == 1)
    try fixture.load(version: 1)
    #expect(soap.workOnce())
    #expect(try soap.vectors(of: [7])[0].pooled == 2)
  }

  @Test func `the embedding is what the model's own tower gives, whatever else the request says`() throws {
    let fixture = try Fixture()
    try fixture.load(version: 3)
    let soap = try fixture.soap(store: try store()) { $0.pooling.entries = 1 }
    _ = try soap.vectors(for: (0..<70).map { Fixture.request($0, liked: [$0 % 5, 3]) })
    while soap.workOnce() {}
    let embedder = try #require(UserEmbedder(fixture.predictor, model: "users"))
    for user in [0, 63, 64, 69] as [UInt64] {
      var columns = FeatureColumns(schema: Fixture.schema)
      let block = FeatureBlock(
        schema: Fixture.schema, values: [.ids([user]), .ids([user % 5, 3]), .ids([9]), .numbers([4, 5])])
      try block.append(to: &columns, schema: Fixture.schema)
      let expected = try #require(embedder.embed(columns)).values
      let got = try soap.vectors(of: [user])[0].values
      for (a, b) in zip(got, expected) { #expect(abs(a - b) < 1e-5) }
    }
    #expect(soap.status.extent.users == 70)
  }

  @Test func `a version that moves users too far is held back, and reads go on`() throws {
    let fixture = try Fixture()
    try fixture.load(version: 3)
    let soap = try fixture.soap(store: try store()) { $0.holdAbove = 0.2 }
    _ = try soap.vectors(for: (0..<20).map { Fixture.request($0) })
    #expect(soap.workOnce())
    try fixture.load(version: 4, seed: 99)
    _ = try soap.vectors(for: [Fixture.request(1, liked: [4], at: 9_000)])
    #expect(!soap.workOnce())
    var status = soap.status
    #expect(status.heldVersion == 4 && status.version == 3 && status.queued == 1)
    #expect(try #require(status.shift).meanCosine < 0.8)
    #expect(status.problem == "version 4 moves users too far and is held back")
    #expect(try soap.vectors(of: [1])[0].source == .stored)
    try fixture.load(version: 5, step: 0.001)
    #expect(soap.workOnce())
    status = soap.status
    #expect(status.heldVersion == nil && status.version == 5 && status.problem == "" && status.heldVersions == 1)
    #expect(try #require(status.shift).meanCosine > 0.95)
  }

  @Test func `users of another process are refused by name`() throws {
    let fixture = try Fixture()
    let soap = try fixture.soap(store: try store()) { $0.part = (1, 3) }
    let (own, other) = (
      try #require((0..<99 as Range<UInt64>).first { UserPart.index(of: $0, count: 3) == 1 }),
      try #require((0..<99 as Range<UInt64>).first { UserPart.index(of: $0, count: 3) == 2 })
    )
    try soap.requireOwn([own])
    #expect(throws: SoapError.elsewhere(user: other, part: 2)) { try soap.requireOwn([own, other]) }
  }

  @Test func `the compute centre works until it is stopped, with readers beside it`() throws {
    let fixture = try Fixture()
    try fixture.load(version: 3)
    let soap = try fixture.soap(store: try store())
    let thread = OwnedThread(named: "compute") { soap.run() }
    for round in 1...50 as ClosedRange<Int64> {
      _ = try soap.vectors(for: (0..<20).map { Fixture.request($0, liked: [UInt64(round)], at: round) })
    }
    let deadline = Clocks.monotonic() + 120_000_000_000
    while try soap.vectors(of: Array(0..<20)).contains(where: { $0.source != .current || $0.eventTime != 50 }),
      Clocks.monotonic() < deadline
    {}
    soap.stop()
    thread.join()
    #expect(try soap.vectors(of: Array(0..<20)).allSatisfy { $0.source == .current && $0.eventTime == 50 })
  }

  @Test func `an offline platform works its queue off at its interval only`() throws {
    let fixture = try Fixture()
    try fixture.load(version: 3)
    let soap = try fixture.soap(store: MemoryStore()) {
      $0.mode = .offline
      $0.refreshEvery = .milliseconds(300)
    }
    _ = try soap.vectors(for: [Fixture.request(7)])
    let thread = OwnedThread(named: "compute") { soap.run() }
    let began = Clocks.monotonic()
    while soap.status.version == 0, Clocks.monotonic() < began + 10_000_000_000 {}
    #expect(soap.status.version == 3)
    while soap.status.computed == 0, Clocks.monotonic() < began + 120_000_000_000 {}
    #expect(Clocks.monotonic() - began >= 300_000_000)
    soap.stop()
    thread.join()
    #expect(soap.status.computed == 1)
  }

  @Test func `versions that come while requests are worked out side by side are each compared once`() throws {
    let fixture = try Fixture()
    try fixture.load(version: 1)
    let soap = try fixture.soap(store: MemoryStore()) { $0.mode = .realtime }
    let isDone = Atomic<Bool>(false)
    let threads = (0..<4 as Range<UInt64>).map { part in
      OwnedThread(named: "asks-\(part)") {
        var user = part
        while !isDone.load(ordering: .relaxed) {
          _ = try? soap.vectors(for: [Fixture.request(user % 4096)])
          user += 4
        }
      }
    }
    for version in 2...20 as ClosedRange<UInt64> {
      try fixture.load(version: version)
      let deadline = Clocks.monotonic() + 10_000_000_000
      while soap.status.version != version, Clocks.monotonic() < deadline {}
      #expect(soap.status.version == version)
    }
    isDone.store(true, ordering: .relaxed)
    for thread in threads { thread.join() }
    #expect(try #require(soap.status.shift).meanCosine > 0.999)
  }

  @Test func `a model whose entries no store would take is refused`() throws {
    let fixture = try Fixture {
      $0.userModel.embeddings = 64
      $0.userModel.embeddingDimension = 2048
      $0.userModel.extractors = [.mlp]
    }
    let error = #expect(throws: SoapError.self) { try fixture.soap(store: MemoryStore()) }
    #expect(error == .tooWide(model: "users", shape: EmbeddingShape(count: 64, dimension: 2048)))
  }

  @Test func `a model without a user tower is refused`() throws {
    let fixture = try Fixture()
    var options = SoapOptions(model: "other", userFeature: "user_id")
    #expect(throws: SoapError.noUserTower(model: "other")) {
      try Soap(options, store: try store(), predictor: fixture.predictor)
    }
    options.model = "users"
    options.userFeature = "liked"
    #expect(throws: SoapError.unknownUserFeature("liked")) {
      try Soap(options, store: try store(), predictor: fixture.predictor)
    }
  }
}
