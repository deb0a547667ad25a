// Log-linear histogram for latencies and delays: fixed memory, 1.6 % resolution, mergeable.

/// Counts of non-negative values in buckets of at most 1/64 relative width.
public struct Histogram: Sendable, Equatable, Codable {
  private static let subBuckets = 64
  private var counts: [UInt64]
  /// How many values were recorded.
  public private(set) var count: UInt64 = 0
  /// The largest value recorded.
  public private(set) var maximum: Int64 = 0
  /// The sum of all values.
  public private(set) var sum: Double = 0

  /// An empty histogram.
  public init() {
    counts = []
  }

  /// Records `value` (clamped to 0 and above) `times` times.
  public mutating func record(_ value: Int64, times: UInt64 = 1) {
    guard times > 0 else { return }
    let clamped = max(0, value)
    let bucket = Self.bucket(of: UInt64(clamped))
    if bucket >= counts.count { counts.append(contentsOf: repeatElement(0, count: bucket + 1 - counts.count)) }
    // Values come from other processes: sums saturate.
    counts[bucket] = Self.sum(counts[bucket], times)
    count = Self.sum(count, times)
    maximum = max(maximum, clamped)
    sum += Double(clamped) * Double(times)
  }

  /// Adds all that another histogram recorded.
  public mutating func merge(_ other: Histogram) {
    if other.counts.count > counts.count {
      counts.append(contentsOf: repeatElement(0, count: other.counts.count - counts.count))
    }
    for (bucket, times) in other.counts.enumerated() { counts[bucket] = Self.sum(counts[bucket], times) }
    count = Self.sum(count, other.count)
    maximum = max(maximum, other.maximum)
    sum += other.sum
  }

  /// The value below or at which a share `quantile` (0...1) of the recorded ones lie; 0 when empty.
  public func quantile(_ quantile: Double) -> Int64 {
    guard count > 0 else { return 0 }
    let rank = max(1, UInt64((quantile * Double(count)).rounded(.up)))
    var seen: UInt64 = 0
    for (bucket, times) in counts.enumerated() {
      seen = Self.sum(seen, times)
      if seen >= rank { return min(maximum, Self.upperBound(of: bucket)) }
    }
    return maximum
  }

  /// How many recorded values lie at or below `bound`, up to the buckets' resolution.
  public func countUpTo(_ bound: Int64) -> UInt64 {
    guard bound >= 0, !counts.isEmpty else { return 0 }
    return counts[...min(Self.bucket(of: UInt64(bound)), counts.count - 1)].reduce(0, Self.sum)
  }

  private static func sum(_ left: UInt64, _ right: UInt64) -> UInt64 {
    let (sum, overflow) = left.addingReportingOverflow(right)
    return overflow ? .max : sum
  }

  private static func bucket(of value: UInt64) -> Int {
    guard value >= UInt64(subBuckets) else { return Int(value) }
    let exponent = 63 - value.leadingZeroBitCount - 6
    return (exponent + 1) * subBuckets + Int(value >> UInt64(exponent)) - subBuckets
  }

  private static func upperBound(of bucket: Int) -> Int64 {
    guard bucket >= subBuckets else { return Int64(bucket) }
    let exponent = bucket / subBuckets - 1
    let mantissa = UInt64(bucket % subBuckets + subBuckets)
    return Int64(clamping: ((mantissa + 1) << UInt64(exponent)) - 1)
  }
}
