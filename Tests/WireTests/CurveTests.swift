// Who is let in, over real sockets on loopback: known keys with their role, nobody else, and all others counted.

import Base
import CZeroMQ
import Testing

@testable import Wire

@Suite("CURVE") struct CurveTests {
  private func ring() throws -> KeyRing {
    try KeyRing([("shard-0", .shard), ("trainer-0", .trainer), ("replica-0", .replica)])
  }

  private func client(
    _ ring: KeyRing, _ name: String, _ endpoint: String, server: String = "shard-0"
  ) throws -> SocketGroup {
    let context = LinkContext(try ring.security(name, servers: [endpoint: server]))
    return try SocketGroup(connecting: [endpoint], context: context)
  }

  @Test func `a known key is let in with its role, and answered`() throws {
    let ring = try ring()
    let server = try TestServer(ring)
    for (name, role) in [("trainer-0", PeerRole.trainer), ("replica-0", .replica)] {
      let client = try client(ring, name, server.endpoint)
      #expect(client.send(Blob([1, 2]), to: 0))
      server.socket.wait(timeout: .seconds(60))
      let (peer, message) = try #require(try server.socket.receive())
      #expect(message.array == [1, 2])
      #expect(peer?.role == role)
      let answered = server.socket.send(message, to: peer)
      #expect(answered)
      client.wait(timeout: .seconds(60))
      #expect(try client.receive(from: 0)?.array == [1, 2])
    }
    #expect(server.socket.refusals == LinkRefusals())
  }

  @Test func `ipc speaks CURVE too`() throws {
    let ring = try ring()
    let endpoint = "ipc://\(ring.directory)/socket"
    let socket = try Socket(.router, context: LinkContext(ring.security("shard-0")))
    try socket.bind(endpoint)
    let client = try client(ring, "trainer-0", endpoint)
    let stranger = try SocketGroup(connecting: [endpoint], context: LinkContext())
    #expect(stranger.send(Blob([9]), to: 0))
    #expect(client.send(Blob([1]), to: 0))
    socket.wait(timeout: .seconds(60))
    let received = try #require(try socket.receive())
    #expect(received.message.array == [1] && received.peer?.role == .trainer)
  }

  @Test func `an unknown key is refused and counted`() throws {
    let ring = try ring()
    let server = try TestServer(ring)
    // A stranger who knows the server's public key, and has a list of his own that says he may.
    let strange = try KeyRing([("trainer-0", .trainer)])
    try strange.write(strange.list.text + "shard-0 shard \(try #require(ring.list["shard-0"]).key)\n")
    let client = try client(strange, "trainer-0", server.endpoint)
    #expect(client.send(Blob([1]), to: 0))
    let isRefused = try server.refuses { $0.unknownKeys >= 1 }
    #expect(isRefused)
  }

  @Test func `a client without a key is refused and counted`() throws {
    let ring = try ring()
    let server = try TestServer(ring)
    let client = try SocketGroup(connecting: [server.endpoint], context: LinkContext())
    #expect(client.send(Blob([1]), to: 0))
    let isRefused = try server.refuses { $0.nullClients >= 1 }
    #expect(isRefused)
  }

  @Test func `a client with a password is refused and counted`() throws {
    let ring = try ring()
    let server = try TestServer(ring)
    let context = zmq_ctx_new()
    let socket = zmq_socket(context, ZMQ_DEALER)
    defer {
      zmq_close(socket)
      zmq_ctx_term(context)
    }
    var linger: Int32 = 0
    zmq_setsockopt(socket, ZMQ_LINGER, &linger, 4)
    zmq_setsockopt(socket, ZMQ_PLAIN_USERNAME, "trainer-0", 9)
    zmq_setsockopt(socket, ZMQ_PLAIN_PASSWORD, "guess", 5)
    try #require(zmq_connect(socket, server.endpoint) == 0)
    zmq_send(socket, "hello", 5, ZMQ_DONTWAIT)
    let isRefused = try server.refuses { $0.nullClients >= 1 }
    #expect(isRefused)
  }

  @Test func `a client that means another server tells it nothing`() throws {
    let ring = try ring()
    let server = try TestServer(ring)
    let client = try client(ring, "trainer-0", server.endpoint, server: "replica-0")
    #expect(client.send(Blob([1]), to: 0))
    let isRefused = try server.refuses { $0.failedHandshakes >= 1 }
    #expect(isRefused)
  }

  @Test func `a revoked key is refused at its next message and at its next connection`() throws {
    let ring = try ring()
    let server = try TestServer(ring)
    let old = try client(ring, "trainer-0", server.endpoint)
    let other = try client(ring, "replica-0", server.endpoint)
    #expect(old.send(Blob([1]), to: 0))
    let first = try server.nextRole()
    #expect(first == .trainer)
    let new = LinkContext(try ring.security("trainer-0", servers: [server.endpoint: "shard-0"]))
    try ring.revoke("trainer-0")
    let later = try SocketGroup(connecting: [server.endpoint], context: new)
    #expect(later.send(Blob([2]), to: 0))
    let isShutOut = try server.refuses { refusals in
      // What the old connection sends is dropped once the list was read; until then nothing is sent over the new one.
      if refusals.unknownKeys > 0, refusals.revokedMessages == 0 { _ = old.send(Blob([3]), to: 0) }
      return refusals.unknownKeys > 0 && refusals.revokedMessages > 0
    }
    #expect(isShutOut)
    #expect(other.send(Blob([4]), to: 0))
    let last = try server.nextRole()
    #expect(last == .replica, "who was not revoked is still heard")
  }

