// A crash at every operation of a shard's files, journal, checkpoints and forgotten ids together, and what the shard
// comes back as: what it was after an epoch that was acknowledged, or after a later one, in all its tables, tensors and
// positions.

import Base
import Foundation
import Testing

@testable import Journal
@testable import Sharding

@Suite("Shard crashes") struct ShardCrashTests {
  /// How many kinds of crash are tried at each operation; `GUIRA_CRASHES=all` tries all.
  private static let kinds = ProcessInfo.processInfo.environment["GUIRA_CRASHES"] == "all" ? 6 : 1

  private static func kinds(at stop: Int) -> [ModelDisk.Crash] {
    let all = ModelDisk.Crash.allCases
    return (0..<kinds).map { all[(stop * kinds + $0) % all.count] }
  }

  /// The state at the end of an epoch; before the first one a shard is empty.
  private static func state(_ knowledge: DiskLife.Knowledge, _ epoch: UInt64) throws -> ShardState {
    if let state = knowledge.states[epoch] { return state }
    var core = ShardCore(DiskLife.options, incarnation: 1, identity: (0, 0))
    return try ShardState(&core)
  }

  private static func check(_ life: DiskLife, _ knowledge: DiskLife.Knowledge, _ context: String) throws {
    let epoch = life.origin.epoch
    #expect(epoch >= knowledge.acknowledged, "\(context): epoch \(knowledge.acknowledged) was acknowledged")
    let isRight = try life.origin.state == state(knowledge, epoch)
    #expect(isRight, "\(context): it came back as no state it ever had at the end of epoch \(epoch)")
  }

  @Test func `a crash at any operation leaves an acknowledged state or a later one, never a mix`() throws {
    let directory = "/model-crash"
    let whole = try DiskLife.live(ModelDisk(), at: directory)
    #expect(whole.failure == nil && whole.checkpoints == 3)
    var stop = 0
    var fromCheckpoints = 0
    while true {
      let disk = ModelDisk()
      disk.crashAt = stop
      let knowledge = try DiskLife.live(disk, at: directory)
      // The disk may stop after the last thing that was waited for.
      if knowledge.failure == nil, disk.operations <= stop { break }
      for crash in Self.kinds(at: stop) {
        let context = "stopped at operation \(stop), \(crash)"
        let found = disk.after(crash, seed: UInt64(stop))
        do {
          let after = try DiskLife.with(found, at: directory) { files in
            let life = try DiskLife(files)
            try Self.check(life, knowledge, context)
            if life.summary.checkpoint != nil { fromCheckpoints += 1 }
            life.claim(generation: 100)
            life.push(ids: [1, 2, 3, 40], table: 0)
            life.closeEpoch()
            life.requestCheckpoint(compacts: false)
            life.finishCheckpoint()
            life.end()
            #expect(life.failure == nil, "\(context): \(life.failure ?? "")")
            return DiskLife.Knowledge(states: life.states, acknowledged: life.acknowledged)
          }
          let last = found.after(.unsyncedDropped, seed: 0)
          try DiskLife.with(last, at: directory) { files in
            let life = try DiskLife(files)
            life.end()
            try Self.check(life, after, "\(context), went on")
          }
        } catch {
          Issue.record("\(context): \(error)")
        }
      }
      stop += 1
    }
    #expect(stop > 120, "only \(stop) operations were stopped at")
    #expect(fromCheckpoints > 50, "only \(fromCheckpoints) recoveries began with a checkpoint")
  }

  @Test func `a crash at any operation of a recovery leaves an acknowledged state or a later one`() throws {
    let directory = "/model-recovery"
    var stop = 20
    while true {
      let disk = ModelDisk()
      disk.crashAt = stop
      let knowledge = try DiskLife.live(disk, at: directory)
      if knowledge.failure == nil, disk.operations <= stop { break }
      let first = Self.kinds(at: stop)[0]
      var inner = 0
      while true {
        let found = disk.after(first, seed: UInt64(stop))
        found.crashAt = inner
        let context = "stopped at \(stop), \(first), the recovery at \(inner)"
        let isOver = DiskLife.with(found, at: directory) { files in
          do { _ = try DiskLife.recover(files) } catch { return false }
          return true
        }
        // Over too when it fails before the disk stops: what is found next says why.
        let isLast = isOver || found.operations <= inner
        for second in Self.kinds(at: inner) {
          let last = found.after(second, seed: UInt64(inner))
          do {
            try DiskLife.with(last, at: directory) { files in
              let life = try DiskLife(files)
              life.end()
              try Self.check(life, knowledge, "\(context), \(second)")
            }
          } catch { Issue.record("\(context), \(second): \(error)") }
        }
        if isLast { break }
        inner += 1
      }
      stop += Self.kinds == 6 ? 1 : 13
    }
  }
}
