// The rows of a table: floats in slabs that never move, and for each row its id, when it was last seen and three
// flags, five rows to a 64-byte line. Row numbers are given out from the lowest slab with room, so high slabs run
// empty and go. Owned by the table's thread.

internal import Base
internal import CKernels

/// Rows of `floatCount` floats with stable numbers.
@safe struct RowStore: ~Copyable {
  static let live: UInt32 = 1
  /// The flag of a row touched in an epoch of the given parity.
  @inline(__always) static func touched(_ parity: UInt32) -> UInt32 { 2 << parity }

  private struct Slab {
    var live: UInt32 = 0
    /// Rows from the start that were ever given out.
    var fresh: UInt32 = 0
    /// The first row of the list of freed ones, chained through their ids; `empty` at its end.
    var free = CuckooIndex.empty
  }

  let floatCount: Int
  let view: UnsafeMutablePointer<guira_rows>
  private let rowsPerSlab: UInt32
  private var floats: PageStore
  private var meta: PageStore
  private var frequencies: PageStore
  let countsFrequency: Bool
  private var slabs: [Slab] = []
  private var lowestWithRoom = 0
  private(set) var count = 0
  /// Rows that were ever given out, in slabs still here.
  private var freshRows = 0
  private static let metaPerPiece = 5 << 15

  init(floatCount: Int, countsFrequency: Bool) {
    self.floatCount = floatCount
    let packed = floatCount * 4
    let padded = (packed + 63) / 64 * 64
    let stride = (padded - packed) * 8 <= packed ? padded : packed
    var shift: UInt32 = 10
    while shift < 20, (stride << Int(shift)) < 8 << 20 { shift += 1 }
    rowsPerSlab = 1 << shift
    floats = PageStore(pieceBytes: stride << Int(shift))
    meta = PageStore(pieceBytes: MemoryLayout<guira_meta>.stride << 15)
    self.countsFrequency = countsFrequency
    frequencies = PageStore(pieceBytes: 4 << 20)
    unsafe view = .allocate(capacity: 1)
    unsafe view.initialize(
      to: guira_rows(pieces: floats.pieces, meta: meta.pieces, shift: shift, stride: UInt32(stride / 4), count: 0))
  }

  deinit { unsafe view.deallocate() }

  /// One more than the highest row number in use.
  var end: UInt32 {
    guard let last = slabs.last else { return 0 }
    return UInt32(slabs.count - 1) * rowsPerSlab + last.fresh
  }

  /// Bytes of memory in use, up to page sizes.
  var bytes: Int {
    let perRow = unsafe Int(view.pointee.stride) * 4 + (countsFrequency ? 4 : 0)
    return freshRows * perRow + (Int(end) + 4) / 5 * MemoryLayout<guira_meta>.stride
  }

  /// Bytes that one row more may take.
  var bytesPerRow: Int { unsafe Int(view.pointee.stride) * 4 + 13 + (countsFrequency ? 4 : 0) }

  // MARK: One row

  @inline(__always) func floats(_ row: UInt32) -> UnsafeMutablePointer<Float> { unsafe guira_row(view, row) }
  @inline(__always) func id(_ row: UInt32) -> UInt64 { unsafe guira_row_id(view, row) }
  @inline(__always) func seen(_ row: UInt32) -> UInt32 { unsafe guira_row_seen(view, row) }
  @inline(__always) func setSeen(_ row: UInt32, _ seconds: UInt32) { unsafe guira_row_set_seen(view, row, seconds) }
  @inline(__always) func flags(_ row: UInt32) -> UInt32 { unsafe guira_row_flags(view, row) }
  @inline(__always) func setFlags(_ row: UInt32, _ flags: UInt32) { unsafe guira_row_set_flags(view, row, flags) }
  @inline(__always) func isLive(_ row: UInt32) -> Bool { flags(row) & Self.live != 0 }

  /// True when a row can be had without new memory.
  var hasFreeRow: Bool { count < freshRows }

  @inline(__always) func addFrequency(_ row: UInt32, _ times: UInt32) {
    guard countsFrequency else { return }
    let (sum, overflow) = frequency(row).addingReportingOverflow(times)
    setFrequency(row, overflow ? .max : sum)
  }

  func frequency(_ row: UInt32) -> UInt32 { unsafe frequencyCell(row)?.pointee ?? 0 }
  func setFrequency(_ row: UInt32, _ value: UInt32) { unsafe frequencyCell(row)?.pointee = value }
  private func frequencyCell(_ row: UInt32) -> UnsafeMutablePointer<UInt32>? {
    guard countsFrequency else { return nil }
    let piece = unsafe frequencies.pieces[Int(row >> 20)]!
    return unsafe piece.assumingMemoryBound(to: UInt32.self) + Int(row & 0xF_FFFF)
  }

  /// A row's floats.
  ///
  /// Shape `[floatCount]`.
  @_lifetime(borrow self) func span(_ row: UInt32) -> Span<Float> {
    let span = unsafe Span(_unsafeStart: UnsafePointer(floats(row)), count: floatCount)
    return unsafe _overrideLifetime(span, borrowing: self)
  }

  func array(_ row: UInt32) -> [Float] {
    unsafe Array(UnsafeBufferPointer(start: UnsafePointer(floats(row)), count: floatCount))
  }

