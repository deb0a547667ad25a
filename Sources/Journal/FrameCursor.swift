// Reads the frames of one file in order: the one decoder that the reader, the recovery, the checks and the checkpoints
// share. Reads big chunks and hands out slices of them.

internal import Base

/// A record or mark that verified.
struct DecodedFrame {
  let blob: Blob
  /// Where the payload lies in the blob.
  let payload: Range<Int>
  let isMark: Bool
}

struct FrameCursor: ~Copyable, Sendable {
  static let chunkBytes = 256 << 10

  let file: OpenFile
  /// The journal offset of the file's first frame.
  let first: UInt64
  /// The journal offset of the next frame.
  private(set) var offset: UInt64
  private var chunk = Blob([])
  /// The journal offset of the chunk's first byte.
  private var chunkOffset: UInt64 = 0

  init(_ file: consuming OpenFile, first: UInt64, at offset: UInt64) {
    self.file = file
    self.first = first
    self.offset = offset
  }

  /// The next frame; nil when `limit` is reached.
  ///
  /// Nothing at or behind `limit` is read.
  ///
  /// - Throws: `damaged` when the bytes before `limit` are no whole frame; the cursor stays where it is.
  mutating func next(limit: UInt64) throws(JournalError) -> DecodedFrame? {
    guard offset < limit else { return nil }
    var available = chunk.count - Int(truncatingIfNeeded: offset &- chunkOffset)
    if offset < chunkOffset || available < Frame.headerBytes {
      available = try fill(Frame.headerBytes, limit: limit)
      guard available >= Frame.headerBytes else {
        throw damage("\(available) bytes are left; a frame has at least \(Frame.headerBytes)")
      }
    }
    let word: UInt32 = load(4)
    let payload = Int(word & 0x3FFF_FFFF)
    let size = Frame.size(payload: payload)
    let isMark = word == Frame.markWord
    guard isMark || word >> 30 == Frame.recordKind else { throw damage("no frame begins with the word \(hex(word))") }
    if available < size {
      guard UInt64(size) <= limit - offset else {
        throw damage("a frame of \(size) bytes is announced; \(limit - offset) are left")
      }
      available = try fill(size, limit: limit)
      guard available >= size else {
        throw damage("a frame of \(size) bytes is announced; the file has \(available) more")
      }
    }
    let at = Int(offset - chunkOffset)
    let crc = Hashing.crc32c(chunk.bytes.extracting((at + 4)..<(at + size)), continuing: Frame.seed(offset))
    guard crc == load(0) as UInt32 else {
      throw damage("the CRC-32C of a frame of \(size) bytes is \(hex(crc)), not \(hex(load(0)))")
    }
    offset += UInt64(size)
    let begin = at + Frame.headerBytes
    return DecodedFrame(blob: chunk, payload: begin..<(begin + payload), isMark: isMark)
  }

  /// Reads a chunk that begins with the next frame and has at least `bytes` unless file or limit end before; returns
  /// how many it has.
  private mutating func fill(_ bytes: Int, limit: UInt64) throws(JournalError) -> Int {
    let count = min(UInt64(max(bytes, Self.chunkBytes)), limit - offset)
    chunk = try file.read(count: Int(count), at: fileOffset)
    chunkOffset = offset
    return chunk.count
  }

  private func load(_ at: Int) -> UInt32 {
    unsafe chunk.bytes.unsafeLoadUnaligned(fromByteOffset: Int(offset - chunkOffset) + at, as: UInt32.self)
  }

  /// Where the next frame begins in the file.
  var fileOffset: Int { Label.byteCount + Int(offset - first) }

  /// Damage at the next frame.
  func damage(_ reason: String) -> JournalError {
    .damaged(JournalDamage(file: file.path, fileOffset: fileOffset, offset: offset, reason: reason))
  }

  private func hex(_ value: UInt32) -> String { "0x" + String(value, radix: 16) }
}
