// What changed in the open epoch, and the frozen list of the one being copied out. Two flag bits per row, one for
// even and one for odd epochs, make closing an epoch a swap of lists: it costs the same however many rows are held or
// changed. A frozen row that is about to change is saved first, as it was. Owned by the table's thread.

internal import Base
internal import CKernels

/// A change that is not a row: a removed id (value 0), or the count of an id that has no row yet.
struct LoggedChange: BitwiseCopyable {
  var id: UInt64
  var value: UInt32
}

/// The touched rows and logged changes of the open epoch and of the frozen one.
struct EpochChanges: ~Copyable {
  /// 0 or 1: which of a row's touched flags belongs to the open epoch.
  private(set) var parity: UInt32 = 0
  private var touched = ChunkedList<UInt32>()
  private var log = ChunkedList<LoggedChange>()
  private var frozenTouched = ChunkedList<UInt32>()
  private var frozenLog = ChunkedList<LoggedChange>()
  var saved: SavedRows
  private var nextTouched = 0
  private var nextLogged = 0
  /// The frozen rows to be taken next, in the order of their addresses but for small groups, which are put in order as
  /// they are taken: a large table's rows are in more pages than the processor remembers the places of.
  private var block: [UInt32] = []
  private var scratch: [UInt32] = []
  private var nextInBlock = 0
  private static let blockRows = 131_072
  /// True from `close` until everything frozen has been taken.
  var isPending = false
  /// The watermark when the frozen epoch was closed.
  private(set) var frozenWatermark: Milliseconds?
  /// True when the frozen epoch's watermark was not written out yet.
  private(set) var mustWriteWatermark = false
  private var lastWatermark: Milliseconds?

  init(floatCount: Int) { saved = SavedRows(floatCount: floatCount) }

  /// Notes a change of a row, after saving it if the frozen epoch still needs it as it was.
  @inline(__always) mutating func touch(_ row: UInt32, in rows: borrowing RowStore) {
    let flags = rows.flags(row)
    let now = RowStore.touched(parity)
    let frozen = RowStore.touched(1 - parity)
    if flags & (now | frozen) == now { return }
    if flags & frozen != 0 { saved.append(row, from: rows) }
    rows.setFlags(row, (flags | now) & ~frozen)
    if flags & now == 0 { touched.append(row) }
  }

  /// Saves a row that is about to change in a way that is no change of this epoch.
  mutating func preserve(_ row: UInt32, in rows: borrowing RowStore) {
    let flags = rows.flags(row)
    let frozen = RowStore.touched(1 - parity)
    guard flags & frozen != 0 else { return }
    saved.append(row, from: rows)
    rows.setFlags(row, flags & ~frozen)
  }

  /// Prepares a row number just given out: if the frozen epoch names it, it was dead then.
  func forgetFrozen(_ row: UInt32, in rows: borrowing RowStore) {
    rows.setFlags(row, rows.flags(row) & ~RowStore.touched(1 - parity))
  }

  @inline(__always) mutating func note(_ id: UInt64, value: UInt32) {
    log.append(LoggedChange(id: id, value: value))
  }

  mutating func close(watermark: Milliseconds?) {
    precondition(!isPending, "the previous epoch has not been copied out")
    swap(&touched, &frozenTouched)
    swap(&log, &frozenLog)
    touched.clear()
    log.clear()
    parity = 1 - parity
    nextTouched = 0
    block.removeAll(keepingCapacity: true)
    nextInBlock = 0
    nextLogged = 0
    frozenWatermark = watermark
    mustWriteWatermark = watermark != lastWatermark
    lastWatermark = watermark
    isPending = true
  }

  mutating func wroteWatermark() { mustWriteWatermark = false }

  /// The next logged change, in order.
  func peekLogged() -> LoggedChange? { nextLogged < frozenLog.count ? frozenLog[nextLogged] : nil }
  mutating func skipLogged() { nextLogged += 1 }

