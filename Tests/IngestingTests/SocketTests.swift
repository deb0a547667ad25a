import Base
import Foundation
import Glibc
import Logging
import Streams
import Testing
import Wire

@testable import Ingesting

@Suite("Ingest over ZeroMQ", .serialized) struct SocketTests {
  private let now = Clocks.wall()

  private func impression(_ id: Int) -> String {
    #"{"type":"impression","id":\#(id),"time":\#(now),"features":{"user":7}}"#
  }

  private func start(
    _ scratch: Scratch, _ change: (inout IngestOptions) -> Void = { _ in },
    backlog: @escaping @Sendable () -> String? = { nil }
  ) throws -> (server: IngestServer, client: Client) {
    let server = try startIngest(
      scratch,
      {
        $0.endpoint = "tcp://127.0.0.1:*"
        change(&$0)
      }, backlog: backlog)
    return (server, try Client(try #require(server.endpoint)))
  }

  private func impressions(_ scratch: Scratch) throws -> Int {
    try events(scratch, .impressions).count { !isWatermark($0) }
  }

  @Test func `what was acknowledged is in the journal, and what is sent again is taken once`() throws {
    let scratch = try Scratch()
    let (server, client) = try start(scratch)
    defer { server.stop() }
    let body = (0..<50).map { impression($0) }.joined(separator: "\n")
    #expect(try client.ask(body)?.text == #"{"accepted":50,"repeated":0,"refused":0,"errors":[]}"# + "\n")
    #expect(try impressions(scratch) == 50)
    #expect(try client.ask(body)?.text?.hasPrefix(#"{"accepted":0,"repeated":50,"#) == true)
    // The door of HTTP is the same.
    #expect(try post(body, to: server.port).body.hasPrefix(#"{"accepted":0,"repeated":50,"#))
    #expect(try impressions(scratch) == 50)
    #expect(server.counters.answers == [200: 3])
  }

  @Test func `protobuf is taken, and what is none is refused`() throws {
    let scratch = try Scratch()
    let (server, client) = try start(scratch)
    defer { server.stop() }
    // EventBatch { events { action { number: 17 name: "click" time: 1700000000000 } } }
    let message: [UInt8] = [10, 18, 18, 16, 8, 17, 26, 5] + Array("click".utf8) + [32, 128, 208, 149, 255, 188, 49]
    client.send(EventsRequest.encoded(message, as: .protobuf, request: 9))
    let taken = try #require(try client.receive())
    #expect(taken.request == 9 && taken.answer.text?.hasPrefix(#"{"accepted":1,"#) == true)
    #expect(try events(scratch, .actions).count { !isWatermark($0) } == 1)
    client.send(EventsRequest.encoded([0xFF, 0xFF, 0xFF], as: .protobuf, request: 10))
    let refused = try #require(try client.receive())
    #expect(refused.request == 10 && refused.answer.refusal?.code == .malformed)
  }

  @Test func `wrong lines are refused alone, wrong messages whole, and the conversation goes on`() throws {
    let scratch = try Scratch()
    let (server, client) = try start(scratch) {
      $0.eventLimit = 3
      $0.bodyByteLimit = 2048
    }
    defer { server.stop() }
    let mixed = try #require(try client.ask(impression(1) + "\nnonsense"))
    #expect(mixed.text?.hasPrefix(#"{"accepted":1,"repeated":0,"refused":1,"errors":[{"line":2,"#) == true)
    #expect(try client.ask((2..<6).map { impression($0) }.joined(separator: "\n"))?.refusal?.code == .malformed)
    #expect(try client.ask(String(repeating: " ", count: 3000))?.refusal?.message.contains("larger than") == true)
    var writer = ByteWriter()
    MessageHeader(.events, request: 5).encode(into: &writer)
    writer.append(UInt32(7))
    client.send(writer.finish())
    #expect(try client.receive()?.answer.refusal?.message.contains("expected 0 for JSON Lines") == true)
    client.send(Blob("not a message at all"))
    #expect(try client.ask(impression(9))?.text?.hasPrefix(#"{"accepted":1,"#) == true)
    #expect(try impressions(scratch) == 2)
  }

  @Test func `while the cluster is behind requests are refused for now`() throws {
    let scratch = try Scratch()
    let (server, client) = try start(scratch, backlog: { "the joiner is far behind" })
    defer { server.stop() }
    let refusal = try #require(try client.ask(impression(1))?.refusal)
    #expect(refusal.code == .busy && refusal.message == "the joiner is far behind")
  }

  @Test func `a thousand requests at once are all answered, and all that is accepted is there`() throws {
    let scratch = try Scratch()
    let (server, client) = try start(scratch) { $0.waitingLimit = 16 }
    defer { server.stop() }
    for request in 0..<1000 {
      client.send(EventsRequest.encoded(Array(impression(request).utf8), request: UInt64(request)))
    }
    var accepted = 0
    var busy = 0
    var seen: Set<UInt64> = []
    for _ in 0..<1000 {
      let reply = try #require(try client.receive())
      seen.insert(reply.request)
      if reply.answer.text != nil { accepted += 1 }
      if reply.answer.refusal?.code == .busy { busy += 1 }
    }
    #expect(seen.count == 1000 && accepted + busy == 1000)
    #expect(try impressions(scratch) == accepted)
    #expect(accepted > 0)
  }

  @Test func `with keys an application may bring events, and nobody else may`() throws {
    let scratch = try Scratch()
    let keys = "\(scratch.path)/keys"
    try Files.makePrivateDirectory(keys)
    var list = AllowList(comment: [])
    for (name, role) in [("ingest-0", PeerRole.ingest), ("shop", .application), ("replica-0", .replica)] {
      let key = try SecretKey.random()
      try Files.writePrivate("\(keys)/\(name).secret", Array(LinkSecurity.secretFileText(key, of: name).utf8))
      list.set(AllowList.Entry(name: name, role: role, key: key.publicKey))
    }
    try Files.replace("\(keys)/allowed", with: Array(list.text.utf8), durable: false)
    func security(_ name: String, servers: [String: String] = [:]) throws -> LinkSecurity {
      try LinkSecurity(
        name: name, secretFile: "\(keys)/\(name).secret", allowListFile: "\(keys)/allowed", servers: servers)
    }
    let own = try security("ingest-0")
    let server = try startIngest(scratch) {
      $0.endpoint = "tcp://127.0.0.1:*"
      $0.security = own
    }
    defer { server.stop() }
    let endpoint = try #require(server.endpoint)
    func client(_ name: String) throws -> Client {
      try Client(endpoint, context: LinkContext(try security(name, servers: [endpoint: "ingest-0"])))
    }
    #expect(try client("shop").ask(impression(1))?.text?.hasPrefix(#"{"accepted":1,"#) == true)
    #expect(try client("replica-0").ask(impression(2))?.refusal?.code == .forbidden)
    let stranger = try Client(endpoint)
    stranger.send(EventsRequest.encoded(Array(impression(3).utf8), request: 1))
    #expect(try stranger.receive(patience: .seconds(1)) == nil)
    #expect(try impressions(scratch) == 1)
  }

  @Test func `without keys it serves this machine alone`() throws {
    let scratch = try Scratch()
    let error = #expect(throws: IngestError.self) {
      _ = try startIngest(scratch) { $0.endpoint = "tcp://0.0.0.0:*" }
    }
    guard case .socket? = error else {
      Issue.record("\(String(describing: error))")
      return
    }
  }
}
