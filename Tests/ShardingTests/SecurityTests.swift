// A running shard behind keys, over tcp: each role gets what is its own, everybody else is refused and counted.

import Base
import Glibc
import Support
import Testing

@testable import Sharding
@testable import Wire

@Suite("Shard behind keys", .serialized) struct SecurityTests {
  /// Keys of a small cluster and a shard that runs until the fixture goes.
  private final class SecureShard {
    let directory: String
    let endpoint: String
    private let server: ShardServer
    private let thread: OwnedThread
    private var list = AllowList(comment: [])

    init() throws {
      let directory = "/tmp/guira-secure-\(getpid())-\(UInt32.random(in: 0 ... .max))"
      try Files.makePrivateDirectory(directory)
      let endpoint = "tcp://127.0.0.1:\(try Ports.free())"
      for (name, role) in [
        ("shard-0", PeerRole.shard), ("trainer-0", .trainer), ("replica-0", .replica), ("sync-0", .sync),
        ("operator-0", .operator),
      ] {
        let key = try SecretKey.random()
        try Files.writePrivate(
          "\(directory)/\(name).secret", Array(LinkSecurity.secretFileText(key, of: name).utf8))
        list.set(AllowList.Entry(name: name, role: role, key: key.publicKey))
      }
      try Files.replace("\(directory)/allowed", with: Array(list.text.utf8), durable: false)
      var options = ShardServerOptions(
        shard: ShardFixture().core.options, endpoint: endpoint, directory: "\(directory)")
      options.shard.epoch = .milliseconds(20)
      options.security = try Self.security("shard-0", directory, endpoint)
      let server = ShardServer(options)
      let ready = Mailbox<String>(bound: 2)
      thread = OwnedThread(named: "shard") {
        do { try server.run(onReady: { _ in _ = ready.offer("") }) } catch { _ = ready.offer("\(error)") }
      }
      self.directory = directory
      self.endpoint = endpoint
      self.server = server
      try #require(ready.waitAll(timeout: .seconds(20)) == [""])
    }

    deinit {
      server.stop()
      thread.join()
      try? Files.remove(directory)
    }

    private static func security(_ name: String, _ directory: String, _ endpoint: String) throws -> LinkSecurity {
      try LinkSecurity(
        name: name, secretFile: "\(directory)/\(name).secret", allowListFile: "\(directory)/allowed",
        servers: [endpoint: "shard-0"])
    }

    func context(_ name: String) throws -> LinkContext {
      LinkContext(try Self.security(name, directory, endpoint))
    }

    func asker(_ name: String) throws -> Asker { try Asker(endpoint: endpoint, context: context(name)) }

    func revoke(_ name: String) throws {
      let lines = list.text.split(separator: "\n").filter { !$0.hasPrefix("\(name) ") }
      try Files.replace("\(directory)/allowed", with: Array(lines.map { "\($0)\n" }.joined().utf8), durable: false)
    }
  }

  private func renumbered(_ message: Blob, _ request: UInt64) -> Blob {
    var bytes = message.array
    for byte in 0..<8 { bytes[8 + byte] = UInt8(truncatingIfNeeded: request >> (8 * UInt64(byte))) }
    return Blob(bytes)
  }

