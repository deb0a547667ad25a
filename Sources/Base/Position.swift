// Where a reader stands in one partition of a stream.

/// A 128-bit position in one partition of a stream: ordered, not dense.
///
/// A record's position is that of its end, so "applied up to p" includes the record at p. Journals and
/// Redis streams use (0, bytes so far), Kafka (0, offset + 1).
public struct Position: Comparable, Hashable, Sendable, BitwiseCopyable, CustomStringConvertible {
  /// The more significant half.
  public var high: UInt64
  /// The less significant half.
  public var low: UInt64

  /// A position from its halves.
  public init(high: UInt64 = 0, low: UInt64) {
    self.high = high
    self.low = low
  }

  /// Before the first record.
  public static let start = Position(low: 0)

  /// Orders by `high`, then `low`.
  public static func < (left: Position, right: Position) -> Bool {
    left.high == right.high ? left.low < right.low : left.high < right.high
  }

  /// Reads what `description` writes; nil for anything else.
  public init?(_ text: String) {
    let halves = text.split(separator: "-", omittingEmptySubsequences: false).map { UInt64($0) }
    switch halves.count {
    case 1: if let low = halves[0] { self.init(low: low) } else { return nil }
    case 2: if let high = halves[0], let low = halves[1] { self.init(high: high, low: low) } else { return nil }
    default: return nil
    }
  }

  /// `low`, or `high-low` as Redis writes it.
  public var description: String { high == 0 ? "\(low)" : "\(high)-\(low)" }
}