  @Test func `a replaced key ends what the old one was let in for`() throws {
    let ring = try ring()
    let server = try TestServer(ring)
    let old = try client(ring, "trainer-0", server.endpoint)
    #expect(old.send(Blob([1]), to: 0))
    let first = try server.nextRole()
    #expect(first == .trainer)
    try ring.add("trainer-0", .trainer)
    let new = try client(ring, "trainer-0", server.endpoint)
    #expect(new.send(Blob([2]), to: 0))
    let second = try server.nextRole()
    #expect(second == .trainer)
    #expect(old.send(Blob([3]), to: 0))
    let isShutOut = try server.refuses { $0.revokedMessages > 0 }
    #expect(isShutOut)
  }

  @Test func `while the allow-list cannot be read nobody new comes in, and the status says why`() throws {
    let ring = try ring()
    let server = try TestServer(ring)
    let client = try client(ring, "trainer-0", server.endpoint)
    #expect(client.send(Blob([1]), to: 0))
    let first = try server.nextRole()
    #expect(first == .trainer)
    let late = LinkContext(try ring.security("replica-0", servers: [server.endpoint: "shard-0"]))
    try ring.write("replica-0 replica\n")
    let newcomer = try SocketGroup(connecting: [server.endpoint], context: late)
    #expect(newcomer.send(Blob([2]), to: 0))
    let isRefused = try server.refuses { $0.unknownKeys > 0 }
    #expect(isRefused)
    #expect(
      server.socket.refusals.problem
        == "the allow-list \(ring.listFile), line 1: expected a name, a role and a public key, found 2 words")
    #expect(client.send(Blob([3]), to: 0))
    let second = try server.nextRole()
    #expect(second == .trainer, "who was in stays in")
    try ring.write(ring.list.text)
    // Who was refused knocks again by itself; what was sent before is lost, as over any connection that breaks.
    var third: PeerRole?
    for _ in 0..<100 where third == nil {
      _ = try newcomer.receive(from: 0)
      _ = newcomer.send(Blob([4]), to: 0)
      third = try server.nextRole(within: .milliseconds(100))
    }
    #expect(third == .replica)
    #expect(server.socket.refusals.problem.isEmpty)
  }

  @Test func `when the doorkeeper ends the server stops receiving`() throws {
    let ring = try ring()
    let server = try TestServer(ring)
    let client = try client(ring, "trainer-0", server.endpoint)
    #expect(client.send(Blob([1]), to: 0))
    let first = try server.nextRole()
    #expect(first == .trainer)
    try #require(try server.context.startedDoorkeeper()).end()
    #expect(client.send(Blob([2]), to: 0))
    #expect(throws: LinkError.self) { _ = try server.socket.receive() == nil }
    // Nor is anybody let in: nobody answers, so no handshake ends well.
    let newcomer = try self.client(ring, "replica-0", server.endpoint)
    #expect(newcomer.send(Blob([3]), to: 0))
    newcomer.wait(timeout: .milliseconds(200))
    #expect(throws: LinkError.self) { _ = try server.socket.receive() == nil }
  }

  @Test func `malformed questions about keys are refused`() throws {
    let ring = try ring()
    let server = try TestServer(ring)
    let doorkeeper = try #require(try server.context.startedDoorkeeper())
    let key = try #require(ring.list["trainer-0"]).key
    let raw = try #require(rawKey(key))
    func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }
    let good = [bytes("1.0"), bytes("7"), bytes("guira"), bytes("127.0.0.1"), [], bytes("CURVE"), raw]
    let yes = doorkeeper.answer(to: good)
    #expect(yes.map { String(decoding: $0, as: UTF8.self) } == ["1.0", "7", "200", "", "trainer-0 \(key)", ""])
    var wrong = [[], [[]], Array(good.dropLast()), good + [[]]]
    for (index, value) in [(0, "2.0"), (2, "elsewhere"), (5, "NULL"), (5, "PLAIN"), (6, "short"), (6, "")] {
      var frames = good
      frames[index] = bytes(value)
      wrong.append(frames)
    }
    var flipped = good
    flipped[6][31] ^= 1
    wrong.append(flipped)
    for frames in wrong {
      let no = doorkeeper.answer(to: frames)
      #expect(no.count == 6 && no[2] == bytes("400") && no[4].isEmpty, "\(frames)")
    }
    let refusals = server.socket.refusals
    #expect(refusals.failedHandshakes == 6 && refusals.nullClients == 2 && refusals.unknownKeys == 3)
  }

  private func rawKey(_ key: PublicKey) -> [UInt8]? {
    var raw = [UInt8](repeating: 0, count: 32)
    return zmq_z85_decode(&raw, key.description) == nil ? nil : raw
  }

  @Test(arguments: ["tcp://0.0.0.0:5999", "tcp://*:5999", "tcp://10.0.0.1:5999", "tcp://127.example.com:5999"])
  func `without keys only loopback and ipc are served`(endpoint: String) throws {
    let socket = try Socket(.router, context: LinkContext())
    do throws(LinkError) {
      try socket.bind(endpoint)
      Issue.record("it was served")
    } catch {
      #expect(error.description.contains("without keys") && error.description.contains("guira keys create"))
    }
  }

  @Test func `a server whose key is not known is not spoken to`() throws {
    let ring = try ring()
    let context = LinkContext(try ring.security("trainer-0", servers: ["tcp://127.0.0.1:5998": "shard-7"]))
    for endpoint in ["tcp://127.0.0.1:5998", "tcp://127.0.0.1:5997"] {
      #expect(throws: LinkError.self) { _ = try SocketGroup(connecting: [endpoint], context: context) }
    }
  }
}
