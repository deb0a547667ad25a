// How rows and gradients travel: as they are, or rounded to half precision. Whoever reads a message gets float32 in
// either case; dense tensors always travel as float32.

public import Base
internal import CKernels

/// The type of the numbers of rows and gradients in a message.
public enum NumberType: UInt16, Sendable, CaseIterable {
  /// IEEE 754 single precision.
  case float32 = 0
  /// IEEE 754 half precision: values above 65,504 become infinite, those below 6e-8 zero.
  case float16 = 1

  /// What a decoder calls the field.
  public static let fieldName = "data type"

  /// Bytes of one number.
  public var byteCount: Int { self == .float32 ? 4 : 2 }

  package init(wire raw: UInt32) throws(DecodeError) {
    guard let type = UInt16(exactly: raw).flatMap(NumberType.init(rawValue:)) else {
      throw .invalid(field: Self.fieldName, value: "\(raw)", expected: "0 (float32) or 1 (float16)")
    }
    self = type
  }
}

extension ByteWriter {
  /// Appends room for `count` numbers of a type and lets `body` write all of them, as float32.
  ///
  /// The offset must be a multiple of 4.
  public mutating func append(
    numbers type: NumberType, count: Int, fill body: (inout MutableSpan<Float>) -> Void
  ) {
    guard type == .float16 else { return append(Float.self, count: count, fill: body) }
    var wide = ByteWriter(capacity: count * 4)
    wide.append(Float.self, count: count, fill: body)
    let source = wide.written
    append(UInt16.self, count: count) { halves in
      unsafe source.withUnsafeBytes { from in
        unsafe halves.withUnsafeMutableBufferPointer { to in
          guard let from = from.baseAddress, let to = to.baseAddress else { return }
          unsafe guira_to_half(from.assumingMemoryBound(to: Float.self), count, to)
        }
      }
    }
  }
}

extension ByteReader {
  /// The next `count` numbers of a type as float32: in place, or widened.
  package mutating func numbers(_ type: NumberType, count: Int) throws(DecodeError) -> View<Float> {
    guard type == .float16 else { return try view(Float.self, count: count) }
    let halves = try view(UInt16.self, count: count)
    var wide = ByteWriter(capacity: count * 4)
    wide.append(Float.self, count: count) { floats in
      unsafe halves.span.withUnsafeBufferPointer { from in
        unsafe floats.withUnsafeMutableBufferPointer { to in
          guard let from = from.baseAddress, let to = to.baseAddress else { return }
          unsafe guira_from_half(from, count, to)
        }
      }
    }
    return try View(wide.finish(), byteOffset: 0, count: count)
  }
}
