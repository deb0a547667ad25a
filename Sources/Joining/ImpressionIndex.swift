// From impression id to slot number. Ids are hashed once by `ImpressionID.hash64`, and every event looks one up, so this
// is an open-addressing table with linear probing: one cache line touched in most look-ups. A removal shifts later
// entries back, so that there are no gravestones and a table that stays the same size never needs to be rebuilt.

internal import Base
internal import Streams

/// A map from `ImpressionID` to `UInt32`.
struct ImpressionIndex {
  private struct Entry: BitwiseCopyable {
    var id: ImpressionID
    var value: UInt32
    var isUsed: Bool
  }

  private static let unused = Entry(id: ImpressionID(0), value: 0, isUsed: false)
  private var entries: [Entry]
  private var mask: Int
  /// Differs from process to process, so that nobody can send ids that all want the same place.
  ///
  /// Nothing that leaves the joiner depends on it.
  private let seed = UInt64.random(in: 0 ... .max)
  /// How many ids are in it.
  private(set) var count = 0

  init() {
    entries = Array(repeating: ImpressionIndex.unused, count: 16)
    mask = 15
  }

  /// The value of an id, or nil; setting nil removes it.
  subscript(id: ImpressionID) -> UInt32? {
    get {
      let place = place(of: id)
      return entries[place].isUsed ? entries[place].value : nil
    }
    set {
      guard let newValue else { return remove(id) }
      let place = place(of: id)
      if entries[place].isUsed {
        entries[place].value = newValue
        return
      }
      entries[place] = Entry(id: id, value: newValue, isUsed: true)
      count += 1
      if count * 3 > entries.count * 2 { grow() }
    }
  }

  /// Where an id is, or the unused place where it would go.
  private func place(of id: ImpressionID) -> Int {
    var place = home(of: id)
    while entries[place].isUsed, entries[place].id != id { place = (place + 1) & mask }
    return place
  }

  private func home(of id: ImpressionID) -> Int {
    Int(truncatingIfNeeded: Hashing.mix(id.hash64 ^ seed)) & mask
  }

  private mutating func remove(_ id: ImpressionID) {
    var gap = place(of: id)
    guard entries[gap].isUsed else { return }
    count -= 1
    var next = gap
    while true {
      next = (next + 1) & mask
      guard entries[next].isUsed else { break }
      // An entry may move into the gap when its home is not between the gap and itself.
      let distance = (next - home(of: entries[next].id)) & mask
      if distance >= (next - gap) & mask {
        entries[gap] = entries[next]
        gap = next
      }
    }
    entries[gap] = ImpressionIndex.unused
  }

  private mutating func grow() {
    let old = entries
    entries = Array(repeating: ImpressionIndex.unused, count: old.count * 2)
    mask = entries.count - 1
    for entry in old where entry.isUsed { entries[place(of: entry.id)] = entry }
  }
}
