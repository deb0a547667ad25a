// The only file that calls libsnappy.

internal import Base
internal import CSnappy

/// Snappy, where it shrinks.
enum Snappy {
  /// The compressed bytes, or nil when they would not be at least 5 % fewer (dense floats rarely are; FACTS of the codec:
  /// it gives up fast).
  static func compress(_ bytes: RawSpan) -> [UInt8]? {
    guard bytes.byteCount > 64 else { return nil }
    var length = snappy_max_compressed_length(bytes.byteCount)
    var isShorter = false
    // Not zeroed first: mostly the bytes do not shrink, and then nothing of this is kept.
    let output = unsafe [UInt8](unsafeUninitializedCapacity: length) { target, count in
      let status = unsafe bytes.withUnsafeBytes { input in
        unsafe snappy_compress(input.baseAddress, input.count, target.baseAddress, &length)
      }
      isShorter = status == SNAPPY_OK && length < bytes.byteCount - bytes.byteCount / 20
      count = isShorter ? length : 0
    }
    return isShorter ? output : nil
  }

  /// The original bytes, which must be exactly `count`.
  static func decompress(_ bytes: View<UInt8>, count: Int) throws(DecodeError) -> Blob {
    // Snappy makes at most 64 bytes of three: no memory is taken for what cannot be there.
    guard count / 32 <= bytes.count else {
      throw .invalid(field: "compressed rows", value: "\(bytes.count) bytes", expected: "snappy of \(count) bytes")
    }
    var writer = ByteWriter(capacity: count)
    var isWhole = false
    let source = bytes.span
    unsafe source.withUnsafeBufferPointer { input in
      unsafe input.withMemoryRebound(to: CChar.self) { input in
        var length = 0
        guard unsafe snappy_uncompressed_length(input.baseAddress, input.count, &length) == SNAPPY_OK, length == count
        else { return }
        writer.append(UInt8.self, count: count) { target in
          unsafe target.withUnsafeMutableBytes { target in
            var length = count
            isWhole =
              unsafe snappy_uncompress(input.baseAddress, input.count, target.baseAddress, &length) == SNAPPY_OK
              && length == count
          }
        }
      }
    }
    guard isWhole else {
      throw .invalid(field: "compressed rows", value: "\(bytes.count) bytes", expected: "snappy of \(count) bytes")
    }
    return writer.finish()
  }
}
