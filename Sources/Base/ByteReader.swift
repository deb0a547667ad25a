// Reads what `ByteWriter` wrote, or what a stranger sent: every read is checked and throws, none traps.

/// A cursor over a blob.
public struct ByteReader: Sendable {
  /// The bytes being read.
  public let blob: Blob
  /// Where the next read begins.
  public private(set) var offset: Int
  private let end: Int

  /// A reader of the whole blob.
  public init(_ blob: Blob) {
    self.blob = blob
    offset = 0
    end = blob.count
  }

  /// A reader of part of a blob, clamped to it.
  public init(_ blob: Blob, range: Range<Int>) {
    self.blob = blob
    offset = max(0, min(range.lowerBound, blob.count))
    end = max(offset, min(range.upperBound, blob.count))
  }

  /// Bytes not yet read.
  public var remaining: Int { end - offset }

  /// The next integer or float, little-endian, unaligned.
  public mutating func read<Value: BitwiseCopyable>(_ type: Value.Type = Value.self) throws(DecodeError) -> Value {
    let size = MemoryLayout<Value>.size
    guard remaining >= size else { throw .truncated(offset: offset, needed: size, available: remaining) }
    let value = unsafe blob.bytes.unsafeLoadUnaligned(fromByteOffset: offset, as: Value.self)
    offset += size
    return value
  }

  /// The next `count` values, in place.
  public mutating func view<Element: BitwiseCopyable & Sendable>(
    _ type: Element.Type = Element.self, count: Int
  ) throws(DecodeError) -> View<Element> {
    let stride = MemoryLayout<Element>.stride
    guard count >= 0, count <= remaining / stride else {
      throw .truncated(offset: offset, needed: count, available: remaining)
    }
    let view = try View<Element>(blob, byteOffset: offset, count: count)
    offset += count * stride
    return view
  }

  /// A text of at most `limit` bytes: UInt32 count, then UTF-8.
  public mutating func string(limit: Int = 4096) throws(DecodeError) -> String {
    let count = Int(try read(UInt32.self))
    guard count <= limit else { throw .overLimit(field: "text", value: UInt64(count), limit: UInt64(limit)) }
    let bytes = try view(UInt8.self, count: count)
    guard let text = String(utf8: bytes.span) else {
      throw .invalid(field: "text", value: "\(count) bytes", expected: "UTF-8")
    }
    return text
  }

  /// A count that must be at most `limit`.
  public mutating func count(_ field: String, limit: Int) throws(DecodeError) -> Int {
    let value = try read(UInt32.self)
    guard UInt64(value) <= UInt64(limit) else {
      throw .overLimit(field: field, value: UInt64(value), limit: UInt64(limit))
    }
    return Int(value)
  }

  /// A part of the bytes as a reader of its own.
  public mutating func sub(count: Int) throws(DecodeError) -> ByteReader {
    guard count >= 0, count <= remaining else {
      throw .truncated(offset: offset, needed: count, available: remaining)
    }
    defer { offset += count }
    return ByteReader(blob, range: offset..<(offset + count))
  }

  /// Skips the padding that `ByteWriter.align` wrote.
  public mutating func align(to alignment: Int = 8) throws(DecodeError) {
    let padding = (alignment - offset % alignment) % alignment
    guard remaining >= padding else { throw .truncated(offset: offset, needed: padding, available: remaining) }
    offset += padding
  }

  /// Refuses bytes after the last field.
  public func expectEnd() throws(DecodeError) {
    guard remaining == 0 else { throw .trailing(bytes: remaining) }
  }
}
