// The rows of one table as a replica serves them: id → weights, no optimizer state. One writer thread applies versions
// while any number of threads read; a reader takes no lock, never retries and never sees a torn row (replica.c says how).
// This file holds the writer's side: memory, growth, and the reuse of rows that no reader can see any more.

internal import Base
internal import CKernels
internal import Embeddings
internal import Glibc
internal import Synchronization

/// Which version wrote a row, and when that was made, in one word.
struct RowStamp: Equatable, Sendable {
  /// The version's number, its lower 32 bits.
  var version: UInt32
  /// UTC seconds.
  var seconds: UInt32

  init(version: UInt64, created: Milliseconds) {
    self.version = UInt32(truncatingIfNeeded: version)
    seconds = UInt32(clamping: created / 1000)
  }

  init(word: UInt64) { (version, seconds) = (UInt32(word >> 32), UInt32(truncatingIfNeeded: word)) }

  var word: UInt64 { UInt64(version) << 32 | UInt64(seconds) }

  /// Whether it is of a version after that one; the two are less than 2^31 versions apart.
  func isLater(than other: UInt64) -> Bool {
    Int32(bitPattern: version &- UInt32(truncatingIfNeeded: other)) > 0
  }
}

/// A table of rows with one writer and many readers.
///
/// unchecked because: `current` and the counters are atomics, what readers reach through `current` is never changed
/// while they can, and all other state belongs to the one writer.
@safe final class ReplicaTable: @unchecked Sendable {
  /// Weights per row.
  let dimension: Int
  /// Whether rows are stored as float16.
  let halfPrecision: Bool
  /// What an id without a row reads.
  let defaultRow: [Float]

  private let epochs: ReaderEpochs
  private let current: Atomic<UnsafePointer<guira_replica>>
  private let liveRows = Atomic<Int>(0)
  private let heldBytes = Atomic<Int>(0)

  // The writer's.
  private let slabs: UnsafeMutablePointer<UnsafeMutablePointer<UInt64>?>
  private let rowsPerSlab: Int
  private var slabCount = 0
  private var rowsMade = 0
  private var freeRows: [UInt32] = []
  private var tombstones = 0
  private var retired: [(epoch: UInt64, rows: [UInt32])] = []
  private var retiredRows = 0
  private var retiredIndexes: [(epoch: UInt64, index: UnsafePointer<guira_replica>)] = unsafe []

  /// Slots are filled to this share before the index doubles.
  private static let loadLimit = 0.7
  private static let slabLimit = 1 << 16
  /// Rows written between two looks at the readers.
  private static let chunk = 256
  /// Rows that wait for readers before the writer waits with them: bounds memory when a reader is held up.
  private static let retiredLimit = 1 << 16

  /// An empty table.
  init(defaultRow: [Float], halfPrecision: Bool = false, epochs: ReaderEpochs) {
    precondition(!defaultRow.isEmpty, "a row has at least one weight")
    dimension = defaultRow.count
    self.halfPrecision = halfPrecision
    self.defaultRow = defaultRow
    self.epochs = epochs
    unsafe slabs = .allocate(capacity: Self.slabLimit)
    unsafe slabs.initialize(repeating: nil, count: Self.slabLimit)
    let weightBytes = defaultRow.count * (halfPrecision ? 2 : 4)
    let stride = 2 + (weightBytes + 7) / 8
    var slabBits = 0
    while (stride * 8) << (slabBits + 1) <= 2 << 20 { slabBits += 1 }
    rowsPerSlab = 1 << slabBits
    let first = unsafe guira_replica(
      words: Self.zeroed(64), slabs: slabs, secret: .random(in: 0 ... .max), bits: 6, slab_bits: UInt32(slabBits),
      stride: UInt32(stride), dimension: UInt32(dimension), half: halfPrecision ? 1 : 0)
    unsafe current = unsafe Atomic(Self.boxed(first))
  }

  deinit {
    let index = unsafe current.load(ordering: .relaxed)
    unsafe Self.release(index)
    while let old = unsafe retiredIndexes.popLast() { unsafe Self.release(old.index) }
    for slab in 0..<slabCount { unsafe free(slabs[slab]) }
    unsafe slabs.deallocate()
  }

