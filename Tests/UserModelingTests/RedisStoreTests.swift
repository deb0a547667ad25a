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
