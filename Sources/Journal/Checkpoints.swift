// What one does with the checkpoints of a directory as a whole. What is told here is on the disk, since blocks are
// deleted by it.

internal import Base

/// The finished checkpoints of a directory, and the manifests that do not verify.
public struct CheckpointListing: Sendable, Equatable {
  /// In the order they were finished.
  public var checkpoints: [CheckpointInfo] = []
  /// Manifests that cannot be read.
  public var damaged: [JournalDamage] = []
}

/// The checkpoints of a directory.
public enum Checkpoints {
  /// Whether a checkpoint may be called so: 1 to 100 letters, digits, `.`, `_` and `-`, not beginning with `.`.
  public static func isValid(name: String) -> Bool { isValidName(name) }

  /// All finished checkpoints; none when the directory is not there.
  public static func list(directory: String) throws(JournalError) -> CheckpointListing {
    let files = CheckpointFiles(directory: directory, layer: FileLayers.layer(of: directory))
    return files.layer.exists(directory) ? try list(files) : CheckpointListing()
  }

  static func list(_ files: CheckpointFiles) throws(JournalError) -> CheckpointListing {
    // A process killed while it finished a checkpoint leaves a name that the next power failure may take away.
    try files.layer.makeNamesDurable(files.directory)
    var listing = CheckpointListing()
    for name in try files.finished() {
      do throws(JournalError) {
        listing.checkpoints.append(try files.read(name).info)
      } catch {
        guard case .damaged(let damage) = error else { throw error }
        listing.damaged.append(damage)
      }
    }
    listing.checkpoints.sort { $0.number < $1.number }
    return listing
  }

  /// The checkpoint finished last; nil when there is none.
  ///
  /// - Parameter acceptLoss: pass over manifests that do not verify. What their checkpoints held may be lost, since
  ///   blocks before a finished checkpoint are deleted.
  /// - Throws: `damaged` when a manifest does not verify and `acceptLoss` is false: it may be the newest.
  public static func latest(directory: String, acceptLoss: Bool = false) throws(JournalError) -> CheckpointInfo? {
    let listing = try list(directory: directory)
    if !acceptLoss, let damage = listing.damaged.first { throw .damaged(damage) }
    return listing.checkpoints.last
  }

  /// Reads a checkpoint through, and throws `damaged` with file and offset where a bit is wrong.
  @discardableResult
  public static func verify(directory: String, name: String) throws(JournalError) -> CheckpointInfo {
    try verify(CheckpointFiles(directory: directory, layer: FileLayers.layer(of: directory)), name: name)
  }

  @discardableResult
  static func verify(_ files: CheckpointFiles, name: String) throws(JournalError) -> CheckpointInfo {
    var reader = try CheckpointReader(files: files, name: name)
    while try reader.next() != nil {}
    return reader.info
  }

  /// Moves the files of a damaged checkpoint into `damaged` below the directory, where nothing counts them.
  ///
  /// A crash leaves it where it was, or data files without a manifest, which the next checkpoint deletes.
  public static func setAside(directory: String, name: String) throws(JournalError) {
    let files = CheckpointFiles(directory: directory, layer: SystemFiles())
    let aside = "\(directory)/damaged"
    let data = try files.layer.list(directory).filter { CheckpointFiles.owner(ofData: $0) == name }
    do throws(FileError) {
      try files.layer.makeDirectory(aside)
      for file in [name + CheckpointFiles.manifestSuffix] + data {
        try files.layer.rename("\(directory)/\(file)", to: "\(aside)/\(file)")
      }
    } catch { throw JournalError(error, aside) }
    try files.layer.makeNamesDurable(directory)
  }

  /// Deletes what unfinished checkpoints left; for when nobody writes one.
  public static func removeUnfinished(directory: String) throws(JournalError) {
    guard Files.exists(directory) else { return }
    try CheckpointFiles(directory: directory, layer: SystemFiles()).removeUnfinished()
  }

  /// Deletes the damaged checkpoints and those that were set aside.
  public static func deleteDamaged(directory: String) throws(JournalError) {
    for damage in try list(directory: directory).damaged { try delete(directory: directory, name: name(of: damage)) }
    let aside = "\(directory)/damaged"
    guard Files.exists(aside) else { return }
    do throws(FileError) {
      for file in try Files.names(in: aside) { try SystemFiles().unlink("\(aside)/\(file)") }
    } catch { throw JournalError(error, aside) }
  }

  /// The name of the checkpoint whose manifest is damaged.
  public static func name(of damage: JournalDamage) -> String {
    let file = damage.file.split(separator: "/").last ?? ""
    return String(file.dropLast(CheckpointFiles.manifestSuffix.count))
  }

  /// Deletes a checkpoint, damaged or not; no error when it is not there.
  ///
  /// A crash leaves it whole or not there.
  public static func delete(directory: String, name: String) throws(JournalError) {
    try delete(CheckpointFiles(directory: directory, layer: FileLayers.layer(of: directory)), name: name)
  }

  static func delete(_ files: CheckpointFiles, name: String, durable: Bool = true) throws(JournalError) {
    guard isValidName(name) else { throw .invalidName(name) }
    try files.layer.remove(files.manifest(name))
    if durable { try files.layer.makeNamesDurable(files.directory) }
    FaultPoint.checkpointUnlisted.pass()
    for file in try files.layer.list(files.directory) where CheckpointFiles.owner(ofData: file) == name {
      try files.layer.remove("\(files.directory)/\(file)")
    }
  }
}
