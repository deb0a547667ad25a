// Immutable bytes that may be shared between threads without copying: what a message, a journal frame or a block is made
// of. Views into a blob keep it alive, so an array inside a received frame is read where it lies.

/// Immutable bytes, released when the last reference goes.
///
/// unchecked because: the bytes are written before `init` and never again, and `release` runs once, in `deinit`.
@safe public final class Blob: @unchecked Sendable {
  private let base: UnsafeRawPointer
  /// How many bytes there are.
  public let count: Int
  private let release: @Sendable (UnsafeRawPointer) -> Void

  /// Takes over `count` bytes at `base`; `release` is called once, with `base`, when nobody needs them any more.
  public init(owning base: UnsafeRawPointer, count: Int, release: @escaping @Sendable (UnsafeRawPointer) -> Void) {
    precondition(count >= 0, "a blob of \(count) bytes")
    unsafe self.base = base
    self.count = count
    unsafe self.release = release
  }

  /// A copy of some bytes.
  public convenience init(_ bytes: [UInt8]) {
    var writer = ByteWriter(capacity: bytes.count)
    writer.append(bytes: bytes)
    let whole = writer.finish()
    self.init(slicing: whole, 0..<whole.count)
  }

  /// The bytes of `text` in UTF-8.
  public convenience init(_ text: String) {
    self.init(Array(text.utf8))
  }

  /// A part of a blob as a blob of its own, which keeps the whole alive.
  public convenience init(slicing blob: Blob, _ range: Range<Int>) {
    precondition(range.lowerBound >= 0 && range.upperBound <= blob.count, "slice \(range) of \(blob.count) bytes")
    unsafe self.init(owning: blob.base + range.lowerBound, count: range.count) { _ in _ = blob }
  }

  deinit { unsafe release(base) }

  /// The bytes, valid while the blob is borrowed.
  public var bytes: RawSpan {
    @_lifetime(borrow self) get {
      let span = unsafe RawSpan(_unsafeStart: base, byteCount: count)
      return unsafe _overrideLifetime(span, borrowing: self)
    }
  }

  /// Calls `body` with the bytes; the pointer must not leave it.
  public func withUnsafeBytes<Result, Failure: Error>(
    _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    try unsafe body(UnsafeRawBufferPointer(start: base, count: count))
  }

  /// A copy as an array, for tests and small texts.
  public var array: [UInt8] {
    unsafe withUnsafeBytes { unsafe Array($0) }
  }
}

/// `count` values of `Element` inside a blob, read in place; keeps the blob alive.
public struct View<Element: BitwiseCopyable>: Sendable where Element: Sendable {
  /// The blob the values lie in.
  public let blob: Blob
  /// Where the first value begins, in bytes; a multiple of the element's alignment from the blob's aligned base.
  public let byteOffset: Int
  /// How many values there are.
  public let count: Int

  /// A view of `count` values at `byteOffset`.
  /// - Throws: `DecodeError` when they are not all inside the blob or not aligned.
  public init(_ blob: Blob, byteOffset: Int, count: Int) throws(DecodeError) {
    let stride = MemoryLayout<Element>.stride
    guard byteOffset >= 0, byteOffset <= blob.count, count >= 0, count <= (blob.count - byteOffset) / stride else {
      throw DecodeError.truncated(offset: byteOffset, needed: count, available: max(0, blob.count - byteOffset))
    }
    let misaligned = unsafe blob.withUnsafeBytes { bytes in
      (Int(bitPattern: bytes.baseAddress) + byteOffset) % MemoryLayout<Element>.alignment != 0
    }
    guard count == 0 || !misaligned else { throw DecodeError.misaligned(offset: byteOffset) }
    self.blob = blob
    self.byteOffset = byteOffset
    self.count = count
  }

  /// A view that owns a copy of `values`.
  public init(copying values: [Element]) {
    var writer = ByteWriter(capacity: max(1, values.count * MemoryLayout<Element>.stride))
    writer.append(array: values)
    self.blob = writer.finish()
    self.byteOffset = 0
    self.count = values.count
  }

  /// The values, valid while the view is borrowed.
  public var span: Span<Element> {
    @_lifetime(borrow self) get {
      let bytes = blob.bytes.extracting(byteOffset..<(byteOffset + count * MemoryLayout<Element>.stride))
      let span = Span<Element>(_bytes: bytes)
      return unsafe _overrideLifetime(span, borrowing: self)
    }
  }

  /// Value `index`; traps outside `0..<count`.
  public subscript(index: Int) -> Element { span[index] }

  /// A copy as an array.
  public var array: [Element] {
    let values = span
    return unsafe [Element](unsafeUninitializedCapacity: values.count) { buffer, filled in
      unsafe values.withUnsafeBufferPointer { source in
        if let from = source.baseAddress, let to = buffer.baseAddress {
          unsafe to.initialize(from: from, count: source.count)
        }
      }
      filled = values.count
    }
  }
}

/// Why bytes from outside could not be read.
public enum DecodeError: Error, Equatable, Sendable, CustomStringConvertible {
  /// `needed` items were announced at `offset`, only `available` bytes are left.
  case truncated(offset: Int, needed: Int, available: Int)
  /// An array does not begin at a multiple of its alignment.
  case misaligned(offset: Int)
  /// A field holds a value that its format does not allow.
  case invalid(field: String, value: String, expected: String)
  /// A count is above its limit.
  case overLimit(field: String, value: UInt64, limit: UInt64)
  /// Bytes are left after the last field.
  case trailing(bytes: Int)

  /// What is wrong, with the numbers.
  public var description: String {
    switch self {
    case .truncated(let offset, let needed, let available):
      "the bytes end too early: \(needed) needed at offset \(offset), \(available) left"
    case .misaligned(let offset): "an array begins at the unaligned offset \(offset)"
    case .invalid(let field, let value, let expected): "\(field) is \(value); expected \(expected)"
    case .overLimit(let field, let value, let limit): "\(field) is \(value); the limit is \(limit)"
    case .trailing(let bytes): "\(bytes) bytes are left after the last field"
    }
  }
}
