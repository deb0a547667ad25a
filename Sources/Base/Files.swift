// File operations that must survive a crash: locks, atomic replacement, fsync of directories.

internal import Glibc

/// A file operation that failed, with what was tried.
public struct FileError: Error, Equatable, Sendable, CustomStringConvertible {
  /// What was tried, in words, with the path.
  public let operation: String
  /// The system's error number.
  public let code: Int32

  /// An error from `errno`; pass `errno` as the first argument evaluated.
  public init(_ code: Int32, _ operation: String) {
    self.code = code
    self.operation = operation
  }

  /// "cannot <operation>: <the system's words>".
  public var description: String { unsafe "cannot \(operation): \(String(cString: strerror(code)))" }
}

/// An exclusive `flock` on a file, held until the value goes.
public struct FileLock: ~Copyable, Sendable {
  private let descriptor: Int32

  /// Locks `path` (made when absent), waiting up to two seconds for a holder that is just ending.
  ///
  /// A lock outlives its owner for a moment while a child the owner forked has not become another program yet.
  /// - Throws: `FileError` with code `EWOULDBLOCK` when another process holds it.
  public init(path: String) throws(FileError) {
    let descriptor = unsafe open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
    guard descriptor >= 0 else { throw FileError(errno, "open the lock file \(path)") }
    let deadline = Clocks.monotonic() + 2_000_000_000
    while flock(descriptor, LOCK_EX | LOCK_NB) != 0 {
      let code = errno
      guard code == EWOULDBLOCK || code == EINTR, Clocks.monotonic() < deadline else {
        close(descriptor)
        throw FileError(code, "lock \(path); another process holds it")
      }
      usleep(20_000)
    }
    self.descriptor = descriptor
  }

  deinit { close(descriptor) }
}

/// Operations on whole files and directories.
public enum Files {
  /// Makes a directory and its parents; no error when it is there.
  public static func makeDirectory(_ path: String) throws(FileError) {
    var partial = path.hasPrefix("/") ? "" : "."
    for component in path.split(separator: "/", omittingEmptySubsequences: true) {
      partial += "/\(component)"
      if unsafe mkdir(partial, 0o755) != 0, errno != EEXIST { throw FileError(errno, "make the directory \(partial)") }
    }
  }

  /// Whether something is at `path`.
  public static func exists(_ path: String) -> Bool { unsafe access(path, F_OK) == 0 }

  /// The names inside a directory, sorted, without `.` and `..`.
  public static func names(in directory: String) throws(FileError) -> [String] {
    guard let handle = unsafe opendir(directory) else { throw FileError(errno, "list \(directory)") }
    defer { unsafe closedir(handle) }
    var names: [String] = []
    while let entry = unsafe readdir(handle) {
      let name = unsafe withUnsafeBytes(of: entry.pointee.d_name) { bytes in
        unsafe String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
      }
      if name != ".", name != ".." { names.append(name) }
    }
    return names.sorted()
  }

  /// The whole content of a file.
  public static func read(_ path: String) throws(FileError) -> [UInt8] {
    let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw FileError(errno, "open \(path)") }
    defer { close(descriptor) }
    var content: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 1 << 16)
    while true {
      let got = unsafe Glibc.read(descriptor, &buffer, buffer.count)
      if got < 0 {
        if errno == EINTR { continue }
        throw FileError(errno, "read \(path)")
      }
      if got == 0 { return content }
      content.append(contentsOf: buffer[..<got])
    }
  }

  /// Replaces a file so that a reader or a crash sees the old content or the new, never a mix: temporary name, write,
  /// fsync (unless `durable` is false), rename, fsync of the directory.
  public static func replace(_ path: String, with content: [UInt8], durable: Bool = true) throws(FileError) {
    try unsafe replace(path, with: content.span.bytes, durable: durable)
  }

  /// Writes a file beside the old one and puts it in its place.
  public static func replace(_ path: String, with content: RawSpan, durable: Bool = true) throws(FileError) {
    try replace(path, durable: durable) { write throws(FileError) in try write(content) }
  }

  /// Writes a file beside the old one, in as many pieces as `body` gives to `write`, and puts it in its place.
  public static func replace(
    _ path: String, durable: Bool = true,
    body: (_ write: (RawSpan) throws(FileError) -> Void) throws(FileError) -> Void
  ) throws(FileError) {
    let temporary = path + ".tmp"
    let descriptor = unsafe open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
    guard descriptor >= 0 else { throw FileError(errno, "create \(temporary)") }
    do throws(FileError) {
      try body { piece throws(FileError) in try write(piece, to: descriptor, path: temporary) }
      if durable && fsync(descriptor) != 0 { throw FileError(errno, "fsync \(temporary)") }
    } catch {
      close(descriptor)
      throw error
    }
    close(descriptor)
    guard unsafe rename(temporary, path) == 0 else { throw FileError(errno, "rename \(temporary) to \(path)") }
    if durable { try syncDirectory(of: path) }
  }

  /// Writes over a file where it lies: on a full disk that works while the content fits the blocks the file has.
  ///
  /// A reader may see a mix of old and new.
  public static func overwrite(_ path: String, with content: [UInt8]) throws(FileError) {
    let descriptor = unsafe open(path, O_WRONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw FileError(errno, "open \(path)") }
    defer { close(descriptor) }
    try unsafe write(content.span.bytes, to: descriptor, path: path)
    guard ftruncate(descriptor, off_t(content.count)) == 0 else { throw FileError(errno, "cut \(path)") }
  }

  /// Makes the names in the directory that holds `path` durable.
  public static func syncDirectory(of path: String) throws(FileError) {
    let slash = path.lastIndex(of: "/")
    let directory = slash.map { $0 == path.startIndex ? "/" : String(path[..<$0]) } ?? "."
    let descriptor = unsafe open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard descriptor >= 0 else { throw FileError(errno, "open the directory \(directory)") }
    defer { close(descriptor) }
    guard fsync(descriptor) == 0 else { throw FileError(errno, "fsync the directory \(directory)") }
  }

  /// Writes all bytes at the descriptor's offset, through interruptions and short writes.
  public static func write(_ bytes: RawSpan, to descriptor: Int32, path: String) throws(FileError) {
    var done = 0
    while done < bytes.byteCount {
      let wrote = unsafe bytes.withUnsafeBytes { source in
        unsafe Glibc.write(descriptor, source.baseAddress! + done, source.count - done)
      }
      if wrote < 0 {
        if errno == EINTR { continue }
        throw FileError(errno, "write to \(path)")
      }
      done += wrote
    }
  }
}
