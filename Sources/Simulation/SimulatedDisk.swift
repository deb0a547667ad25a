// The disk of a simulated shard: a journal that loses what was not synced, checkpoints that count only when they are
// finished, and blocks that are deleted when a checkpoint made them superfluous.

internal import Base
internal import Sharding

/// What a simulated shard has written.
struct SimulatedDisk {
  /// A finished checkpoint.
  struct Checkpoint {
    var manifest: ShardCheckpoint
    var sections: [Blob]
  }

  /// Records from `start` on.
  private var records: [Blob] = []
  /// How many records came before the first one kept.
  private var start = 0
  /// How many records ever were synced.
  private(set) var synced = 0
  /// The newest checkpoint.
  private(set) var checkpoint: Checkpoint?
  private var sections: [Blob] = []

  /// How many records there ever were: what offsets count.
  var end: Int { start + records.count }
  /// Records written and not known to be synced.
  var unsynced: Int { end - synced }
  /// The records that follow the checkpoint.
  var recordsAfterCheckpoint: ArraySlice<Blob> {
    records[(checkpoint.map { Int($0.manifest.journalOffset) - start } ?? 0)...]
  }

  mutating func append(_ record: Blob) { records.append(record) }

  mutating func sync(upTo end: Int) { synced = max(synced, end) }

  mutating func beginCheckpoint() { sections = [] }

  mutating func append(section: Blob) { sections.append(section) }

  /// The checkpoint counts, and the blocks before it are deleted.
  mutating func finish(_ manifest: ShardCheckpoint) {
    checkpoint = Checkpoint(manifest: manifest, sections: sections)
    sections = []
    let superfluous = Int(manifest.journalOffset) - start
    records.removeFirst(superfluous)
    start += superfluous
  }

  /// The machine goes; of what was not synced, the first `kept` records are found later.
  mutating func crash(keeping kept: Int) {
    records.removeLast(unsynced - kept)
    sections = []
  }

  /// The last records are gone, as after an older state was restored; what the checkpoint needs stays.
  mutating func lose(_ count: Int) {
    records.removeLast(min(count, recordsAfterCheckpoint.count - 1))
    synced = end
  }
}
