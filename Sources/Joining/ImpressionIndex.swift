// What is known of every impression id, in 24 bytes and a cell of 8: this is what bounds how many impressions may be
// pending. Cells are an open-addressing table with linear probing that holds 32 bits of the hash beside the entry's number,
// so a look-up touches one cell line and one entry, and neither growth nor removal looks at ids. A removal shifts later
// cells back, so that there are no gravestones. Entries lie in chunks and never move.

internal import Base
internal import Streams

/// What is known of an impression id.
enum Known: Equatable {
  /// It has this slot in the table.
  case slot(Int)
  /// It is done and remembered; the entry remembered before it in the same minute, or nil.
  case remembered(next: UInt32?)
  /// It is in the store, under this due time.
  case stored(due: Milliseconds)
}

/// A map from `ImpressionID` to what is known of it.
struct ImpressionIndex {
  private struct Entry: BitwiseCopyable {
    var id: ImpressionID
    /// A `Known`, or the next free entry.
    var word: UInt64
  }

  private static let chunkBits = 16
  private static let none = UInt32.max
  private var chunks: [ContiguousArray<Entry>] = []
  private var entryCount = 0
  private var firstFree = ImpressionIndex.none
  /// 0, or 32 bits of the hash above the number of the entry plus 1.
  private var cells: [UInt64]
  private var mask: Int
  private var shift: UInt32
  /// Differs from process to process, so that nobody can send ids that all want the same place.
  ///
  /// Nothing that leaves the joiner depends on it.
  private let seed = UInt64.random(in: 0 ... .max)
  /// How many ids are in it.
  private(set) var count = 0

  init() {
    cells = Array(repeating: 0, count: 16)
    mask = 15
    shift = 28
  }

  /// The memory it takes.
  var bytes: Int { cells.count * MemoryLayout<UInt64>.stride + entryCount * MemoryLayout<Entry>.stride }

  /// What is known of an id; setting nil forgets it.
  subscript(id: ImpressionID) -> Known? {
    get { find(id).map { known(of: $0) } }
    set {
      if let newValue { _ = set(id, newValue) } else { remove(id) }
    }
  }

  /// The number of an id's entry, which stays the same until the id is removed.
  func find(_ id: ImpressionID) -> UInt32? {
    let cell = cells[place(of: id, hash(of: id))]
    return cell == 0 ? nil : UInt32(truncatingIfNeeded: cell) &- 1
  }

  func known(of entry: UInt32) -> Known { Known(word: word(of: entry)) }

  func id(of entry: UInt32) -> ImpressionID {
    chunks[Int(entry) >> Self.chunkBits][Int(entry) & (1 << Self.chunkBits - 1)].id
  }

  /// Puts an id in, or changes what is known of it; gives its entry.
  mutating func set(_ id: ImpressionID, _ known: Known) -> UInt32 {
    let hash = hash(of: id)
    let place = place(of: id, hash)
    if cells[place] != 0 {
      let entry = UInt32(truncatingIfNeeded: cells[place]) &- 1
      setWord(known.word, of: entry)
      return entry
    }
    let entry = makeEntry(Entry(id: id, word: known.word))
    cells[place] = UInt64(hash) << 32 | UInt64(entry + 1)
    count += 1
    if count * 4 > cells.count * 3 { grow() }
    return entry
  }

  private func hash(of id: ImpressionID) -> UInt32 {
    UInt32(truncatingIfNeeded: Hashing.mix(id.hash64 ^ seed) >> 32)
  }

  /// Where an id's cell is, or the empty one where it would go.
  private func place(of id: ImpressionID, _ hash: UInt32) -> Int {
    var place = Int(hash >> shift)
    while case let cell = cells[place], cell != 0 {
      if UInt32(truncatingIfNeeded: cell >> 32) == hash, self.id(of: UInt32(truncatingIfNeeded: cell) &- 1) == id {
        break
      }
      place = (place + 1) & mask
    }
    return place
  }

  private mutating func remove(_ id: ImpressionID) {
    var gap = place(of: id, hash(of: id))
    guard cells[gap] != 0 else { return }
    let entry = UInt32(truncatingIfNeeded: cells[gap]) &- 1
    setWord(UInt64(firstFree), of: entry)
    firstFree = entry
    count -= 1
    var next = gap
    while true {
      next = (next + 1) & mask
      guard cells[next] != 0 else { break }
      // A cell may move into the gap when its home is not between the gap and itself.
      let home = Int(UInt32(truncatingIfNeeded: cells[next] >> 32) >> shift)
      if (next - home) & mask >= (next - gap) & mask {
        cells[gap] = cells[next]
        gap = next
      }
    }
    cells[gap] = 0
  }

  private mutating func grow() {
    let old = cells
    cells = Array(repeating: 0, count: old.count * 2)
    mask = cells.count - 1
    shift -= 1
    for cell in old where cell != 0 {
      var place = Int(UInt32(truncatingIfNeeded: cell >> 32) >> shift)
      while cells[place] != 0 { place = (place + 1) & mask }
      cells[place] = cell
    }
  }

  // MARK: - Entries

  private mutating func makeEntry(_ entry: Entry) -> UInt32 {
    if firstFree != Self.none {
      let free = firstFree
      firstFree = UInt32(truncatingIfNeeded: word(of: free))
      chunks[Int(free) >> Self.chunkBits][Int(free) & (1 << Self.chunkBits - 1)] = entry
      return free
    }
    precondition(entryCount < Int(UInt32.max) - 1, "2^32 impressions are known")
    if entryCount & (1 << Self.chunkBits - 1) == 0 {
      chunks.append([])
      // The first one grows as it fills: most joins are small.
      if entryCount > 0 { chunks[chunks.count - 1].reserveCapacity(1 << Self.chunkBits) }
    }
    chunks[chunks.count - 1].append(entry)
    entryCount += 1
    return UInt32(entryCount - 1)
  }

  private func word(of entry: UInt32) -> UInt64 {
    chunks[Int(entry) >> Self.chunkBits][Int(entry) & (1 << Self.chunkBits - 1)].word
  }

  private mutating func setWord(_ word: UInt64, of entry: UInt32) {
    chunks[Int(entry) >> Self.chunkBits][Int(entry) & (1 << Self.chunkBits - 1)].word = word
  }
}

extension Known {
  /// Due times that fit beside the two bits that tell the cases apart; further ones stay in memory.
  static let storableDues: Range<Milliseconds> = -(1 << 60)..<(1 << 60)

  fileprivate var word: UInt64 {
    switch self {
    case .slot(let slot): UInt64(slot)
    case .remembered(let next): 1 << 62 | (next.map { UInt64($0) + 1 } ?? 0)
    case .stored(let due): 2 << 62 | UInt64(bitPattern: due - Self.storableDues.lowerBound)
    }
  }

  fileprivate init(word: UInt64) {
    let rest = word & (1 << 62 - 1)
    switch word >> 62 {
    case 0: self = .slot(Int(rest))
    case 1: self = .remembered(next: rest == 0 ? nil : UInt32(truncatingIfNeeded: rest - 1))
    default: self = .stored(due: Int64(rest) + Self.storableDues.lowerBound)
    }
  }
}
