import Base
import Testing

@testable import Journal

@Suite("Journal crashes") struct JournalCrashTests {
  /// A life of a journal that meets every operation: segments rolled, flushed and synced groups, retention, renewal.
  private static func live(_ disk: ModelDisk, _ knowledge: inout Knowledge, steps: Int = 12) throws {
    var writer = try writer(disk)
    knowledge.identities.insert(writer.identity)
    for step in 0..<steps {
      for _ in 0..<(step % 4 + 1) { try knowledge.append(&writer) }
      if step % 3 != 1 { try writer.flush() }
      if step % 3 == 2 { try knowledge.sync(&writer) }
      if step % 5 == 4 {
        knowledge.deletedBefore = writer.syncedEnd
        try writer.deleteSegments(before: writer.syncedEnd)
      }
      if step == 7 {
        try writer.renewIdentity()
        knowledge.identities.insert(writer.identity)
      }
    }
  }

  /// Runs `live` on a disk that stops at operation `stop`; nil when it did not come so far.
  private static func crashed(at stop: Int) -> (ModelDisk, Knowledge)? {
    let disk = ModelDisk()
    disk.crashAt = stop
    var knowledge = Knowledge()
    do {
      try live(disk, &knowledge)
      return nil
    } catch {
      return (disk, knowledge)
    }
  }

  @Test func `a crash at any operation leaves an acknowledged state or a later one`() throws {
    var stop = 0
    while let (disk, knowledge) = Self.crashed(at: stop) {
      for crash in ModelDisk.Crash.allCases {
        let context = "stopped at operation \(stop), \(crash)"
        let found = disk.after(crash, seed: UInt64(stop))
        let seenBefore = (try? readAll(found, from: Label(.manifest, at: "j/manifest", layer: found).first).count) ?? 0
        var after = knowledge
        do {
          var writer = try writer(found)
          let start = writer.start
          let countAfter = try readAll(found, from: start).count
          #expect(countAfter >= seenBefore, "\(context): a reader had seen records that are gone")
          try after.check(found, context)
          for _ in 0..<5 { try after.append(&writer) }
          try after.sync(&writer)
        } catch {
          Issue.record("\(context): \(error)")
          continue
        }
        try after.check(found, context + ", went on")
        let again = try writer(found.after(.unsyncedDropped, seed: 0))
        #expect(again.end == after.ends.last, "\(context): reopened")
      }
      stop += 1
    }
    #expect(stop > 60, "only \(stop) operations were stopped at")
  }

  @Test func `a crash at any operation of a recovery leaves an acknowledged state or a later one`() throws {
    var stop = 3
    while let (disk, knowledge) = Self.crashed(at: stop) {
      for crash in [ModelDisk.Crash.processDied, .torn] {
        var inner = 0
        while true {
          let found = disk.after(crash, seed: UInt64(stop))
          found.crashAt = inner
          do {
            _ = try writer(found)
            break
          } catch {}
          for second in [ModelDisk.Crash.processDied, .unsyncedDropped, .tornOtherwise] {
            let context = "stopped at \(stop), \(crash), the recovery at \(inner), \(second)"
            let last = found.after(second, seed: UInt64(inner))
            var after = knowledge
            do { _ = try writer(last) } catch { Issue.record("\(context): \(error)") }
            try after.check(last, context)
          }
          inner += 1
        }
      }
      stop += 5
    }
  }

  @Test func `a tail torn at any byte is cut to the last whole record`() throws {
    let disk = ModelDisk()
    var knowledge = Knowledge()
    var writer = try writer(disk, segmentBytes: 1 << 20)
    for _ in 0..<3 { try knowledge.append(&writer) }
    try knowledge.sync(&writer)
    for _ in 0..<6 { try knowledge.append(&writer) }
    try writer.flush()
    let name = "j/00000000000000000000.segment"
    let whole = disk.content(name)
    let synced = Int(writer.syncedEnd) + Label.byteCount
    for length in synced...whole.count {
      let torn = disk.copy()
      torn.set(name, Array(whole[..<length]))
      let opened = try JournalTests.open(torn)
      var after = knowledge
      try after.check(torn, "cut to \(length) bytes")
      let kept = knowledge.ends.filter { Int($0) + Label.byteCount <= length }
      #expect(after.ends == kept)
      let ends = kept.map { Int($0) + Label.byteCount }
      // The mark that begins the second group takes 8 bytes.
      let clean = ends.last == length || length == synced + 8
      #expect((opened.recovery.tornTail == nil) == clean, "cut to \(length) bytes")
      if let tail = opened.recovery.tornTail {
        #expect(tail.file == name && tail.fileOffset + opened.recovery.tornBytes == length)
      }
    }
  }

  @Test func `a failed fsync stops the writer, and the next one loses nothing that was acknowledged`() throws {
    let disk = ModelDisk()
    var knowledge = Knowledge()
    do {
      var writer = try writer(disk)
      for _ in 0..<3 { try knowledge.append(&writer) }
      try knowledge.sync(&writer)
      for _ in 0..<3 { try knowledge.append(&writer) }
      disk.failingSyncs = 1
      #expect(throws: JournalError.syncFailed(file: "j/00000000000000000000.segment", code: 5)) { try writer.sync() }
      #expect(throws: JournalError.self) { try writer.append([1]) }
      #expect(throws: JournalError.self) { try writer.sync() }
      #expect(writer.syncedEnd == knowledge.ends[2])
    }
    // The page cache still has the records, clean; the disk has not. Opening must write them anew, elsewhere.
    let reopened = try writer(disk)
    #expect(reopened.recovery.keptUnsyncedBytes > 0)
    #expect(reopened.syncedEnd == knowledge.ends[5])
    knowledge.acknowledged = 6
    let afterPowerFailure = disk.after(.unsyncedDropped, seed: 0)
    _ = try writer(afterPowerFailure)
    try knowledge.check(afterPowerFailure, "after the power failed")
  }

  @Test func `on a full disk nothing is lost, and the writer goes on when there is space`() throws {
    for limit in stride(from: 200, to: 4000, by: 437) {
      let disk = ModelDisk()
      var knowledge = Knowledge()
      var writer = try writer(disk)
      disk.capacity = disk.paths.reduce(0) { $0 + disk.content($1).count } + limit
      var refusals = 0
      while knowledge.ends.count < 60 {
        do {
          try knowledge.append(&writer)
          try knowledge.sync(&writer)
        } catch JournalError.diskFull {
          refusals += 1
          if refusals % 3 == 0 { disk.capacity! += 100 }
          // What was acknowledged is there, whatever happens now.
          var after = knowledge
          let crashed = disk.after(.torn, seed: UInt64(limit))
          _ = try JournalTests.open(crashed)
          try after.check(crashed, "full at \(limit)")
        }
      }
      #expect(refusals > 0)
      while true {
        do {
          try knowledge.sync(&writer)
          break
        } catch JournalError.diskFull { disk.capacity! += 100 }
      }
      try knowledge.check(disk, "at the end, limit \(limit)")
      #expect(knowledge.ends.count == 60)
    }
  }
}
