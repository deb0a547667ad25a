// The cut: what changed in an epoch leaves as sections, in slices, while the next epoch goes on; and comes back by
// `apply`. Scans for checkpoints write the same sections.

public import Base

/// Where a scan stands; a new one begins at the start.
public struct TableCursor: Sendable, Equatable {
  enum Phase: Sendable { case rows, counts, sketch, end }
  var phase = Phase.rows
  var next = 0
  var isFirst = true
  /// Rows written so far by scans that used this very value.
  public internal(set) var rows = 0

  /// The start of a table.
  public init() {}
}

extension Table {
  /// Freezes what changed since the last close; costs the same however much that is.
  /// - Precondition: `isCutPending` is false.
  public mutating func closeEpoch() { changes.close(watermark: clock.watermark) }

  /// True from `closeEpoch` until `copyCut` has answered false.
  public var isCutPending: Bool { changes.isPending }

  /// Copies up to `limit` frozen rows and logged changes out as one section.
  /// - Returns: false when the cut is exhausted and nothing was written.
  public mutating func copyCut(rows limit: Int, into writer: inout ByteWriter) -> Bool {
    precondition(limit > 0, "a slice of \(limit) rows")
    guard changes.isPending else { return false }
    var tombstones: [UInt64] = []
    var counted: [LoggedChange] = []
    var countedIDs: Set<UInt64> = []
    while tombstones.count + counted.count < limit, let change = changes.peekLogged() {
      if change.value == 0 {
        // Removed ids come first in a section, so one that was counted before begins the next section.
        if countedIDs.contains(change.id) { break }
        tombstones.append(change.id)
      } else {
        counted.append(change)
        countedIDs.insert(change.id)
      }
      changes.skipLogged()
    }
    var room = changes.peekLogged() == nil ? limit - tombstones.count - counted.count : 0
    let savedCount = min(room, changes.saved.remaining)
    room -= savedCount
    let taken = changes.takeRows(room, of: rows)
    guard changes.mustWriteWatermark || tombstones.count + counted.count + savedCount + taken.count > 0 else {
      changes.isPending = false
      return false
    }
    changes.wroteWatermark()
    var header = header(watermark: changes.frozenWatermark)
    header.rows = savedCount + taken.count
    header.tombstones = tombstones.count
    header.counted = counted.count
    header.write(into: &writer)
    write(tombstones, counted, into: &writer)
    for index in 0..<savedCount { writer.append(changes.saved.id(index)) }
    writer.append(span: taken.ids.span.extracting(first: taken.count))
    for index in 0..<savedCount { writer.append(changes.saved.seen(index)) }
    writer.append(span: taken.seen.span.extracting(first: taken.count))
    writer.align()
    if header.hasFrequencies {
      for index in 0..<savedCount { writer.append(changes.saved.frequency(index)) }
      for place in 0..<taken.count { writer.append(rows.frequency(taken.numbers[place])) }
      writer.align()
    }
    for index in 0..<savedCount { writer.append(span: changes.saved.floats(index)) }
    rows.write(taken.numbers.span.extracting(first: taken.count), into: &writer)
    writer.align()
    changes.saved.drop(savedCount)
    return true
  }

  /// Writes up to `limit` rows, counts or sketch lines from `cursor` on, changing nothing but the cursor.
  ///
  /// What changes while a scan is under way is in the blocks of the epochs since it began, which are replayed after it.
  /// - Returns: false at the end, when nothing was written.
  public func scan(cursor: inout TableCursor, rows limit: Int, into writer: inout ByteWriter) -> Bool {
    precondition(limit > 0, "a slice of \(limit) rows")
    var numbers: [UInt32] = []
    var counted: [LoggedChange] = []
    var lines = 0..<0
    if cursor.phase == .rows {
      let stop = min(Int(rows.end), cursor.next + 8 * limit)
      while numbers.count < limit, cursor.next < stop {
        if rows.isLive(UInt32(cursor.next)) { numbers.append(UInt32(cursor.next)) }
        cursor.next += 1
      }
      if cursor.next >= Int(rows.end) { cursor.enter(.counts) }
    }
    if cursor.phase == .counts, numbers.isEmpty {
      let stop = countKind == .exact ? min(Int(index.lines), cursor.next + 8 * limit) : 0
      while counted.count < limit, cursor.next < stop {
        index.forEach(inLine: UInt32(cursor.next)) { id, value in
          if value & CuckooIndex.pending != 0 {
            counted.append(LoggedChange(id: id, value: value & ~CuckooIndex.pending))
          }
        }
        cursor.next += 1
      }
      if countKind != .exact || cursor.next >= Int(index.lines) { cursor.enter(.sketch) }
    }
    if cursor.phase == .sketch, numbers.isEmpty, counted.isEmpty {
      let count = countKind == .sketch ? sketch.lineCount : 0
      // A cursor from a message may be beyond the end.
      let start = min(cursor.next, count)
      lines = start..<min(count, start + limit)
      cursor.next = lines.upperBound
      if cursor.next >= count { cursor.enter(.end) }
    }
    let isDone = cursor.phase == .end && numbers.isEmpty && counted.isEmpty && lines.isEmpty
    guard cursor.isFirst || !isDone else { return false }
    cursor.isFirst = false
    cursor.rows += numbers.count
    var header = header(watermark: clock.watermark)
    header.rows = numbers.count
    header.counted = counted.count
    header.sketchLines = lines.count
    header.firstSketchLine = lines.lowerBound
    header.write(into: &writer)
    write([], counted, into: &writer)
    for row in numbers { writer.append(rows.id(row)) }
    for row in numbers { writer.append(rows.seen(row)) }
    writer.align()
    if header.hasFrequencies {
      for row in numbers { writer.append(rows.frequency(row)) }
      writer.align()
    }
    rows.write(numbers.span, into: &writer)
    writer.align()
    for line in lines { writer.append(raw: sketch.bytes(ofLine: line)) }
    return true
  }

  private func header(watermark: Milliseconds?) -> SectionHeader {
    SectionHeader(
      weightCount: weightCount, floatCount: floatCount, countKind: countKind, hasFrequencies: rows.countsFrequency,
      watermark: watermark)
  }

  private func write(_ tombstones: [UInt64], _ counted: [LoggedChange], into writer: inout ByteWriter) {
    writer.append(array: tombstones)
    for change in counted { writer.append(change.id) }
    for change in counted { writer.append(change.value) }
    writer.align()
  }
}

extension TableCursor {
  fileprivate mutating func enter(_ phase: Phase) {
    self.phase = phase
    next = 0
  }
}
