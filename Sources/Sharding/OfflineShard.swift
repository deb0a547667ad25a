// A core driven without threads and sockets: what it wants written is on the disk before the next step. Restores use it,
// and benchmarks to make a shard's files.
//
// A restore writes no blocks: they would count before the checkpoint that they belong to.

internal import Base
internal import Journal
internal import Wire

/// A shard that serves nobody; belongs to one thread.
final class OfflineShard {
  private let core: CoreBox
  private let writer: JournalBox
  private let files: ShardFiles
  private let writesBlocks: Bool
  private var checkpoint: CheckpointWriter?

  /// - Parameter writesBlocks: whether blocks go to the journal too, or to checkpoints alone.
  init(_ core: CoreBox, writer: JournalBox, files: ShardFiles, writesBlocks: Bool = true) {
    self.core = core
    self.writer = writer
    self.files = files
    self.writesBlocks = writesBlocks
  }

  /// Applies a message; its answer is dropped.
  func receive(_ message: Blob) throws {
    var actions: [ShardAction] = []
    core.core.receive(message, from: PeerID([]), now: Clocks.monotonic(), into: &actions)
    _ = try perform(&actions)
  }

  /// Closes the epoch and writes its block.
  func closeEpoch() throws {
    core.core.closeEarly()
    while !core.core.isQuiet { _ = try work() }
  }

  /// Writes a checkpoint of all rows.
  func writeCheckpoint(named name: String) throws -> ShardCheckpoint {
    core.core.begin(CheckpointRequest(name: name))
    do {
      while true {
        if let manifest = try work() { return manifest }
      }
    } catch {
      // Space may be what was missing.
      checkpoint = nil
      try? Checkpoints.removeUnfinished(directory: files.checkpoints)
      throw error
    }
  }

  private func work() throws -> ShardCheckpoint? {
    var actions: [ShardAction] = []
    core.core.work(now: Clocks.monotonic(), into: &actions)
    return try perform(&actions)
  }

  /// Does what the core wants, and what it wants then; gives the checkpoint that was finished.
  private func perform(_ actions: inout [ShardAction]) throws -> ShardCheckpoint? {
    var finished: ShardCheckpoint?
    var place = 0
    while place < actions.count {
      switch actions[place] {
      case .append(let record):
        if writesBlocks { try writer.writer.append(record.bytes) }
      case .sync(let epoch):
        if writesBlocks { try writer.writer.sync() }
        core.core.blockSynced(epoch: epoch, journalEnd: writer.writer.syncedEnd, into: &actions)
      case .checkpointBegin(let name): checkpoint = try CheckpointWriter(directory: files.checkpoints, name: name)
      case .checkpointCancel: try checkpoint.take()?.cancel()
      case .checkpointSection(let section):
        try checkpoint?.append(section.bytes)
        core.core.checkpointWritten(sections: 1)
      case .checkpointFinish(var manifest):
        manifest.finished = Clocks.wall()
        try checkpoint.take()?.finish(manifest: Blob(manifest.json))
        core.core.checkpointEnded(.success(manifest), into: &actions)
        finished = manifest
      case .send, .beginSegment, .keepForgotten: break
      }
      place += 1
    }
    return finished
  }
}
