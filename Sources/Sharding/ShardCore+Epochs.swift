// Epochs: closing, copying out between requests, durability, and recovery from the journal (DESIGN 3, 3.4).

public import Base
internal import Embeddings
internal import Wire

extension ShardCore {
  /// Whether there is copying to do at once, so that the shell should not sleep.
  public var hasWork: Bool { cut != nil || (wantsEarlyClose && mayClose) || canScan }

  /// Whether the open epoch may close: never more than two closed ones wait for the disk, so a slow disk makes longer
  /// epochs and not a growing queue.
  private var mayClose: Bool { (isChanged || mustClose) && cut == nil && syncing.count < 2 }

  /// Does what time asks for: closes the epoch, copies slices of the cut and of a checkpoint, expires, answers readers
  /// that waited.
  ///
  /// - Parameter isIdle: whether no request came for a while; a checkpoint keeps to its rate beside requests.
  public mutating func work(now: Int64, isIdle: Bool = true, into actions: inout [ShardAction]) {
    if mayClose, wantsEarlyClose || now >= nextClose { closeEpoch(now: now) }
    if cut != nil { copySlice(into: &actions) }
    workOnCheckpoint(now: now, isIdle: isIdle, into: &actions)
    if now >= nextSweep {
      nextSweep = now + options.sweepEvery.nanoseconds
      clients.forget(now: now)
      sweep(now: now)
    }
    if !waitingReaders.isEmpty { answerReaders(now: now, into: &actions) }
  }

  /// Refuses pushes for the reason given, because blocks cannot be written; nil goes on.
  public mutating func setStall(_ reason: String?) {
    if stall.isEmpty, reason != nil { count("stalls") }
    stall = reason ?? ""
  }

  /// Closes the open epoch although its time has not come, for a stop in order.
  public mutating func closeEarly() { wantsEarlyClose = true }

  /// Whether every change is in a synced block.
  public var isQuiet: Bool { !isChanged && cut == nil && syncing.isEmpty }

  private mutating func closeEpoch(now: Int64) {
    let epoch = openEpoch
    for box in tables { box.table.closeEpoch() }
    // In a fixed order, so that equal runs make equal bytes.
    let states = chains.values.map(\.state).sorted { $0.chain < $1.chain }
    let end = BlockRecord.End(chains: states, arrivals: openArrivals)
    let tail = dense.takeChanges(epoch: epoch) + [BlockRecord.encode(end, epoch: epoch)]
    cut = Cut(epoch: epoch, tail: tail, applied: chains.mapValues(\.state.applied))
    openArrivals = []
    fullTable = ("", fullTable.open)
    openArrivalBytes = 0
    if checkpoint?.endEpoch == epoch { checkpoint?.chains = states }
    openEpoch += 1
    isChanged = false
    wantsEarlyClose = false
    mustClose = false
    nextClose = now + options.epoch.nanoseconds
    count("epochs")
  }

  private mutating func copySlice(into actions: inout [ShardAction]) {
    guard var copying = cut else { return }
    var rows = options.copyRows
    while rows > 0, copying.table < tables.count {
      var writer = ByteWriter()
      BlockRecord.begin(.table, number: copying.table, epoch: copying.epoch, into: &writer)
      let box = tables[copying.table]
      if box.table.copyCut(rows: box.slice(rows), into: &writer) {
        let record = writer.finish()
        copying.records.append(record)
        actions.append(.append(record))
        addToCheckpoint(record, epoch: copying.epoch, into: &actions)
        rows -= options.copyRows / 2
      } else {
        copying.table += 1
      }
    }
    guard copying.table == tables.count else {
      cut = copying
      return
    }
    for record in copying.tail {
      copying.records.append(record)
      actions.append(.append(record))
      addToCheckpoint(record, epoch: copying.epoch, into: &actions)
    }
    actions.append(.sync(epoch: copying.epoch))
    if let checkpoint, checkpoint.compacts, checkpoint.endEpoch == copying.epoch { actions.append(.beginSegment) }
    syncing.append((copying.epoch, copying.applied))
    let bytes = copying.records.reduce(0) { $0 + $1.count }
    changesSinceCheckpoint += bytes
    retain(RetainedBlock(epoch: copying.epoch, records: copying.records, bytes: bytes))
    cut = nil
  }

