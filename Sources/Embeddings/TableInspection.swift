// Looking at a table: statistics, one row in full, and the digest that says whether two tables are equal.

public import Base

/// Counts since the table was made, and its size now.
public struct TableStatistics: Sendable, Equatable {
  /// Rows held.
  public var rows = 0
  /// Ids counted exactly that have no row yet.
  public var waiting = 0
  /// Rows made.
  public var admitted = 0
  /// Ids that should have got a row but for the memory limit.
  public var refused = 0
  /// Rows past their time-to-live that went.
  public var expired = 0
  /// Rows that made way for others.
  public var evicted = 0
  /// Ids erased on request.
  public var forgotten = 0
  /// Gradients of ids without a row.
  public var droppedGradients = 0
  /// Gradients refused for NaN, infinities, or numbers of 2^63 and above.
  public var rejectedNonFinite = 0
  /// Bytes of memory in use.
  public var bytes = 0
  /// Bytes of rows and index alone: what a memory limit bounds.
  public var boundedBytes = 0
  /// Share of the index's slots in use.
  public var load = 0.0
  /// The smallest share at which the index, once it was not tiny, began to grow; 1 before that.
  public var lowestLoadAtGrowth = 1.0

  /// Nothing yet.
  public init() {}

  mutating func add(_ counts: PushCounts) {
    admitted += counts.admitted
    refused += counts.refused
    droppedGradients += counts.droppedGradients
    rejectedNonFinite += counts.rejectedNonFinite
  }
}

/// All that a table holds of one id.
public struct RowInspection: Sendable, Equatable {
  /// The id.
  public var id: UInt64
  /// Its weights; empty when it has no row.
  public var weights: [Float]
  /// Its optimizer state, in the order of segments.
  public var state: [Float]
  /// When it was last seen, UTC milliseconds, rounded up to a second.
  public var lastSeen: Milliseconds?
  /// How often it was seen, in a table that evicts by frequency.
  public var frequency: Int?
  /// How often it was seen before it has a row.
  public var waitingCount: Int?
}

extension Table {
  /// Counts since the table was made, and its size now.
  public var statistics: TableStatistics {
    var statistics = counters
    statistics.rows = rows.count
    statistics.waiting = index.used - rows.count
    statistics.boundedBytes = boundedBytes
    statistics.bytes = boundedBytes + changes.bytes
    statistics.load = index.load
    statistics.lowestLoadAtGrowth = index.lowestLoadAtGrowth
    return statistics
  }

  /// All that the table holds of an id, or nil when it holds nothing.
  public func inspect(_ id: UInt64) -> RowInspection? {
    let value = index.find(id)
    if value == CuckooIndex.empty { return nil }
    if value & CuckooIndex.pending != 0 {
      return RowInspection(id: id, weights: [], state: [], waitingCount: Int(value & 0xFFFF))
    }
    let floats = rows.array(value)
    return RowInspection(
      id: id, weights: Array(floats[..<weightCount]), state: Array(floats[weightCount...]),
      lastSeen: Int64(rows.seen(value)) * 1000,
      frequency: rows.countsFrequency ? Int(rows.frequency(value)) : nil)
  }

  /// The sum, modulo 2^64, of `RowDigest.row` over all rows.
  public func digest(halfPrecision: Bool) -> UInt64 {
    var sum: UInt64 = 0
    for row in 0..<rows.end where rows.isLive(row) {
      let weights = rows.span(row).extracting(first: weightCount)
      sum &+= RowDigest.row(id: rows.id(row), weights: weights, halfPrecision: halfPrecision)
    }
    return sum
  }
}
