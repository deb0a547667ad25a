// A shard with its files: what comes back after stops, damage, a restore and an erasure.

import Base
import Foundation
import Journal
import Testing
import Wire

@testable import Sharding

@Suite("Shard files") struct ServerTests {
  @Test func `a shard comes back from its newest checkpoint and the blocks after it`() throws {
    let server = try ServerFixture.trained()
    let before = try server.digest()
    server.stop()
    let summary = try server.start()
    #expect(summary.checkpoint == server.second && summary.checkpointRows == 4 && summary.records > 0)
    #expect(try server.digest() == before)
    #expect(try server.claim().applied == Position(low: 30))
  }

  @Test func `a damaged checkpoint is refused, and with accepted loss the one before it loses nothing`() throws {
    let server = try ServerFixture.trained()
    let before = try server.digest()
    server.stop()
    let file = try #require(server.paths(server.files.checkpoints).first { $0.contains("\(server.second)-0") })
    try server.flip(file, at: 200)
    let error = #expect(throws: RecoveryError.self) { try server.start() }
    let text = try #require(error?.description)
    #expect(text.contains(file) && text.contains("damaged at byte"))
    #expect(text.contains("nothing is lost with --accept-loss: checkpoint '\(server.first)' and the blocks after it"))
    let summary = try server.start(acceptLoss: true)
    #expect(summary.checkpoint == server.first && summary.acceptedLosses.count == 1)
    #expect(try server.digest() == before)
  }

  @Test func `blocks that are missing behind the checkpoint are refused, and accepted they change the identity`() throws
  {
    let server = try ServerFixture.trained()
    _ = try server.checkpoint("mine")
    let before = try welcome(server)
    try server.push([5, 6])
    // A newer one that compacts deletes the blocks; without it there is a hole.
    let newer = try server.checkpoint("newer", compacts: true)
    server.stop()
    try ShardAudit.delete(checkpoint: newer.name, in: server.files)
    let error = #expect(throws: RecoveryError.self) { try server.start() }
    #expect(error?.description.contains("the blocks between are gone") == true)
    let summary = try server.start(acceptLoss: true)
    #expect(summary.acceptedLosses.count == 1)
    let after = try welcome(server)
    #expect(after.identityHigh != before.identityHigh)
    // The shard writes a checkpoint without the hole at once, before one that it is asked for; nothing is left to accept.
    _ = try server.checkpoint("again")
    #expect(server.paths(server.files.checkpoints).contains { $0.contains("/auto-") })
    server.stop()
    #expect(try server.start().acceptedLosses.isEmpty)
  }

  @Test func `named checkpoints take nothing from what the shard comes back from`() throws {
    let server = try ServerFixture.trained()
    _ = try server.checkpoint("mine", compacts: true)
    // The only one there is, and the blocks before it are gone.
    #expect(try !ShardAudit.canDo(withoutCheckpoint: "mine", in: server.files))
    try server.push([7])
    _ = try server.checkpoint("more")
    #expect(try ShardAudit.canDo(withoutCheckpoint: "mine", in: server.files))
    try ShardAudit.delete(checkpoint: "mine", in: server.files)
    #expect(try !ShardAudit.canDo(withoutCheckpoint: "more", in: server.files))
    _ = try server.checkpoint("")
    _ = try server.checkpoint("")
    _ = try server.checkpoint("")
    let names = try ShardAudit.checkpoints(in: server.files).checkpoints.map(\.manifest.name)
    #expect(names.count { $0.hasPrefix("auto-") } == 2 && names.contains("more"))
    try ShardAudit.delete(checkpoint: "more", in: server.files)
    let before = try server.digest()
    server.stop()
    #expect(try server.start().acceptedLosses.isEmpty)
    #expect(try server.digest() == before)
  }

  @Test func `names that are none, reserved or taken are refused without an alarm`() throws {
    let server = try ServerFixture.trained()
    _ = try server.checkpoint("mine")
    for name in ["a/b", ".hidden", "auto-mine", "before-restore-1", "mine"] {
      let error = #expect(throws: ErrorReply.self) { try server.checkpoint(name) }
      #expect(error?.code == .mismatch, "\(name)")
    }
    _ = try server.checkpoint("another")
  }

  @Test func `a damaged block that the checkpoint covers costs nothing and needs no consent`() throws {
    let server = try ServerFixture.trained()
    try server.push([8, 9])
    let before = try server.digest()
    server.stop()
    let segment = try #require(server.paths(server.files.journal).first { $0.hasSuffix(".segment") })
    try server.flip(segment, at: 200)
    #expect(throws: JournalError.self) { try ShardAudit.verifyJournal(in: server.files) }
    let summary = try server.start()
    #expect(summary.acceptedLosses.isEmpty && summary.records > 0)
    #expect(try server.digest() == before)
  }