  /// Appends the floats of rows, one row after the other.
  func write(_ numbers: Span<UInt32>, into writer: inout ByteWriter) {
    writer.append(Float.self, count: numbers.count * floatCount) { out in
      unsafe numbers.withUnsafeBufferPointer { numbers in
        unsafe out.withUnsafeMutableBufferPointer { out in
          unsafe guira_copy_rows(view, numbers.baseAddress, numbers.count, floatCount, out.baseAddress)
        }
      }
    }
  }

  func setFloats(_ row: UInt32, _ values: Span<Float>) {
    precondition(values.count == floatCount, "\(values.count) floats for a row of \(floatCount)")
    unsafe values.withUnsafeBufferPointer { unsafe floats(row).update(from: $0.baseAddress!, count: floatCount) }
  }

  /// Copies floats and metadata, but for id and flags.
  func copy(_ row: UInt32, to target: UInt32) {
    unsafe floats(target).update(from: floats(row), count: floatCount)
    setSeen(target, seen(row))
    setFrequency(target, frequency(row))
  }

  // MARK: Giving out and taking back

  /// A row for an id, live and not touched; its floats are whatever was there.
  ///
  /// Keeps a touched flag of a dead row.
  mutating func allocate(for id: UInt64) -> UInt32 {
    while lowestWithRoom < slabs.count, slabs[lowestWithRoom].live == rowsPerSlab { lowestWithRoom += 1 }
    if lowestWithRoom == slabs.count { addSlab() }
    let start = UInt32(lowestWithRoom) * rowsPerSlab
    let row: UInt32
    if slabs[lowestWithRoom].free != CuckooIndex.empty {
      row = slabs[lowestWithRoom].free
      slabs[lowestWithRoom].free = UInt32(truncatingIfNeeded: self.id(row))
    } else {
      row = start + slabs[lowestWithRoom].fresh
      slabs[lowestWithRoom].fresh += 1
      freshRows += 1
      unsafe view.pointee.count = end
      ensureMeta(row)
    }
    slabs[lowestWithRoom].live += 1
    count += 1
    unsafe guira_row_set_id(view, row, id)
    setSeen(row, 0)
    setFrequency(row, 0)
    setFlags(row, flags(row) | Self.live)
    return row
  }

  /// Takes a row back; its touched flags stay until its epoch is copied.
  mutating func free(_ row: UInt32) {
    let slab = unsafe Int(row >> view.pointee.shift)
    setFlags(row, flags(row) & ~Self.live)
    unsafe guira_row_set_id(view, row, UInt64(slabs[slab].free))
    slabs[slab].free = row
    slabs[slab].live -= 1
    count -= 1
    lowestWithRoom = min(lowestWithRoom, slab)
  }

  private mutating func addSlab() {
    precondition(slabs.count + 1 <= Int(CuckooIndex.pending / rowsPerSlab), "a table of \(count) rows cannot grow")
    slabs.append(Slab())
    if floats.count < slabs.count { floats.append() }
    unsafe view.pointee.pieces = unsafe floats.pieces
  }

  private mutating func ensureMeta(_ row: UInt32) {
    while Int(row) >= meta.count * Self.metaPerPiece {
      meta.append()
      unsafe view.pointee.meta = unsafe meta.pieces
    }
    while countsFrequency, Int(row) >= frequencies.count << 20 { frequencies.append() }
  }

  /// Has one page made that new rows will need soon; says whether one was missing.
  mutating func prepare() -> Bool {
    guard let last = slabs.last else { return false }
    let used = unsafe Int(last.fresh) * Int(view.pointee.stride) * 4
    let isMade =
      floats.prepare(next: (slabs.count - 1) * floats.pieceBytes + used, lead: PageStore.hugePage)
      || meta.prepare(next: Int(end) / 5 * MemoryLayout<guira_meta>.stride, lead: PageStore.hugePage / 8)
    unsafe view.pointee.pieces = unsafe floats.pieces
    unsafe view.pointee.meta = unsafe meta.pieces
    return isMade
  }

  // MARK: Shrinking

  /// True when so many rows are unused that a whole slab could go, with some to spare.
  var isSparse: Bool {
    slabs.count > 1 && count * 2 < (slabs.count - 1) * Int(rowsPerSlab)
  }

  /// A live row of the last slab, or nil when it has none; `below` is where to look down from.
  func lastLive(from below: UInt32) -> UInt32? {
    let start = UInt32(slabs.count - 1) * rowsPerSlab
    var row = min(below, end)
    while row > start {
      row -= 1
      if isLive(row) { return row }
    }
    return nil
  }

  /// Gives back last slabs without live rows.
  ///
  /// The flags of their rows are cleared: nothing live is lost.
  mutating func dropEmptySlabs() {
    while slabs.count > 1, let last = slabs.last, last.live == 0 {
      let start = UInt32(slabs.count - 1) * rowsPerSlab
      for row in start..<start + last.fresh { setFlags(row, 0) }
      freshRows -= Int(last.fresh)
      slabs.removeLast()
      while floats.count > slabs.count { floats.removeLast() }
      unsafe view.pointee.count = end
    }
    lowestWithRoom = min(lowestWithRoom, slabs.count)
    while meta.count > 1, (meta.count - 1) * Self.metaPerPiece > slabs.count * Int(rowsPerSlab) { meta.removeLast() }
  }
}
