// How a shard comes back from its files: the newest checkpoint, then the blocks after it. One thread reads and verifies,
// the other fills the tables.

internal import Base
internal import Journal

/// What a shard came back from.
public struct RecoverySummary: Sendable, Equatable {
  /// The checkpoint; nil when there was none.
  public internal(set) var checkpoint: String?
  /// Rows in its sections.
  public internal(set) var checkpointRows = 0
  /// Records of the journal that were replayed.
  public internal(set) var records = 0
  /// Rows that were erased once more because they had been forgotten.
  public internal(set) var forgottenAgain = 0
  /// The losses that were accepted, in words.
  public internal(set) var acceptedLosses: [String] = []
}

/// Reads a shard's state from its files.
struct ShardRecovery {
  let options: ShardOptions
  let files: ShardFiles
  let acceptLoss: Bool
  private(set) var summary = RecoverySummary()

  init(_ options: ShardOptions, files: ShardFiles, acceptLoss: Bool) {
    self.options = options
    self.files = files
    self.acceptLoss = acceptLoss
  }

  /// Opens the journal and makes the core that its files describe.
  ///
  /// - Throws: `JournalError`, with file and offset, for damage that was not accepted; `RecoveryError` when the files and
  ///   the configuration do not fit.
  mutating func run(_ journal: JournalOptions, incarnation: UInt64) throws -> (writer: JournalBox, core: CoreBox) {
    var journal = journal
    // Every record that counts is verified when it is replayed.
    journal.verifiesAllWhenOpening = false
    while true {
      do {
        let chosen = try newest()
        // What the checkpoint holds need not be whole in the journal too.
        journal.neededFrom = chosen?.journalOffset ?? 0
        let writer = JournalBox(
          try JournalWriter(directory: files.journal, options: journal, acceptLoss: acceptLoss))
        note(writer.writer.recovery)
        let start = writer.writer.start
        let hole = hole(after: chosen, journal: start)
        if let hole {
          guard acceptLoss else { throw RecoveryError(description: hole) }
          summary.acceptedLosses.append(hole)
          // What was acknowledged is lost: nobody may go on from what they know of this journal (DESIGN 3.3).
          try writer.writer.renewIdentity()
        }
        let identity = writer.writer.identity
        let core = CoreBox(
          ShardCore(options, incarnation: incarnation, identity: (identity.high, identity.low)))
        try read(chosen, journalFrom: max(chosen?.journalOffset ?? 0, start), into: core)
        let (forgotten, losses) = try ForgottenIDs.all(in: files, acceptLoss: acceptLoss)
        summary.acceptedLosses += losses
        summary.forgottenAgain = core.core.recover(forgotten)
        // Until there is a checkpoint without the hole, every start would have to accept it again.
        if hole != nil { core.core.wantCheckpoint() }
        return (writer, core)
      } catch let lost as DamagedCheckpoint {
        let start = (try? JournalReader.bounds(directory: files.journal).lowerBound) ?? 0
        let other = try alternative(to: lost.name, journal: start)
        guard acceptLoss else { throw RecoveryError(description: "\(lost.damage); \(other)") }
        summary.acceptedLosses.append("\(lost.damage); \(other)")
        try Checkpoints.setAside(directory: files.checkpoints, name: lost.name)
      } catch JournalError.damaged(let damage) {
        // The writer works out what would be lost, and gives it up when that was accepted.
        if journal.verifiesAllWhenOpening { throw JournalError.damaged(damage) }
        journal.verifiesAllWhenOpening = true
      }
      summary.checkpoint = nil
      summary.checkpointRows = 0
      summary.records = 0
    }
  }

  private mutating func note(_ report: RecoveryReport) {
    for loss in report.acceptedLosses { summary.acceptedLosses.append("\(loss)") }
  }

  // MARK: Which checkpoint

  /// A checkpoint that cannot be read.
  private struct DamagedCheckpoint: Error {
    var name: String
    var damage: JournalDamage
  }