  /// The next frozen rows that have not been saved, at most `limit`; the caller copies them before anything else
  /// happens.
  mutating func takeRows(_ limit: Int, of rows: borrowing RowStore) -> TakenRows {
    let most = min(limit, frozenTouched.count - nextTouched + block.count - nextInBlock)
    var taken = TakenRows(capacity: most)
    while taken.count < most, nextInBlock < block.count || takeBlock() {
      let part = min(most - taken.count, block.count - nextInBlock)
      unsafe block.withUnsafeBufferPointer {
        unsafe guira_group_rows($0.baseAddress! + nextInBlock, part, &scratch)
      }
      nextInBlock += part
      taken.count = unsafe guira_take_rows(
        rows.view, scratch, part, RowStore.touched(1 - parity), &taken.numbers, &taken.ids, &taken.seen, taken.count)
    }
    return taken
  }

  private mutating func takeBlock() -> Bool {
    scratch.removeAll(keepingCapacity: true)
    let end = min(frozenTouched.count, nextTouched + Self.blockRows)
    frozenTouched.copy(nextTouched..<end, to: &scratch)
    nextTouched = end
    nextInBlock = 0
    block.removeAll(keepingCapacity: true)
    block.append(contentsOf: scratch)
    unsafe guira_group_rows(scratch, scratch.count, &block)
    return !block.isEmpty
  }

  var bytes: Int {
    (block.capacity + scratch.capacity) * 4 + touched.bytes + frozenTouched.bytes + log.bytes + frozenLog.bytes
      + saved.bytes
  }
}

/// Frozen rows on their way out: their numbers, ids and when they were last seen.
struct TakenRows {
  fileprivate(set) var numbers: [UInt32]
  fileprivate(set) var ids: [UInt64]
  fileprivate(set) var seen: [UInt32]
  fileprivate(set) var count = 0

  fileprivate init(capacity: Int) {
    numbers = [UInt32](repeating: 0, count: capacity)
    ids = [UInt64](repeating: 0, count: capacity)
    seen = [UInt32](repeating: 0, count: capacity)
  }
}

/// Copies of frozen rows that changed before they were copied out.
@safe struct SavedRows: ~Copyable {
  private static let chunkRows = 256
  private let floatCount: Int
  private var ids = ChunkedList<UInt64>()
  private var seen = ChunkedList<UInt32>()
  private var frequencies = ChunkedList<UInt32>()
  private var chunks: [UnsafeMutablePointer<Float>] = unsafe []
  private var next = 0

  init(floatCount: Int) { self.floatCount = floatCount }

  deinit {
    for place in unsafe chunks.indices { unsafe chunks[place].deallocate() }
  }

  mutating func append(_ row: UInt32, from rows: borrowing RowStore) {
    let (chunk, place) = ids.count.quotientAndRemainder(dividingBy: Self.chunkRows)
    if unsafe chunk == chunks.count { unsafe chunks.append(.allocate(capacity: Self.chunkRows * floatCount)) }
    ids.append(rows.id(row))
    seen.append(rows.seen(row))
    frequencies.append(rows.frequency(row))
    unsafe (chunks[chunk] + place * floatCount).update(from: rows.floats(row), count: floatCount)
  }

  var remaining: Int { ids.count - next }

  func id(_ index: Int) -> UInt64 { ids[next + index] }
  func seen(_ index: Int) -> UInt32 { seen[next + index] }
  func frequency(_ index: Int) -> UInt32 { frequencies[next + index] }
  @_lifetime(borrow self) func floats(_ index: Int) -> Span<Float> {
    let (chunk, place) = (next + index).quotientAndRemainder(dividingBy: Self.chunkRows)
    precondition(next + index < ids.count, "saved row \(next + index) of \(ids.count)")
    let span = unsafe Span(_unsafeStart: chunks[chunk] + place * floatCount, count: floatCount)
    return unsafe _overrideLifetime(span, borrowing: self)
  }

  /// Forgets the first `count`; all of them at the end give the memory back but for what a next epoch needs.
  mutating func drop(_ count: Int) {
    next += count
    guard next == ids.count else { return }
    let needed = (ids.count + Self.chunkRows - 1) / Self.chunkRows
    while unsafe chunks.count > needed { unsafe chunks.removeLast().deallocate() }
    ids.clear()
    seen.clear()
    frequencies.clear()
    next = 0
  }

  var bytes: Int {
    unsafe chunks.count * Self.chunkRows * floatCount * 4 + ids.bytes + seen.bytes + frequencies.bytes
  }
}
