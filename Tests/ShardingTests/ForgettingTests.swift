// A shard with its files: ids it was told to forget stay away, whatever is read or restored afterwards.

import Base
import Foundation
import Journal
import Testing
import Wire

@testable import Sharding

@Suite("Forgotten ids") struct ForgettingTests {
  @Test func `a forgotten id stays away when the head of its journal is behind`() throws {
    let server = try ServerFixture.trained()
    let head = "\(server.files.forgotten)/head"
    try server.forget([9])
    let old = try Data(contentsOf: URL(filePath: head))
    _ = try server.checkpoint("mine")
    try server.forget([3])
    server.stop()
    // As a power failure leaves it: records are synced, the head is not.
    try old.write(to: URL(filePath: head))
    let summary = try CheckpointRestore(server.options, files: server.files).run(name: "mine", savesCurrent: false)
    #expect(summary.forgottenAgain == 1)
    try server.start()
    #expect(try server.inspect(3) == #"[{"id":3,"found":false}]"#)
  }

  @Test func `what was forgotten does not come back with a restore`() throws {
    let server = try ServerFixture.trained()
    _ = try server.checkpoint("mine")
    try server.forget([2, 3])
    #expect(try server.inspect(3) == #"[{"id":3,"found":false}]"#)
    server.stop()
    let summary = try CheckpointRestore(server.options, files: server.files).run(name: "mine")
    #expect(summary.forgottenAgain == 2)
    try server.start()
    #expect(try server.inspect(3) == #"[{"id":3,"found":false}]"#)
    #expect(try server.inspect(1).contains(#""found":true"#))
    // An id that is forgotten and seen again has a row; a state from after that keeps it.
    _ = try server.claim(2)
    try server.push([3], generation: 2)
    _ = try server.checkpoint("later")
    server.stop()
    _ = try CheckpointRestore(server.options, files: server.files).run(name: "later")
    try server.start()
    #expect(try server.inspect(3).contains(#""found":true"#))
  }

  @Test func `an older checkpoint that is read for an export or a warm start is without what was forgotten since`()
    throws
  {
    let server = try ServerFixture.trained()
    _ = try server.checkpoint("mine")
    try server.forget([2, 3])
    func ids() throws -> [UInt64] {
      var ids: [UInt64] = []
      let contents = try ShardContents(server.options, files: server.files, checkpoint: "mine")
      try contents.forEachSlice(table: 0) { slice, _ in ids += slice }
      return ids
    }
    // While the shard runs it holds the list; afterwards nobody does.
    let running = try ids()
    server.stop()
    let stopped = try ids()
    #expect(running == stopped)
    #expect(stopped.contains(1) && !stopped.contains(2) && !stopped.contains(3))
  }

  @Test func `damage in the list of forgotten ids stops a restore, which would bring them back`() throws {
    let server = try ServerFixture.trained()
    _ = try server.checkpoint("mine")
    try server.forget([2, 3])
    try server.forget([1])
    server.stop()
    let segment = "\(server.files.forgotten)/00000000000000000000.segment"
    let whole = try Data(contentsOf: URL(filePath: segment))
    var damaged = whole
    damaged[80] ^= 1
    try damaged.write(to: URL(filePath: segment))
    for savesCurrent in [true, false] {
      let restore = CheckpointRestore(server.options, files: server.files)
      #expect(throws: RecoveryError.self) { try restore.run(name: "mine", savesCurrent: savesCurrent) }
      #expect(try Data(contentsOf: URL(filePath: segment)) == damaged)
    }
    try whole.write(to: URL(filePath: segment))
    #expect(try CheckpointRestore(server.options, files: server.files).run(name: "mine").forgottenAgain > 0)
  }

  @Test func `examples from before do not bring a forgotten id back when they are trained on again`() throws {
    let server = try ServerFixture.trained()
    _ = try server.checkpoint("mine")
    try server.push([2, 3, 4])
    try server.forget([3])
    let afterwards = try server.claim(2).applied
    server.stop()
    _ = try CheckpointRestore(server.options, files: server.files).run(name: "mine")
    // Over a restart too.
    try server.start()
    server.stop()
    try server.start()
    #expect(try server.claim(3).applied < afterwards)
    try server.push([2, 3, 4], generation: 3)
    #expect(try server.claim(3).applied == afterwards)
    #expect(try server.inspect(3) == #"[{"id":3,"found":false}]"#)
    #expect(try server.inspect(4).contains(#""found":true"#))
    // What comes later is about the id as it is now.
    try server.push([3], generation: 3)
    #expect(try server.inspect(3).contains(#""found":true"#))
  }
}
