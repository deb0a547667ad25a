// A directory of keys for tests, as `guira keys create` would make it.

import Base
import Glibc
import Testing
import Wire

final class KeyRing {
  let directory: String
  private(set) var list = AllowList(comment: ["test"])

  init(_ names: [(String, PeerRole)]) throws {
    directory = "/tmp/guira-keys-\(getpid())-\(UInt64.random(in: 0 ... .max))"
    try Files.makePrivateDirectory(directory)
    for (name, role) in names { try add(name, role) }
  }

  deinit { try? Files.remove(directory) }

  var listFile: String { "\(directory)/allowed" }
  func secretFile(_ name: String) -> String { "\(directory)/\(name).secret" }

  func add(_ name: String, _ role: PeerRole) throws {
    let key = try SecretKey.random()
    try Files.writePrivate(
      secretFile(name), Array(LinkSecurity.secretFileText(key, of: name).utf8), replacing: true)
    list.set(AllowList.Entry(name: name, role: role, key: key.publicKey))
    try write(list.text)
  }

  func write(_ text: String) throws { try Files.replace(listFile, with: Array(text.utf8), durable: false) }

  func revoke(_ name: String) throws {
    try write(list.text.split(separator: "\n").filter { !$0.hasPrefix("\(name) ") }.map { "\($0)\n" }.joined())
  }

  func security(_ name: String, servers: [String: String] = [:]) throws(KeyError) -> LinkSecurity {
    try LinkSecurity(name: name, secretFile: secretFile(name), allowListFile: listFile, servers: servers)
  }
}

/// A server of a ring on a loopback port of its own.
final class TestServer {
  let socket: Socket
  let endpoint: String
  let context: LinkContext

  init(_ ring: KeyRing, name: String = "shard-0") throws {
    let context = LinkContext(try ring.security(name))
    let socket = try Socket(.router, context: context)
    try socket.bind("tcp://127.0.0.1:*")
    self.context = context
    endpoint = socket.endpoint
    self.socket = socket
  }

  /// The role of whoever sends the next message; nil when none comes in time.
  func nextRole(within timeout: Duration = .seconds(60)) throws -> PeerRole? {
    let deadline = Clocks.monotonic() + timeout.nanoseconds
    while Clocks.monotonic() < deadline {
      if let received = try socket.receive() { return received.peer?.role }
      socket.wait(timeout: .milliseconds(10))
    }
    return nil
  }

  /// Receives until the refusals are so, which is false when they never are; no message may come through meanwhile.
  func refuses(until isSo: (LinkRefusals) -> Bool) throws -> Bool {
    let deadline = Clocks.monotonic() + 60_000_000_000
    while Clocks.monotonic() < deadline {
      if let received = try socket.receive() {
        Issue.record("a message came through: \(received.message.array)")
        return false
      }
      if isSo(socket.refusals) { return true }
      socket.wait(timeout: .milliseconds(10))
    }
    return false
  }
}
