// Reads files of any size front to back: a window of unread bytes that grows on demand, and lines on top of it. Belongs to
// one thread.

internal import Base
internal import Glibc

/// A window into a file: unread bytes, refilled on demand, given up by `consume`.
struct FileBuffer: ~Copyable {
  let path: String
  let fileBytes: Int
  private let descriptor: Int32
  private var skippingMark: Bool
  private var storage: [UInt8]
  private var start = 0
  private var filled = 0
  private(set) var consumed = 0

  init(path: String, chunk: Int = 1 << 18, skippingMark: Bool = false) throws(FileError) {
    let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw FileError(errno, "open \(path)") }
    self.path = path
    self.descriptor = descriptor
    self.skippingMark = skippingMark
    storage = Array(repeating: 0, count: chunk)
    var status = stat()
    fileBytes = unsafe fstat(descriptor, &status) == 0 ? Int(status.st_size) : 0
  }

  deinit { close(descriptor) }

  /// How many unread bytes are in the window.
  var count: Int { filled - start }

  /// The unread bytes.
  var unread: RawSpan {
    @_lifetime(borrow self) get { unsafe storage.span.bytes.extracting(start..<filled) }
  }

  /// Reads more of the file into the window; false when there is no more.
  mutating func fill() throws(FileError) -> Bool {
    if start > 0 {
      let kept = filled - start
      let from = start
      unsafe storage.withUnsafeMutableBytes { bytes in
        if let base = bytes.baseAddress { _ = unsafe memmove(base, base + from, kept) }
      }
      start = 0
      filled = kept
    }
    if filled == storage.count { storage.append(contentsOf: repeatElement(0, count: storage.count)) }
    while true {
      let room = storage.count - filled
      let at = filled
      let got = unsafe storage.withUnsafeMutableBytes { unsafe read(descriptor, $0.baseAddress! + at, room) }
      if got < 0, errno == EINTR { continue }
      guard got >= 0 else { throw FileError(errno, "read \(path)") }
      filled += got
      return got > 0
    }
  }

  /// Gives up the first `bytes` unread bytes.
  mutating func consume(_ bytes: Int) {
    precondition(bytes >= 0 && bytes <= count, "\(bytes) bytes consumed of \(count)")
    start += bytes
    consumed += bytes
  }

  /// Skips a UTF-8 byte order mark, once.
  mutating func skipMark() throws(FileError) {
    guard skippingMark else { return }
    skippingMark = false
    while count < 3 { if try !fill() { return } }
    if self[0] == 0xEF, self[1] == 0xBB, self[2] == 0xBF { consume(3) }
  }

  /// Unread byte `index`.
  subscript(index: Int) -> UInt8 { storage[start + index] }

  /// The first newline at or after `from`, or nil when the window has none.
  func newline(from: Int) -> Int? {
    unsafe storage.withUnsafeBytes { bytes in
      guard from < count, let base = bytes.baseAddress else { return nil }
      guard let hit = unsafe memchr(base + start + from, 0x0A, count - from) else { return nil }
      return unsafe UnsafeRawPointer(hit) - (base + start)
    }
  }
}

/// The lines of a file, without their `\n` or `\r\n`.
struct LineReader: ~Copyable {
  enum Outcome: Equatable {
    /// `line` is the next line.
    case line
    /// The next line had so many bytes, more than the limit, and was skipped.
    case oversized(bytes: Int)
    /// The file has no more lines.
    case end
  }

  /// The number of the newest line, from 1.
  private(set) var number = 0
  private(set) var buffer: FileBuffer
  private let limit: Int
  private var lineBytes = 0
  private var toConsume = 0
  /// The first bytes of the newest line that was longer than the limit.
  private(set) var oversizedHead: [UInt8] = []

  init(path: String, limit: Int) throws(FileError) {
    buffer = try FileBuffer(path: path, skippingMark: true)
    self.limit = limit
  }

  /// The newest line; valid until the next `advance`.
  var line: RawSpan {
    @_lifetime(borrow self) get { buffer.unread.extracting(0..<lineBytes) }
  }

  mutating func advance() throws(FileError) -> Outcome {
    buffer.consume(toConsume)
    toConsume = 0
    lineBytes = 0
    try buffer.skipMark()
    var searched = 0
    while true {
      if let end = buffer.newline(from: searched) {
        return take(end, newline: 1)
      }
      searched = buffer.count
      if searched > limit + 1 { return try skip() }
      guard try buffer.fill() else {
        return searched == 0 ? .end : take(searched, newline: 0)
      }
    }
  }

  private mutating func take(_ end: Int, newline: Int) -> Outcome {
    number += 1
    toConsume = end + newline
    let bytes = end > 0 && buffer[end - 1] == 0x0D ? end - 1 : end
    guard bytes <= limit else {
      keepHead()
      return .oversized(bytes: bytes)
    }
    lineBytes = bytes
    return .line
  }

  private mutating func keepHead() {
    oversizedHead = unsafe buffer.unread.withUnsafeBytes { unsafe Array($0.prefix(RejectedEvent.textLimit)) }
  }

  private mutating func skip() throws(FileError) -> Outcome {
    number += 1
    keepHead()
    var skipped = 0
    while true {
      if let end = buffer.newline(from: 0) {
        buffer.consume(end + 1)
        return .oversized(bytes: skipped + end)
      }
      skipped += buffer.count
      buffer.consume(buffer.count)
      guard try buffer.fill() else { return .oversized(bytes: skipped) }
    }
  }
}
