// Recovery: sections of blocks and checkpoints, replayed in order, make the table that wrote them.

public import Base
internal import CKernels

extension Table {
  /// Makes room for the index of `count` rows in a table that is empty, so that it does not grow while they come.
  public mutating func reserve(rows count: Int) { index.reserve(count) }

  /// Replays one section.
  ///
  /// It is checked whole before anything is changed.
  /// - Throws: `DecodeError` when the bytes are damaged, or of a table of another shape.
  public mutating func apply(section reader: inout ByteReader) throws(DecodeError) {
    try apply(CutSection(&reader, weightCount: weightCount))
  }

  /// Replays a section already parsed.
  /// - Throws: `DecodeError` when it is of a table of another shape.
  public mutating func apply(_ section: CutSection) throws(DecodeError) {
    try check(section)
    if let watermark = section.watermark { clock.advance(to: watermark) }
    let tombstones = section.tombstones.span
    for place in tombstones.indices { erase(tombstones[place]) }
    try applyCounts(section)
    let ids = section.ids.span
    let seen = section.seen.span
    let frequencies = section.frequencies.span
    let floats = section.floats.span
    for place in ids.indices {
      if place % PushBuffers.chunk == 0 { lookUpAhead(ids, from: place) }
      let row = try row(for: ids[place], hint: unsafe buffers.hints[place % PushBuffers.chunk])
      rows.setSeen(row, seen[place])
      rows.setFrequency(row, frequencies.isEmpty ? 1 : frequencies[place])
      rows.setFloats(row, floats.extracting(place * floatCount..<(place + 1) * floatCount))
    }
    let lines = section.sketchLines.span
    for line in 0..<lines.count / Sketch.lineBytes {
      let bytes = lines.extracting(line * Sketch.lineBytes..<(line + 1) * Sketch.lineBytes)
      sketch.setLine(Int(section.firstSketchLine) + line, bytes)
    }
    eviction.reset()
    // Moves are told to scans under way; here there is none. Logged, a count would be written out with the next epoch and,
    // replayed after the block that made the id a row, would take the row away.
    index.movedPending.removeAll(keepingCapacity: true)
  }

  /// Brings the index lines and rows of the next ids into the cache.
  private func lookUpAhead(_ ids: Span<UInt64>, from start: Int) {
    let count = min(PushBuffers.chunk, ids.count - start)
    unsafe ids.withUnsafeBufferPointer { ids in
      unsafe guira_find(index.view, rows.view, ids.baseAddress! + start, count, buffers.hints)
    }
  }

  private func check(_ section: CutSection) throws(DecodeError) {
    func require(_ condition: Bool, _ field: String, _ value: String, _ expected: String) throws(DecodeError) {
      if !condition { throw .invalid(field: "table '\(options.name)': \(field)", value: value, expected: expected) }
    }
    try require(section.weightCount == weightCount, "weights per row", "\(section.weightCount)", "\(weightCount)")
    try require(section.floatCount == floatCount, "floats per row", "\(section.floatCount)", "\(floatCount)")
    let counts = section.countedIDs.count
    try require(
      counts == 0 || section.countKind == countKind, "kind of counts", "\(section.countKind)", "\(countKind)")
    if countKind == .exact {
      let values = section.countedValues.span
      for place in values.indices {
        let count = values[place] & 0xFFFF
        try require(
          values[place] < CuckooIndex.pending && count >= 1 && count < 0xFFFF, "count", "\(values[place])",
          "a stamp of 15 bits and 1 to 65534")
      }
    }
    let lines = UInt64(section.sketchLines.count / Sketch.lineBytes)
    let room = countKind == .sketch ? UInt64(sketch.lineCount) : 0
    try require(
      lines <= room && section.firstSketchLine <= room - lines, "sketch lines",
      "\(section.firstSketchLine) and \(lines) more", "to lie within the \(room) of this table")
  }

  private mutating func erase(_ id: UInt64) {
    let value = index.find(id)
    guard value != CuckooIndex.empty else { return }
    if value & CuckooIndex.pending == 0 {
      changes.preserve(value, in: rows)
      rows.free(value)
    }
    index.remove(id)
  }

  private mutating func applyCounts(_ section: CutSection) throws(DecodeError) {
    let ids = section.countedIDs.span
    let values = section.countedValues.span
    for place in ids.indices {
      if countKind == .sketch {
        sketch.raise(
          ids[place], to: Int(values[place] >> 16), generation: UInt16(truncatingIfNeeded: values[place]))
      } else {
        let old = index.find(ids[place])
        let isRow = old & CuckooIndex.pending == 0
        if isRow { erase(ids[place]) }
        try put(ids[place], CuckooIndex.pending | values[place], instead: isRow ? CuckooIndex.empty : old)
      }
    }
  }

  /// The row of an id, to be overwritten, or a new one; `hint` is where the look-up ahead thought it is.
  @inline(__always) private mutating func row(for id: UInt64, hint: UInt32) throws(DecodeError) -> UInt32 {
    let value = unsafe guira_row_is(rows.view, hint, id, 0) != 0 ? hint : index.find(id)
    if value & CuckooIndex.pending == 0 {
      changes.preserve(value, in: rows)
      return value
    }
    let row = rows.allocate(for: id)
    changes.forgetFrozen(row, in: rows)
    do throws(DecodeError) { try put(id, row, instead: value) } catch {
      rows.free(row)
      throw error
    }
    return row
  }

  /// Gives an id a value instead of the one it has in the index, which may be none.
  @inline(__always) private mutating func put(
    _ id: UInt64, _ value: UInt32, instead old: UInt32
  ) throws(DecodeError) {
    if old != CuckooIndex.empty {
      index.replace(id, with: value)
    } else if !index.insert(id, value: value) {
      throw .invalid(field: "ids", value: "\(id)", expected: "ids that were not made to collide")
    }
  }
}
