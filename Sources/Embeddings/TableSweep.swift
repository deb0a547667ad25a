// Rows going: erasure on request, expiry in slices, and giving memory back when most rows are gone.

public import Base

extension Table {
  /// Erases ids: their rows, and exact counts of those that have none yet.
  /// - Returns: how many of them were here.
  @discardableResult public mutating func forget(_ ids: Span<UInt64>) -> Int {
    var found = 0
    for place in ids.indices {
      let value = index.find(ids[place])
      if value == CuckooIndex.empty { continue }
      found += 1
      remove(ids[place], value: value)
    }
    counters.forgotten += found
    return found
  }

  private mutating func remove(_ id: UInt64, value: UInt32) {
    if value & CuckooIndex.pending == 0 {
      removeRow(value)
    } else {
      index.remove(id)
      changes.note(id, value: 0)
      noteMoves()
    }
  }

  /// Hears of a watermark and looks at `budget` rows for ones past their time-to-live; also moves some rows of a
  /// sparse table down, so that memory can be given back.
  ///
  /// Call it between requests.
  /// - Returns: how many rows expired.
  @discardableResult public mutating func sweep(watermark: Milliseconds, rows budget: Int) -> Int {
    clock.advance(to: watermark)
    let now = clock.now(watermark)
    let oldest = clock.oldest(at: now)
    var expired = 0
    if oldest > 0 {
      for _ in 0..<min(budget, Int(rows.end)) {
        if sweepRow >= rows.end { sweepRow = 0 }
        if rows.isLive(sweepRow), rows.seen(sweepRow) < oldest {
          removeRow(sweepRow)
          expired += 1
        }
        sweepRow += 1
      }
      if countKind == .exact { sweepCounts(now, lines: budget / CuckooIndex.slots + 1) }
    }
    counters.expired += expired
    compact(budget)
    prepareGrowth()
    return expired
  }

  /// Has the kernel make at most one page of memory that new rows will need soon, so that a push does not wait for it.
  ///
  /// Call it between requests; one page is what some thousands of new rows need. `sweep` does it too.
  /// - Returns: whether a page was missing.
  @discardableResult public mutating func prepareGrowth() -> Bool { index.prepare() || rows.prepare() }

  private mutating func sweepCounts(_ now: Milliseconds, lines: Int) {
    for _ in 0..<min(lines, Int(index.lines)) {
      if sweepLine >= index.lines { sweepLine = 0 }
      var past: [UInt64] = []
      index.forEach(inLine: sweepLine) { id, value in
        if value & CuckooIndex.pending != 0, clock.isPast(stamp: value >> 16 & 0x7FFF, at: now) { past.append(id) }
      }
      for id in past { remove(id, value: CuckooIndex.pending) }
      sweepLine += 1
    }
  }

  /// Moves up to `budget` rows out of the last slab of a sparse table.
  ///
  /// A move is a touch: a scan may have passed.
  private mutating func compact(_ budget: Int) {
    guard rows.isSparse else {
      compactBelow = .max
      return
    }
    for _ in 0..<max(0, budget) {
      guard let row = rows.lastLive(from: compactBelow) else {
        rows.dropEmptySlabs()
        compactBelow = .max
        guard rows.isSparse else { return }
        continue
      }
      compactBelow = row
      let id = rows.id(row)
      changes.preserve(row, in: rows)
      let target = rows.allocate(for: id)
      changes.forgetFrozen(target, in: rows)
      rows.copy(row, to: target)
      index.replace(id, with: target)
      changes.touch(target, in: rows)
      rows.free(row)
      rankCreated(target)
    }
  }

  /// Tells the eviction queue of a row with a new number.
  mutating func rankCreated(_ row: UInt32) {
    guard options.rowLimit != nil else { return }
    eviction.created(row, options.eviction.rank(of: row, in: rows))
  }
}
