// The hashes Guira uses: XXH3 for texts and buckets, splitmix64 where one word becomes another, CRC-32C for frames.

internal import CKernels
internal import CXXHash

/// Hash functions with values that are part of stored formats, so they never change.
public enum Hashing {
  /// XXH3-64 of a text's UTF-8, with a seed.
  ///
  /// Source: xxHash 0.8.
  public static func xxh3(_ text: String, seed: UInt64 = 0) -> UInt64 {
    var copy = text
    return copy.withUTF8 { unsafe guira_xxh3_64($0.baseAddress, $0.count, seed) }
  }

  /// XXH3-64 of bytes, with a seed.
  public static func xxh3(_ bytes: RawSpan, seed: UInt64 = 0) -> UInt64 {
    unsafe bytes.withUnsafeBytes { unsafe guira_xxh3_64($0.baseAddress, $0.count, seed) }
  }

  /// XXH3-128 of a text's UTF-8: collisions are not to be expected among any number of texts one can store.
  public static func xxh3Wide(_ text: String) -> (high: UInt64, low: UInt64) {
    var copy = text
    var high: UInt64 = 0
    var low: UInt64 = 0
    copy.withUTF8 { unsafe guira_xxh3_128($0.baseAddress, $0.count, &high, &low) }
    return (high, low)
  }

  /// XXH3-128 of bytes.
  public static func xxh3Wide(_ bytes: RawSpan) -> (high: UInt64, low: UInt64) {
    var high: UInt64 = 0
    var low: UInt64 = 0
    unsafe bytes.withUnsafeBytes { unsafe guira_xxh3_128($0.baseAddress, $0.count, &high, &low) }
    return (high, low)
  }

  /// The id of a string feature value: XXH3-64 seeded by the hash of the feature's name (DESIGN, "Ids").
  public static func id(of value: String, feature: String) -> UInt64 {
    xxh3(value, seed: xxh3(feature))
  }

  /// One round of splitmix64: a bijection of 64-bit words that mixes every bit.
  @inlinable public static func mix(_ word: UInt64) -> UInt64 {
    var z = word &+ 0x9E37_79B9_7F4A_7C15
    z = (z ^ (z &>> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z &>> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z &>> 31)
  }

  /// CRC-32C of bytes, continuing from `crc` (0 to begin with).
  public static func crc32c(_ bytes: RawSpan, continuing crc: UInt32 = 0) -> UInt32 {
    unsafe bytes.withUnsafeBytes { unsafe guira_crc32c(crc, $0.baseAddress, $0.count) }
  }

  /// The scalar twin of `crc32c`, the reference in its test.
  public static func crc32cScalar(_ bytes: RawSpan) -> UInt32 {
    unsafe bytes.withUnsafeBytes { unsafe guira_crc32c_scalar(0, $0.baseAddress, $0.count) }
  }
}
