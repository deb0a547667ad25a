// Versions: when one is due, what goes into it, what waits. A version too large for one message is published as several
// that belong together. While replicas are pinned to an earlier version only removals are published.
//
// Invariant: what a stored version says of a shard's epochs is in it or before it, whole. Rows that wait for a later
// version keep their epoch, and so the shard's blocks from there on, waiting too; a version in pieces says its epochs in
// the last one only, since sync may end between two.

internal import Base
internal import Sharding
internal import Wire

/// A block whose rows are merged, until all of them are in a version.
struct MergedBlock {
  var epoch: UInt64
  var chains: [ChainState]
  var arrivals: [BlockRecord.PushArrivals]
  var mergedAt: Int64
}

extension SyncCore {
  /// Asks for a version at once.
  public mutating func publish(dense: Bool) {
    wantsPublish = true
    wantsDense = wantsDense || dense
  }

  mutating func publishIfDue(now: Int64, into actions: inout [SyncAction]) {
    if nextSparse == 0 {
      nextSparse = now + options.sparseEvery.nanoseconds
      nextDense = now + options.denseEvery.nanoseconds
      if let first = options.denseAt {
        // Dense versions fall on denseAt, denseAt + denseEvery, …
        let every = max(1, options.denseEvery.milliseconds)
        nextDense -= ((wall - first.milliseconds) % every + every) % every * 1_000_000
      }
    }
    guard now >= nextSparse || wantsPublish else { return }
    if now >= nextSparse { nextSparse = now + options.sparseEvery.nanoseconds }
    let withDense = wantsDense || now >= nextDense
    if now >= nextDense { nextDense = now + options.denseEvery.nanoseconds }
    wantsPublish = false
    wantsDense = false
    // An empty version now and then tells replicas that they are not stale.
    let isOverdue = now - lastPublish >= options.quietEvery.nanoseconds
    if pin != nil {
      publishRemovals(isOverdue: isOverdue, now: now, into: &actions)
    } else {
      publishChanges(dense: withDense ? changedTensors : [], isOverdue: isOverdue, now: now, into: &actions)
    }
  }

  private mutating func publishChanges(
    dense: Set<String>, isOverdue: Bool, now: Int64, into actions: inout [SyncAction]
  ) {
    let hasTables = tables.values.contains { !$0.isEmpty }
    guard hasTables || !dense.isEmpty || hasProgress || isOverdue else { return }
    hasProgress = false
    let chosen = chooseRows()
    var changes: [TableChange] = []
    for name in tables.keys.sorted() {
      guard var merged = tables[name], !merged.isEmpty else { continue }
      tables[name] = nil
      changes.append(chosen == nil ? merged.take() : merged.take(chosen?[name] ?? []))
      tables[name] = merged
    }
    noteShipped(changes)
    settleBlocks()
    let tensors = dense.sorted().map { TensorChange(name: $0, values: self.tensors[$0] ?? []) }
    changedTensors.subtract(dense)
    emit(changes, tensors, now: now, into: &actions)
    for shard in shards.indices { shards[shard].persisted = shards[shard].shipped }
  }

  /// While replicas are pinned: what is gone goes there too, what changed waits.
  private mutating func publishRemovals(isOverdue: Bool, now: Int64, into actions: inout [SyncAction]) {
    var changes: [TableChange] = []
    for name in tables.keys.sorted() {
      guard var merged = tables[name], merged.hasRemovals else { continue }
      tables[name] = nil
      changes.append(merged.takeRemovals())
      tables[name] = merged
    }
    withholdNoMoreThanAllowed()
    guard !changes.isEmpty || isOverdue else { return }
    emit(changes, [], now: now, into: &actions)
    for shard in shards.indices { shards[shard].persisted = shards[shard].cursor }
  }

  /// Lets go of what waits behind a pin when it gets too much; resuming then takes a new store.
  private mutating func withholdNoMoreThanAllowed() {
    if pin?.isComplete == true {
      let rows = tables.values.reduce(0) { $0 + $1.byteCount }
      let arrivals = shards.reduce(0) { $0 + $1.merged.reduce(0) { $0 + 64 + $1.arrivals.count * 64 } }
      guard rows + arrivals > options.withheldBytes else { return }
      pin?.isComplete = false
    }
    for name in tables.keys { tables[name]?.dropRows() }
    for shard in shards.indices { shards[shard].merged = [] }
    arrivalQueue = WaitingArrivals()
  }

