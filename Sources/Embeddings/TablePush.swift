// Changing: one push counts sightings, admits, creates and updates. Ids are worked on in chunks: the next chunk is
// looked up, and its rows prefetched, before this one is settled; what the look-up found is only a hint and checked
// on use.

public import Base
internal import CKernels

/// What one push came to, in ids.
public struct PushCounts: Sendable, Equatable {
  /// Rows whose weights were updated.
  public var updated = 0
  /// Rows made.
  public var admitted = 0
  /// Gradients dropped because the id has no row, or got it with this very push at a later sighting than the first.
  public var droppedGradients = 0
  /// Gradients refused because they hold NaN, infinities, or numbers of 2^63 and above.
  public var rejectedNonFinite = 0
  /// Ids that should have got a row but for the memory limit.
  public var refused = 0

  /// Nothing yet.
  public init() {}
}

/// Why ids that should have got a row did not; all others were served.
public struct TableFull: Error, Equatable, Sendable, CustomStringConvertible {
  /// The table.
  public let table: String
  /// Its memory limit in bytes.
  public let limitBytes: Int
  /// How many ids were refused.
  public let refused: Int

  /// The error in words.
  public var description: String {
    "table '\(table)': memoryLimitBytes is \(limitBytes) and reached; \(refused) new ids were refused a row"
  }
}

extension Table {
  /// The error that a push with these counts stands for, nil when none of its ids was refused.
  public func refusal(_ counts: PushCounts) -> TableFull? {
    guard counts.refused > 0, let limit = options.memoryLimitBytes else { return nil }
    return TableFull(table: options.name, limitBytes: limit, refused: counts.refused)
  }

  /// Multiplies the step size of all segments from the next push on, for warm-up and decay; FTRL keeps its own.
  public mutating func setRateFactor(_ factor: Float) {
    for place in optimizers.indices { optimizers[place].setRateFactor(factor) }
  }

  /// Applies one push: counts sightings, admits, creates rows and steps them.
  ///
  /// - Parameters:
  ///   - ids: distinct; a repeated id is worked on twice, in order.
  ///   - sightings: how often each occurs in the batch, or empty for once each.
  ///   - gradients: `[ids.count × weightCount]`, summed per id over the batch.
  ///   - eventTime: the newest event time of the batch, at which its rows are seen.
  @discardableResult public mutating func push(
    ids: Span<UInt64>, sightings: Span<UInt32>, gradients: Span<Float>, eventTime: Milliseconds
  ) -> PushCounts {
    precondition(
      gradients.count == ids.count * weightCount, "\(gradients.count) floats for \(ids.count) rows of \(weightCount)")
    precondition(sightings.isEmpty || sightings.count == ids.count, "\(sightings.count) sightings for \(ids.count) ids")
    let now = clock.now(eventTime)
    var push = Push(now: now, seen: clock.seconds(eventTime), oldest: clock.oldest(at: now))
    unsafe ids.withUnsafeBufferPointer { ids in
      unsafe gradients.withUnsafeBufferPointer { gradients in
        guard let firstID = ids.baseAddress, let firstGradient = gradients.baseAddress else { return }
        unsafe settle(firstID, ids.count, sightings, firstGradient, &push)
      }
    }
    noteMoves()
    counters.add(push.counts)
    return push.counts
  }

  private struct Push {
    let now: Milliseconds
    let seen: UInt32
    let oldest: UInt32
    var counts = PushCounts()
  }

