// The shard's hands on the disk: one thread writes and syncs the journal, one writes checkpoints, so that neither an fsync
// nor gigabytes of sections ever delay a pull. They yield to other threads: on few cores a checksum of megabytes would
// otherwise keep a request from its core for milliseconds. Orders go in and news come out through mailboxes. The core bounds what of a
// checkpoint waits here, so the shard's thread never waits for that; for the journal it waits when 65,536 records do.
//
// A full disk stops nothing for good: the journal's thread keeps what it was given and tries again until there is space.

internal import Base
internal import Journal
internal import Wire

/// What the disk's threads tell the shard.
enum DiskNews: Sendable {
  /// The block of an epoch is durable; the journal's end then.
  case synced(epoch: UInt64, journalEnd: UInt64)
  /// The disk is full (in words), or no longer (nil).
  case full(String?)
  /// The journal cannot go on.
  case failed(String)
  /// So many sections of the checkpoint were written.
  case written(sections: Int)
  /// The checkpoint is on the disk, and blocks before an offset are superfluous; or it was given up.
  case checkpoint(Result<ShardCheckpoint, ErrorReply>, deleteBefore: UInt64)
  /// A checkpoint is on the disk, but what it makes superfluous could not be deleted, and why.
  case kept(String)
}

/// The threads that write a shard's files.
final class ShardDisk {
  private enum JournalOrder: Sendable {
    case append(Blob)
    case sync(epoch: UInt64)
    case beginSegment
    case keepForgotten(Blob)
    case delete(before: UInt64)
  }

  private enum CheckpointOrder: Sendable {
    case begin(name: String)
    case section(Blob)
    case cancel
    case finish(ShardCheckpoint)
  }

  /// What the threads say; its descriptor wakes the shard's thread.
  let news = Mailbox<DiskNews>(bound: 1 << 16)
  private let journal = Mailbox<JournalOrder>(bound: 1 << 16)
  private let checkpoints = Mailbox<CheckpointOrder>(bound: 2 * UnwrittenSections.limit)
  private let threads: [OwnedThread]

  init(_ writer: JournalBox, files: ShardFiles, shard: Int, isDurable: Bool, keepCheckpoints: Int) {
    let (news, journal, checkpoints) = (news, journal, checkpoints)
    threads = [
      OwnedThread(named: "journal-\(shard)", yields: true) {
        JournalThread(writer: writer, files: files, news: news, orders: journal).run()
      },
      OwnedThread(named: "checkpoint-\(shard)", yields: true) {
        var thread = CheckpointThread(
          files: files, isDurable: isDurable, keep: keepCheckpoints, news: news, orders: checkpoints)
        thread.run()
      },
    ]
  }

  /// Ends the threads; the journal's thread first writes what it was given, unless the disk is full.
  func stop() {
    journal.close()
    checkpoints.close()
    for thread in threads { thread.join() }
  }

  /// Hands an action over; a full mailbox means the disk is far behind: the shard waits, which slows trainers down.
  func perform(_ action: ShardAction) throws(RecoveryError) {
    let isTaken =
      switch action {
      case .send: true
      case .append(let record): journal.put(.append(record))
      case .sync(let epoch): journal.put(.sync(epoch: epoch))
      case .beginSegment: journal.put(.beginSegment)
      case .keepForgotten(let record): journal.put(.keepForgotten(record))
      case .checkpointBegin(let name): checkpoints.put(.begin(name: name))
      case .checkpointSection(let section): checkpoints.put(.section(section))
      case .checkpointCancel: checkpoints.put(.cancel)
      case .checkpointFinish(let manifest): checkpoints.put(.finish(manifest))
      }
    guard !isTaken else { return }
    for case .failed(let problem) in news.takeAll() { throw RecoveryError(description: problem) }
    throw RecoveryError(description: "a thread that writes the shard's files has ended")
  }

  /// Deletes blocks that checkpoints made superfluous.
  func deleteBlocks(before offset: UInt64) { _ = journal.put(.delete(before: offset)) }

  // MARK: The journal's thread

  private struct JournalThread {
    let writer: JournalBox
    let files: ShardFiles
    let news: Mailbox<DiskNews>
    let orders: Mailbox<JournalOrder>

    func run() {
      do throws(JournalError) {
        while true {
          let batch = orders.waitAll(timeout: .seconds(1))
          if batch.isEmpty, orders.isClosed { return }
          for order in batch { try perform(order) }
        }
      } catch {
        _ = news.put(.failed("the journal cannot be written: \(error)"))
        orders.close()
      }
    }