  /// The newest checkpoint; nil when there is none.
  private func newest() throws -> ShardCheckpoint? {
    let listing = try Checkpoints.list(directory: files.checkpoints)
    if let damage = listing.damaged.first {
      // It may have been the newest.
      throw DamagedCheckpoint(name: Checkpoints.name(of: damage), damage: damage)
    }
    guard let newest = listing.checkpoints.last else { return nil }
    do { return try manifest(of: newest.name) } catch JournalError.damaged(let damage) {
      throw DamagedCheckpoint(name: newest.name, damage: damage)
    }
  }

  /// What is missing between a checkpoint and the journal, in words; nil when nothing is.
  private func hole(after checkpoint: ShardCheckpoint?, journal start: UInt64) -> String? {
    guard checkpoint?.journalOffset ?? 0 < start else { return nil }
    let found =
      checkpoint.map { "the newest checkpoint, '\($0.name)', goes on at journal offset \($0.journalOffset)" }
      ?? "\(files.checkpoints) has no checkpoint"
    return "\(found) and the journal begins at offset \(start): the blocks between are gone. Restore a checkpoint, or "
      + "start with --accept-loss to go on without them"
  }

  private func manifest(of name: String) throws -> ShardCheckpoint {
    let manifest = try ShardCheckpoint(reading: name, in: files)
    guard manifest.shard == options.index, manifest.shardCount == options.map.shardCount else {
      throw RecoveryError(
        description: "checkpoint '\(name)' is of shard \(manifest.shard) of \(manifest.shardCount), this is shard "
          + "\(options.index) of \(options.map.shardCount)")
    }
    return manifest
  }

  /// What there is instead of a damaged checkpoint, in words.
  private func alternative(to name: String, journal start: UInt64) throws -> String {
    let others = try Checkpoints.list(directory: files.checkpoints).checkpoints.filter { $0.name != name }
    guard let other = others.last, let manifest = try? ShardCheckpoint(reading: other.name, in: files) else {
      return start == 0
        ? "nothing is lost with --accept-loss: the journal holds every block"
        : "there is no other checkpoint: with --accept-loss the shard begins with the blocks after journal offset \(start)"
    }
    return manifest.journalOffset >= start
      ? "nothing is lost with --accept-loss: checkpoint '\(other.name)' and the blocks after it hold everything"
      : "with --accept-loss the shard goes on from checkpoint '\(other.name)' of epoch \(manifest.epoch); the blocks "
        + "between it and journal offset \(start) are lost"
  }

  // MARK: Reading

  /// Reads one checkpoint alone into the core.
  mutating func read(_ name: String, into core: CoreBox) throws {
    try read(manifest(of: name), journalFrom: nil, into: core)
  }

  /// Reads the newest checkpoint and the blocks after it into the core.
  mutating func readNewest(into core: CoreBox) throws {
    let chosen: ShardCheckpoint?
    do { chosen = try newest() } catch let lost as DamagedCheckpoint {
      throw RecoveryError(description: "\(lost.damage)")
    }
    let start = try JournalReader.bounds(directory: files.journal).lowerBound
    if let hole = hole(after: chosen, journal: start) { throw RecoveryError(description: hole) }
    try read(chosen, journalFrom: max(chosen?.journalOffset ?? 0, start), into: core)
  }