  /// The block of `epoch` and all before it are on disk.
  ///
  /// - Parameter journalEnd: where in the journal the block ends.
  public mutating func blockSynced(epoch: UInt64, journalEnd: UInt64 = 0, into actions: inout [ShardAction]) {
    durableEpoch = max(durableEpoch, epoch)
    finishCheckpoint(epoch: epoch, journalEnd: journalEnd, into: &actions)
    while let first = syncing.first, first.epoch <= epoch {
      syncing.removeFirst()
      // In a fixed order, so that equal runs say equal things.
      for (key, position) in first.applied.sorted(by: { $0.key < $1.key }) {
        guard var chain = chains[key], position > chain.state.durable else { continue }
        chain.state.durable = position
        chains[key] = chain
        if let pusher = chain.pusher {
          let news = ChainReply(incarnation: incarnation, state: chain.state)
          actions.append(.send(pusher, news.encoded(.durable, request: 0)))
        }
      }
    }
    let answered = awaiting.filter { $0.epoch <= durableEpoch }
    awaiting.removeAll { $0.epoch <= durableEpoch }
    for waiting in answered {
      if let claim = waiting.claim, var state = chains[claim.chain]?.state {
        // A higher claim may have come since, which is not on the disk yet: this answer is about this one.
        state.ownership = claim.ownership
        let reply = ChainReply(incarnation: incarnation, state: state)
        actions.append(.send(waiting.peer, reply.encoded(waiting.opcode, request: waiting.request)))
      } else {
        actions.append(.send(waiting.peer, PlainMessage.text(waiting.opcode, waiting.text, request: waiting.request)))
      }
    }
    answerReaders(now: .min, into: &actions)
  }

  private mutating func answerReaders(now: Int64, into actions: inout [ShardAction]) {
    var still: [WaitingReader] = []
    for reader in waitingReaders {
      if let reply = blocksReply(reader.question, request: reader.request, evenIfEmpty: now >= reader.deadline) {
        actions.append(.send(reader.peer, reply))
      } else {
        still.append(reader)
      }
    }
    waitingReaders = still
  }

  private mutating func sweep(now: Int64) {
    let clock = eventClock(now: now)
    guard clock > .min else { return }  // nobody has pushed: event time stands still
    for box in tables {
      let expired = box.table.sweep(watermark: clock, rows: options.sweepRows)
      if expired > 0 { isChanged = true }
    }
  }

  private mutating func retain(_ block: RetainedBlock) {
    retained.append(block)
    retainedBytes += block.bytes
    var (dropped, bytes) = (0, retainedBytes)
    while bytes > options.retainedBytes, dropped < retained.count - 1 {
      bytes -= retained[dropped].bytes
      dropped += 1
    }
    dropOldestBlocks(dropped)
  }

  /// Drops blocks that sync has made durable.
  mutating func release(upTo epoch: UInt64) {
    dropOldestBlocks(retained.firstIndex { $0.epoch > epoch } ?? retained.count)
  }

  /// At once: one by one, each would move all that stay.
  private mutating func dropOldestBlocks(_ count: Int) {
    guard count > 0 else { return }
    oldestRetained = retained[count - 1].epoch + 1
    for block in retained[..<count] { retainedBytes -= block.bytes }
    retained.removeFirst(count)
  }
}

/// Why a journal's records cannot be replayed.
public struct RecoveryError: Error, Equatable, Sendable, CustomStringConvertible {
  /// What does not fit, and what to do.
  public let description: String
}

extension ShardCore {
  /// Takes one section of a checkpoint, in order, before any record of the journal.
  ///
  /// - Throws: `RecoveryError` for a table whose rows changed shape, or a damaged section.
  public mutating func restore(section: ByteReader) throws(RecoveryError) {
    do {
      let parsed = try BlockRecord.parse(section)
      switch parsed {
      case .shape(let shape):
        try check(shape)
        recoveredShape = shape
      case .table, .tensor: try replay(parsed)
      case .end(let epoch, let end): try restore(end, epoch: epoch)
      }
    } catch let error as RecoveryError {
      throw error
    } catch {
      throw RecoveryError(description: "\(error)")
    }
  }

