// Builds a `Blob`. Everything is little-endian and arrays are aligned to 8 bytes, so that a reader (numpy too) can use
// them where they lie.

internal import Glibc

/// Grows one buffer and hands it over as a `Blob` without copying.
@safe public struct ByteWriter: ~Copyable {
  private var base: UnsafeMutableRawPointer
  private var capacity: Int
  /// Bytes written so far.
  public private(set) var count = 0

  /// A writer with room for `capacity` bytes before it grows.
  public init(capacity: Int = 256) {
    self.capacity = max(64, capacity)
    unsafe base = unsafe Self.allocate(self.capacity)
  }

  deinit { unsafe free(base) }

  private static func allocate(_ bytes: Int) -> UnsafeMutableRawPointer {
    guard let memory = unsafe aligned_alloc(64, (bytes + 63) & ~63) else {
      preconditionFailure("out of memory: \(bytes) bytes")
    }
    return unsafe memory
  }

  /// Makes room for `bytes` more.
  public mutating func reserve(_ bytes: Int) {
    guard count + bytes > capacity else { return }
    let newCapacity = max(count + bytes, capacity * 2)
    let larger = unsafe Self.allocate(newCapacity)
    unsafe memcpy(larger, base, count)
    unsafe free(base)
    unsafe base = larger
    capacity = newCapacity
  }

  /// Appends one integer or float, little-endian, unaligned.
  public mutating func append<Value: BitwiseCopyable>(_ value: Value) {
    reserve(MemoryLayout<Value>.size)
    unsafe base.storeBytes(of: value, toByteOffset: count, as: Value.self)
    count += MemoryLayout<Value>.size
  }

  /// Appends raw bytes.
  public mutating func append(bytes: [UInt8]) {
    append(array: bytes)
  }

  /// Appends the elements of an array, with no length and no padding.
  ///
  /// Not by way of its span: Swift 6.3 optimises away the elements of an array literal that only a span is taken of, which
  /// `make test-release` would find.
  public mutating func append<Element: BitwiseCopyable>(array: [Element]) {
    unsafe array.withUnsafeBytes { unsafe append(copying: $0) }
  }

  /// Appends the elements of a span, with no length and no padding.
  public mutating func append<Element: BitwiseCopyable>(span: Span<Element>) {
    unsafe append(raw: span.bytes)
  }

  /// Appends the bytes of a span.
  public mutating func append(raw span: RawSpan) {
    unsafe span.withUnsafeBytes { unsafe append(copying: $0) }
  }

  private mutating func append(copying source: UnsafeRawBufferPointer) {
    reserve(source.count)
    if let start = source.baseAddress { _ = unsafe memcpy(base + count, start, source.count) }
    count += source.count
  }

  /// Appends a text: its byte count as UInt32, then UTF-8.
  public mutating func append(string: String) {
    let utf8 = Array(string.utf8)
    append(UInt32(utf8.count))
    append(array: utf8)
  }

  /// Pads with zeros to a multiple of `alignment` bytes.
  public mutating func align(to alignment: Int = 8) {
    let padding = (alignment - count % alignment) % alignment
    reserve(padding)
    unsafe memset(base + count, 0, padding)
    count += padding
  }

  /// Overwrites a value written earlier, such as a length known only afterwards.
  public mutating func patch<Value: BitwiseCopyable>(_ value: Value, at offset: Int) {
    precondition(offset >= 0 && offset + MemoryLayout<Value>.size <= count, "patch at \(offset) of \(count)")
    unsafe base.storeBytes(of: value, toByteOffset: offset, as: Value.self)
  }

  /// Appends room for `elements` values and lets `body` fill it in place.
  ///
  /// The offset must be aligned. The memory is not zeroed: a body that returns has written every value.
  public mutating func append<Element: BitwiseCopyable, Failure: Error>(
    _ type: Element.Type, count elements: Int,
    fill body: (inout MutableSpan<Element>) throws(Failure) -> Void
  ) throws(Failure) {
    let bytes = elements * MemoryLayout<Element>.stride
    precondition(count % MemoryLayout<Element>.alignment == 0, "array at unaligned offset \(count)")
    reserve(bytes)
    let start = unsafe (base + count).bindMemory(to: Element.self, capacity: elements)
    var span = unsafe MutableSpan<Element>(_unsafeStart: start, count: elements)
    count += bytes
    try body(&span)
  }

  /// What has been written so far.
  public var written: RawSpan {
    @_lifetime(borrow self) get {
      let span = unsafe RawSpan(_unsafeStart: UnsafeRawPointer(base), byteCount: count)
      return unsafe _overrideLifetime(span, borrowing: self)
    }
  }

  /// Forgets what was written and keeps the memory.
  public mutating func clear() { count = 0 }

  /// Hands over the bytes as a blob and begins anew with an empty buffer.
  ///
  /// A buffer that is far larger than what was written is not kept: blobs may live long, and are counted by their bytes.
  public mutating func take() -> Blob {
    if capacity > 4096, count < capacity / 4 {
      let exact = unsafe Self.allocate(max(64, count))
      unsafe memcpy(exact, base, count)
      unsafe free(base)
      unsafe base = exact
    }
    let blob = unsafe Blob(owning: UnsafeRawPointer(base), count: count) {
      unsafe free(UnsafeMutableRawPointer(mutating: $0))
    }
    capacity = 64
    count = 0
    unsafe base = Self.allocate(capacity)
    return blob
  }

  /// Hands over the bytes as a blob.
  public consuming func finish() -> Blob { take() }
}
