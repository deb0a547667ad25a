// An embedding table: rows by id, with admission, expiry, optimizers and the list of what changed. `pull` reads, `push`
// changes; everything else serves the shard around it. No I/O, no clock, no locks: one thread owns a table.

public import Base

/// A table of embeddings that grows to the memory it is given and keeps every id's row its own.
public struct Table: ~Copyable {
  /// What the table was told.
  public let options: TableOptions
  /// Weights per row.
  public let weightCount: Int
  /// Floats per row: weights, then optimizer state.
  public let floatCount: Int

  var index: CuckooIndex
  var rows: RowStore
  var changes: EpochChanges
  var clock: TableClock
  var sketch: Sketch
  var eviction = EvictionQueue()
  var counters = TableStatistics()
  var buffers: PushBuffers
  var sweepRow: UInt32 = 0
  var sweepLine: UInt32 = 0
  var compactBelow = UInt32.max
  let seed: UInt64
  var optimizers: [Optimizer]
  let threshold: Int
  let ageing: Milliseconds?

  /// An empty table.
  /// - Precondition: `options.problems()` is empty.
  public init(_ options: TableOptions) {
    let problems = options.problems()
    precondition(problems.isEmpty, problems.joined(separator: "; "))
    self.options = options
    weightCount = options.weightCount
    floatCount = options.floatCount
    seed = Hashing.xxh3(options.name, seed: options.seed)
    var optimizers: [Optimizer] = []
    var (weights, state) = (0, options.weightCount)
    for segment in options.segments {
      optimizers.append(Optimizer(segment.optimizer, width: segment.width, weights: weights, state: state))
      weights += segment.width
      state += segment.optimizer.stateCount(width: segment.width)
    }
    self.optimizers = optimizers
    index = CuckooIndex(salt: Hashing.mix(seed))
    rows = RowStore(
      floatCount: options.floatCount, countsFrequency: options.rowLimit != nil && options.eviction == .lfu)
    changes = EpochChanges(floatCount: options.floatCount)
    clock = TableClock(options)
    threshold = options.admission.threshold
    buffers = PushBuffers()
    if case .sketch(let n, let ids, let ageing) = options.admission {
      sketch = Sketch(threshold: n, ids: ids, salt: Hashing.mix(seed ^ 0x5ce7c4))
      self.ageing = ageing?.milliseconds
    } else {
      sketch = Sketch(threshold: 1, ids: 1, salt: 0)
      ageing = nil
    }
  }

  /// Rows held.
  public var rowCount: Int { rows.count }

  /// The watermark the table has heard of.
  public var watermark: Milliseconds? { clock.watermark }

  var countKind: CountKind {
    switch options.admission {
    case .always, .probability: .none
    case .count: .exact
    case .sketch: .sketch
    }
  }

  /// Bytes of rows and index, what `memoryLimitBytes` bounds.
  var boundedBytes: Int { rows.bytes + index.bytes + (countKind == .sketch ? sketch.bytes : 0) }

  /// True when the memory limit allows one row more.
  func hasRoom() -> Bool {
    guard let limit = options.memoryLimitBytes else { return true }
    if rows.hasFreeRow, index.isBelowGrowth { return true }
    return boundedBytes - index.bytes + index.bytesAhead + rows.bytesPerRow + 64 <= limit
  }

  /// Writes the weights a new row of this id begins with.
  func fillInitial(_ id: UInt64, _ weights: UnsafeMutablePointer<Float>) {
    let rowSeed = Hashing.mix(seed ^ Hashing.mix(id))
    var offset = 0
    for segment in options.segments.indices {
      let width = options.segments[segment].width
      unsafe options.segments[segment].initializer.fill(
        weights + offset, count: width, seed: Hashing.mix(rowSeed &+ UInt64(segment)))
      offset += width
    }
  }

  // MARK: One row

  /// Makes a row for an id that has none, and counts it as touched.
  /// - Parameter isCounted: whether the index holds a count of it.
  /// - Returns: nil when the index cannot take the id.
  mutating func createRow(_ id: UInt64, isCounted: Bool, seen: UInt32) -> UInt32? {
    if let limit = options.rowLimit {
      if rows.count > limit - limit / 16 { eviction.gather(rows, ranking: options.eviction) }
      while rows.count >= limit, let victim = eviction.first(rows, ranking: options.eviction) {
        removeRow(victim)
        counters.evicted += 1
      }
    }
    let row = rows.allocate(for: id)
    changes.forgetFrozen(row, in: rows)
    if isCounted {
      index.replace(id, with: row)
    } else if !index.insert(id, value: row) {
      rows.free(row)
      return nil
    }
    unsafe fillInitial(id, rows.floats(row))
    for place in optimizers.indices { unsafe optimizers[place].initializeState(of: rows.floats(row)) }
    rows.setSeen(row, seen)
    changes.touch(row, in: rows)
    return row
  }

  /// Removes a row and its id, with a tombstone.
  mutating func removeRow(_ row: UInt32) {
    let id = rows.id(row)
    changes.preserve(row, in: rows)
    changes.note(id, value: 0)
    index.remove(id)
    rows.free(row)
    noteMoves()
  }

  /// Logs counts that changed their place in the index: a scan under way may have missed them.
  mutating func noteMoves() {
    guard !index.movedPending.isEmpty else { return }
    for id in index.movedPending {
      let value = index.find(id)
      if value != CuckooIndex.empty, value & CuckooIndex.pending != 0 {
        changes.note(id, value: value & ~CuckooIndex.pending)
      }
    }
    index.movedPending.removeAll(keepingCapacity: true)
  }
}

/// Scratch memory of one push: a chunk of ids in flight.
///
/// Owned by its table.
@safe struct PushBuffers: ~Copyable {
  static let chunk = 32
  /// Values found for this chunk and, looked up ahead, for the next one.
  let hints: UnsafeMutablePointer<UInt32>
  let good: UnsafeMutablePointer<UInt8>
  let rows: UnsafeMutablePointer<UnsafeMutablePointer<Float>?>
  let gradients: UnsafeMutablePointer<UnsafePointer<Float>?>
  var count = 0

  init() {
    unsafe hints = .allocate(capacity: 2 * Self.chunk)
    unsafe good = .allocate(capacity: Self.chunk)
    unsafe rows = .allocate(capacity: Self.chunk)
    unsafe gradients = .allocate(capacity: Self.chunk)
  }

  deinit {
    unsafe hints.deallocate()
    unsafe good.deallocate()
    unsafe rows.deallocate()
    unsafe gradients.deallocate()
  }

  @inline(__always) mutating func add(_ row: UnsafeMutablePointer<Float>, _ gradient: UnsafePointer<Float>) {
    unsafe rows[count] = unsafe row
    unsafe gradients[count] = unsafe gradient
    count += 1
  }
}
