// What an operator is told of stored versions, as JSON on the wire.

public import Base
internal import Foundation

/// One stored version in a line.
public struct VersionSummary: Codable, Equatable, Sendable {
  /// Its number.
  public var number: UInt64
  /// When it was made, UTC milliseconds.
  public var created: Milliseconds
  /// The newest event time in it or before.
  public var newestEventTime: Milliseconds
  /// Examples in it and before.
  public var examples: UInt64
  /// Rows in it; nil when the version before it is not kept.
  public var rows: UInt64?
  /// Tombstones in it.
  public var tombstones: UInt64?
  /// Its bytes.
  public var bytes: Int
  /// The version that replicas were pinned to with it; 0 for none.
  public var pinned: UInt64
  /// Whether it led back to that version.
  public var isReturn: Bool
  /// Whether the next version belongs to it.
  public var continues: Bool
  /// Whether replicas can be returned to it.
  public var canReturn: Bool

  init(_ content: VersionContent, bytes: Int, before: VersionContent.Totals?, canReturn: Bool) {
    number = content.number
    created = content.created
    newestEventTime = content.newestEventTime
    examples = content.exampleCount
    rows = before.map { content.totals.rows &- $0.rows }
    tombstones = before.map { content.totals.tombstones &- $0.tombstones }
    self.bytes = bytes
    pinned = content.pinned
    isReturn = content.isReturn
    continues = content.continues
    self.canReturn = canReturn
  }
}

/// One stored version with all that is in it but the numbers.
public struct VersionDetails: Codable, Equatable, Sendable {
  /// The version in a line.
  public var summary: VersionSummary
  /// Changed tables.
  public var tables: [Table]
  /// Dense tensors, with their numbers.
  public var tensors: [String: Int]
  /// Per shard the last epoch in it or before.
  public var epochs: [UInt64]
  /// Examples whose arrival it carries.
  public var arrivals: UInt64
  /// The earliest of them, UTC milliseconds.
  public var firstArrival: Milliseconds?
  /// The latest of them.
  public var lastArrival: Milliseconds?

  /// One table's part.
  public struct Table: Codable, Equatable, Sendable {
    /// Its name.
    public var name: String
    /// Rows.
    public var rows: Int
    /// Removed ids.
    public var tombstones: Int
    /// Weights per row.
    public var weights: Int
  }

  init(_ summary: VersionSummary, _ content: VersionContent) {
    self.summary = summary
    tables = content.tables.map {
      Table(name: $0.table, rows: $0.ids.count, tombstones: $0.tombstones.count, weights: $0.weightCount)
    }
    tensors = Dictionary(content.tensors.map { ($0.name, $0.values.count) }) { first, _ in first }
    epochs = content.epochs
    arrivals = content.arrivals.reduce(0) { $0 &+ $1.count }
    firstArrival = content.arrivals.map(\.arrival).min()
    lastArrival = content.arrivals.map(\.arrival).max()
  }
}

extension Encodable {
  /// As JSON text.
  var jsonText: String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    guard let data = try? encoder.encode(self) else { return "null" }
    return String(decoding: data, as: UTF8.self)
  }
}
