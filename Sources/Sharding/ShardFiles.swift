// Where a shard keeps things, and how it comes back from them: the newest checkpoint, then the blocks after it.

internal import Base
internal import Journal

/// The directories of one shard.
public struct ShardFiles: Sendable, Equatable {
  /// The shard's own directory.
  public let directory: String

  /// The places below a shard's directory.
  public init(directory: String) { self.directory = directory }

  /// Blocks.
  public var journal: String { "\(directory)/journal" }
  /// Checkpoints.
  public var checkpoints: String { "\(directory)/checkpoints" }
  /// The ids that were forgotten.
  public var forgotten: String { "\(directory)/forgotten" }
}

/// What a shard came back from.
public struct RecoverySummary: Sendable, Equatable {
  /// The checkpoint; nil when there was none.
  public internal(set) var checkpoint: String?
  /// Rows in its sections.
  public internal(set) var checkpointRows = 0
  /// Records of the journal that were replayed.
  public internal(set) var records = 0
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
    var passedOver: Set<String> = []
    while true {
      let writer = JournalBox(
        try JournalWriter(directory: files.journal, options: journal, acceptLoss: acceptLoss))
      note(writer.writer.recovery)
      let core = CoreBox(
        ShardCore(
          options, incarnation: incarnation, identity: (writer.writer.identity.high, writer.writer.identity.low)))
      do {
        let offset = try restoreNewest(core, journal: writer.writer.start, passing: passedOver)
        try replay(core, from: max(offset, writer.writer.start))
        return (writer, core)
      } catch let lost as DamagedCheckpoint {
        guard acceptLoss else { throw RecoveryError(description: lost.description) }
        summary.acceptedLosses.append(lost.description)
        passedOver.insert(lost.name)
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

  // MARK: Checkpoints

  /// A checkpoint that cannot be read, and what there is instead.
  private struct DamagedCheckpoint: Error {
    var name: String
    var description: String
  }

  /// Reads the newest checkpoint into the core; gives where in the journal the blocks after it begin.
  private mutating func restoreNewest(
    _ core: CoreBox, journal start: UInt64, passing passedOver: Set<String>
  ) throws -> UInt64 {
    let listing = try Checkpoints.list(directory: files.checkpoints)
    for damage in listing.damaged where !passedOver.contains(damage.file) {
      throw DamagedCheckpoint(
        name: damage.file,
        description: "\(damage); \(alternative(to: damage.file, listing, passedOver, journal: start))")
    }
    guard let newest = listing.checkpoints.last(where: { !passedOver.contains($0.name) }) else {
      if start > 0, !acceptLoss {
        throw RecoveryError(
          description: "\(files.checkpoints) has no checkpoint and the journal begins at offset \(start): older blocks "
            + "were deleted. Restore a checkpoint, or start with --accept-loss to go on with what the journal has")
      }
      return start
    }
    do {
      return try read(newest.name, into: core)
    } catch JournalError.damaged(let damage) {
      throw DamagedCheckpoint(
        name: newest.name,
        description: "\(damage); \(alternative(to: newest.name, listing, passedOver, journal: start))")
    }
  }

  private func alternative(
    to name: String, _ listing: CheckpointListing, _ passedOver: Set<String>, journal start: UInt64
  ) -> String {
    let others = listing.checkpoints.filter { $0.name != name && !passedOver.contains($0.name) }
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

  /// Reads a checkpoint into the core; gives where in the journal the blocks after it begin.
  mutating func read(_ name: String, into core: CoreBox) throws -> UInt64 {
    let manifest = try ShardCheckpoint(reading: name, in: files)
    guard manifest.shard == options.index, manifest.shardCount == options.map.shardCount else {
      throw RecoveryError(
        description: "checkpoint '\(name)' is of shard \(manifest.shard) of \(manifest.shardCount), this is shard "
          + "\(options.index) of \(options.map.shardCount)")
    }
    core.core.reserve(manifest.tables)
    let directory = files.checkpoints
    try feed(.checkpoint(directory: directory, name: name)) { try core.core.restore(section: $0.payload) }
    summary.checkpoint = name
    summary.checkpointRows = manifest.tables.reduce(0) { $0 + $1.rows }
    return manifest.journalOffset
  }

  // MARK: The journal

  private mutating func replay(_ core: CoreBox, from offset: UInt64) throws {
    let directory = files.journal
    var records = 0
    try feed(.journal(directory: directory, offset: offset)) {
      try core.core.recover($0.content)
      records += 1
    }
    summary.records = records
  }

  /// Reads and verifies records on a thread of its own while `body` takes them on this one.
  private func feed(_ source: RecordSource, to body: (JournalRecord) throws -> Void) throws {
    enum Delivery: Sendable {
      case records([JournalRecord])
      case end(JournalError?)
    }
    let mailbox = Mailbox<Delivery>(bound: 8)
    let thread = OwnedThread(named: "recovery") {
      do throws(JournalError) {
        var reader = try RecordReader(source)
        while true {
          var records: [JournalRecord] = []
          var bytes = 0
          while bytes < 4 << 20, let record = try reader.next() {
            bytes += record.range.count + 64
            records.append(record)
          }
          guard !records.isEmpty else { break }
          guard mailbox.put(.records(records)) else { return }
        }
        _ = mailbox.put(.end(nil))
      } catch {
        _ = mailbox.put(.end(error))
      }
    }
    defer {
      mailbox.close()
      thread.join()
    }
    while true {
      for delivery in mailbox.waitAll(timeout: .seconds(1)) {
        switch delivery {
        case .records(let records): for record in records { try body(record) }
        case .end(let error):
          if let error { throw error }
          return
        }
      }
    }
  }
}

/// Where records are read from.
private enum RecordSource: Sendable {
  case checkpoint(directory: String, name: String)
  case journal(directory: String, offset: UInt64)
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
