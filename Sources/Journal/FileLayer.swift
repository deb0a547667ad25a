// The only way from this module to the file system. It is narrow so that tests can put a model of a disk under it and
// crash at every operation, drop or tear what was not synced, fill the disk, or flip a bit.

package import Base
internal import CKernels
internal import Glibc
internal import Synchronization

/// How a file is opened.
package enum FileMode: Sendable {
  case read
  case write
  /// Made when absent, emptied when present.
  case create
}

/// The file operations the journal is built from.
///
/// Descriptors are the layer's own numbers.
package protocol FileLayer: Sendable {
  /// Whether a directory is there.
  func exists(_ directory: String) -> Bool
  /// Keeps other processes out; nil where there are none.
  func lock(_ path: String) throws(FileError) -> FileLock?
  func makeDirectory(_ path: String) throws(FileError)
  func names(in directory: String) throws(FileError) -> [String]
  func open(_ path: String, _ mode: FileMode) throws(FileError) -> Int32
  func close(_ descriptor: Int32)
  func size(_ descriptor: Int32) throws(FileError) -> Int
  /// At most `count` bytes at `offset`; fewer only at the end of the file.
  func read(_ descriptor: Int32, count: Int, at offset: Int) throws(FileError) -> Blob
  /// Writes at least one byte and says how many.
  func write(_ descriptor: Int32, _ bytes: RawSpan, at offset: Int) throws(FileError) -> Int
  func sync(_ descriptor: Int32, dataOnly: Bool) throws(FileError)
  /// Begins to bring what was written to the disk, without waiting; promises nothing.
  func startWriteback(_ descriptor: Int32)
  func truncate(_ descriptor: Int32, to size: Int) throws(FileError)
  func rename(_ from: String, to: String) throws(FileError)
  func unlink(_ path: String) throws(FileError)
  func syncDirectory(_ path: String) throws(FileError)
}

extension FileLayer {
  /// Layers without a cache have nothing to begin.
  package func startWriteback(_ descriptor: Int32) {}
}

/// Which layer a directory lies on: the operating system's, unless something was mounted above it.
package enum FileLayers {
  private static let mounted = Mutex<[String: any FileLayer]>([:])

  /// Puts a layer under a directory and all below it; for tests, which put models of disks there.
  package static func mount(_ layer: any FileLayer, at directory: String) {
    mounted.withLock { $0[directory] = layer }
  }

  /// Takes a layer away.
  package static func unmount(_ directory: String) { mounted.withLock { $0[directory] = nil } }

  static func layer(of directory: String) -> any FileLayer {
    mounted.withLock { mounted in
      mounted.first { directory == $0.key || directory.hasPrefix($0.key + "/") }?.value ?? SystemFiles()
    }
  }
}

/// The operating system's files.
struct SystemFiles: FileLayer {
  func exists(_ directory: String) -> Bool { Files.exists(directory) }

  func lock(_ path: String) throws(FileError) -> FileLock? { try FileLock(path: path) }

  func makeDirectory(_ path: String) throws(FileError) {
    try Files.makeDirectory(path)
    try Files.syncDirectory(of: path)
  }

  func names(in directory: String) throws(FileError) -> [String] { try Files.names(in: directory) }

  func open(_ path: String, _ mode: FileMode) throws(FileError) -> Int32 {
    let flags =
      switch mode {
      case .read: O_RDONLY
      case .write: O_RDWR
      case .create: O_RDWR | O_CREAT | O_TRUNC
      }
    let descriptor = unsafe Glibc.open(path, flags | O_CLOEXEC, 0o644)
    guard descriptor >= 0 else { throw FileError(errno, "open \(path)") }
    return descriptor
  }

  func close(_ descriptor: Int32) { _ = Glibc.close(descriptor) }

  func size(_ descriptor: Int32) throws(FileError) -> Int {
    var status = stat()
    guard unsafe fstat(descriptor, &status) == 0 else { throw FileError(errno, "ask for the size") }
    return Int(status.st_size)
  }

  func read(_ descriptor: Int32, count: Int, at offset: Int) throws(FileError) -> Blob {
    // 64-byte alignment, so that arrays inside a record can be used where they lie.
    guard let memory = unsafe aligned_alloc(64, max(64, (count + 63) & ~63)) else {
      throw FileError(ENOMEM, "make room for \(count) bytes")
    }
    var done = 0
    while done < count {
      let got = unsafe pread(descriptor, memory + done, count - done, off_t(offset + done))
      if got < 0 {
        let code = errno
        if code == EINTR { continue }
        unsafe free(memory)
        throw FileError(code, "read \(count) bytes at \(offset)")
      }
      if got == 0 { break }
      done += got
    }
    return unsafe Blob(owning: UnsafeRawPointer(memory), count: done) {
      unsafe free(UnsafeMutableRawPointer(mutating: $0))
    }
  }

  func write(_ descriptor: Int32, _ bytes: RawSpan, at offset: Int) throws(FileError) -> Int {
    while true {
      let wrote = unsafe bytes.withUnsafeBytes { unsafe pwrite(descriptor, $0.baseAddress, $0.count, off_t(offset)) }
      if wrote > 0 { return wrote }
      if wrote < 0 && errno == EINTR { continue }
      throw FileError(wrote < 0 ? errno : ENOSPC, "write \(bytes.byteCount) bytes at \(offset)")
    }
  }

  func sync(_ descriptor: Int32, dataOnly: Bool) throws(FileError) {
    if dataOnly { FaultPoint.blockSyncing.passDuring() }
    // An interrupted fsync is a failed one: whether the error was already reported to us cannot be known.
    guard (dataOnly ? fdatasync(descriptor) : fsync(descriptor)) == 0 else { throw FileError(errno, "fsync") }
  }

  func startWriteback(_ descriptor: Int32) { guira_start_writeback(descriptor) }

  func truncate(_ descriptor: Int32, to size: Int) throws(FileError) {
    guard ftruncate(descriptor, off_t(size)) == 0 else { throw FileError(errno, "truncate to \(size) bytes") }
  }

  func rename(_ from: String, to: String) throws(FileError) {
    guard unsafe Glibc.rename(from, to) == 0 else { throw FileError(errno, "rename \(from) to \(to)") }
  }

  func unlink(_ path: String) throws(FileError) {
    guard unsafe Glibc.unlink(path) == 0 else { throw FileError(errno, "delete \(path)") }
  }

  func syncDirectory(_ path: String) throws(FileError) { try Files.syncDirectory(of: path + "/.") }
}
