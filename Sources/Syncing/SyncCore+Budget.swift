// A byte budget per version: when more rows changed than fit, those that moved most since they were last shipped go
// first. A quarter of the budget goes to those that wait longest, so that a row that hardly moves comes too. Removals are
// outside the budget.

internal import Base

/// Rows of one table as they were last shipped, to tell how far each has moved.
///
/// Kept only while there is a budget: four bytes per weight and about 40 per row.
struct ShippedRows {
  private var places: [UInt64: Int32] = [:]
  private var weights: [Float] = []
  private var free: [Int32] = []

  /// Takes what a version or a part of a base holds.
  mutating func note(_ change: TableChange) {
    for id in change.tombstones {
      if let place = places.removeValue(forKey: id) { free.append(place) }
    }
    let width = change.weightCount
    let rows = change.weights.span
    for (index, id) in change.ids.enumerated() {
      let place: Int
      if let known = places[id] ?? free.popLast() {
        place = Int(known)
        places[id] = known
      } else {
        place = weights.count / width
        places[id] = Int32(place)
        weights.append(contentsOf: repeatElement(0, count: width))
      }
      var target = weights.mutableSpan
      for column in 0..<width { target[place * width + column] = rows[index * width + column] }
    }
  }

  /// The square of how far a row has moved; of its whole length when it was never shipped.
  func movement(_ id: UInt64, _ row: Span<Float>) -> Float {
    var sum: Float = 0
    if let place = places[id] {
      let known = weights.span
      for column in row.indices {
        let step = row[column] - known[Int(place) * row.count + column]
        sum += step * step
      }
    } else {
      for column in row.indices { sum += row[column] * row[column] }
    }
    return sum
  }
}

extension SyncCore {
  private struct Candidate {
    var table: Int
    var id: UInt64
    var since: UInt64
    var movement: Float
    var bytes: Int
  }

  /// The rows that go into the next version, by table; nil for all.
  func chooseRows() -> [String: [UInt64]]? {
    // An order to return, or to go on, ships everything first.
    guard let budget = options.versionBytes, order == nil else { return nil }
    let names = tables.keys.sorted()
    let total = names.reduce(0) { $0 + (tables[$1]?.rowCount ?? 0) * rowBytes(of: $1) }
    guard total > budget else { return nil }
    var candidates: [Candidate] = []
    for (index, name) in names.enumerated() {
      guard let table = tables[name] else { continue }
      let known = shipped[name] ?? ShippedRows()
      let bytes = rowBytes(of: name)
      for row in table.waiting {
        candidates.append(
          Candidate(
            table: index, id: row.id, since: row.since,
            movement: table.withRow(row.place) { known.movement(row.id, $0) },
            bytes: bytes))
      }
    }
    // In a total order, so that equal runs choose equal rows.
    func movesMore(_ left: Candidate, _ right: Candidate) -> Bool {
      if left.movement != right.movement { return left.movement > right.movement }
      return (left.table, left.id) < (right.table, right.id)
    }
    candidates.sort { $0.since != $1.since ? $0.since < $1.since : movesMore($0, $1) }
    var chosen: [String: [UInt64]] = [:]
    var room = budget
    func take(_ share: Int, of rows: ArraySlice<Candidate>) -> Int {
      var taken = 0
      let floor = room - share
      for row in rows {
        // One row at least, however small the budget is.
        guard room - row.bytes >= floor || chosen.isEmpty else { break }
        room -= row.bytes
        chosen[names[row.table], default: []].append(row.id)
        taken += 1
      }
      return taken
    }
    let longest = take(budget / 4, of: candidates[...])
    let rest = candidates[longest...].sorted(by: movesMore)
    _ = take(room, of: rest[...])
    return chosen
  }

  private func rowBytes(of table: String) -> Int {
    5 + (tables[table]?.weightCount ?? 0) * (options.halfPrecision ? 2 : 4)
  }

  /// Remembers what replicas will have.
  mutating func noteShipped(_ changes: [TableChange]) {
    guard options.versionBytes != nil else { return }
    for change in changes { shipped[change.table, default: ShippedRows()].note(change) }
  }
}
