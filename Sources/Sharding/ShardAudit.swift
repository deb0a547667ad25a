// Looking at a shard's files: which checkpoints there are, and whether every byte verifies.

internal import Base
public import Journal

/// Reads a shard's files without changing them.
public enum ShardAudit {
  /// The finished checkpoints, oldest first, with their sizes in bytes, and what is damaged, in words.
  public static func checkpoints(
    in files: ShardFiles
  ) throws -> (checkpoints: [(manifest: ShardCheckpoint, bytes: UInt64)], damaged: [String]) {
    let listing = try Checkpoints.list(directory: files.checkpoints)
    var found: [(ShardCheckpoint, UInt64)] = []
    var damaged = listing.damaged.map(\.description)
    for info in listing.checkpoints {
      do { found.append((try ShardCheckpoint(reading: info.name, in: files), info.bytes)) } catch {
        damaged.append("\(error)")
      }
    }
    return (found, damaged)
  }

  /// Reads a checkpoint through.
  /// - Throws: `JournalError.damaged` with file and offset where a bit is wrong.
  public static func verify(checkpoint name: String, in files: ShardFiles) throws(JournalError) {
    _ = try Checkpoints.verify(directory: files.checkpoints, name: name)
  }

  /// Reads all blocks through; gives how many bytes they have.
  /// - Throws: `JournalError.damaged` with file and offset where a bit is wrong.
  public static func verifyJournal(in files: ShardFiles) throws(JournalError) -> UInt64 {
    let bytes = try verify(journal: files.journal)
    return Files.exists(files.forgotten) ? bytes + (try verify(journal: files.forgotten)) : bytes
  }

  private static func verify(journal directory: String) throws(JournalError) -> UInt64 {
    var looked: UInt64?
    while true {
      let bounds = try JournalReader.bounds(directory: directory)
      do throws(JournalError) {
        var reader = try JournalReader(directory: directory, from: bounds.lowerBound)
        while try reader.next() != nil {}
        return reader.offset - bounds.lowerBound
      } catch {
        // A shard that runs deletes blocks that it no longer needs; the others are looked at again.
        guard case .deleted = error, bounds.lowerBound != looked else { throw error }
        looked = bounds.lowerBound
      }
    }
  }

  /// Whether a shard could come back without this checkpoint.
  public static func canDo(withoutCheckpoint name: String, in files: ShardFiles) throws -> Bool {
    let manifests = try checkpoints(in: files).checkpoints.map(\.manifest)
    // What a compaction makes superfluous may be about to be deleted.
    let compacted = manifests.filter(\.compacts).map(\.journalOffset).max() ?? 0
    let start = max(try JournalReader.bounds(directory: files.journal).lowerBound, compacted)
    return start == 0 || manifests.contains { $0.name != name && $0.journalOffset >= start }
  }

  /// Whether there is a manifest of that name, damaged or not.
  public static func isThere(checkpoint name: String, in files: ShardFiles) -> Bool {
    Files.exists("\(files.checkpoints)/\(name).checkpoint")
  }

  /// Deletes a checkpoint, damaged or not.
  public static func delete(checkpoint name: String, in files: ShardFiles) throws(JournalError) {
    try Checkpoints.delete(directory: files.checkpoints, name: name)
  }
}
