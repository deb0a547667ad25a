// The index of a table: where an id's row is. Every id has two candidate lines of five slots, 64 bytes each, so most look-ups
// cost one cache miss and none more than two. The table of lines grows one line at a time (linear hashing: line i is split into i and
// i + base), so its load stays just under the limit and no operation pays for a whole rehash.
// Invariant: an id is in at most one slot, in one of its two lines. Owned by the table's thread.

internal import CKernels

/// Maps ids to 32-bit values: a row number, or a count with `pending` set.
@safe struct CuckooIndex: ~Copyable {
  static let empty: UInt32 = 0xFFFF_FFFF
  static let pending: UInt32 = 0x8000_0000
  static let slots = 5
  private static let firstLines: UInt32 = 4
  private static let linesPerPiece = 1 << 15
  /// Slots in use, of a thousand, from which every new id splits a line; and below which removals merge lines.
  static let growAt = 920
  static let shrinkAt = 350

  /// What the kernels read; lives on the heap so that its address is stable.
  let view: UnsafeMutablePointer<guira_index>
  private var store: PageStore
  private(set) var used = 0
  /// Ids of pending values that changed their slot since this was emptied: a scan under way may have missed them.
  var movedPending: [UInt64] = []
  private let path: UnsafeMutablePointer<PathNode>

  init(salt: UInt64) {
    store = PageStore(pieceBytes: Self.linesPerPiece * MemoryLayout<guira_line>.stride)
    unsafe view = .allocate(capacity: 1)
    unsafe path = .allocate(capacity: PathNode.limit)
    store.append()
    unsafe view.initialize(
      to: guira_index(pieces: store.pieces, salt: salt, base: Self.firstLines, lines: Self.firstLines))
    for line in 0..<Self.firstLines { clear(line) }
  }

  deinit {
    unsafe view.deallocate()
    unsafe path.deallocate()
  }

  var lines: UInt32 { unsafe view.pointee.lines }
  var load: Double { Double(used) / Double(Int(lines) * Self.slots) }
  var bytes: Int { Int(lines) * MemoryLayout<guira_line>.stride }
  /// True when one id more does not need a new line.
  var hasSlack: Bool { (used + 1) * 1000 <= Int(lines) * Self.slots * Self.growAt }
  private var base: UInt32 { unsafe view.pointee.base }

  @inline(__always) private func hash(_ id: UInt64) -> UInt64 { unsafe guira_index_hash(view, id) }
  @inline(__always) private func first(_ hash: UInt64) -> UInt32 { unsafe guira_index_first(view, hash) }
  @inline(__always) private func second(_ hash: UInt64) -> UInt32 { unsafe guira_index_second(view, hash) }
  @inline(__always) private func line(_ number: UInt32) -> UnsafeMutablePointer<guira_line> {
    unsafe guira_index_line(view, number)
  }

  private func clear(_ number: UInt32) {
    let line = unsafe line(number)
    for slot in 0..<UInt32(Self.slots) { unsafe guira_line_set(line, slot, 0, Self.empty) }
  }

  // MARK: One id

  /// The line and slot of an id.
  @inline(__always) private func place(of id: UInt64) -> (line: UInt32, slot: UInt32)? {
    let hash = hash(id)
    let first = first(hash)
    let slot = unsafe guira_line_slot(line(first), id)
    if slot < Self.slots { return (first, slot) }
    let second = second(hash)
    let other = unsafe guira_line_slot(line(second), id)
    return other < Self.slots ? (second, other) : nil
  }

  /// The value of an id, `empty` when it has none.
  @inline(__always) func find(_ id: UInt64) -> UInt32 {
    guard let place = place(of: id) else { return Self.empty }
    return unsafe guira_line_value(line(place.line), place.slot)
  }

  /// Gives an id that is here another value.
  mutating func replace(_ id: UInt64, with value: UInt32) {
    guard let place = place(of: id) else { preconditionFailure("id \(id) is not in the index") }
    unsafe guira_line_set(line(place.line), place.slot, id, value)
  }

  /// Adds an id that is not here.
  /// - Returns: false when its two lines are full and nothing can make way, which only crafted ids bring about.
  mutating func insert(_ id: UInt64, value: UInt32) -> Bool {
    if !hasSlack { split() }
    let hash = hash(id)
    for _ in 0..<16 {
      let first = first(hash)
      let second = second(hash)
      if put(id, value, in: first) || put(id, value, in: second) {
        used += 1
        return true
      }
      if makeRoom(first, second) { continue }
      guard used * 1000 > Int(lines) * Self.slots * 500 || lines < 256 else { return false }
      for _ in 0..<8 { split() }
    }
    return false
  }

  @inline(__always) private func put(_ id: UInt64, _ value: UInt32, in number: UInt32) -> Bool {
    let line = unsafe line(number)
    let slot = unsafe guira_line_room(line)
    guard slot < Self.slots else { return false }
    unsafe guira_line_set(line, slot, id, value)
    return true
  }