  /// Takes account of the blocks whose rows all are in the version about to be made.
  private mutating func settleBlocks() {
    var oldest = [UInt64?](repeating: nil, count: shards.count)
    for merged in tables.values where !merged.isEmpty {
      for (shard, epoch) in merged.oldest(shardCount: shards.count).enumerated() {
        if let epoch { oldest[shard] = min(oldest[shard] ?? .max, epoch) }
      }
    }
    for shard in shards.indices {
      shards[shard].shipped = max(shards[shard].shipped, oldest[shard].map { max(1, $0) - 1 } ?? shards[shard].cursor)
      let done = shards[shard].merged.prefix { $0.epoch <= shards[shard].shipped }
      for block in done {
        for state in block.chains {
          settle(state, of: shard, mergedAt: block.mergedAt)
        }
        // Every shard's block holds the same arrivals; one shard's are enough.
        if shard == 0 { count("droppedArrivals", arrivalQueue.add(block.arrivals)) }
      }
      shards[shard].merged.removeFirst(done.count)
    }
    let ready = arrivalQueue.takeReady { chain in shards.map { $0.chains[chain]?.applied ?? .start }.min() ?? .start }
    let room = WaitingArrivals.versionLimit - readyArrivals.count
    readyArrivals.append(contentsOf: ready.prefix(room))
    if ready.count > room { count("droppedArrivals", ready.count - room) }
  }

  /// Stores and sends a version, or several that belong together when it is larger than one message should be.
  mutating func emit(
    _ changes: [TableChange], _ tensors: [TensorChange], isReturn: Bool = false, now: Int64,
    into actions: inout [SyncAction]
  ) {
    lastPublish = now
    let before = progressList
    updateProgress(now: now)
    let pieces = changes.cut(bytes: options.messageBytes)
    for (place, piece) in pieces.enumerated() {
      let isLast = place == pieces.count - 1
      for change in piece {
        totals.rows += UInt64(change.ids.count)
        totals.tombstones += UInt64(change.tombstones.count)
      }
      totals.versions += 1
      newest += 1
      var content = VersionContent(
        number: newest, basePart: nil, created: wall, newestEventTime: pin?.newestEventTime ?? newestEventTime,
        exampleCount: pin?.exampleCount ?? exampleCount, totals: totals,
        epochs: shards.map { !isLast ? $0.persisted : pin == nil ? $0.shipped : $0.cursor },
        identities: shards.map(\.identity), progress: isLast ? progressList : before,
        arrivals: isLast ? readyArrivals : [], tables: piece, tensors: isLast ? tensors : [])
      content.continues = !isLast
      content.isReturn = isReturn
      // Half a return cannot be gone on from, nor half of a version that ends one: `VersionStore.load` knows them by this.
      content.pinned = pin?.version ?? (isLast ? 0 : storedPin)
      let blob = content.encoded(halfPrecision: options.halfPrecision)
      actions.append(.storeVersion(newest, blob))
      bytesSinceBase += blob.count
      versionsSinceBase += 1
      totals.bytes += UInt64(blob.count)
    }
    storedPin = pin?.version ?? 0
    awaited.append(AwaitedVersion(number: newest, arrivals: readyArrivals))
    // A replica that is long gone must not make this grow; its freshness is then not measured.
    while awaited.count > 10_000 || awaited.reduce(0, { $0 + $1.arrivals.count }) > WaitingArrivals.awaitedLimit {
      awaited.removeFirst()
    }
    readyArrivals = []
    bringAllForward(now: now, into: &actions)
  }

  /// Examples that every shard has applied, over all chains; a chain that a shard has not told of yet counts nothing.
  var exampleCount: UInt64 {
    var sum: UInt64 = 0
    for key in shards[0].chains.keys {
      let counts = shards.compactMap { $0.chains[key]?.exampleCount }
      guard counts.count == shards.count, let least = counts.min() else { continue }
      sum = UInt64(clamping: UInt128(sum) + UInt128(least))
    }
    return max(sum, knownExamples)
  }
}

extension [TableChange] {
  /// Groups of at most about `bytes`, a table's rows cut where need be; one group at least.
  func cut(bytes: Int) -> [[TableChange]] {
    var groups: [[TableChange]] = [[]]
    var room = bytes
    for change in self {
      let rowBytes = 8 + 4 * change.weightCount
      var from = 0
      repeat {
        let rows = Swift.min(change.ids.count - from, Swift.max(1, room / rowBytes))
        let piece =
          from == 0 && rows == change.ids.count ? change : change.rows(from..<from + rows, withTombstones: from == 0)
        groups[groups.count - 1].append(piece)
        room -= rows * rowBytes + piece.tombstones.count * 8
        from += rows
        if from < change.ids.count {
          groups.append([])
          room = bytes
        }
      } while from < change.ids.count
    }
    return groups
  }
}

extension TableChange {
  /// Some of the rows; shares their memory.
  fileprivate func rows(_ range: Range<Int>, withTombstones: Bool) -> TableChange {
    let offset = weights.byteOffset + range.lowerBound * weightCount * 4
    guard let view = try? View<Float>(weights.blob, byteOffset: offset, count: range.count * weightCount) else {
      preconditionFailure("rows \(range) of \(ids.count)")
    }
    return TableChange(
      table: table, weightCount: weightCount, tombstones: withTombstones ? tombstones : [], ids: Array(ids[range]),
      weights: view)
  }
}
