// How the index makes room. A full pair of lines: ids move to their other lines along the shortest path. A full
// index: it grows by an eighth, in place and a few lines per new id. Hashes are spread evenly over n lines (hash · n
// / 2^32), so the lines of a larger size are the old ones pulled apart in the same order; taking them from the last
// to the first, what a line pulled apart needs is always free already. The bound between old and new is a hash.
// Shrinking is the same, backwards.

internal import CKernels

extension CuckooIndex {
  /// Growth begins at this load, in thousandths, and adds an eighth; shrinking begins below the other.
  static let growAt = 905
  static let shrinkAt = 450
  /// Lines pulled apart or together for every id that comes or goes, while between two sizes.
  private static let pace = 4
  static let stashLimit = 64

  // MARK: Size

  private var isBetweenSizes: Bool { unsafe view.pointee.low != view.pointee.high }

  /// One more than the highest line in use.
  var lines: UInt32 { unsafe view.pointee.high }

  /// The first line in use of the larger size, while between two sizes.
  private var highStart: UInt32 {
    let product = unsafe view.pointee.bound * UInt64(view.pointee.high)
    return UInt32(product >> 32)
  }

  @inline(__always) func isInUse(_ line: UInt32) -> Bool {
    line < lowLines || isBetweenSizes && line >= highStart && line < lines
  }

  private var linesInUse: Int { Int(lowLines) + (isBetweenSizes ? Int(lines - highStart) : 0) }
  var load: Double { Double(used) / Double(linesInUse * Self.slots) }
  var bytes: Int { linesInUse * MemoryLayout<guira_line>.stride }

  /// True when one id more fits before the load is what makes the index grow.
  var isBelowGrowth: Bool { (used + 1) * 1000 <= linesInUse * Self.slots * Self.growAt }
  private var hasSlack: Bool { !isBetweenSizes && (used + 1) * 1000 <= Int(lines) * Self.slots * Self.growAt }

  @inline(__always) mutating func growIfNeeded() {
    if hasSlack { return }
    if !isBetweenSizes {
      beginGrowing()
    } else if !isGrowing {
      guard used * 1000 > Int(unsafe view.pointee.low) * Self.slots * Self.growAt else { return }
      isGrowing = true
    }
    for _ in 0..<Self.pace where isBetweenSizes { pullApart() }
  }

  @inline(__always) mutating func shrinkIfNeeded() {
    if !isBetweenSizes {
      guard used * 1000 < Int(lines) * Self.slots * Self.shrinkAt, lines > Self.fewestLines else { return }
      beginShrinking()
    }
    if isGrowing { return }
    for _ in 0..<Self.pace where isBetweenSizes { pullTogether() }
  }

  private mutating func beginGrowing() {
    let larger = lines + max(1, lines / 8)
    precondition(larger < 1 << 30, "an index of \(lines) lines cannot grow")
    if lines >= 1024 { lowestLoadAtGrowth = min(lowestLoadAtGrowth, load) }
    while store.count * Self.linesPerPiece < Int(larger) { store.append() }
    unsafe view.pointee.pieces = unsafe store.pieces
    unsafe view.pointee.high = larger
    isGrowing = true
  }

  /// Makes an empty index large enough for `count` ids at once.
  mutating func reserve(_ count: Int) {
    let wanted = UInt32(clamping: count / (Self.slots * Self.growAt / 1000) + 1)
    guard used == 0, !isBetweenSizes, wanted > lines, wanted < 1 << 30 else { return }
    while store.count * Self.linesPerPiece < Int(wanted) { store.append() }
    unsafe view.pointee.pieces = unsafe store.pieces
    for line in lines..<wanted { clear(line) }
    settle(at: wanted)
  }

  private mutating func beginShrinking() {
    unsafe view.pointee.low = lines - max(1, lines / 9)
    unsafe view.pointee.bound = 0
    lowLines = 0
    isGrowing = false
  }

  /// The bound below which hashes belong to the first `count` lines of the smaller size.
  private func bound(_ count: UInt32) -> UInt64 {
    let low = UInt64(unsafe view.pointee.low)
    return ((UInt64(count) << 32) + low - 1) / low
  }

  /// Moves the bound down by one line of the smaller size, and what is in it to where the larger size has it.
  private mutating func pullApart() {
    let end = highStart
    let source = lowLines - 1
    if source >= 8 { prefetchFirstLines(ofLine: source - 6) }
    let taken = take(from: source, keepingCandidates: false, into: 0)
    lowLines = source
    unsafe view.pointee.bound = bound(source)
    for line in highStart..<min(end, lines) { clear(line) }
    putBack(taken, from: source)
    if lowLines == 0 { settle(at: lines) }
  }

  /// Prefetches where the ids of a line would rather be, for when its turn comes.
  @inline(__always) private func prefetchFirstLines(ofLine number: UInt32) {
    unsafe guira_prefetch(line(number - 2))
    let line = unsafe line(number)
    for slot in 0..<UInt32(Self.slots) {
      unsafe guira_prefetch(self.line(first(hash(guira_line_id(line, slot)))))
    }
  }