  @Test func `a trainer pulls and pushes, and nobody does what is not his`() throws {
    let shard = try SecureShard()
    var trainer = try shard.asker("trainer-0")
    _ = try trainer.ask { Hello(role: .trainer).encoded(request: $0) }
    _ = try trainer.ask { Claim(chain: ShardFixture.chain, ownership: ShardFixture.owner).encoded(request: $0) }
    _ = try trainer.ask { renumbered(ShardFixture.pull(), $0) }
    var reader = try trainer.ask { renumbered(ShardFixture.push(ShardFixture.PushShape()), $0) }
    #expect(try ChainReply(decoding: &reader).state.applied == Position(low: 10))

    let forget = { (request: UInt64) in IDsRequest(table: "user", ids: [1]).encoded(.forget, request: request) }
    #expect(throws: ErrorReply.forbidden(.forget, to: .trainer)) { _ = try trainer.ask(forget) }
    var replica = try shard.asker("replica-0")
    // What it says it is does not count, its key does.
    _ = try replica.ask { Hello(role: .trainer).encoded(request: $0) }
    let push = ShardFixture.PushShape(from: 10, to: 20)
    #expect(throws: ErrorReply.forbidden(.push, to: .replica)) {
      _ = try replica.ask { renumbered(ShardFixture.push(push), $0) }
    }
    var sync = try shard.asker("sync-0")
    #expect(throws: ErrorReply.forbidden(.push, to: .sync)) {
      _ = try sync.ask { renumbered(ShardFixture.push(push), $0) }
    }
    // Refused, and the conversation goes on.
    _ = try replica.ask { PlainMessage.empty(.status, request: $0) }
    reader = try trainer.ask { renumbered(ShardFixture.push(push), $0) }
    #expect(try ChainReply(decoding: &reader).state.applied == Position(low: 20))
    var operators = try shard.asker("operator-0")
    reader = try operators.ask(forget)
    #expect(try PlainMessage.text(decoding: &reader) == "{\"erased\":1}")
    #expect(try operators.shardStatus()?.counters["forbidden"] == 3)
  }

  @Test func `a revoked trainer is not heard any more, and those without a key never were`() throws {
    let shard = try SecureShard()
    var operators = try shard.asker("operator-0")
    var trainer = try shard.asker("trainer-0")
    _ = try trainer.ask { Hello(role: .trainer).encoded(request: $0) }
    var newcomer = try shard.asker("trainer-0")
    _ = try newcomer.ask { Hello(role: .trainer).encoded(request: $0) }
    let lateContext = try shard.context("trainer-0")
    var stranger = try Asker(endpoint: shard.endpoint, context: LinkContext())
    #expect(throws: AskError.self) {
      _ = try stranger.ask(timeout: .milliseconds(300)) { PlainMessage.empty(.status, request: $0) }
    }
    try shard.revoke("trainer-0")
    var counters: [String: UInt64] = [:]
    // The list is looked at every second.
    let deadline = Clocks.monotonic() + 20_000_000_000
    while counters["revokedMessages"] ?? 0 == 0, Clocks.monotonic() < deadline {
      _ = try? trainer.ask(timeout: .milliseconds(100)) { Hello(role: .trainer).encoded(request: $0) }
      counters = try operators.shardStatus()?.counters ?? [:]
    }
    #expect(counters["revokedMessages"] ?? 0 > 0)
    #expect(counters["nullClients"] ?? 0 > 0)
    var late = try Asker(endpoint: shard.endpoint, context: lateContext)
    // A connection that was open already is shut out as well; a new one is not even made, and is told so.
    let endpoint = shard.endpoint
    #expect(throws: AskError(endpoint: endpoint, isRefused: false, timeout: .milliseconds(200))) {
      _ = try newcomer.ask(timeout: .milliseconds(200)) { Hello(role: .trainer).encoded(request: $0) }
    }
    #expect(throws: AskError(endpoint: endpoint, isRefused: true, timeout: .seconds(10))) {
      _ = try late.ask(timeout: .seconds(10)) { Hello(role: .trainer).encoded(request: $0) }
    }
    #expect(try operators.shardStatus()?.counters["unknownKeys"] ?? 0 > 0)
  }

  @Test func `without keys the word in hello keeps mistakes out`() {
    let shard = ShardFixture()
    shard.claim()
    shard.send(Hello(role: .replica).encoded(request: 1))
    let before = shard.state
    #expect(shard.refusal(ShardFixture.push(ShardFixture.PushShape())) == .forbidden(.push, to: .replica))
    #expect(shard.state == before)
    #expect(shard.core.status().counters["forbidden"] == 1)
    shard.send(Hello(role: .trainer).encoded(request: 1))
    #expect(shard.refusal(ShardFixture.push(ShardFixture.PushShape())) == nil)
  }
}
