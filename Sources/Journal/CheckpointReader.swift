// Reads a finished checkpoint and verifies all of it on the way: labels, frames, and that nothing is missing or added.
// Belongs to one thread at a time; any number may read the same checkpoint.

public import Base

/// Reads a checkpoint's sections in the order they were appended.
public struct CheckpointReader: ~Copyable, Sendable {
  private let files: CheckpointFiles
  private let firsts: [UInt64]
  private var index = 0
  private var cursor: FrameCursor
  private var sections: UInt64 = 0
  /// What the checkpoint is.
  public let info: CheckpointInfo
  /// What its maker gave to `finish`.
  public let manifest: Blob

  /// Opens a finished checkpoint.
  public init(directory: String, name: String) throws(JournalError) {
    try self.init(files: CheckpointFiles(directory: directory, layer: FileLayers.layer(of: directory)), name: name)
  }

  init(files: CheckpointFiles, name: String) throws(JournalError) {
    guard isValidName(name) else { throw .invalidName(name) }
    let manifest = try files.read(name)
    let cursor = try Self.open(files, manifest.info, manifest.firsts, 0)
    self.files = files
    firsts = manifest.firsts
    info = manifest.info
    self.manifest = manifest.content
    self.cursor = cursor
  }

  /// The next section; nil after the last, when everything has been verified.
  public mutating func next() throws(JournalError) -> JournalRecord? {
    while true {
      if let frame = try cursor.next(limit: end) {
        guard !frame.isMark else { throw cursor.damage("a mark before this place; checkpoints have none") }
        sections += 1
        return JournalRecord(end: cursor.offset, blob: frame.blob, range: frame.payload)
      }
      try expectFileEnd()
      guard index + 1 < firsts.count else { break }
      cursor = try Self.open(files, info, firsts, index + 1)
      index += 1
    }
    guard sections == info.sections else {
      throw cursor.damage("\(sections) sections were read; the manifest says \(info.sections)")
    }
    return nil
  }

  /// The offset at which the current data file ends.
  private var end: UInt64 { index + 1 < firsts.count ? firsts[index + 1] : info.bytes }

  private func expectFileEnd() throws(JournalError) {
    let extra = try cursor.file.size() - cursor.fileOffset
    guard extra == 0 else { throw cursor.damage("\(extra) bytes follow the last section") }
  }

  private static func open(
    _ files: CheckpointFiles, _ info: CheckpointInfo, _ firsts: [UInt64], _ index: Int
  ) throws(JournalError) -> FrameCursor {
    let path = files.data(info.name, index)
    let label: Label
    do throws(JournalError) {
      label = try Label(.checkpointData, at: path, layer: files.layer)
    } catch {
      guard error.isNotThere else { throw error }
      throw .damaged(
        JournalDamage(file: path, fileOffset: 0, offset: firsts[index], reason: "the data file is missing"))
    }
    guard label.number == UInt32(index), label.first == firsts[index], label.identity == info.identity else {
      throw .damaged(
        JournalDamage(
          file: path, fileOffset: 0, offset: firsts[index],
          reason: "the data file belongs to checkpoint \(label.identity), file \(label.number); "
            + "\(info.identity), file \(index) was expected"))
    }
    return FrameCursor(try OpenFile(path, .read, layer: files.layer), first: label.first, at: label.first)
  }
}
