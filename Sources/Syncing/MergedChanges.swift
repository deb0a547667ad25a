// What changed since the last version, merged from blocks: the last write of an id wins, optimizer state is left out.

internal import Base
internal import Embeddings

/// The changes of one table, by id.
struct MergedTable {
  let name: String
  let weightCount: Int
  private var places: [UInt64: Int32] = [:]
  private var weights: [Float] = []
  private var tombstones: Set<UInt64> = []

  init(name: String, weightCount: Int) {
    self.name = name
    self.weightCount = weightCount
  }

  var rowCount: Int { places.count }
  var tombstoneCount: Int { tombstones.count }
  var isEmpty: Bool { places.isEmpty && tombstones.isEmpty }

  /// Applies one section of a block: removed ids first, then rows.
  mutating func merge(_ section: CutSection) throws(DecodeError) {
    guard section.weightCount == weightCount else {
      throw .invalid(field: "weights per row of \(name)", value: "\(section.weightCount)", expected: "\(weightCount)")
    }
    let gone = section.tombstones.span
    for index in 0..<gone.count {
      tombstones.insert(gone[index])
      places[gone[index]] = nil
    }
    let ids = section.ids.span
    for index in 0..<ids.count {
      tombstones.remove(ids[index])
      if let place = places[ids[index]] {
        overwrite(Int(place), with: section.weights(index))
      } else {
        places[ids[index]] = Int32(weights.count / max(1, weightCount))
        append(section.weights(index))
      }
    }
  }

  private mutating func overwrite(_ place: Int, with row: Span<Float>) {
    let start = place * row.count
    var target = weights.mutableSpan
    for column in row.indices { target[start + column] = row[column] }
  }

  private mutating func append(_ row: Span<Float>) {
    for column in 0..<weightCount { weights.append(row[column]) }
  }

  /// The change as a version holds it, ids ascending; empties the table.
  mutating func take() -> TableChange {
    let ids = places.keys.sorted()
    var rows = ByteWriter(capacity: ids.count * weightCount * 4)
    for id in ids {
      let place = Int(places[id] ?? 0) * weightCount
      rows.append(span: weights.span.extracting(place..<(place + weightCount)))
    }
    let count = ids.count * weightCount
    guard let view = try? View<Float>(rows.finish(), byteOffset: 0, count: count) else {
      preconditionFailure("\(count) floats were just written")
    }
    let change = TableChange(
      table: name, weightCount: weightCount, tombstones: tombstones.sorted(), ids: ids, weights: view)
    places.removeAll(keepingCapacity: true)
    weights.removeAll(keepingCapacity: true)
    tombstones.removeAll(keepingCapacity: true)
    return change
  }
}
