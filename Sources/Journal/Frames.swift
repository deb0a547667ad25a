// Frames: how records lie in a segment or a checkpoint's data file (docs/formats.md, "Frames").
//
// A frame is 4 bytes CRC, 4 bytes word (kind in the top two bits, payload bytes below), the payload, zeros to a
// multiple of 8. The CRC covers all after itself and begins from the frame's own offset, so a frame that got to another
// place, such as one left over on a reused disk block, does not verify.

internal import Base
internal import Glibc

enum Frame {
  static let headerBytes = 8
  /// The longest payload the format can say.
  static let payloadLimit = 1 << 30 - 1
  /// Never 0, so zeros are not a frame.
  static let recordKind: UInt32 = 1
  /// No payload; says that every byte before it was synced when it was written.
  static let markKind: UInt32 = 2
  static let markWord: UInt32 = markKind << 30

  /// The bytes a frame takes for a payload.
  @inline(__always) static func size(payload: Int) -> Int { headerBytes + (payload + 7) & ~7 }

  /// The CRC a frame at `offset` begins from.
  @inline(__always) static func seed(_ offset: UInt64) -> UInt32 {
    UInt32(truncatingIfNeeded: offset ^ (offset >> 32))
  }

  /// Whether a mark that belongs at `offset` begins with these bytes.
  static func isMark(_ bytes: RawSpan, offset: UInt64) -> Bool {
    guard unsafe bytes.unsafeLoadUnaligned(fromByteOffset: 4, as: UInt32.self) == markWord else { return false }
    let crc = Hashing.crc32c(bytes.extracting(4..<8), continuing: seed(offset))
    return unsafe bytes.unsafeLoadUnaligned(fromByteOffset: 0, as: UInt32.self) == crc
  }
}

/// Frames on their way to the file: encoded once, written from here, dropped from the front as the system takes them.
///
/// unchecked because: the memory has one owner, this noncopyable value.
@safe struct FrameBuffer: ~Copyable, @unchecked Sendable {
  private var base: UnsafeMutableRawPointer
  private var capacity: Int
  private var start = 0
  private var end = 0
  private let usualCapacity: Int

  init(capacity: Int) {
    usualCapacity = capacity
    self.capacity = capacity
    unsafe base = Self.allocate(capacity)
  }

  deinit { unsafe free(base) }

  private static func allocate(_ bytes: Int) -> UnsafeMutableRawPointer {
    guard let memory = unsafe malloc(bytes) else { preconditionFailure("out of memory: \(bytes) bytes") }
    return unsafe memory
  }

  var count: Int { end - start }

  /// What waits to be written.
  var waiting: RawSpan {
    @_lifetime(borrow self) get {
      let span = unsafe RawSpan(_unsafeStart: UnsafeRawPointer(base + start), byteCount: count)
      return unsafe _overrideLifetime(span, borrowing: self)
    }
  }

  /// Appends the frame of `payload` that belongs at `offset`; returns its size.
  @discardableResult
  mutating func append(_ payload: RawSpan, at offset: UInt64) -> Int {
    append(word: Frame.recordKind << 30 | UInt32(payload.byteCount), payload, at: offset)
  }

  /// Appends a mark that belongs at `offset`; returns its size.
  mutating func appendMark(at offset: UInt64) -> Int {
    append(word: Frame.markWord, RawSpan(), at: offset)
  }

  @inline(__always)
  private mutating func append(word: UInt32, _ payload: RawSpan, at offset: UInt64) -> Int {
    let size = Frame.size(payload: payload.byteCount)
    if end + size > capacity { grow(by: size) }
    let frame = unsafe base + end
    unsafe (frame + (size - 8)).storeBytes(of: 0, as: UInt64.self)  // the padding, when there is any
    unsafe frame.storeBytes(of: word.littleEndian, toByteOffset: 4, as: UInt32.self)
    unsafe payload.withUnsafeBytes { source in
      if let from = source.baseAddress { unsafe memcpy(frame + Frame.headerBytes, from, source.count) }
    }
    let covered = unsafe RawSpan(_unsafeStart: UnsafeRawPointer(frame + 4), byteCount: size - 4)
    let crc = Hashing.crc32c(covered, continuing: Frame.seed(offset))
    unsafe frame.storeBytes(of: crc.littleEndian, toByteOffset: 0, as: UInt32.self)
    end += size
    return size
  }

  /// Writes what waits to `file`, from `offset` on; `written` counts what the system took, also when it throws.
  mutating func write(
    to file: borrowing OpenFile, at offset: Int, counting written: inout UInt64
  ) throws(JournalError) {
    var at = offset
    while count > 0 {
      let taken = try file.writeSome(waiting, at: at)
      drop(taken)
      at += taken
      written += UInt64(taken)
    }
  }

  /// Forgets the first `bytes`: they are written.
  private mutating func drop(_ bytes: Int) {
    start += bytes
    precondition(start <= end, "\(bytes) bytes dropped of \(end - start + bytes)")
    guard start == end else { return }
    start = 0
    end = 0
    if capacity > 4 * usualCapacity {
      // One long record must not hold its memory for ever.
      unsafe free(base)
      capacity = usualCapacity
      unsafe base = Self.allocate(capacity)
    }
  }

  private mutating func grow(by bytes: Int) {
    let needed = count + bytes
    let larger = needed > capacity ? max(needed, 2 * capacity) : capacity
    let memory = unsafe Self.allocate(larger)
    unsafe memcpy(memory, base + start, count)
    unsafe free(base)
    unsafe base = memory
    capacity = larger
    end -= start
    start = 0
  }
}
