// Writes dataset directories: into a staging directory beside the output, renamed when all is there.

internal import Base
internal import Glibc

/// A dataset directory in the making: `<output>.partial`, locked, renamed by `publish`, removed when that never comes.
struct DatasetStaging: ~Copyable {
  let output: String
  let directory: String
  private let lock: FileLock
  private var isPublished = false

  /// - Throws: `outputExists` when `output` holds something; `file` when another import is at it.
  init(output: String) throws(StreamError) {
    if Files.exists(output), (try? Files.names(in: output))?.isEmpty != true { throw .outputExists(path: output) }
    let trimmed = output.count > 1 && output.hasSuffix("/") ? String(output.dropLast()) : output
    let directory = trimmed + ".partial"
    let lock = try Self.lock(directory)
    self.output = trimmed
    self.directory = directory
    self.lock = lock
  }

  /// Only what imports write is removed; a stranger's file keeps the directory.
  deinit {
    guard !isPublished else { return }
    for name in [Dataset.eventsName, Dataset.rejectedName, TrafficGenerator.truthName, "lock"] {
      _ = unsafe unlink("\(directory)/\(name)")
    }
    _ = unsafe rmdir(directory)
  }

  private static func lock(_ directory: String) throws(StreamError) -> FileLock {
    do throws(FileError) {
      try Files.makeDirectory(directory)
      return try FileLock(path: directory + "/lock")
    } catch {
      throw .file(error)
    }
  }

  /// Writes the manifest and puts the directory in its place.
  mutating func publish(_ dataset: Dataset) throws(StreamError) {
    do throws(FileError) {
      try Files.replace("\(directory)/\(Dataset.manifestName)", with: dataset.json())
      _ = unsafe unlink("\(directory)/lock")
      guard unsafe rename(directory, output) == 0 else {
        throw FileError(errno, "rename \(directory) to \(output)")
      }
      isPublished = true
      try Files.syncDirectory(of: output)
    } catch {
      throw .file(error)
    }
  }
}

/// A file of lines, written in large pieces.
struct JSONLinesFile: ~Copyable {
  private let path: String
  private let descriptor: Int32
  /// The line being made; `endLine` ends it.
  var line = ByteWriter(capacity: 1 << 20)
  private(set) var lines = 0

  init(path: String) throws(StreamError) {
    let descriptor = unsafe open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
    guard descriptor >= 0 else { throw .file(FileError(errno, "create \(path)")) }
    self.path = path
    self.descriptor = descriptor
  }

  deinit { close(descriptor) }

  mutating func endLine() throws(StreamError) {
    line.append(UInt8(0x0A))
    lines += 1
    if line.count > (1 << 20) - 4096 { try flush() }
  }

  mutating func flush() throws(StreamError) {
    do throws(FileError) {
      if line.count > 0 { try Files.write(line.written, to: descriptor, path: path) }
    } catch {
      throw .file(error)
    }
    line.clear()
  }

  /// Brings all lines to the disk.
  mutating func finish() throws(StreamError) {
    try flush()
    guard fsync(descriptor) == 0 else { throw .file(FileError(errno, "fsync \(path)")) }
  }
}
