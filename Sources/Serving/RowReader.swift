// Rows by id, for applications that want embeddings and no predictions. A reader belongs to one thread.

internal import Base

/// Looks rows up in a store.
public final class RowReader {
  /// What was found.
  public struct Rows {
    /// The version the rows are at least of.
    public var version: VersionInfo
    /// The time since that version was made.
    public var lag: Duration
    /// By id: 1 when it has a row.
    public var found: [UInt8]
    /// `[ids × width]`; the default row where an id has none.
    public var weights: [Float]
  }

  private let store: ReplicaStore
  private let reader: EpochReader

  /// A reader of a store.
  public init(_ store: ReplicaStore) {
    self.store = store
    reader = EpochReader(store.epochs)
  }

  /// Weights per row of a table; nil when there is no table of this name.
  public func width(of table: String) -> Int? {
    (try? store.table(named: table)).map { store.tableOptions[$0].defaultRow.count }
  }

  /// The rows of some ids; nil before the first base, or without such a table.
  public func rows(_ table: String, ids: [UInt64]) -> Rows? {
    guard let index = try? store.table(named: table) else { return nil }
    let width = store.tableOptions[index].defaultRow.count
    var found = [UInt8](repeating: 0, count: ids.count)
    var weights = [Float](repeating: 0, count: ids.count * width)
    let version = store.read(reader) { snapshot in
      _ = snapshot.tables[index].read(ids: ids, into: &weights, found: &found)
      return snapshot.version
    }
    return version.map { Rows(version: $0, lag: store.lag(of: $0), found: found, weights: weights) }
  }
}
