import Base
import Redis
import RedisTesting
import Testing

@testable import UserModeling

@Suite("Redis feature store", .serialized) struct RedisStoreTests {
  private func contract(_ server: RedisProcess, _ prefix: String) -> StoreContract {
    StoreContract { RedisStore(host: "127.0.0.1", port: server.port, prefix: prefix, options: $0) }
  }

  @Test func `it promises what the embedded store does`() throws {
    guard let server = try RedisProcess() else { return }
    try contract(server, "a").keepsTheLastEntries()
    try contract(server, "b").replacesOneOfTheSameTime()
    try contract(server, "c").keepsShapesSideBySide()
    try contract(server, "d").comesBack(half: false)
    try contract(server, "e").comesBack(half: true)
    try contract(server, "f").knowsOfWhomSomethingWasLearned()
    try contract(server, "g").keepsWhatIsServed()
    try contract(server, "h").keepsWhatWillBeServed()
  }

  @Test func `the server drops who is too old, and keeps for ever who has no time to live`() throws {
    guard let server = try RedisProcess() else { return }
    let connection = try RedisConnection(server.address, patience: .seconds(1))
    func left() throws -> RedisReply { try connection.ask([["PTTL", "t:7"].map { Array($0.utf8) }])[0] }
    var options = FeatureStoreOptions()
    options.timeToLive = .seconds(3600)
    func write() throws {
      let store = RedisStore(host: "127.0.0.1", port: server.port, prefix: "t", options: options)
      try store.write([EmbeddingWrite(user: 7, entry: Fixture.entry(1, at: 1))])
    }
    try write()
    guard case .integer(let milliseconds) = try left() else {
      Issue.record("no time to live")
      return
    }
    #expect((3_590_000...3_600_000).contains(milliseconds))
    options.timeToLive = nil
    try write()
    #expect(try left() == .integer(-1))
    options.timeToLive = .milliseconds(1)
    try write()
    let deadline = Clocks.monotonic() + 60_000_000_000
    while try left() != .integer(-2), Clocks.monotonic() < deadline {}
    #expect(try left() == .integer(-2))
  }

  @Test func `while the server is down requests fail with its address, and after that they go on`() throws {
    guard let server = try RedisProcess() else { return }
    let store = RedisStore(host: "127.0.0.1", port: server.port, prefix: "k")
    for round in 1...3 as ClosedRange<Int64> {
      try store.write([EmbeddingWrite(user: 7, entry: Fixture.entry(Float(round), at: round))])
      #expect(try store.entries(of: [7], asOf: nil)[0].first?.eventTime == round)
      server.kill()
      let error = #expect(throws: FeatureStoreError.self) { try store.entries(of: [7], asOf: nil) }
      #expect("\(try #require(error))".hasPrefix("the feature store at 127.0.0.1:\(server.port): "))
      #expect(throws: FeatureStoreError.self) { try store.sync() }
      try server.start()
      _ = try store.entries(of: [7], asOf: nil)
    }
  }

  @Test func `bytes that are no entry are told, not read`() throws {
    guard let server = try RedisProcess() else { return }
    let connection = try RedisConnection(server.address, patience: .seconds(1))
    let command = ["HSET", "x:7", "2x8:1", "nonsense"].map { Array($0.utf8) }
    #expect(try connection.ask([command]) == [.integer(1)])
    let store = RedisStore(host: "127.0.0.1", port: server.port, prefix: "x")
    #expect(throws: FeatureStoreError.self) { try store.entries(of: [7], asOf: nil) }
    #expect(try store.entries(of: [8], asOf: nil) == [[]])
  }
}
