// Bringing an older state back, while the shard does not run: the checkpoint is read into a core, what was forgotten since
// is taken out, and the result is written as the newest checkpoint of a journal with a new identity. The restore counts
// when that checkpoint is finished; a crash before leaves rows and positions as they were, under the new identity.

public import Base
internal import Embeddings
internal import Journal
internal import Wire

/// Where a restored shard goes on reading, instead of where the checkpoint stood.
public struct SkipTo: Sendable, Equatable {
  /// The position for every partition that has none of its own; nil for the checkpoint's.
  public var all: Position?
  /// Positions by partition.
  public var partitions: [UInt64: Position] = [:]

  /// Goes on where the checkpoint stood.
  public init() {}

  /// Where a partition goes on; nil for where the checkpoint stood.
  public func position(partition: UInt64) -> Position? { partitions[partition] ?? all }
}

/// What a restore did.
public struct RestoreSummary: Sendable, Equatable {
  /// The checkpoint that the shard will come back from.
  public var checkpoint: ShardCheckpoint
  /// The checkpoint of the state before; nil when that could not be read or was not wanted.
  public var saved: String?
  /// Why the state before could not be saved.
  public var saveProblem: String?
  /// How many rows were taken out because they were forgotten after the checkpoint.
  public var forgottenAgain = 0
  /// Examples that are not trained on again although the checkpoint does not have them: chains and their skips.
  public var skipped: [ShardCheckpoint.Chain] = []
}

/// Restores one shard that does not run; the caller holds its directory.
public struct CheckpointRestore {
  private let options: ShardOptions
  private let files: ShardFiles

  /// A restore into the files of a shard.
  public init(_ options: ShardOptions, files: ShardFiles) {
    self.options = options
    self.files = files
  }

  /// Makes a checkpoint the state of the shard.
  ///
  /// - Parameters:
  ///   - name: a finished checkpoint of this shard.
  ///   - savesCurrent: whether the state that is left is first kept as a checkpoint of its own.
  /// - Throws: `JournalError`, `RecoveryError`, also for damage in the list of forgotten ids, since they would come back;
  ///   rows and positions are as before then.
  public func run(name: String, skipTo: SkipTo = SkipTo(), savesCurrent: Bool = true) throws -> RestoreSummary {
    _ = try Checkpoints.verify(directory: files.checkpoints, name: name)
    var last = try newestEpoch()
    var (saved, saveProblem): (String?, String?) = (nil, nil)
    if savesCurrent {
      do {
        let manifest = try saveCurrent()
        saved = manifest.name
        last = max(last, manifest.epoch)
      } catch let damage as RecoveryError { saveProblem = "\(damage)" } catch JournalError.damaged(let damage) {
        saveProblem = "\(damage)"
      } catch {
        throw RecoveryError(
          description: "the state before cannot be kept: \(error). Nothing was changed; mend that, or use --discard")
      }
    }
    var recovery = ShardRecovery(options, files: files, acceptLoss: true)
    let writer = JournalBox(try openJournal())
    // Before the checkpoint counts: who comes back meanwhile begins anew, and nothing else has changed yet.
    try writer.writer.renewIdentity()
    try writer.writer.beginSegment()
    let core = CoreBox(ShardCore(options, incarnation: 1, identity: (0, 0)))
    try recovery.read(name, into: core)
    let epoch = core.core.status().durableEpoch
    let erased = core.core.recover(try ForgottenIDs.all(in: files).forgotten)
    let before = core.core.chains
    core.core.beginAnew(after: max(last, epoch), skipTo)
    let restored = try OfflineShard(core, writer: writer, files: files, writesBlocks: false)
      .writeCheckpoint(named: "\(ShardCheckpoint.automaticPrefix)restored-\(max(last, epoch))")
    try deleteOthers(than: restored)
    try writer.writer.deleteSegments(before: restored.journalOffset)
    var summary = RestoreSummary(checkpoint: restored, saved: saved, saveProblem: saveProblem, forgottenAgain: erased)
    summary.skipped = restored.chains.filter { chain in
      before.values.contains {
        ShardCheckpoint.Chain($0.state) != chain && $0.state.chain.consumer == chain.consumer
          && $0.state.chain.stream == chain.stream && $0.state.chain.partition == chain.partition
      }
    }
    return summary
  }

  /// Opens the journal where it ends: its blocks are no longer needed, so damage in them does not matter.
  private func openJournal() throws(JournalError) -> JournalWriter {
    do throws(JournalError) {
      var journal = JournalOptions()
      journal.neededFrom = try JournalReader.bounds(directory: files.journal).upperBound
      return try JournalWriter(directory: files.journal, options: journal)
    } catch {
      switch error {
      case .damaged, .notThere: return try JournalWriter(directory: files.journal, acceptLoss: true)
      default: throw error
      }
    }
  }

  /// Reads the shard as it would start and keeps that as a checkpoint that retention leaves alone.
  private func saveCurrent() throws -> ShardCheckpoint {
    var recovery = ShardRecovery(options, files: files, acceptLoss: false)
    let (writer, core) = try recovery.run(JournalOptions(), incarnation: 1)
    try writer.writer.append(core.core.beginRun(now: 0).bytes)
    let epoch = core.core.status().epoch
    return try OfflineShard(core, writer: writer, files: files).writeCheckpoint(named: "before-restore-\(epoch)")
  }

  /// Automatic checkpoints of what was before would be gone on from, with blocks that are no longer there.
  private func deleteOthers(than restored: ShardCheckpoint) throws {
    let listing = try Checkpoints.list(directory: files.checkpoints)
    for damage in listing.damaged {
      try Checkpoints.setAside(directory: files.checkpoints, name: Checkpoints.name(of: damage))
    }
    for info in listing.checkpoints where info.name != restored.name {
      guard try ShardCheckpoint(reading: info.name, in: files).isAutomatic else { continue }
      try Checkpoints.delete(directory: files.checkpoints, name: info.name)
    }
  }

  /// The newest epoch that the files know of, also those that are damaged further on.
  private func newestEpoch() throws -> UInt64 {
    var newest: UInt64 = 0
    for info in try Checkpoints.list(directory: files.checkpoints).checkpoints {
      newest = max(newest, try ShardCheckpoint(reading: info.name, in: files).epoch)
    }
    for forgotten in try ForgottenIDs.all(in: files).forgotten {
      newest = max(newest, forgotten.epoch)
    }
    guard let bounds = try? JournalReader.bounds(directory: files.journal) else { return newest }
    do throws(JournalError) {
      var reader = try JournalReader(directory: files.journal, from: bounds.lowerBound)
      while let record = try reader.next() {
        if case .end(let epoch, _)? = try? BlockRecord.parse(record.payload) { newest = max(newest, epoch) }
      }
    } catch {
      // Behind damage there may be more; numbers are plenty.
      newest += 1_000_000
    }
    return newest
  }
}

extension ShardCore {
  /// Goes on with epochs that nobody has seen, from other positions where those are given.
  public mutating func beginAnew(after epoch: UInt64, _ skipTo: SkipTo) {
    openEpoch = epoch + 1
    durableEpoch = epoch
    oldestRetained = openEpoch
    isChanged = true
    for key in chains.keys {
      guard let position = skipTo.position(partition: key.partition) else { continue }
      chains[key]?.state.applied = position
      chains[key]?.state.durable = position
    }
  }
}
