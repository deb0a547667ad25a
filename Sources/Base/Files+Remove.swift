// Removing files and asking for their age.

internal import Glibc

extension Files {
  /// Removes a file, or a directory with all in it; no error when it is not there.
  public static func remove(_ path: String) throws(FileError) {
    var status = stat()
    guard unsafe lstat(path, &status) == 0 else {
      if errno == ENOENT { return }
      throw FileError(errno, "look at \(path)")
    }
    if status.st_mode & S_IFMT == S_IFDIR {
      for name in try names(in: path) { try remove("\(path)/\(name)") }
      guard unsafe rmdir(path) == 0 else { throw FileError(errno, "remove the directory \(path)") }
    } else {
      guard unsafe unlink(path) == 0 else { throw FileError(errno, "remove \(path)") }
    }
  }

  /// When a file was last changed, UTC milliseconds.
  public static func modified(_ path: String) throws(FileError) -> Milliseconds {
    var status = stat()
    guard unsafe stat(path, &status) == 0 else { throw FileError(errno, "look at \(path)") }
    return Int64(status.st_mtim.tv_sec) * 1000 + Int64(status.st_mtim.tv_nsec) / 1_000_000
  }
}
