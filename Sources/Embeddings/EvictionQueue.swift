// Finds the row to evict: the smallest by (rank, id), exactly, without any bookkeeping when rows are touched. Ranks
// only grow, so a rank noted earlier is a lower bound: a candidate is checked when it comes up, and put back if it
// has grown. Candidates are all rows up to a bound; the next lot is gathered in slices while this one is used. Owned
// by the table's thread.

/// What decides who goes first.
struct EvictionRank: Comparable, BitwiseCopyable {
  /// Seconds last seen (LRU), or frequency and then seconds (LFU).
  var rank: UInt64
  var id: UInt64
  static let highest = EvictionRank(rank: .max, id: .max)
  @inline(__always) static func < (left: EvictionRank, right: EvictionRank) -> Bool {
    left.rank == right.rank ? left.id < right.id : left.rank < right.rank
  }
}

/// Candidates for eviction, in a heap, and the next lot being gathered.
struct EvictionQueue {
  struct Candidate { var key: EvictionRank; var row: UInt32 }

  /// A part of the rows is gathered at a time: one in this many.
  private static let part = 32
  private var heap: [Candidate] = []
  /// Every live row whose rank is at most this is in `heap`.
  private var bound: EvictionRank?
  private var next: [Candidate] = []
  private var nextBound: EvictionRank?
  private var cursor: UInt32 = 0

  /// Forgets all, when rows were changed in another way than by growing.
  mutating func reset() { self = EvictionQueue() }

  /// A row was made: it may belong among the candidates.
  mutating func created(_ row: UInt32, _ key: EvictionRank) {
    if let bound, key <= bound { Self.push(&heap, Candidate(key: key, row: row)) }
    if let nextBound, key <= nextBound { next.append(Candidate(key: key, row: row)) }
  }

  /// Looks at some rows for the next lot of candidates.
  mutating func gather(_ rows: borrowing RowStore, ranking: Eviction) {
    let left = Int(rows.end) - Int(cursor)
    guard nextBound != nil || bound != .highest else { return }
    if nextBound == nil { nextBound = Self.chooseBound(rows, ranking: ranking) }
    guard left > 0, let nextBound else { return }
    let slice = max(64, left / max(1, heap.count) + 1)
    for row in cursor..<cursor + UInt32(min(slice, left)) where rows.isLive(row) {
      let key = ranking.rank(of: row, in: rows)
      if key <= nextBound { next.append(Candidate(key: key, row: row)) }
    }
    cursor += UInt32(min(slice, left))
  }

  /// The row that goes first.
  ///
  /// Only nil when there are no rows.
  mutating func first(_ rows: borrowing RowStore, ranking: Eviction) -> UInt32? {
    while true {
      while let top = Self.pop(&heap) {
        guard top.row < rows.end, rows.isLive(top.row), rows.id(top.row) == top.key.id else { continue }
        let key = ranking.rank(of: top.row, in: rows)
        if key == top.key { return top.row }
        if let bound, key <= bound { Self.push(&heap, Candidate(key: key, row: top.row)) }
      }
      guard rows.count > 0 else { return nil }
      if bound == .highest { bound = nil }
      while nextBound == nil || cursor < rows.end { gather(rows, ranking: ranking) }
      heap = next
      for index in stride(from: heap.count / 2 - 1, through: 0, by: -1) { Self.sink(&heap, index) }
      bound = nextBound
      next = []
      nextBound = nil
      cursor = 0
    }
  }

  /// A rank that about one row in `part` does not exceed: from a sample, or no bound at all for a small table.
  private static func chooseBound(_ rows: borrowing RowStore, ranking: Eviction) -> EvictionRank {
    guard rows.count > 4096 else { return .highest }
    var sample: [EvictionRank] = []
    let step = max(1, rows.end / 1024)
    for row in stride(from: 0, to: rows.end, by: Int(step)) where rows.isLive(row) {
      sample.append(ranking.rank(of: row, in: rows))
    }
    sample.sort()
    return sample.count < part * 4 ? .highest : sample[sample.count / part]
  }

  // MARK: A binary heap, smallest first

  private static func push(_ heap: inout [Candidate], _ candidate: Candidate) {
    heap.append(candidate)
    var child = heap.count - 1
    while child > 0, heap[child].key < heap[(child - 1) / 2].key {
      heap.swapAt(child, (child - 1) / 2)
      child = (child - 1) / 2
    }
  }

  private static func pop(_ heap: inout [Candidate]) -> Candidate? {
    guard let top = heap.first, let last = heap.popLast() else { return nil }
    if !heap.isEmpty {
      heap[0] = last
      sink(&heap, 0)
    }
    return top
  }

  private static func sink(_ heap: inout [Candidate], _ start: Int) {
    var parent = start
    while true {
      var child = 2 * parent + 1
      guard child < heap.count else { return }
      if child + 1 < heap.count, heap[child + 1].key < heap[child].key { child += 1 }
      guard heap[child].key < heap[parent].key else { return }
      heap.swapAt(child, parent)
      parent = child
    }
  }
}

extension Eviction {
  /// A row's rank, from its metadata alone.
  @inline(__always) func rank(of row: UInt32, in rows: borrowing RowStore) -> EvictionRank {
    let seen = UInt64(rows.seen(row))
    let rank = self == .lru ? seen : UInt64(rows.frequency(row)) << 32 | seen
    return EvictionRank(rank: rank, id: rows.id(row))
  }
}
