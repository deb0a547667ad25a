// Key files and the allow-list: what is read, what is refused in which words, and that a secret is never printed.

import Base
import Foundation
import Glibc
import Testing
import Wire

@Suite("Key files") struct KeyFileTests {
  private let keys = ["aTrainer", "aShard"].compactMap { _ in try? SecretKey.random().publicKey }

  private func fault(_ text: String) -> String? {
    do throws(KeyError) {
      _ = try AllowList(parsing: text)
      return nil
    } catch { return error.description }
  }

  @Test func `a list keeps comments and order when a line is added or changed`() throws {
    let text = "# who may\n\ntrainer-0 trainer \(keys[0])\n# the end\n"
    var list = try AllowList(parsing: text)
    #expect(list.text == text)
    #expect(list["trainer-0"]?.role == .trainer)
    list.set(AllowList.Entry(name: "shard-0", role: .shard, key: keys[1]))
    #expect(list.text == text + "shard-0 shard \(keys[1])\n")
    let other = try SecretKey.random().publicKey
    list.set(AllowList.Entry(name: "trainer-0", role: .trainer, key: other))
    #expect(try AllowList(parsing: list.text).entries.map(\.key) == [other, keys[1]])
    #expect(list.text.hasPrefix("# who may\n\ntrainer-0 trainer \(other)\n# the end\n"))
  }

