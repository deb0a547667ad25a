// Bad input over a real socket: each message gets a typed error that names what was expected, and the connection and the
// shard live on.

import Base
import Embeddings
import Foundation
import Synchronization
import Testing
import Wire

@testable import Sharding

/// A shard that serves on a thread of this process.
private final class ServedShard {
  let endpoint: String
  private let server: ShardServer
  private let thread: OwnedThread
  private let directory: String

  init() {
    directory = "/tmp/guira-served-\(UInt64.random(in: 0 ... .max))"
    endpoint = "ipc://\(directory)/socket"
    try? FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    var options = ShardFixture().core.options
    options.creditBytes = 1 << 20
    let server = ShardServer(
      ShardServerOptions(shard: options, endpoint: endpoint, directory: "\(directory)"))
    self.server = server
    thread = OwnedThread(named: "served-shard") {
      do { try server.run() } catch { Issue.record("the shard ended: \(error)") }
    }
  }

  deinit {
    server.stop()
    thread.join()
    try? FileManager.default.removeItem(atPath: directory)
  }
}

@Suite("Bad input over a socket", .serialized) struct SocketTests {
  private typealias Push = ShardFixture.PushShape

  private func answer(_ socket: borrowing Socket, to message: Blob) throws -> ByteReader {
    let isSent = socket.send(message)
    #expect(isSent)
    let deadline = Clocks.monotonic() + 10_000_000_000
    while Clocks.monotonic() < deadline {
      while let (_, reply) = try socket.receive() {
        var reader = ByteReader(reply)
        if try MessageHeader(decoding: &reader).opcode != .durable { return ByteReader(reply) }
      }
      socket.wait(timeout: .milliseconds(100))
    }
    throw ErrorReply(.busy, "no answer within 10 seconds")
  }

  private func refusal(_ socket: borrowing Socket, of message: Blob) throws -> ErrorReply {
    var reader = try answer(socket, to: message)
    #expect(try MessageHeader(decoding: &reader).kind == .error)
    return try ErrorReply(decoding: &reader)
  }

  private func changed(_ message: Blob, _ offset: Int, _ byte: UInt8) -> Blob {
    var bytes = message.array
    bytes[offset] = byte
    return Blob(bytes)
  }

  @Test func `every bad message is answered with what was expected, and the next good one as if nothing had been`()
    throws
  {
    let shard = ServedShard()
    let socket = try Socket(.dealer, context: LinkContext())
    try socket.connect(shard.endpoint)
    let claim = Claim(chain: ShardFixture.chain, ownership: ShardFixture.owner)
    var reader = try answer(socket, to: claim.encoded(request: 1))
    #expect(try MessageHeader(decoding: &reader) == MessageHeader(.claim, .reply, request: 1))

    let pull = ShardFixture.pull()
    let push = ShardFixture.push(Push())
    let huge = ShardFixture.pull(ids: Array(0..<88_000))
    let bad: [(Blob, ErrorCode, String)] = [
      (
        ShardFixture.push(Push(width: 4)), .mismatch,
        "table 'user' has 2 weights per row: 3 ids need 6 gradients, the push has 12"
      ),
      (ShardFixture.pull(table: 7), .mismatch, "table 7 does not exist; the shard has 2 tables"),
      (ShardFixture.push(Push(table: 9)), .mismatch, "table 9 does not exist; the shard has 2 tables"),
      (changed(pull, 38, 9), .mismatch, "pull: data type is 9; expected 0 (float32) or 1 (float16)"),
      (changed(push, 132, 9), .mismatch, "push: data type is 9; expected 0 (float32) or 1 (float16)"),
      (ShardFixture.pull(map: 8), .staleMap, "the cluster map is number 1, the request used 8"),
      (ShardFixture.push(Push(map: 8)), .staleMap, "the cluster map is number 1, the request used 8"),
      (huge, .malformed, "the request has \(huge.count) bytes; the limit is 1048576"),
      (changed(pull, 47, 0xFF), .malformed, "pull: ids is 4278190083; the limit is 4194304"),
      (changed(pull, 44, 200), .malformed, "pull: the bytes end too early: 200 needed at offset 48, 40 left"),
      (changed(pull, 6, 200), .malformed, "opcode is 200; expected one of docs/protocol.md"),
      (changed(pull, 4, 9), .malformed, "protocol version is 9; expected 1...1"),
      (changed(pull, 0, 9), .malformed, "magic is 52495509; expected 52495547"),
      (Blob([]), .malformed, "the bytes end too early: 4 needed at offset 0, 0 left"),
      (
        Blob(Array(push.array.dropLast(8))), .malformed,
        "push: the bytes end too early: 6 needed at offset 208, 16 left"
      ),
    ]
    for (message, code, text) in bad {
      #expect(try refusal(socket, of: message) == ErrorReply(code, text))
      var reader = try answer(socket, to: pull)
      #expect(try MessageHeader(decoding: &reader) == MessageHeader(.pull, .reply, request: 2))
      #expect(try PullReply(decoding: &reader).rows[0].count == 6)
    }
    reader = try answer(socket, to: push)
    #expect(try MessageHeader(decoding: &reader) == MessageHeader(.push, .reply, request: 3))
    #expect(try ChainReply(decoding: &reader).state.applied == Position(low: 10))
  }

  @Test func `a frame far above the byte credits is not taken into memory, and the next message is answered`() throws {
    let shard = ServedShard()
    let socket = try Socket(.dealer, context: LinkContext())
    try socket.connect(shard.endpoint)
    let isSent = socket.send(Blob([UInt8](repeating: 0, count: 3 << 19)))
    #expect(isSent)
    // The connection ends with that frame; libzmq makes a new one, and what was sent meanwhile may be lost.
    let deadline = Clocks.monotonic() + 10_000_000_000
    var isAnswered = false
    while !isAnswered, Clocks.monotonic() < deadline {
      _ = socket.send(PlainMessage.empty(.ping, request: 4))
      socket.wait(timeout: .milliseconds(50))
      while let (_, reply) = try socket.receive() {
        var reader = ByteReader(reply)
        #expect(try MessageHeader(decoding: &reader) == MessageHeader(.ping, .reply, request: 4))
        isAnswered = true
      }
    }
    #expect(isAnswered)
    var asker = try Asker(endpoint: shard.endpoint, context: LinkContext())
    #expect(try asker.shardStatus()?.counters["malformed"] == nil, "the shard never saw it")
  }

  @Test func `a client that pings is counted, and told who answers`() throws {
    let shard = ServedShard()
    let socket = try Socket(.dealer, context: LinkContext())
    try socket.connect(shard.endpoint)
    var reader = try answer(socket, to: PlainMessage.empty(.ping, request: 4))
    #expect(try MessageHeader(decoding: &reader) == MessageHeader(.ping, .reply, request: 4))
    let pong = try Pong(decoding: &reader)
    reader = try answer(socket, to: Hello(role: .trainer).encoded(request: 5))
    _ = try MessageHeader(decoding: &reader)
    let welcome = try Welcome(decoding: &reader)
    #expect(pong.incarnation == welcome.incarnation)
    #expect((welcome.requestCredits, welcome.byteCredits) == (256, 1 << 20))
    var asker = try Asker(endpoint: shard.endpoint, context: LinkContext())
    #expect(try asker.shardStatus()?.counters["clients"] == 2)
  }
}
