// UTF-8 that came from outside: is it, and as a String. Both look at eight bytes at a time while they are ASCII.

extension Span<UInt8> {
  /// Whether the bytes are UTF-8.
  public var isUTF8: Bool { isASCII || (try? UTF8Span(validating: self)) != nil }

  /// Whether no byte has its top bit set.
  public var isASCII: Bool {
    var seen: UInt64 = 0
    var at = 0
    while at + 8 <= count {
      seen |= unsafe bytes.unsafeLoadUnaligned(fromByteOffset: at, as: UInt64.self)
      at += 8
    }
    while at < count {
      seen |= UInt64(self[at])
      at += 1
    }
    return seen & 0x8080_8080_8080_8080 == 0
  }
}

extension String {
  /// The text that bytes of UTF-8 are; nil when they are none.
  public init?(utf8 bytes: Span<UInt8>) {
    guard let text = try? UTF8Span(validating: bytes) else { return nil }
    self.init(copying: text)
  }
}
