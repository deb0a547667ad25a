// The beginning of a file without the rest of it, for lists of many large files.

internal import Glibc

extension Files {
  /// The first `count` bytes of a file, or all when it has fewer, and how many it has.
  public static func readPrefix(_ path: String, count: Int) throws(FileError) -> (bytes: [UInt8], size: Int) {
    let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw FileError(errno, "open \(path)") }
    defer { close(descriptor) }
    var facts = stat()
    guard unsafe fstat(descriptor, &facts) == 0 else { throw FileError(errno, "look at \(path)") }
    var bytes = [UInt8](repeating: 0, count: min(count, Int(facts.st_size)))
    var done = 0
    while done < bytes.count {
      let got = unsafe bytes.withUnsafeMutableBytes { buffer in
        unsafe pread(descriptor, buffer.baseAddress! + done, buffer.count - done, off_t(done))
      }
      guard got > 0 else { throw FileError(got == 0 ? EIO : errno, "read \(path)") }
      done += got
    }
    return (bytes, Int(facts.st_size))
  }
}