  private mutating func restore(_ end: BlockRecord.End, epoch: UInt64) throws(RecoveryError) {
    guard epoch < .max else { throw RecoveryError(description: "a block says that it is of epoch \(epoch)") }
    for state in end.chains {
      var chain = chains[state.chain] ?? Chain(state: state)
      chain.state = state
      chain.state.durable = state.applied
      chains[state.chain] = chain
    }
    openEpoch = epoch + 1
    durableEpoch = epoch
    if retained.isEmpty { oldestRetained = openEpoch }
  }

  /// Takes one record of the journal, in order.
  ///
  /// Blocks are applied when their end record comes. - Throws: `RecoveryError` for a table whose rows changed shape,
  /// or a damaged record.
  public mutating func recover(_ record: Blob) throws(RecoveryError) {
    do {
      let parsed = try BlockRecord.parse(ByteReader(record))
      switch parsed {
      case .shape(let shape):
        try check(shape)
        if let old = recoveredShape, old != shape {
          // What earlier runs wrote numbers tables as they did; sync must not read it with other numbers.
          dropOldestBlocks(retained.count)
        }
        recovering = []
        recoveredShape = shape
        recoveringRecords = []
      case .table, .tensor:
        recovering.append(parsed)
        recoveringRecords.append(record)
      case .end(let epoch, let end):
        for part in recovering { try replay(part) }
        recovering = []
        try restore(end, epoch: epoch)
        // Nobody can tell how many blocks there were before the first one found.
        if retained.isEmpty { oldestRetained = epoch }
        recoveringRecords.append(record)
        let bytes = recoveringRecords.reduce(0) { $0 + $1.count }
        changesSinceCheckpoint += bytes
        retain(RetainedBlock(epoch: epoch, records: recoveringRecords, bytes: bytes))
        recoveringRecords = []
      }
    } catch let error as RecoveryError {
      throw error
    } catch {
      throw RecoveryError(description: "epoch after \(durableEpoch): \(error)")
    }
  }

  /// Ends recovery: what an unfinished block held is void.
  ///
  /// The record must be appended before anything else.
  public mutating func beginRun(now: Int64) -> Blob {
    recovering = []
    recoveringRecords = []
    if let old = recoveredShape, old != shape {
      // Kept blocks number tables as the last run did; sync must not read them with this run's numbers.
      dropOldestBlocks(retained.count)
    }
    nextClose = now + options.epoch.nanoseconds
    return BlockRecord.encode(shape)
  }

  private func check(_ old: BlockRecord.Shape) throws(RecoveryError) {
    for table in old.tables {
      guard let index = tableIndex[table.name] else { continue }
      let shape = tables[index].shape
      guard shape == table else {
        throw RecoveryError(
          description:
            "table '\(table.name)' holds \(table.weightCount) weights and \(table.floatCount) floats per row "
            + "in the journal, \(shape.weightCount) and \(shape.floatCount) in the configuration; compare dimension, "
            + "tasks and optimizer, or use another state directory")
      }
    }
  }

  private mutating func replay(_ part: BlockRecord.Parsed) throws {
    let old = recoveredShape ?? shape
    switch part {
    case .table(let number, _, var section):
      // A table that the configuration no longer has is dropped.
      guard old.tables.indices.contains(number) else {
        throw DecodeError.invalid(field: "table", value: "\(number)", expected: "below \(old.tables.count)")
      }
      guard let index = tableIndex[old.tables[number].name] else { return }
      while section.remaining > 0 { try tables[index].table.apply(section: &section) }
    case .tensor(let number, _, let values, let state):
      guard old.tensors.indices.contains(number) else {
        throw DecodeError.invalid(field: "tensor", value: "\(number)", expected: "below \(old.tensors.count)")
      }
      let name = old.tensors[number].name
      guard let index = options.tensors.firstIndex(where: { $0.tensor.name == name }) else { return }
      try dense.restore(tensor: index, values: values.array, state: state.array)
    case .shape, .end:
      break
    }
  }
}
