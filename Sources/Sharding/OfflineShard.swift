// A core driven without threads and sockets: what it wants written is on the disk before the next step. Restores use it,
// and benchmarks to make a shard's files.

internal import Base
internal import Journal
internal import Wire

/// A shard that serves nobody; belongs to one thread.
final class OfflineShard {
  private let core: CoreBox
  private let writer: JournalBox
  private let files: ShardFiles
  private var checkpoint: CheckpointWriter?

  init(_ core: CoreBox, writer: JournalBox, files: ShardFiles) {
    self.core = core
    self.writer = writer
    self.files = files
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
    core.core.requestCheckpoint(CheckpointRequest(name: name), peer: PeerID([]), request: 0)
    while true {
      if let manifest = try work() { return manifest }
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
      case .append(let record): try writer.writer.append(record.bytes)
      case .sync(let epoch):
        try writer.writer.sync()
        core.core.blockSynced(epoch: epoch, journalEnd: writer.writer.syncedEnd, into: &actions)
      case .checkpointBegin(let name): checkpoint = try CheckpointWriter(directory: files.checkpoints, name: name)
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