  /// Reads a checkpoint, then the journal from an offset.
  private mutating func read(_ checkpoint: ShardCheckpoint?, journalFrom offset: UInt64?, into core: CoreBox) throws {
    var sources: [RecordSource] = []
    if let checkpoint {
      sources.append(.checkpoint(directory: files.checkpoints, name: checkpoint.name))
      core.core.reserve(checkpoint.tables)
      summary.checkpoint = checkpoint.name
      summary.checkpointRows = checkpoint.tables.reduce(0) { $0 + $1.rows }
    }
    if let offset { sources.append(.journal(directory: files.journal, offset: offset)) }
    let delivery = Mailbox<Delivery>(bound: Self.batchesAhead)
    let thread = OwnedThread(named: "recovery") { [sources] in Self.deliver(sources, to: delivery) }
    defer {
      delivery.close()
      thread.join()
    }
    while true {
      for part in delivery.waitAll(timeout: .seconds(1)) {
        switch part {
        case .sections(let sections): for section in sections { try core.core.restore(section: section.payload) }
        case .records(let records):
          summary.records += records.count
          for record in records { try core.core.recover(record.content) }
        case .damagedCheckpoint(let name, let damage): throw DamagedCheckpoint(name: name, damage: damage)
        case .end(let error):
          if let error { throw error }
          return
        }
      }
    }
  }

  /// Batches of records that may be read ahead: while rows go into the tables, the blocks behind them are fetched.
  private static let batchesAhead = 64
  private static let batchBytes = 4 << 20

  /// What the reading thread hands over.
  private enum Delivery: Sendable {
    case sections([JournalRecord])
    case records([JournalRecord])
    case damagedCheckpoint(String, JournalDamage)
    case end(JournalError?)
  }

  /// Reads and verifies on a thread of its own.
  private static func deliver(_ sources: [RecordSource], to mailbox: Mailbox<Delivery>) {
    for source in sources {
      do throws(JournalError) {
        var reader = try RecordReader(source)
        while true {
          var records: [JournalRecord] = []
          var bytes = 0
          while bytes < batchBytes, let record = try reader.next() {
            bytes += record.range.count + 64
            records.append(record)
          }
          if records.isEmpty { break }
          guard mailbox.put(source.isCheckpoint ? .sections(records) : .records(records)) else { return }
        }
      } catch {
        if case .checkpoint(_, let name) = source, case .damaged(let damage) = error {
          _ = mailbox.put(.damagedCheckpoint(name, damage))
        } else {
          _ = mailbox.put(.end(error))
        }
        return
      }
    }
    _ = mailbox.put(.end(nil))
  }
}

/// Where records are read from.
private enum RecordSource: Sendable {
  case checkpoint(directory: String, name: String)
  case journal(directory: String, offset: UInt64)

  var isCheckpoint: Bool {
    if case .checkpoint = self { true } else { false }
  }
}

/// Reads the sections of a checkpoint or the records of a journal.
private struct RecordReader: ~Copyable {
  private var checkpoint: CheckpointReader?
  private var journal: JournalReader?

  init(_ source: RecordSource) throws(JournalError) {
    switch source {
    case .checkpoint(let directory, let name): checkpoint = try CheckpointReader(directory: directory, name: name)
    case .journal(let directory, let offset): journal = try JournalReader(directory: directory, from: offset)
    }
  }

  mutating func next() throws(JournalError) -> JournalRecord? {
    if let section = try checkpoint?.next() { return section }
    return try journal?.next()
  }
}

/// A core that can be handed about before it is at home: closures cannot capture noncopyable values.
final class CoreBox {
  var core: ShardCore
  init(_ core: consuming ShardCore) { self.core = core }
}

/// The writer crosses to its thread inside this box.
///
/// unchecked because: it is filled before the thread starts and used by that thread alone.
final class JournalBox: @unchecked Sendable {
  var writer: JournalWriter
  init(_ writer: consuming JournalWriter) { self.writer = writer }
}

extension ShardCheckpoint {
  /// Reads the manifest of a finished checkpoint.
  init(reading name: String, in files: ShardFiles) throws {
    let reader = try CheckpointReader(directory: files.checkpoints, name: name)
    guard let manifest = ShardCheckpoint(json: String(decoding: reader.manifest.array, as: UTF8.self)) else {
      throw RecoveryError(
        description: "checkpoint '\(name)' in \(files.checkpoints) was written by a newer guira, or not by a shard")
    }
    self = manifest
  }
}