  /// Removes an id and says what its value was, `empty` when it was not here.
  @discardableResult mutating func remove(_ id: UInt64) -> UInt32 {
    guard let place = place(of: id) else { return Self.empty }
    let line = unsafe line(place.line)
    let value = unsafe guira_line_value(line, place.slot)
    unsafe guira_line_set(line, place.slot, id, Self.empty)
    used -= 1
    for _ in 0..<2 where used * 1000 < Int(lines) * Self.slots * Self.shrinkAt { guard merge() else { break } }
    return value
  }

  /// Calls `body` for every id of a line.
  func forEach(inLine number: UInt32, _ body: (UInt64, UInt32) -> Void) {
    let line = unsafe line(number)
    for slot in 0..<UInt32(Self.slots) {
      let value = unsafe guira_line_value(line, slot)
      if value != Self.empty { body(unsafe guira_line_id(line, slot), value) }
    }
  }

  // MARK: Making room

  /// A line reached from `parent` by moving what is in `slot` there.
  private struct PathNode {
    static let limit = 256
    var line: UInt32
    var parent: Int32
    var slot: UInt32
  }

  /// Frees a slot in one of two full lines by moving ids to their other lines along the shortest path (breadth first).
  private mutating func makeRoom(_ first: UInt32, _ second: UInt32) -> Bool {
    unsafe path[0] = PathNode(line: first, parent: -1, slot: 0)
    unsafe path[1] = PathNode(line: second, parent: -1, slot: 0)
    var end = 2
    var next = 0
    while next < end {
      let node = unsafe path[next]
      let here = unsafe line(node.line)
      let room = unsafe guira_line_room(here)
      if room < Self.slots {
        shift(from: next, room: room)
        return true
      }
      for slot in 0..<UInt32(Self.slots) where end < PathNode.limit {
        let hash = hash(unsafe guira_line_id(here, slot))
        let a = self.first(hash)
        let other = a == node.line ? self.second(hash) : a
        if other == node.line { continue }
        unsafe guira_prefetch(line(other))
        unsafe path[end] = PathNode(line: other, parent: Int32(next), slot: slot)
        end += 1
      }
      next += 1
    }
    return false
  }

  private mutating func shift(from node: Int, room: UInt32) {
    var node = node
    var room = room
    while unsafe path[node].parent >= 0 {
      let (to, slot, parent) = unsafe (path[node].line, path[node].slot, Int(path[node].parent))
      let from = unsafe line(path[parent].line)
      let (id, value) = unsafe (guira_line_id(from, slot), guira_line_value(from, slot))
      unsafe guira_line_set(line(to), room, id, value)
      unsafe guira_line_set(from, slot, id, Self.empty)
      if value & Self.pending != 0 { movedPending.append(id) }
      room = slot
      node = parent
    }
  }

  // MARK: Growing and shrinking

  /// Splits the next line in turn: what belongs in the new line moves there.
  private mutating func split() {
    let source = lines - base
    let target = lines
    precondition(target < 1 << 30, "an index of \(target) lines cannot grow")
    if Int(target) == store.count * Self.linesPerPiece {
      store.append()
      unsafe view.pointee.pieces = unsafe store.pieces
    }
    unsafe view.pointee.lines += 1
    if unsafe view.pointee.lines == 2 * view.pointee.base { unsafe view.pointee.base *= 2 }
    clear(target)
    let from = unsafe line(source)
    let to = unsafe line(target)
    var filled: UInt32 = 0
    for slot in 0..<UInt32(Self.slots) {
      let (id, value) = unsafe (guira_line_id(from, slot), guira_line_value(from, slot))
      if value == Self.empty { continue }
      let hash = hash(id)
      if first(hash) == source || second(hash) == source { continue }
      unsafe guira_line_set(to, filled, id, value)
      unsafe guira_line_set(from, slot, id, Self.empty)
      if value & Self.pending != 0 { movedPending.append(id) }
      filled += 1
    }
  }

  /// Undoes the latest split. False when there are too many ids for one line, or the index is at its smallest.
  private mutating func merge() -> Bool {
    guard lines > Self.firstLines else { return false }
    let last = lines - 1
    let from = unsafe line(last)
    let wide = base == lines ? base / 2 : base
    let target = last - wide
    let to = unsafe line(target)
    var taken = 0
    for slot in 0..<UInt32(Self.slots) where unsafe guira_line_value(from, slot) != Self.empty { taken += 1 }
    for slot in 0..<UInt32(Self.slots) where unsafe guira_line_value(to, slot) != Self.empty { taken += 1 }
    guard taken <= Self.slots else { return false }
    for slot in 0..<UInt32(Self.slots) {
      let (id, value) = unsafe (guira_line_id(from, slot), guira_line_value(from, slot))
      guard value != Self.empty else { continue }
      unsafe guira_line_set(to, guira_line_room(to), id, value)
      if value & Self.pending != 0 { movedPending.append(id) }
    }
    unsafe view.pointee.base = wide
    unsafe view.pointee.lines = last
    if Int(last) + Self.linesPerPiece / 2 < (store.count - 1) * Self.linesPerPiece { store.removeLast() }
    return true
  }
}
