// One number for a row's id and weights; added up over rows it says whether two tables serve the same, in any order.

internal import Base
internal import CKernels

/// The digest that shards and replicas compare.
public enum RowDigest {
  /// XXH3-64 of the id and the weights, both little-endian, the weights as float32 or rounded to float16.
  public static func row(id: UInt64, weights: Span<Float>, halfPrecision: Bool) -> UInt64 {
    let width = halfPrecision ? 2 : 4
    let bytes = 8 + weights.count * width
    return unsafe withUnsafeTemporaryAllocation(byteCount: bytes, alignment: 8) { buffer in
      let start = buffer.baseAddress!
      unsafe start.storeBytes(of: id, as: UInt64.self)
      unsafe weights.withUnsafeBufferPointer { source in
        guard let from = source.baseAddress else { return }
        if halfPrecision {
          unsafe guira_to_half(from, source.count, (start + 8).assumingMemoryBound(to: UInt16.self))
        } else {
          unsafe (start + 8).copyMemory(from: from, byteCount: source.count * 4)
        }
      }
      return Hashing.xxh3(unsafe RawSpan(_unsafeStart: UnsafeRawPointer(start), byteCount: bytes))
    }
  }
}
