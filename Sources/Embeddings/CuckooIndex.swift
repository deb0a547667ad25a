// The index of a table: where an id's row is. Every id has two candidate lines of five slots, 64 bytes each, so most
// look-ups cost one cache miss and none more than two.
// Invariant: an id is in at most one slot, in one of its two lines, or (when crafted ids collide) in the stash.
// Owned by the table's thread. CuckooGrowth.swift makes room and changes the number of lines.

internal import CKernels

/// Maps ids to 32-bit values: a row number, or a count with `pending` set.
@safe struct CuckooIndex: ~Copyable {
  static let empty: UInt32 = 0xFFFF_FFFF
  static let pending: UInt32 = 0x8000_0000
  static let slots = 5
  static let linesPerPiece = 1 << 15
  static let fewestLines: UInt32 = 16

  /// What the kernels read; lives on the heap so that its address is stable.
  let view: UnsafeMutablePointer<guira_index>
  var store: PageStore
  var used = 0
  var isGrowing = false
  /// The lowest piece that `prepare` has made for the growth under way or to come.
  var preparedPiece = Int.max
  /// Ids that no line can take.
  var stash: [Entry] = []
  /// Ids with pending values that moved to a lower line since this was emptied: a scan under way may have missed them.
  var movedPending: [UInt64] = []
  /// The smallest load at which the index, once it had 1,024 lines, began to grow.
  var lowestLoadAtGrowth = 1.0
  /// What the kernels say of ids they moved, until `noteMoves`.
  let moves: UnsafeMutablePointer<guira_moves>

  struct Entry {
    var id: UInt64
    var value: UInt32
  }

  init(salt: UInt64) {
    store = PageStore(pieceBytes: Self.linesPerPiece * MemoryLayout<guira_line>.stride)
    store.append()
    unsafe moves = .allocate(capacity: 1)
    unsafe moves.initialize(to: guira_moves())
    unsafe view = .allocate(capacity: 1)
    unsafe view.initialize(
      to: guira_index(
        pieces: store.pieces, salt: salt, bound: 1 << 32, low: Self.fewestLines, high: Self.fewestLines,
        low_used: Self.fewestLines))
    for line in 0..<Self.fewestLines { clear(line) }
  }

  deinit {
    unsafe view.deallocate()
    unsafe moves.deallocate()
  }

  // MARK: Lines

  @inline(__always) func hash(_ id: UInt64) -> UInt64 { unsafe guira_index_hash(view, id) }
  @inline(__always) func first(_ hash: UInt64) -> UInt32 { unsafe guira_index_first(view, hash) }
  @inline(__always) func second(_ hash: UInt64) -> UInt32 { unsafe guira_index_second(view, hash) }
  @inline(__always) func line(_ number: UInt32) -> UnsafeMutablePointer<guira_line> {
    unsafe guira_index_line(view, number)
  }

  func clear(_ number: UInt32) {
    unsafe guira_line_clear(line(number))
  }

  @inline(__always) func put(_ id: UInt64, _ value: UInt32, in number: UInt32) -> Bool {
    let line = unsafe line(number)
    let slot = unsafe guira_line_room(line)
    guard slot < Self.slots else { return false }
    unsafe guira_line_set(line, slot, id, value)
    return true
  }

  /// Calls `body` for every id of a line.
  func forEach(inLine number: UInt32, _ body: (UInt64, UInt32) -> Void) {
    guard isInUse(number) else { return }
    let line = unsafe line(number)
    for slot in 0..<UInt32(Self.slots) {
      let value = unsafe guira_line_value(line, slot)
      if value != Self.empty { body(unsafe guira_line_id(line, slot), value) }
    }
    if number == 0 { for entry in stash { body(entry.id, entry.value) } }
  }

  // MARK: One id

  /// The line and slot of an id that is not in the stash.
  @inline(__always) private func place(of id: UInt64) -> (line: UInt32, slot: UInt32)? {
    let hash = hash(id)
    let first = first(hash)
    let slot = unsafe guira_line_slot(line(first), id)
    if slot < Self.slots { return (first, slot) }
    let second = second(hash)
    let other = unsafe guira_line_slot(line(second), id)
    return other < Self.slots ? (second, other) : nil
  }

  private func stashPlace(of id: UInt64) -> Int? {
    stash.isEmpty ? nil : stash.firstIndex { $0.id == id }
  }

  /// The value of an id, `empty` when it has none.
  @inline(__always) func find(_ id: UInt64) -> UInt32 {
    if let place = place(of: id) { return unsafe guira_line_value(line(place.line), place.slot) }
    return findStashed(id)
  }

  /// The value of an id that the kernels, which do not know the stash, have not found.
  @inline(__always) func findStashed(_ id: UInt64) -> UInt32 {
    stashPlace(of: id).map { stash[$0].value } ?? Self.empty
  }

  /// Gives an id that is here another value.
  mutating func replace(_ id: UInt64, with value: UInt32) {
    if let place = place(of: id) {
      unsafe guira_line_set(line(place.line), place.slot, id, value)
    } else if let place = stashPlace(of: id) {
      stash[place].value = value
    } else {
      preconditionFailure("id \(id) is not in the index")
    }
  }

  /// Adds an id that is not here.
  /// - Returns: false when neither its lines nor the stash can take it, which only crafted ids bring about.
  mutating func insert(_ id: UInt64, value: UInt32) -> Bool {
    growIfNeeded()
    if !putSomewhere(id, value) {
      guard stash.count < Self.stashLimit else { return false }
      stash.append(Entry(id: id, value: value))
    }
    used += 1
    return true
  }

  /// Removes an id and says what its value was, `empty` when it was not here.
  @discardableResult mutating func remove(_ id: UInt64) -> UInt32 {
    let value: UInt32
    if let place = place(of: id) {
      let line = unsafe line(place.line)
      value = unsafe guira_line_value(line, place.slot)
      unsafe guira_line_set(line, place.slot, id, Self.empty)
    } else if let place = stashPlace(of: id) {
      value = stash.remove(at: place).value
    } else {
      return Self.empty
    }
    used -= 1
    shrinkIfNeeded()
    return value
  }
}