  // MARK: Readers, inside a read section of the table's epochs

  /// Copies the weights of each id, or the default row; `found` says with 1 which ids have a row.
  /// - Parameter weights: `[ids.count × dimension]`.
  /// - Returns: how many ids have a row.
  func read(ids: [UInt64], into weights: inout [Float], found: inout [UInt8]) -> Int {
    precondition(weights.count == ids.count * dimension && found.count == ids.count, "room for \(ids.count) rows")
    guard !ids.isEmpty else { return 0 }
    let index = unsafe current.load(ordering: .acquiring)
    return unsafe guira_replica_read(index, ids, ids.count, defaultRow, &weights, &found)
  }

  /// Which version wrote each id's row; nil for an id without a row.
  func stamps(ids: [UInt64]) -> [RowStamp?] {
    var words = [UInt64](repeating: 0, count: ids.count)
    let index = unsafe current.load(ordering: .acquiring)
    unsafe guira_replica_stamps(index, ids, ids.count, &words)
    return words.map { $0 == 0 ? nil : RowStamp(word: $0) }
  }

  // MARK: Any thread

  /// How many ids have a row.
  var rowCount: Int { liveRows.load(ordering: .relaxed) }
  /// Bytes held: index and rows, those waiting for reuse too.
  var byteCount: Int { heldBytes.load(ordering: .relaxed) }

  // MARK: The writer

  /// Gives each id its new weights; an id that comes twice keeps the last.
  /// - Parameter weights: `[ids.count × dimension]`.
  func apply(ids: Span<UInt64>, weights: Span<Float>, stamp: RowStamp = RowStamp(version: 1, created: 0)) {
    precondition(weights.count == ids.count * dimension, "\(weights.count) weights for \(ids.count) rows")
    var replaced = [Int64](repeating: -1, count: min(ids.count, Self.chunk))
    var begin = 0
    while begin < ids.count {
      let count = min(Self.chunk, ids.count - begin)
      makeRoom(for: count)
      let fresh = takeRows(count)
      let index = unsafe current.load(ordering: .relaxed)
      var reused = 0
      let inserted = unsafe ids.withUnsafeBufferPointer { ids in
        unsafe weights.withUnsafeBufferPointer { weights in
          unsafe guira_replica_apply(
            index, ids.baseAddress! + begin, weights.baseAddress! + begin * dimension, count, stamp.word, fresh,
            &replaced,
            &reused)
        }
      }
      tombstones -= reused
      liveRows.wrappingAdd(inserted, ordering: .relaxed)
      retire(replaced[..<count])
      begin += count
    }
  }

  /// Removes ids; those that are not there are ignored.
  func remove(ids: Span<UInt64>) {
    guard ids.count > 0 else { return }
    var replaced = [Int64](repeating: -1, count: ids.count)
    let index = unsafe current.load(ordering: .relaxed)
    let removed = unsafe ids.withUnsafeBufferPointer { ids in
      unsafe guira_replica_remove(index, ids.baseAddress, ids.count, &replaced)
    }
    tombstones += removed
    liveRows.wrappingSubtract(removed, ordering: .relaxed)
    retire(replaced[...])
  }

  /// The wrapping sum of `RowDigest` over all rows (DESIGN, "Equal").
  func digest() -> UInt64 {
    let index = unsafe current.load(ordering: .relaxed)
    var sum: UInt64 = 0
    var id: UInt64 = 0
    var weights = [Float](repeating: 0, count: dimension)
    for slot in 0..<(UInt64(1) << UInt64(unsafe index.pointee.bits)) {
      guard unsafe guira_replica_slot(index, slot, &id, &weights) == 1 else { continue }
      sum &+= RowDigest.row(id: id, weights: weights.span, halfPrecision: halfPrecision)
    }
    return sum
  }