  @Test func `a restore of a shard with damaged blocks accepts nothing before it counts`() throws {
    let server = try ServerFixture.trained()
    for id in 6...9 as ClosedRange<UInt64> { try server.push([id]) }
    server.stop()
    let segment = try #require(server.paths(server.files.journal).first { $0.hasSuffix(".segment") })
    // In the first block behind both checkpoints; 64 bytes of label come before offset 0.
    let newest = try #require(try ShardAudit.checkpoints(in: server.files).checkpoints.last).manifest
    try server.flip(segment, at: 64 + Int(newest.journalOffset) + 40)
    let summary = try CheckpointRestore(server.options, files: server.files).run(name: server.second)
    #expect(summary.saveProblem?.contains("damaged") == true)
    #expect(try server.start().acceptedLosses.isEmpty)
    #expect(try server.claim(2).applied == Position(low: 20))
  }

  @Test func `what cannot be kept before a restore stops it`() throws {
    let server = try ServerFixture.trained()
    _ = try server.checkpoint("mine")
    try server.push([9])
    let before = try server.digest()
    server.stop()
    // A folder where the file of the state before would be: no damage, and nothing that a restore may go on after.
    let epoch = try #require(try ShardAudit.checkpoints(in: server.files).checkpoints.last).manifest.epoch
    for number in epoch...epoch + 5 {
      try FileManager.default.createDirectory(
        atPath: "\(server.files.checkpoints)/before-restore-\(number)-000000.data.tmp/x",
        withIntermediateDirectories: true)
    }
    let restore = CheckpointRestore(server.options, files: server.files)
    let error = #expect(throws: RecoveryError.self) { try restore.run(name: "mine") }
    #expect(error?.description.contains("Nothing was changed") == true)
    for number in epoch...epoch + 5 {
      try FileManager.default.removeItem(
        atPath: "\(server.files.checkpoints)/before-restore-\(number)-000000.data.tmp")
    }
    try server.start()
    #expect(try server.digest() == before)
  }

