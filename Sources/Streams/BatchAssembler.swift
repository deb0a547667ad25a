// Turns the feature columns of a batch into what tables and models want: per table the distinct ids, each with its number
// of sightings, and per feature the row number of every value. Trainer and predictor share it, so that both see the same
// batch. It keeps its memory from batch to batch and belongs to one thread.

internal import Base

/// Finds the distinct ids of a batch, table by table.
public struct BatchAssembler: Sendable {
  /// The table each feature of the schema looks its ids up in; nil for dense features and those the model does not use.
  public let tableOfFeature: [Int?]
  /// Per table: the distinct ids in the order of their first sighting, feature after feature.
  public private(set) var uniqueIds: [[UInt64]]
  /// Per table: how often each of `uniqueIds` occurs in the batch.
  public private(set) var sightings: [[UInt32]]
  /// Per feature of the schema: for every id of its column, the place of that id in its table's `uniqueIds`.
  public private(set) var rowNumbers: [[Int32]]

  private let featuresOfTable: [[Int]]
  /// Open addressing with linear probing: -1 is free, else a place in `uniqueIds`.
  ///
  /// A table uses a power of two of slots from the front, at most half of them taken.
  private var slots: [Int32] = []
  /// Ids come from outside; nobody can send ids that all probe from one slot without knowing this.
  private let secret = UInt64.random(in: 0 ... .max)

  /// An assembler for tables `0..<tableCount`.
  public init(tableOfFeature: [Int?], tableCount: Int) {
    self.tableOfFeature = tableOfFeature
    featuresOfTable = (0..<tableCount).map { table in
      tableOfFeature.indices.filter { tableOfFeature[$0] == table }
    }
    uniqueIds = Array(repeating: [], count: tableCount)
    sightings = Array(repeating: [], count: tableCount)
    rowNumbers = Array(repeating: [], count: tableOfFeature.count)
    for case let table? in tableOfFeature {
      precondition(table >= 0 && table < tableCount, "table \(table) of \(tableCount)")
    }
  }

  /// Replaces `uniqueIds`, `sightings` and `rowNumbers` by those of `columns`.
  /// - Complexity: O(ids); allocates only for a batch larger than those before.
  public mutating func assemble(_ columns: FeatureColumns) {
    precondition(columns.ids.count == tableOfFeature.count, "\(columns.ids.count) columns, not \(tableOfFeature.count)")
    for table in featuresOfTable.indices {
      var unique: [UInt64] = []
      var counts: [UInt32] = []
      swap(&unique, &uniqueIds[table])
      swap(&counts, &sightings[table])
      unique.removeAll(keepingCapacity: true)
      counts.removeAll(keepingCapacity: true)
      let mask = clearSlots(for: featuresOfTable[table].reduce(0) { $0 + columns.ids[$1].count })
      for feature in featuresOfTable[table] {
        number(columns.ids[feature], feature: feature, unique: &unique, counts: &counts, mask: mask)
      }
      swap(&unique, &uniqueIds[table])
      swap(&counts, &sightings[table])
    }
  }

  /// Frees enough slots for `count` ids; gives the mask of slot numbers.
  private mutating func clearSlots(for count: Int) -> Int {
    var capacity = 4
    while capacity < 2 * count { capacity *= 2 }
    if slots.count < capacity { slots = Array(repeating: -1, count: capacity) }
    var free = slots.mutableSpan
    for slot in 0..<capacity { free[slot] = -1 }
    return capacity - 1
  }

  private mutating func number(
    _ ids: [UInt64], feature: Int, unique: inout [UInt64], counts: inout [UInt32], mask: Int
  ) {
    var rows: [Int32] = []
    var table: [Int32] = []
    swap(&rows, &rowNumbers[feature])
    swap(&table, &slots)
    rows.removeAll(keepingCapacity: true)
    defer {
      swap(&rows, &rowNumbers[feature])
      swap(&table, &slots)
    }
    var slots = table.mutableSpan
    for id in ids {
      var slot = Int(truncatingIfNeeded: Hashing.mix(id ^ secret)) & mask
      while true {
        let place = slots[slot]
        if place < 0 {
          slots[slot] = Int32(unique.count)
          rows.append(Int32(unique.count))
          unique.append(id)
          counts.append(1)
          break
        }
        if unique[Int(place)] == id {
          counts[Int(place)] += 1
          rows.append(place)
          break
        }
        slot = (slot + 1) & mask
      }
    }
  }
}
