// What the system knows of a file beside its content: whose it is, who may touch it, and whether it is still the same.

internal import Glibc

/// Owner, permissions and identity of a file at one moment.
///
/// Two equal values mean that nobody changed or replaced the file in between.
public struct FileFacts: Equatable, Sendable {
  private let owner: UInt32
  private let mode: UInt32
  private let device: UInt64
  private let inode: UInt64
  private let size: Int64
  private let modified: [Int]

  fileprivate init(_ status: stat) {
    owner = status.st_uid
    mode = status.st_mode
    device = UInt64(status.st_dev)
    inode = UInt64(status.st_ino)
    size = Int64(status.st_size)
    modified = [status.st_mtim.tv_sec, status.st_mtim.tv_nsec, status.st_ctim.tv_sec, status.st_ctim.tv_nsec]
  }

  /// Whether this user owns it, or root does.
  public var isOurs: Bool { owner == getuid() || owner == 0 }
  /// Whether group or others may change it.
  public var isWritableByOthers: Bool { mode & 0o022 != 0 }
  /// Whether group or others may do anything with it.
  public var isOpenToOthers: Bool { mode & 0o077 != 0 }
  /// The permissions as `chmod` writes them.
  public var permissions: String { String(mode & 0o777, radix: 8) }
}

extension Files {
  /// The facts of what is at `path`, links followed.
  public static func facts(_ path: String) throws(FileError) -> FileFacts {
    var status = stat()
    guard unsafe stat(path, &status) == 0 else { throw FileError(errno, "look at \(path)") }
    return FileFacts(status)
  }

  /// The content of a file of at most `limit` bytes, and the facts of the very file that was read.
  public static func readWithFacts(
    _ path: String, limit: Int
  ) throws(FileError) -> (content: [UInt8], facts: FileFacts) {
    let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw FileError(errno, "open \(path)") }
    defer { close(descriptor) }
    var status = stat()
    guard unsafe fstat(descriptor, &status) == 0 else { throw FileError(errno, "look at \(path)") }
    guard status.st_mode & S_IFMT == S_IFREG else { throw FileError(EINVAL, "read \(path), which is no file") }
    var content = [UInt8](repeating: 0, count: limit + 1)
    var count = 0
    while count < content.count {
      let got = unsafe content.withUnsafeMutableBytes { bytes in
        unsafe Glibc.read(descriptor, bytes.baseAddress! + count, bytes.count - count)
      }
      if got < 0 && errno == EINTR { continue }
      guard got >= 0 else { throw FileError(errno, "read \(path)") }
      if got == 0 { break }
      count += got
    }
    guard count <= limit else { throw FileError(EFBIG, "read \(path), which has more than \(limit) bytes") }
    content.removeLast(content.count - count)
    return (content, FileFacts(status))
  }

  /// Makes a file that its owner alone may read, whole or not at all.
  ///
  /// - Parameter replacing: false: a file that is there stays, and the call fails with `EEXIST`.
  public static func writePrivate(
    _ path: String, _ content: [UInt8], replacing: Bool = false
  ) throws(FileError) {
    let temporary = "\(path).\(getpid()).tmp"
    unsafe unlink(temporary)
    let descriptor = unsafe open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600)
    guard descriptor >= 0 else { throw FileError(errno, "create \(temporary)") }
    do throws(FileError) {
      defer { close(descriptor) }
      try unsafe write(content.span.bytes, to: descriptor, path: temporary)
      guard fsync(descriptor) == 0 else { throw FileError(errno, "fsync \(temporary)") }
      if replacing {
        guard unsafe rename(temporary, path) == 0 else { throw FileError(errno, "rename \(temporary) to \(path)") }
      } else {
        // A link does not replace, a rename would.
        guard unsafe link(temporary, path) == 0 else { throw FileError(errno, "create \(path)") }
        unsafe unlink(temporary)
      }
    } catch {
      unsafe unlink(temporary)
      throw error
    }
    try syncDirectory(of: path)
  }

  /// Makes a directory that its owner alone may enter; no error when it is there.
  public static func makePrivateDirectory(_ path: String) throws(FileError) {
    guard unsafe mkdir(path, 0o700) == 0 || errno == EEXIST else {
      throw FileError(errno, "make the directory \(path)")
    }
  }
}
