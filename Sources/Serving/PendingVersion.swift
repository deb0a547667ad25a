// Rows of one version that become visible at once. While the version arrives its rows collect here, in small tables of
// their own. Then readers get a view of the old rows with these laid over them, all in one step; and behind that view the
// rows are written into the tables, where nobody can see them half done. So only one version's rows are held twice.

internal import Base
internal import Synchronization

/// One table as readers see it: its rows, perhaps with a version laid over them.
struct TableView: Sendable {
  let rows: ReplicaTable
  private let newer: ReplicaTable?
  private let gone: Set<UInt64>

  init(_ rows: ReplicaTable, newer: ReplicaTable? = nil, gone: Set<UInt64> = []) {
    self.rows = rows
    self.newer = newer
    self.gone = gone
  }

  /// Copies the weights of each id, or the default row; `found` says with 1 which ids have a row.
  /// - Returns: how many ids have a row.
  func read(ids: [UInt64], into weights: inout [Float], found: inout [UInt8]) -> Int {
    let hits = rows.read(ids: ids, into: &weights, found: &found)
    guard let newer else { return hits }
    var newerWeights = [Float](repeating: 0, count: weights.count)
    var isNewer = [UInt8](repeating: 0, count: ids.count)
    _ = newer.read(ids: ids, into: &newerWeights, found: &isNewer)
    for (index, id) in ids.enumerated() {
      let row = index * rows.dimension..<(index + 1) * rows.dimension
      if isNewer[index] == 1 {
        found[index] = 1
        for place in row { weights[place] = newerWeights[place] }
      } else if gone.contains(id) {
        found[index] = 0
        for place in row { weights[place] = rows.defaultRow[place - row.lowerBound] }
      }
    }
    return found.reduce(0) { $0 + Int($1) }
  }

  /// Which version wrote each id's row; nil for an id without a row.
  func stamps(ids: [UInt64]) -> [RowStamp?] {
    var stamps = rows.stamps(ids: ids)
    guard let newer else { return stamps }
    for (index, stamp) in newer.stamps(ids: ids).enumerated() {
      if let stamp { stamps[index] = stamp } else if gone.contains(ids[index]) { stamps[index] = nil }
    }
    return stamps
  }
}

/// A version on its way, until it is shown.
struct PendingVersion: Sendable {
  /// What was said, in order.
  private enum Step {
    case apply(table: Int, ids: [UInt64], weights: [Float], stamp: RowStamp)
    case remove(table: Int, ids: [UInt64])
  }

  private let tables: [ReplicaTable]
  private var gone: [Set<UInt64>]
  private var steps: [Step] = []
  /// Per model that changed its dense tensors.
  var dense: [Int: [[Float]]] = [:]

  /// A version that has nothing yet; the tables are empty.
  init(tables: [ReplicaTable]) {
    self.tables = tables
    gone = Array(repeating: [], count: tables.count)
  }

  mutating func apply(table: Int, ids: Span<UInt64>, weights: Span<Float>, stamp: RowStamp) {
    guard ids.count > 0 else { return }
    tables[table].apply(ids: ids, weights: weights, stamp: stamp)
    for index in ids.indices { gone[table].remove(ids[index]) }
    steps.append(.apply(table: table, ids: Array(ids), weights: Array(weights), stamp: stamp))
  }

  mutating func remove(table: Int, ids: Span<UInt64>) {
    guard ids.count > 0 else { return }
    tables[table].remove(ids: ids)
    for index in ids.indices { gone[table].insert(ids[index]) }
    steps.append(.remove(table: table, ids: Array(ids)))
  }

  /// What readers see: these rows over older ones.
  func views(over rows: [ReplicaTable]) -> [TableView] {
    rows.indices.map { TableView(rows[$0], newer: tables[$0], gone: gone[$0]) }
  }

  /// Writes all of it into older rows.
  func write(into rows: [ReplicaTable]) {
    for step in steps {
      switch step {
      case .apply(let table, let ids, let weights, let stamp):
        rows[table].apply(ids: ids.span, weights: weights.span, stamp: stamp)
      case .remove(let table, let ids): rows[table].remove(ids: ids.span)
      }
    }
  }
}

extension Array where Element: BitwiseCopyable {
  /// A copy of a span.
  fileprivate init(_ span: Span<Element>) {
    self.init()
    reserveCapacity(span.count)
    for index in span.indices { append(span[index]) }
  }
}
