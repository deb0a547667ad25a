// What changed and is in no version yet, merged from blocks: the last write of an id wins, optimizer state is left out.
//
// Rows may wait here over several versions, when a byte budget is set or while replicas are pinned; removals never wait.
// So an id that was removed and has a row again is in both lists, and what is published of the two depends on whether
// the row goes along.

internal import Base
internal import Embeddings

/// The changes of one table, by id.
struct MergedTable {
  /// A row that waits, as far as choosing among them needs.
  struct Waiting {
    var id: UInt64
    var place: Int32
    /// The first epoch whose change of it is in no version.
    var since: UInt64
  }

  let name: String
  let weightCount: Int
  private var places: [UInt64: Int32] = [:]
  private var weights: [Float] = []
  /// By place: the shard the row is from, and the epoch it waits since.
  private var origins: [(shard: Int, epoch: UInt64)] = []
  private var removed: Set<UInt64> = []

  init(name: String, weightCount: Int) {
    self.name = name
    self.weightCount = weightCount
  }

  var rowCount: Int { places.count }
  var isEmpty: Bool { places.isEmpty && removed.isEmpty }
  var hasRemovals: Bool { !removed.isEmpty }
  /// Memory the rows take, about.
  var byteCount: Int { weights.count * 4 + places.count * 48 }

  /// Makes room for so many more rows.
  mutating func reserve(_ count: Int) {
    // Never by less than half, or many small steps would each copy everything.
    guard places.count + count > places.capacity else { return }
    places.reserveCapacity(max(places.count + count, places.capacity * 3 / 2))
  }

  /// Applies one section of a block: removed ids first, then rows.
  mutating func merge(_ section: CutSection, shard: Int, epoch: UInt64) throws(DecodeError) {
    guard section.weightCount == weightCount else {
      throw .invalid(field: "weights per row of \(name)", value: "\(section.weightCount)", expected: "\(weightCount)")
    }
    let gone = section.tombstones.span
    for index in 0..<gone.count { remove(gone[index]) }
    let ids = section.ids.span
    reserve(ids.count)
    for index in 0..<ids.count { set(ids[index], section.weights(index), shard: shard, epoch: epoch) }
  }

  /// An id is gone.
  mutating func remove(_ id: UInt64) {
    removed.insert(id)
    places[id] = nil
  }

  /// An id has this row now.
  mutating func set(_ id: UInt64, _ row: Span<Float>, shard: Int = 0, epoch: UInt64 = 0) {
    if let place = places[id] {
      let start = Int(place) * row.count
      var target = weights.mutableSpan
      for column in row.indices { target[start + column] = row[column] }
    } else {
      places[id] = Int32(origins.count)
      // At once: wide rows cost as much here as everywhere else on their way.
      unsafe row.withUnsafeBufferPointer { unsafe weights.append(contentsOf: $0) }
      origins.append((shard, epoch))
    }
  }

  /// All of another table's rows, unless this one knows the id; and its removals.
  mutating func setUnknown(_ other: MergedTable) {
    for (id, place) in other.places where places[id] == nil && !removed.contains(id) {
      set(id, other.weights.span.extracting(other.range(of: place)))
    }
    for id in other.removed where places[id] == nil { removed.insert(id) }
  }

  /// Ids that another table has removed are removed here too.
  mutating func remove(removedIn other: MergedTable) {
    for id in other.removed { remove(id) }
  }

  /// Hands a waiting row to `body`.
  func withRow<Result>(_ place: Int32, _ body: (Span<Float>) -> Result) -> Result {
    body(weights.span.extracting(range(of: place)))
  }

  private func range(of place: Int32) -> Range<Int> {
    Int(place) * weightCount..<(Int(place) + 1) * weightCount
  }

  /// The rows that wait, in no order.
  var waiting: [Waiting] {
    places.map { Waiting(id: $0.key, place: $0.value, since: origins[Int($0.value)].epoch) }
  }

  /// Per shard the first epoch of which a row waits.
  func oldest(shardCount: Int) -> [UInt64?] {
    var oldest = [UInt64?](repeating: nil, count: shardCount)
    for place in places.values {
      let origin = origins[Int(place)]
      oldest[origin.shard] = min(oldest[origin.shard] ?? .max, origin.epoch)
    }
    return oldest
  }

  /// Forgets rows, but not removals.
  mutating func dropRows() {
    places = [:]
    weights = []
    origins = []
  }

  /// The removals and no rows: an id that has a row again is removed as well, for the row waits.
  mutating func takeRemovals() -> TableChange {
    defer { removed = [] }
    return TableChange(
      table: name, weightCount: weightCount, tombstones: removed.sorted(), ids: [], weights: View(copying: []))
  }

  /// The removals and these rows as a version holds them; nil takes all rows.
  mutating func take(_ chosen: [UInt64]? = nil) -> TableChange {
    let ids = (chosen ?? Array(places.keys)).sorted()
    let count = ids.count * weightCount
    var rows = ByteWriter(capacity: max(64, count * 4))
    for id in ids {
      guard let place = places[id] else { preconditionFailure("row \(id) of \(name) was chosen and is not there") }
      rows.append(span: weights.span.extracting(range(of: place)))
      removed.remove(id)
    }
    guard let view = try? View<Float>(rows.finish(), byteOffset: 0, count: count) else {
      preconditionFailure("\(count) floats were just written")
    }
    let change = TableChange(
      table: name, weightCount: weightCount, tombstones: removed.sorted(), ids: ids, weights: view)
    removed = []
    if ids.count == places.count {
      reset(after: ids.count)
    } else {
      for id in ids { places[id] = nil }
      pack()
    }
    return change
  }

  /// Empty, with memory for about as many rows again: clearing costs what there is room for.
  private mutating func reset(after count: Int) {
    let isRoomy = places.capacity > 4 * count + 1024
    places.removeAll(keepingCapacity: !isRoomy)
    weights.removeAll(keepingCapacity: !isRoomy)
    origins.removeAll(keepingCapacity: !isRoomy)
  }

  /// Closes the gaps between the rows that are left.
  private mutating func pack() {
    var packed = MergedTable(name: name, weightCount: weightCount)
    for (id, place) in places {
      let origin = origins[Int(place)]
      packed.set(id, weights.span.extracting(range(of: place)), shard: origin.shard, epoch: origin.epoch)
    }
    self = packed
  }
}