  private mutating func settle(
    _ ids: UnsafePointer<UInt64>, _ count: Int, _ sightings: Span<UInt32>, _ gradients: UnsafePointer<Float>,
    _ push: inout Push
  ) {
    let chunk = PushBuffers.chunk
    unsafe guira_find(index.view, rows.view, ids, min(chunk, count), buffers.hints)
    var half = 0
    for start in stride(from: 0, to: count, by: chunk) {
      let end = min(start + chunk, count)
      let hints = unsafe buffers.hints + half
      half = chunk - half
      if end < count {
        unsafe guira_find(index.view, rows.view, ids + end, min(chunk, count - end), buffers.hints + half)
      }
      unsafe guira_check_gradients(gradients + start * weightCount, end - start, weightCount, buffers.good)
      for place in start..<end {
        let id = unsafe ids[place]
        let times = sightings.isEmpty ? 1 : sightings[place]
        let gradient = unsafe gradients + place * weightCount
        let isGood = unsafe buffers.good[place - start] != 0
        let hint = unsafe hints[place - start]
        if unsafe guira_row_is(rows.view, hint, id, push.oldest) != 0 {
          unsafe update(hint, times, gradient, isGood: isGood, &push)
        } else {
          unsafe settleSlowly(id, times, gradient, isGood: isGood, &push)
        }
      }
      flush()
    }
  }

  /// Steps the rows that wait for it.
  ///
  /// Before a row can go, this must have been done.
  private mutating func flush() {
    guard buffers.count > 0 else { return }
    for place in optimizers.indices {
      unsafe optimizers[place].apply(buffers.rows, UnsafePointer(buffers.gradients), count: buffers.count)
    }
    buffers.count = 0
  }

  @inline(__always) private mutating func update(
    _ row: UInt32, _ times: UInt32, _ gradient: UnsafePointer<Float>, isGood: Bool, _ push: inout Push
  ) {
    changes.touch(row, in: rows)
    unsafe guira_row_see(rows.view, row, push.seen)
    rows.addFrequency(row, times)
    if isGood {
      unsafe buffers.add(rows.floats(row), gradient)
      push.counts.updated += 1
    } else {
      push.counts.rejectedNonFinite += 1
    }
  }

  /// An id that has no row, or not where the look-up ahead thought, or one past its time-to-live.
  private mutating func settleSlowly(
    _ id: UInt64, _ times: UInt32, _ gradient: UnsafePointer<Float>, isGood: Bool, _ push: inout Push
  ) {
    var value = index.find(id)
    if value & CuckooIndex.pending == 0 {
      if rows.seen(value) >= push.oldest {
        unsafe update(value, times, gradient, isGood: isGood, &push)
        return
      }
      flush()
      removeRow(value)
      counters.expired += 1
      value = CuckooIndex.empty
    }
    if !isGood { push.counts.rejectedNonFinite += 1 }
    let sighted = sighted(id, value: value, times: Int(times), now: push.now)
    guard sighted.isAdmitted else {
      keepCount(id, value: value, count: sighted.count, &push)
      if isGood { push.counts.droppedGradients += 1 }
      return
    }
    if options.rowLimit != nil { flush() }
    guard hasRoom(), let row = createRow(id, isCounted: value != CuckooIndex.empty, seen: push.seen)
    else {
      push.counts.refused += 1
      if isGood { push.counts.droppedGradients += 1 }
      keepCount(id, value: value, count: threshold - 1, &push)
      return
    }
    push.counts.admitted += 1
    rows.addFrequency(row, times)
    rankCreated(row)
    guard isGood else { return }
    if threshold <= 1 {
      unsafe buffers.add(rows.floats(row), gradient)
      push.counts.updated += 1
    } else {
      push.counts.droppedGradients += 1
    }
  }

  /// Stores how often an id without a row was seen.
  private mutating func keepCount(_ id: UInt64, value: UInt32, count: Int, _ push: inout Push) {
    guard count > 0 else { return }
    switch options.admission {
    case .always, .probability: return
    case .sketch:
      let generation = TableClock.generation(push.now, ageing: ageing)
      sketch.raise(id, to: count, generation: generation)
      changes.note(id, value: UInt32(count) << 16 | UInt32(generation))
    case .count:
      let kept = clock.stamp(push.seen) << 16 | UInt32(count)
      if value != CuckooIndex.empty {
        index.replace(id, with: CuckooIndex.pending | kept)
      } else {
        guard hasRoom(), index.insert(id, value: CuckooIndex.pending | kept) else {
          push.counts.refused += 1
          return
        }
      }
      changes.note(id, value: kept)
    }
  }
}