    private func perform(_ order: JournalOrder) throws(JournalError) {
      switch order {
      case .append(let record):
        try insist { () throws(JournalError) in _ = try writer.writer.append(record.bytes) }
        if FaultPoint.blockHalf.isDue {
          try writer.writer.flush()
          FaultPoint.blockHalf.die(after: .milliseconds(10))
        }
      case .sync(let epoch):
        if FaultPoint.blockWaiting.isDue { FaultPoint.blockWaiting.die(after: .milliseconds(10)) }
        if FaultPoint.blockWritten.isDue {
          try writer.writer.flush()
          FaultPoint.blockWritten.die(after: .milliseconds(10))
        }
        try insist { () throws(JournalError) in try writer.writer.sync() }
        FaultPoint.blockSynced.pass()
        _ = news.put(.synced(epoch: epoch, journalEnd: writer.writer.syncedEnd))
      case .beginSegment: try insist { () throws(JournalError) in try writer.writer.beginSegment() }
      case .keepForgotten(let record):
        try insist { () throws(JournalError) in
          // Opened for each: to forget is rare, and no file is held for it.
          var kept = try JournalWriter(directory: files.forgotten)
          _ = try kept.append(record.bytes)
          try kept.sync()
        }
      case .delete(let offset):
        try insist { () throws(JournalError) in try writer.writer.deleteSegments(before: offset) }
      }
    }

    /// Does `body` until the disk has space for it; the same call goes on where it stopped.
    private func insist(_ body: () throws(JournalError) -> Void) throws(JournalError) {
      var isFull = false
      while true {
        do throws(JournalError) {
          try body()
          if isFull { _ = news.put(.full(nil)) }
          return
        } catch {
          guard case .diskFull = error, !orders.isClosed else { throw error }
          if !isFull { _ = news.put(.full("\(error)")) }
          isFull = true
          orders.pause(.milliseconds(200))
        }
      }
    }
  }

  // MARK: The checkpoints' thread

  private struct CheckpointThread: ~Copyable {
    let files: ShardFiles
    let isDurable: Bool
    let keep: Int
    let news: Mailbox<DiskNews>
    let orders: Mailbox<CheckpointOrder>
    private var writer: CheckpointWriter?
    private var unsent = 0

    init(
      files: ShardFiles, isDurable: Bool, keep: Int, news: Mailbox<DiskNews>, orders: Mailbox<CheckpointOrder>
    ) {
      self.files = files
      self.isDurable = isDurable
      self.keep = keep
      self.news = news
      self.orders = orders
    }

    mutating func run() {
      while true {
        let batch = orders.waitAll(timeout: .seconds(1))
        if orders.isClosed { return }
        var sections = 0
        for order in batch {
          if case .section = order { sections += 1 }
          do { try perform(order) } catch { giveUp(error) }
        }
        if sections > 0 { _ = news.put(.written(sections: sections)) }
      }
    }

    private mutating func perform(_ order: CheckpointOrder) throws {
      switch order {
      case .begin(let name):
        try writer.take()?.cancel()
        unsent = 0
        writer = try CheckpointWriter(directory: files.checkpoints, name: name, durable: isDurable)
      case .section(let section):
        guard writer != nil else { return }
        try writer?.append(section.bytes)
        unsent += section.count
        if FaultPoint.checkpointHalf.isDue {
          try writer?.sync()
          FaultPoint.checkpointHalf.die()
        }
        // Spread over the time of the scan; at the end the disk would be taken away from the journal.
        if unsent > 8 << 20 {
          try writer?.startWriteback()
          unsent = 0
        }
      case .cancel: try? writer.take()?.cancel()
      case .finish(var manifest):
        guard let writer = writer.take() else { return }
        manifest.finished = Clocks.wall()
        FaultPoint.checkpointWritten.pass()
        try writer.finish(manifest: Blob(manifest.json))
        FaultPoint.checkpointPublished.pass()
        var offset: UInt64 = 0
        var problem = ""
        do { offset = try retain(after: manifest) } catch {
          problem = "what checkpoint '\(manifest.name)' makes superfluous cannot be deleted: \(error)"
        }
        FaultPoint.checkpointPruned.pass()
        _ = news.put(.checkpoint(.success(manifest), deleteBefore: offset))
        if !problem.isEmpty { _ = news.put(.kept(problem)) }
      }
    }

    private mutating func giveUp(_ error: any Error) {
      writer = nil
      // Space may be what was missing.
      try? Checkpoints.removeUnfinished(directory: files.checkpoints)
      _ = news.put(.checkpoint(.failure(Self.reply(error)), deleteBefore: 0))
    }

    private static func reply(_ error: any Error) -> ErrorReply {
      if case JournalError.alreadyThere = error { return ErrorReply(.mismatch, "\(error)") }
      return ErrorReply(.busy, "the checkpoint was given up: \(error)")
    }

    /// Deletes superfluous checkpoints; gives the offset before which blocks are superfluous too.
    ///
    /// Checkpoints that somebody named come and go as he likes: no block is deleted on their account, unless one compacts.
    private func retain(after newest: ShardCheckpoint) throws -> UInt64 {
      let infos = try Checkpoints.list(directory: files.checkpoints).checkpoints.reversed()
      if newest.compacts {
        for info in infos where info.name != newest.name {
          try Checkpoints.delete(directory: files.checkpoints, name: info.name)
        }
        try Checkpoints.deleteDamaged(directory: files.checkpoints)
        return newest.journalOffset
      }
      let automatic = try infos.map { try ShardCheckpoint(reading: $0.name, in: files) }.filter(\.isAutomatic)
      for manifest in automatic.dropFirst(keep) {
        try Checkpoints.delete(directory: files.checkpoints, name: manifest.name)
      }
      return automatic.prefix(keep).map(\.journalOffset).min() ?? 0
    }
  }
}
