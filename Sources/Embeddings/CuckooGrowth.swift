// How big the index is. A full index grows by a half, in place and a few lines per new id; it shrinks backwards. The
// bound between the two sizes is a hash (table_grow.c moves it, and makes room in full lines).

internal import CKernels

extension CuckooIndex {
  /// Growth begins at this load, in thousandths, and adds a half; shrinking begins below the other, and takes a third.
  static let growAt = 905
  static let shrinkAt = 450
  /// Lines pulled apart or together for every id that comes or goes, while between two sizes.
  private static let pace = 2
  static let stashLimit = 64

  private var isBetweenSizes: Bool { unsafe view.pointee.low != view.pointee.high }

  /// One more than the highest line in use.
  var lines: UInt32 { unsafe view.pointee.high }

  private var lowLines: UInt32 { unsafe view.pointee.low_used }

  /// The first line in use of the larger size, while between two sizes.
  private var highStart: UInt32 { unsafe guira_index_high_start(view) }

  @inline(__always) func isInUse(_ line: UInt32) -> Bool {
    line < lowLines || isBetweenSizes && line >= highStart && line < lines
  }

  private var linesInUse: Int { Int(lowLines) + (isBetweenSizes ? Int(lines - highStart) : 0) }
  var load: Double { Double(used) / Double(linesInUse * Self.slots) }
  var bytes: Int { linesInUse * MemoryLayout<guira_line>.stride }

  /// What `bytes` will be when growth is done that is under way or that one id more begins.
  var bytesAhead: Int {
    if isBetweenSizes, !isGrowing { return bytes }
    return Int(isBetweenSizes || hasSlack ? lines : larger) * MemoryLayout<guira_line>.stride
  }

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
    pullApart(Self.pace)
  }

  @inline(__always) mutating func shrinkIfNeeded() {
    if !isBetweenSizes {
      guard used * 1000 < Int(lines) * Self.slots * Self.shrinkAt, lines > Self.fewestLines else { return }
      unsafe view.pointee.low = max(Self.fewestLines, lines - lines / 3)
      unsafe view.pointee.bound = 0
      unsafe view.pointee.low_used = 0
      isGrowing = false
    }
    if isGrowing { return }
    for _ in 0..<Self.pace where isBetweenSizes {
      unsafe guira_index_pull_together(view, moves)
      if unsafe view.pointee.low_used == view.pointee.low { settle(at: lowLines) }
    }
    noteMoves()
  }

  /// The size it grows to.
  private var larger: UInt32 { lines + lines / 2 + 1 }

  private mutating func beginGrowing() {
    precondition(larger < 1 << 30, "an index of \(lines) lines cannot grow")
    if lines >= 1024 { lowestLoadAtGrowth = min(lowestLoadAtGrowth, load) }
    append(upTo: larger)
    unsafe view.pointee.high = larger
    isGrowing = true
  }

  private mutating func append(upTo lines: UInt32) {
    while store.count * Self.linesPerPiece < Int(lines) { store.append() }
    unsafe view.pointee.pieces = unsafe store.pieces
  }

  /// Has one page made that growth, which goes from the last line down, will need soon; says whether one was missing.
  mutating func prepare() -> Bool {
    let isSoon = isBetweenSizes ? isGrowing : used * 1000 > Int(lines) * Self.slots * (Self.growAt - 15)
    guard isSoon, store.count > 1, larger < 1 << 30 else { return false }
    if !isBetweenSizes { append(upTo: larger) }
    let next = isBetweenSizes ? highStart : larger
    let old = Int(unsafe view.pointee.low) / Self.linesPerPiece
    let piece = min(preparedPiece, store.count) - 1
    guard piece > old, piece >= Int(next) / Self.linesPerPiece - 1 else { return false }
    preparedPiece = piece
    store.preparePiece(piece)
    return true
  }

  /// Makes an empty index large enough for `count` ids at once.
  mutating func reserve(_ count: Int) {
    let wanted = UInt32(clamping: count * 1000 / (Self.slots * Self.growAt) + 1)
    guard used == 0, !isBetweenSizes, wanted > lines, wanted < 1 << 30 else { return }
    append(upTo: wanted)
    for line in lines..<wanted { clear(line) }
    settle(at: wanted)
  }

  /// Moves the bound down by `count` lines of the smaller size, and what is in them to where the larger size has it.
  private mutating func pullApart(_ count: Int) {
    for _ in 0..<count where isBetweenSizes {
      unsafe guira_index_pull_apart(view, moves)
      if lowLines == 0 { settle(at: lines) }
    }
    noteMoves()
  }

  private mutating func settle(at count: UInt32) {
    unsafe view.pointee.low = count
    unsafe view.pointee.high = count
    unsafe view.pointee.bound = 1 << 32
    unsafe view.pointee.low_used = count
    preparedPiece = .max
    while (store.count - 2) * Self.linesPerPiece > Int(count) { store.removeLast() }
    for entry in stash where put(entry.id, entry.value, in: first(hash(entry.id))) {
      stash.removeAll { $0.id == entry.id }
      if entry.value & Self.pending != 0 { movedPending.append(entry.id) }
    }
  }

  /// Takes over what the kernels say of ids they moved.
  @inline(__always) private mutating func noteMoves() {
    if unsafe moves.pointee.moved | moves.pointee.spilled != 0 { takeMoves() }
  }

  private mutating func takeMoves() {
    unsafe withUnsafePointer(to: &moves.pointee.moved_ids.0) { ids in
      for place in 0..<Int(unsafe moves.pointee.moved) { movedPending.append(unsafe ids[place]) }
    }
    unsafe withUnsafePointer(to: &moves.pointee.spilled_ids.0) { spilled in
      for place in 0..<Int(unsafe moves.pointee.spilled) {
        let entry = unsafe Entry(id: spilled[place].id, value: spilled[place].value)
        stash.append(entry)
        // The stash is told with line 0, which a scan may have passed.
        if entry.value & Self.pending != 0 { movedPending.append(entry.id) }
      }
    }
    unsafe moves.pointee.moved = 0
    unsafe moves.pointee.spilled = 0
  }

  /// Puts an id that is not here into one of its lines, moving others if it must, growing early if it can.
  /// - Returns: false when there is no way.
  @inline(__always) mutating func putSomewhere(_ id: UInt64, _ value: UInt32) -> Bool {
    let isPut = unsafe guira_index_put(view, id, value, moves) != 0
    noteMoves()
    return isPut || putAfterGrowing(id, value)
  }

  private mutating func putAfterGrowing(_ id: UInt64, _ value: UInt32) -> Bool {
    for _ in 0..<8 {
      guard used * 1000 > Int(lines) * Self.slots * 600 || lines < 64 else { return false }
      if !isBetweenSizes { beginGrowing() }
      isGrowing = true
      pullApart(64)
      let isPut = unsafe guira_index_put(view, id, value, moves) != 0
      noteMoves()
      if isPut { return true }
    }
    return false
  }
}