  /// Moves the bound up by one line of the smaller size, and what belongs in it there.
  private mutating func pullTogether() {
    let start = highStart
    let target = lowLines
    lowLines += 1
    unsafe view.pointee.bound = bound(lowLines)
    var taken = 0
    for line in start...min(highStart, lines - 1) {
      taken = take(from: line, keepingCandidates: line != target, into: taken)
    }
    if target < start { clear(target) }
    putBack(taken, from: .max)
    let isDone = unsafe lowLines == view.pointee.low
    if isDone { settle(at: lowLines) }
  }

  private mutating func settle(at count: UInt32) {
    unsafe view.pointee.low = count
    unsafe view.pointee.high = count
    unsafe view.pointee.bound = 1 << 32
    lowLines = count
    while (store.count - 2) * Self.linesPerPiece > Int(count) { store.removeLast() }
    for entry in stash where put(entry.id, entry.value, in: first(hash(entry.id))) {
      stash.removeAll { $0.id == entry.id }
      if entry.value & Self.pending != 0 { movedPending.append(entry.id) }
    }
  }

  /// Takes ids out of a line into `moving` from `count` on, all or those that no longer belong; says how many are
  /// there.
  private func take(from number: UInt32, keepingCandidates: Bool, into count: Int) -> Int {
    let line = unsafe line(number)
    var count = count
    for slot in 0..<UInt32(Self.slots) {
      let (id, value) = unsafe (guira_line_id(line, slot), guira_line_value(line, slot))
      if value == Self.empty { continue }
      let hash = hash(id)
      if keepingCandidates, first(hash) == number || second(hash) == number { continue }
      unsafe moving[count] = Entry(id: id, value: value)
      count += 1
      unsafe guira_line_set(line, slot, id, Self.empty)
    }
    return count
  }

  private mutating func putBack(_ count: Int, from source: UInt32) {
    for place in 0..<count {
      let entry = unsafe moving[place]
      let line = putSomewhere(entry.id, entry.value, mayGrow: false)
      if line == nil { stash.append(entry) }
      if entry.value & Self.pending != 0, (line ?? 0) < source { movedPending.append(entry.id) }
    }
  }

  // MARK: Room for one id

  /// A line reached from `parent` by moving what is in `slot` there.
  struct PathNode {
    static let limit = 256
    var line: UInt32
    var parent: Int32
    var slot: UInt32
  }

  /// Puts an id into one of its lines, moving others if it must, growing early if it may.
  /// - Returns: the line, or nil when there is no way.
  @inline(__always) mutating func putSomewhere(_ id: UInt64, _ value: UInt32, mayGrow: Bool = true) -> UInt32? {
    let hash = hash(id)
    let (first, second) = (first(hash), second(hash))
    if put(id, value, in: first) { return first }
    if put(id, value, in: second) { return second }
    return putByMoving(id, value, mayGrow: mayGrow)
  }

  private mutating func putByMoving(_ id: UInt64, _ value: UInt32, mayGrow: Bool) -> UInt32? {
    let hash = hash(id)
    for _ in 0..<(mayGrow ? 8 : 1) {
      if let freed = makeRoom(first(hash), second(hash)) { return put(id, value, in: freed) ? freed : nil }
      guard mayGrow, used * 1000 > Int(lines) * Self.slots * 600 || lines < 64 else { return nil }
      if !isBetweenSizes { beginGrowing() }
      isGrowing = true
      for _ in 0..<64 where isBetweenSizes { pullApart() }
      if put(id, value, in: first(hash)) { return first(hash) }
    }
    return nil
  }

  /// Frees a slot in one of two full lines by moving ids to their other lines along the shortest path (breadth first).
  private mutating func makeRoom(_ first: UInt32, _ second: UInt32) -> UInt32? {
    unsafe path[0] = PathNode(line: first, parent: -1, slot: 0)
    unsafe path[1] = PathNode(line: second, parent: -1, slot: 0)
    var end = 2
    var next = 0
    while next < end {
      let node = unsafe path[next]
      let here = unsafe line(node.line)
      let room = unsafe guira_line_room(here)
      if room < Self.slots { return shift(from: next, room: room) }
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
    return nil
  }

  /// Moves ids along the path that ends in `node`, and says in which line that frees a slot.
  private mutating func shift(from node: Int, room: UInt32) -> UInt32 {
    var node = node
    var room = room
    while unsafe path[node].parent >= 0 {
      let (to, slot, parent) = unsafe (path[node].line, path[node].slot, Int(path[node].parent))
      let source = unsafe path[parent].line
      let from = unsafe line(source)
      let (id, value) = unsafe (guira_line_id(from, slot), guira_line_value(from, slot))
      unsafe guira_line_set(line(to), room, id, value)
      unsafe guira_line_set(from, slot, id, Self.empty)
      if value & Self.pending != 0, to < source { movedPending.append(id) }
      room = slot
      node = parent
    }
    return unsafe path[node].line
  }
}
