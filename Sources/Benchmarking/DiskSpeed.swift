// The disk's own speed, measured beside a journal: one file written from beginning to end, then fdatasync.

internal import Base
internal import Glibc

enum DiskSpeed {
  private static let bytes = 256 << 20

  /// Megabytes per second of a sequential write that ends with fdatasync.
  static func measure(in directory: String) throws -> Double {
    let path = "\(directory)/disk-speed"
    let file = unsafe open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
    guard file >= 0 else { throw FileError(errno, "make \(path)") }
    defer {
      close(file)
      unsafe unlink(path)
    }
    // Not zeros: a file system may not write those.
    var random = SeededRandom(seed: 1)
    let chunk = (0..<(1 << 17)).map { _ in random.next() }
    let start = Clocks.monotonic()
    for _ in 0..<(bytes / (8 << 17)) {
      let count = unsafe chunk.withUnsafeBytes { unsafe write(file, $0.baseAddress, $0.count) }
      guard count == 8 << 17 else { throw FileError(errno, "write \(path)") }
    }
    guard fdatasync(file) == 0 else { throw FileError(errno, "sync \(path)") }
    return Double(bytes) / (Double(Clocks.monotonic() - start) / 1e9) / 1e6
  }
}