  /// Doubles the index as often as `count` more ids need, or cleans it of tombstones.
  private func makeRoom(for count: Int) {
    let old = unsafe current.load(ordering: .relaxed)
    let rows = rowCount
    let capacity = 1 << Int(unsafe old.pointee.bits)
    guard Double(rows + tombstones + count) > Self.loadLimit * Double(capacity) else { return }
    var larger = unsafe old.pointee
    // When tombstones alone are in the way the index keeps its size; else it doubles, so that rebuilds stay rare.
    while Double(rows + count) > 0.5 * Double(1 << Int(unsafe larger.bits)) { unsafe larger.bits += 1 }
    precondition(unsafe larger.bits <= 32, "a replica table of \(rows + count) rows")  // what a tag can tell apart
    unsafe larger.words = Self.zeroed(1 << Int(larger.bits))
    let new = unsafe Self.boxed(larger)
    unsafe guira_replica_rebuild(old, new)
    tombstones = 0
    unsafe current.store(new, ordering: .releasing)
    heldBytes.wrappingAdd(8 << Int(unsafe larger.bits), ordering: .relaxed)
    unsafe retiredIndexes.append((epochs.advance(), old))
  }

  private func takeRows(_ count: Int) -> [UInt32] {
    collect()
    while retiredRows > Self.retiredLimit {  // a reader is held up inside its section
      sched_yield()
      collect()
    }
    let reused = min(count, freeRows.count)
    var rows = Array(freeRows[(freeRows.count - reused)...])
    freeRows.removeLast(reused)
    while rows.count < count {
      if rowsMade == slabCount * rowsPerSlab { addSlab() }
      rows.append(UInt32(rowsMade))
      rowsMade += 1
    }
    return rows
  }

  private func addSlab() {
    let limit = min(Self.slabLimit * rowsPerSlab, Int(UInt32.max) - 1)
    precondition((slabCount + 1) * rowsPerSlab <= limit, "a replica table holds at most \(limit) rows")
    let words = rowsPerSlab * Int(unsafe current.load(ordering: .relaxed).pointee.stride)
    unsafe slabs[slabCount] = Self.zeroed(words)
    slabCount += 1
    heldBytes.wrappingAdd(words * 8, ordering: .relaxed)
  }

  private func retire(_ replaced: ArraySlice<Int64>) {
    var rows: [UInt32] = []
    for row in replaced where row >= 0 { rows.append(UInt32(row)) }
    guard !rows.isEmpty else { return }
    retiredRows += rows.count
    retired.append((epochs.advance(), rows))
  }

  /// Takes back what no reader can see any more.
  private func collect() {
    guard unsafe !(retired.isEmpty && retiredIndexes.isEmpty) else { return }
    let quiet = epochs.lastQuiet()
    var done = 0
    while done < retired.count, retired[done].epoch <= quiet {
      freeRows.append(contentsOf: retired[done].rows)
      retiredRows -= retired[done].rows.count
      done += 1
    }
    retired.removeFirst(done)
    while let first = unsafe retiredIndexes.first, unsafe first.epoch <= quiet {
      heldBytes.wrappingSubtract(8 << Int(unsafe first.index.pointee.bits), ordering: .relaxed)
      unsafe Self.release(first.index)
      unsafe retiredIndexes.removeFirst()
    }
  }

  // MARK: Memory

  /// `words` zeroed words; in huge pages when there are enough, since look-ups are random.
  private static func zeroed(_ words: Int) -> UnsafeMutablePointer<UInt64> {
    let hugePage = 2 << 20
    let bytes = words * 8
    let isLarge = bytes >= hugePage
    let alignment = isLarge ? hugePage : 64
    let rounded = (bytes + alignment - 1) / alignment * alignment
    guard let memory = unsafe aligned_alloc(alignment, rounded) else {
      preconditionFailure("out of memory: \(rounded) bytes for a replica table")
    }
    if isLarge { unsafe madvise(memory, rounded, MADV_HUGEPAGE) }
    unsafe memset(memory, 0, rounded)
    return unsafe memory.bindMemory(to: UInt64.self, capacity: words)
  }

  private static func boxed(_ index: guira_replica) -> UnsafePointer<guira_replica> {
    let box = UnsafeMutablePointer<guira_replica>.allocate(capacity: 1)
    unsafe box.initialize(to: index)
    return unsafe UnsafePointer(box)
  }

  private static func release(_ index: UnsafePointer<guira_replica>) {
    unsafe free(index.pointee.words)
    unsafe index.deallocate()
  }
}