  @Test func `a fault in a list is named with its line`() {
    let good = "trainer-0 trainer \(keys[0])\n"
    #expect(fault(good) == nil)
    #expect(fault("\n  trainer-0\ttrainer  \(keys[0])\r\n") == nil)
    #expect(fault(good + "x") == "line 2: expected a name, a role and a public key, found 1 words")
    #expect(fault(good + good) == "line 2: trainer-0 is named twice")
    #expect(fault(good + "trainer-1 trainer \(keys[0])") == "line 2: the key of trainer-1 is there twice")
    #expect(
      fault("a king \(keys[0])")
        == "line 1: 'king' is not a role; use one of: trainer, sync, operator, replica, shard, application, ingest")
    #expect(fault("a/b trainer \(keys[0])") == "line 1: 'a/b' is not a name such as trainer-0")
    for key in ["short", String(repeating: "~", count: 40), String(repeating: "#", count: 40), "\(keys[0])0"] {
      #expect(fault("a trainer \(key)") == "line 1: the key of a is not a public key: 40 characters of Z85")
    }
  }

  @Test func `a list with slips is read or refused, never more`() {
    var random = SeededRandom(seed: 11)
    let good = Array("# who\ntrainer-0 trainer \(keys[0])\r\nshard-0 shard \(keys[1])\n".utf8)
    var refused = 0
    for _ in 0..<3000 {
      var bytes = good
      for _ in 0..<Int.random(in: 1...3, using: &random) {
        bytes[Int.random(in: 0..<bytes.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
      }
      let text = String(decoding: bytes, as: UTF8.self)
      if let list = try? AllowList(parsing: text) { #expect(list.entries.count <= 3) } else { refused += 1 }
    }
    #expect(refused > 1000)
  }

  @Test(arguments: [0o644, 0o640, 0o604, 0o660]) func `a secret that others may read is refused`(mode: Int) throws {
    let ring = try KeyRing([("trainer-0", .trainer)])
    _ = try ring.security("trainer-0")
    chmod(ring.secretFile("trainer-0"), mode_t(mode))
    let file = ring.secretFile("trainer-0")
    #expect(
      throws: KeyError(
        "the secret key \(file) has permissions \(String(mode, radix: 8)) or another owner, so others may know it; "
          + "make a new one, or if nobody can have read it: chmod 600 \(file)")
    ) { _ = try ring.security("trainer-0") }
  }

  @Test func `a list that others may change is refused`() throws {
    let ring = try KeyRing([("trainer-0", .trainer)])
    chmod(ring.listFile, 0o664)
    #expect(throws: KeyError.self) { _ = try ring.security("trainer-0") }
  }

  @Test func `a key that is not the one in the list, or is not there, is refused`() throws {
    let ring = try KeyRing([("trainer-0", .trainer), ("trainer-1", .trainer)])
    rename(ring.secretFile("trainer-1"), ring.secretFile("trainer-0"))
    func words(_ name: String) -> String {
      do throws(KeyError) {
        _ = try ring.security(name)
        return ""
      } catch { return error.description }
    }
    #expect(words("trainer-0").contains("is not the key that trainer-0 has in the allow-list"))
    #expect(words("trainer-1").contains("the secret key is missing"))
    try ring.add("trainer-2", .trainer)
    try ring.revoke("trainer-2")
    #expect(words("trainer-2").contains("was its key revoked?"))
  }

  @Test func `a secret is never printed`() throws {
    let key = try SecretKey.random()
    let ring = try KeyRing([("trainer-0", .trainer)])
    let security = try ring.security("trainer-0")
    var shown = "\(key) \(String(reflecting: key)) \([key]) \(security) \(String(reflecting: security))"
    dump(key, to: &shown)
    dump(security, to: &shown)
    let secret = String(decoding: try Files.read(ring.secretFile("trainer-0")), as: UTF8.self)
      .split(separator: "\n")[1]
    #expect(secret.count == 40)
    #expect(!shown.contains(key.secretText) && !shown.contains(secret))
    // A damaged file is not quoted either.
    chmod(ring.secretFile("trainer-0"), 0o600)
    try Files.writePrivate(ring.secretFile("trainer-0"), Array("\(secret)x\n".utf8), replacing: true)
    do throws(KeyError) {
      _ = try ring.security("trainer-0")
      Issue.record("a damaged secret was taken")
    } catch { #expect(!error.description.contains(secret)) }
  }

  @Test func `a secret is not written over another one`() throws {
    let ring = try KeyRing([("trainer-0", .trainer)])
    let before = try Files.read(ring.secretFile("trainer-0"))
    #expect(throws: FileError.self) { try Files.writePrivate(ring.secretFile("trainer-0"), [1]) }
    #expect(try Files.read(ring.secretFile("trainer-0")) == before)
    #expect(try Files.names(in: ring.directory) == ["allowed", "trainer-0.secret"])
    var status = stat()
    stat(ring.secretFile("trainer-0"), &status)
    #expect(status.st_mode & 0o777 == 0o600)
  }
}

@Suite("Authorisation") struct AuthorizationTests {
  @Test func `each role may ask for its own opcodes only`() {
    func allowed(_ role: PeerRole) -> [Opcode] { Opcode.allCases.filter { $0.isAllowed(to: role) } }
    #expect(allowed(.trainer) == [.hello, .claim, .pull, .push, .closeEpoch, .status, .ping, .follow])
    #expect(allowed(.sync) == [.hello, .pull, .closeEpoch, .blocksSince, .scan, .status, .ping])
    #expect(allowed(.replica) == [.hello, .status, .ping, .follow])
    #expect(allowed(.shard) == [.hello, .status, .ping])
    #expect(allowed(.ingest) == [.hello, .status, .ping])
    #expect(allowed(.application) == [.hello, .status, .ping, .rows, .embed, .events])
    #expect(
      allowed(.operator) == [
        .hello, .pull, .forget, .closeEpoch, .scan, .status, .digest, .inspect, .ping, .checkpoint, .publish,
        .versions, .pin, .resume, .rows, .embed, .events,
      ])
  }

  @Test func `the page on security shows the same table`() throws {
    let page = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent().appending(path: "docs/security.md")
    let rows = try String(contentsOf: page, encoding: .utf8).split(separator: "\n").map { line in
      line.split(separator: "|", omittingEmptySubsequences: false).map { $0.trimmingCharacters(in: .whitespaces) }
    }
    let head = try #require(rows.first { $0.count > 2 && $0[1] == "opcode" })
    var shown: Set<String> = []
    for row in rows where row.count == head.count {
      for opcode in Opcode.allCases where row[1].components(separatedBy: ", ").contains("\(opcode)") {
        shown.insert("\(opcode)")
        for role in PeerRole.allCases {
          let column = try #require(head.firstIndex(of: role.name))
          #expect((row[column] == "yes") == opcode.isAllowed(to: role), "\(opcode) for \(role.name)")
        }
      }
    }
    let asked = Opcode.allCases.filter { opcode in PeerRole.allCases.contains { opcode.isAllowed(to: $0) } }
    #expect(shown == Set(asked.map { "\($0)" }))
  }

  @Test func `a refusal names the role, the opcode and who may`() {
    #expect(
      ErrorReply.forbidden(.push, to: .replica)
        == ErrorReply(.forbidden, "role replica may not ask for 'push'; allowed: trainer"))
    #expect(
      ErrorReply.forbidden(.version, to: .operator).message == "role operator may not ask for 'version'; nobody may")
  }
}