  @Test func `a compaction leaves no damaged checkpoint behind`() throws {
    let server = try ServerFixture.trained()
    server.stop()
    let file = try #require(
      server.paths(server.files.checkpoints).first { $0.hasSuffix("\(server.second).checkpoint") })
    try server.flip(file, at: 100)
    try server.start(acceptLoss: true)
    #expect(server.paths("\(server.files.checkpoints)/damaged").count == 2)
    _ = try server.checkpoint("mine", compacts: true)
    #expect(server.paths("\(server.files.checkpoints)/damaged").isEmpty)
    #expect(server.paths(server.files.checkpoints).allSatisfy { $0.contains("/mine") || $0.hasSuffix("/damaged") })
  }

  @Test func `a damaged manifest is refused too`() throws {
    let server = try ServerFixture.trained()
    let before = try server.digest()
    server.stop()
    let file = try #require(
      server.paths(server.files.checkpoints).first { $0.hasSuffix("\(server.second).checkpoint") })
    try server.flip(file, at: 100)
    let error = #expect(throws: RecoveryError.self) { try server.start() }
    #expect(error?.description.contains(file) == true)
    try server.start(acceptLoss: true)
    #expect(try server.digest() == before)
  }

  @Test func `a damaged block is refused with what it costs, and accepted loss changes the journal's identity`() throws
  {
    let server = try ServerFixture.trained()
    let identity = try welcome(server)
    try server.push([6])
    try server.push([7])
    server.stop()
    let file = try #require(server.paths(server.files.journal).first { $0.hasSuffix(".segment") })
    let size = try #require(try FileManager.default.attributesOfItem(atPath: file)[.size] as? Int)
    try server.flip(file, at: size - 400)
    let error = #expect(throws: (any Error).self) { try server.start() }
    let text = "\(try #require(error))"
    #expect(text.contains(file) && text.contains("going on with accepted loss gives up the journal offsets"))
    let summary = try server.start(acceptLoss: true)
    #expect(summary.acceptedLosses.count == 1)
    let after = try welcome(server)
    #expect(after.identityHigh != identity.identityHigh)
    // Whole pushes are gone, none is there by half: each added 1 to both columns of its rows.
    #expect(try server.claim(2).applied.low % 10 == 0)
    server.stop()
    #expect(try server.start().acceptedLosses.isEmpty)
  }

  private func welcome(_ server: ServerFixture) throws -> Welcome {
    var reader = try server.ask { Hello(role: .operator).encoded(request: $0) }
    return try Welcome(decoding: &reader)
  }

  @Test func `a restore brings the older state back under a new identity, and can be undone`() throws {
    let server = try ServerFixture.trained()
    let identity = try welcome(server)
    _ = try server.checkpoint("mine")
    let wanted = try server.digest()
    try server.push([1, 8, 9])
    let newest = try server.digest()
    server.stop()
    let restore = CheckpointRestore(server.options, files: server.files)
    let summary = try restore.run(name: "mine")
    let saved = try #require(summary.saved)
    try server.start()
    #expect(try server.digest() == wanted)
    let after = try welcome(server)
    #expect(after.identityHigh != identity.identityHigh && after.epoch > identity.epoch)
    #expect(try server.claim(2).applied == Position(low: 30))
    try server.push([20], generation: 2)
    server.stop()
    _ = try restore.run(name: saved, savesCurrent: false)
    try server.start()
    #expect(try server.digest() == newest)
  }

  @Test func `a restore with other positions goes on there`() throws {
    let server = try ServerFixture.trained()
    _ = try server.checkpoint("mine")
    server.stop()
    var skip = SkipTo()
    skip.partitions[0] = Position(low: 5000)
    let summary = try CheckpointRestore(server.options, files: server.files).run(name: "mine", skipTo: skip)
    #expect(summary.skipped.map(\.low) == [5000])
    try server.start()
    #expect(try server.claim(2).applied == Position(low: 5000))
  }

  @Test func `a restore of a damaged checkpoint changes nothing`() throws {
    let server = try ServerFixture.trained()
    _ = try server.checkpoint("mine")
    let before = try server.digest()
    server.stop()
    let file = try #require(server.paths(server.files.checkpoints).first { $0.contains("mine-") })
    try server.flip(file, at: 100)
    let restore = CheckpointRestore(server.options, files: server.files)
    #expect(throws: (any Error).self) { try restore.run(name: "mine") }
    try ShardAudit.delete(checkpoint: "mine", in: server.files)
    try server.start()
    #expect(try server.digest() == before)
  }

  @Test func `a journal without its first segment is told of, not looked at for ever`() throws {
    let server = try ServerFixture.trained()
    server.stop()
    try Files.remove("\(server.files.journal)/00000000000000000000.segment")
    #expect(throws: JournalError.self) { try ShardAudit.verifyJournal(in: server.files) }
  }

  @Test func `an erasure whose block is lost is done again`() throws {
    let server = try ServerFixture.trained()
    try server.forget([2])
    server.stop()
    // As if the block with the erasure had never come to the disk.
    let segment = try #require(server.paths(server.files.journal).last { $0.hasSuffix(".segment") })
    let size = try #require(try FileManager.default.attributesOfItem(atPath: segment)[.size] as? Int)
    try server.flip(segment, at: size - 30)
    try server.start(acceptLoss: true)
    #expect(try server.inspect(2) == #"[{"id":2,"found":false}]"#)
  }

  @Test func `forgotten and compacted, an id is nowhere in blocks and checkpoints`() throws {
    let server = try ServerFixture()
    try server.start()
    _ = try server.claim()
    let secret: UInt64 = 0x5EC2_E7A1_D00D_F00D
    try server.push([1, secret])
    _ = try server.checkpoint("")
    try server.push([secret])
    _ = try server.checkpoint("named")
    #expect(try holds(secret, server))
    try server.forget([secret])
    _ = try server.checkpoint("", compacts: true)
    server.stop()  // ends the thread that deletes
    #expect(try !holds(secret, server))
    try server.start()
    #expect(try server.inspect(secret).contains(#""found":false"#))
    #expect(try server.inspect(1).contains(#""found":true"#))
  }

  /// Whether the bytes of an id are in any file of blocks or checkpoints.
  private func holds(_ id: UInt64, _ server: ServerFixture) throws -> Bool {
    let pattern = withUnsafeBytes(of: id.littleEndian) { Data($0) }
    return try (server.paths(server.files.journal) + server.paths(server.files.checkpoints)).contains {
      try Data(contentsOf: URL(filePath: $0)).range(of: pattern) != nil
    }
  }

  @Test func `the history of a row has its epochs, pushes and change`() throws {
    let server = try ServerFixture.trained()
    try server.forget([4])
    let history = try RowHistory.read(id: 4, table: "user", in: server.files)
    #expect(history.map(\.kind) == [.written, .checkpoint, .written, .removed])
    #expect(history[0].chains.map(\.applied) == [Position(low: 20)])
    #expect(history[2].chains.map(\.applied) == [Position(low: 30)])
    let step = zip(history[1].weights, history[2].weights).map { $0 - $1 }
    #expect(step.allSatisfy { abs($0 - 1) < 1e-5 })
    #expect(history[3].weights.isEmpty)
    #expect(try RowHistory.read(id: 99, table: "user", in: server.files).isEmpty)
  }

  @Test func `verifying names the file and the place of a flipped bit`() throws {
    let server = try ServerFixture.trained()
    server.stop()
    let names = try ShardAudit.checkpoints(in: server.files).checkpoints.map(\.manifest.name)
    #expect(names == [server.first, server.second])
    for name in names { try ShardAudit.verify(checkpoint: name, in: server.files) }
    #expect(try ShardAudit.verifyJournal(in: server.files) > 0)
    let file = try #require(server.paths(server.files.checkpoints).first { $0.contains("\(server.first)-0") })
    try server.flip(file, at: 80)
    let error = #expect(throws: (any Error).self) {
      try ShardAudit.verify(checkpoint: server.first, in: server.files)
    }
    #expect("\(try #require(error))".contains("\(file) is damaged at byte"))
  }
}
