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
    for name in [Dataset.eventsName, Dataset.rejectedName, TrafficGenerator.truthName, EventSpool.name, "lock"] {
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

extension JSONLinesFile {
  /// The most lines that are set aside; the rest is only counted.
  static let setAsideLimit = 1_000_000

  /// Writes down a line that could not be read.
  mutating func setAside(_ rejection: ImportReport.Rejection, text: String) throws(StreamError) {
    guard lines < Self.setAsideLimit else { return }
    line.append(text: "{\"file\":")
    line.append(quoted: rejection.file)
    line.append(text: ",\"line\":")
    line.append(decimal: UInt64(rejection.line))
    line.append(text: ",\"reason\":")
    line.append(quoted: rejection.reason)
    line.append(text: ",\"text\":")
    line.append(quoted: text)
    line.append(text: "}")
    try endLine()
  }
}

extension ImportReport {
  /// Counts a line that could not be read, and remembers the first ones.
  mutating func note(_ rejection: Rejection) {
    rejected += 1
    if rejections.count < 100 { rejections.append(rejection) }
  }
}

extension Dataset.SourceFile {
  /// What tells whether a file is still the one that was imported.
  static func of(_ path: String, name: String) throws(StreamError) -> Dataset.SourceFile {
    var status = stat()
    guard unsafe stat(path, &status) == 0 else { throw .file(FileError(errno, "look at \(path)")) }
    let changed = Int64(status.st_mtim.tv_sec) * 1_000_000_000 + Int64(status.st_mtim.tv_nsec)
    return Dataset.SourceFile(name: name, bytes: Int(status.st_size), changed: changed)
  }
}
