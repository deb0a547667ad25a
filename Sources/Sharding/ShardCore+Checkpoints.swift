// Checkpoints while serving (DESIGN 3.4): rows leave in slices between requests, and the blocks of the epochs that close
// meanwhile follow them, up to the epoch that was open when the scan ended. Read in the order they were written, they are
// the state at the end of that epoch. The manifest is ordered when that epoch is durable, so a checkpoint never holds
// what a crash could still undo.

internal import Base
internal import Embeddings
internal import Journal
public import Wire

/// A checkpoint under way.
struct CheckpointScan {
  /// Someone who asked for it.
  struct Asker {
    var peer: PeerID
    var request: UInt64
  }

  let name: String
  let compacts: Bool
  let beginEpoch: UInt64
  let began: Int64
  var askers: [Asker]
  var table = 0
  var cursor = TableCursor()
  var rows: [Int]
  var scanned = 0
  /// Bytes of the slices.
  var scannedBytes = 0
  /// Bytes of the blocks that closed meanwhile.
  var blockBytes = 0
  /// The epoch open when the scan ended.
  var endEpoch: UInt64?
  /// The chains at the end of `endEpoch`.
  var chains: [ChainState] = []
  var isFinishing = false
  /// Whether the last slice was put off because the scan is ahead of its rate.
  var isAhead = false

  static let unwrittenLimit = 64
}

/// Sections that were handed over and are not written yet, oldest first; those of a checkpoint given up too.
struct UnwrittenSections {
  private var sizes: [Int] = []
  private(set) var bytes = 0

  /// The most there may be at a time, whatever their size.
  static let limit = 1 << 16

  var count: Int { sizes.count }

  mutating func add(_ size: Int) {
    sizes.append(size)
    bytes += size
  }

  mutating func written(_ sections: Int) {
    bytes -= sizes.prefix(sections).reduce(0, +)
    sizes.removeFirst(min(sections, sizes.count))
  }
}

extension ShardCore {
  /// Whether rows are being scanned, so that the shell should come back soon.
  public var isScanning: Bool {
    guard let scan = checkpoint else { return false }
    return scan.endEpoch == nil && mayHandOverRows
  }

  /// Rows wait for the disk early: the blocks that follow them cannot wait.
  private var mayHandOverRows: Bool {
    unwritten.count < CheckpointScan.unwrittenLimit && unwritten.bytes < options.checkpointQueueBytes / 4
  }

  /// Whether a slice could be scanned at once, so that the shell should not sleep at all.
  var canScan: Bool { isScanning && checkpoint?.isAhead == false }

  /// Takes a peer's wish for a checkpoint.
  /// - Throws: `ErrorReply.mismatch` for a name that is none, or one that shards and restores give themselves.
  mutating func requestCheckpoint(_ ask: CheckpointRequest, peer: PeerID, request: UInt64) throws(ErrorReply) {
    guard ask.name.isEmpty || Checkpoints.isValid(name: ask.name) else {
      throw ErrorReply(
        .mismatch, "'\(ask.name)' is no name for a checkpoint; use up to 100 letters, digits, '.', '_' and '-'")
    }
    if let prefix = ShardCheckpoint.reservedPrefixes.first(where: { ask.name.hasPrefix($0) }) {
      throw ErrorReply(.mismatch, "names that begin with '\(prefix)' are given by Guira itself; use another")
    }
    let asker = CheckpointScan.Asker(peer: peer, request: request)
    // Begun after it was asked for, so that it holds all that the asker knows of.
    if let place = wantedCheckpoints.firstIndex(where: { $0.ask == ask }) {
      wantedCheckpoints[place].askers.append(asker)
    } else {
      wantedCheckpoints.append((ask, [asker]))
    }
  }

  /// Begins a checkpoint as soon as it can, though nobody asked for one.
  mutating func wantCheckpoint() { begin(CheckpointRequest(name: "")) }

  /// Begins a checkpoint of any name, for nobody.
  mutating func begin(_ checkpoint: CheckpointRequest) { wantedCheckpoints.append((checkpoint, [])) }

  /// Begins a checkpoint when one is due, and goes on with the one under way.
  mutating func workOnCheckpoint(now: Int64, isIdle: Bool, into actions: inout [ShardAction]) {
    if checkpoint == nil { beginCheckpointIfDue(now: now, into: &actions) }
    guard var scan = checkpoint, scan.endEpoch == nil else { return }
    checkpoint = nil
    scanSlice(&scan, now: now, isIdle: isIdle, into: &actions)
    checkpoint = scan
  }

  private mutating func beginCheckpointIfDue(now: Int64, into actions: inout [ShardAction]) {
    if nextCheckpoint == longAgo { nextCheckpoint = now + options.checkpointEvery.nanoseconds }
    let isDue =
      options.checkpointEvery > .zero && changesSinceCheckpoint > 0
      && (now >= nextCheckpoint || changesSinceCheckpoint >= options.checkpointBytes)
    // What one that was given up has left behind is written, or dropped, first.
    guard isDue || !wantedCheckpoints.isEmpty, unwritten.count == 0 else { return }
    let wanted = wantedCheckpoints.isEmpty ? nil : wantedCheckpoints.removeFirst()
    let ownName = "\(ShardCheckpoint.automaticPrefix)\(openEpoch)-\(String(incarnation, radix: 36))"
    let name = wanted.map { $0.ask.name.isEmpty ? ownName : $0.ask.name } ?? ownName
    nextCheckpoint = now + options.checkpointEvery.nanoseconds
    changesSinceCheckpoint = 0
    checkpoint = CheckpointScan(
      name: name, compacts: wanted?.ask.compacts ?? false, beginEpoch: openEpoch, began: now,
      askers: wanted?.askers ?? [], rows: Array(repeating: 0, count: tables.count))
    actions.append(.checkpointBegin(name: name))
    handOver(BlockRecord.encode(shape), into: &actions)
    for record in dense.all(epoch: openEpoch) { handOver(record, into: &actions) }
  }

  private mutating func scanSlice(
    _ scan: inout CheckpointScan, now: Int64, isIdle: Bool, into actions: inout [ShardAction]
  ) {
    // Beside requests the scan keeps to a rate, so that they hardly feel it; alone it goes as fast as it can be written.
    // It stays ahead of what changes meanwhile: a slow scan of a hot table would write more blocks than rows.
    let allowed = Double(now - scan.began) / 1e9 * Double(options.checkpointRowRate)
    scan.isAhead = !isIdle && Double(scan.scanned) >= allowed && scan.scannedBytes >= 2 * scan.blockBytes
    guard !scan.isAhead, mayHandOverRows else { return }
    while scan.table < tables.count {
      var writer = ByteWriter(capacity: 1 << 16)
      BlockRecord.begin(.table, number: scan.table, epoch: scan.beginEpoch, into: &writer)
      let before = scan.cursor.rows
      let box = tables[scan.table]
      guard box.table.scan(cursor: &scan.cursor, rows: box.slice(options.checkpointSliceRows), into: &writer) else {
        scan.table += 1
        scan.cursor = TableCursor()
        continue
      }
      scan.rows[scan.table] = scan.cursor.rows
      scan.scanned += scan.cursor.rows - before
      let slice = writer.finish()
      scan.scannedBytes += slice.count
      handOver(slice, into: &actions)
      return
    }
    // What the rows hold of the open epoch is whole when that epoch's block follows them.
    scan.endEpoch = openEpoch
    wantsEarlyClose = true
    mustClose = true
  }

  private mutating func handOver(_ section: Blob, into actions: inout [ShardAction]) {
    unwritten.add(section.count)
    actions.append(.checkpointSection(section))
  }

  /// Adds a section to the checkpoint under way, or gives it up when the disk is too far behind: requests never wait for
  /// a checkpoint, and what waits for the disk has a bound.
  mutating func addSection(_ record: Blob, into actions: inout [ShardAction]) {
    guard checkpoint != nil else { return }
    let isAlone = unwritten.count == 0
    guard isAlone || unwritten.bytes + record.count <= options.checkpointQueueBytes,
      unwritten.count < UnwrittenSections.limit
    else {
      let reason =
        "the checkpoint was given up: the disk is \(unwritten.bytes >> 20) MiB behind, \(unwritten.count) sections"
      actions.append(.checkpointCancel)
      return checkpointEnded(.failure(ErrorReply(.busy, reason)), into: &actions)
    }
    handOver(record, into: &actions)
  }

  /// Adds a record of a block that closed since the scan began.
  mutating func addToCheckpoint(_ record: Blob, epoch: UInt64, into actions: inout [ShardAction]) {
    guard let scan = checkpoint, epoch >= scan.beginEpoch, epoch <= scan.endEpoch ?? .max else { return }
    checkpoint?.blockBytes += record.count
    addSection(record, into: &actions)
  }

  /// The block of an epoch is durable: the checkpoint that ends with it can be finished.
  mutating func finishCheckpoint(epoch: UInt64, journalEnd: UInt64, into actions: inout [ShardAction]) {
    guard var scan = checkpoint, scan.endEpoch == epoch, !scan.isFinishing else { return }
    scan.isFinishing = true
    checkpoint = scan
    let manifest = ShardCheckpoint(
      name: scan.name, shard: options.index, shardCount: options.map.shardCount, beginEpoch: scan.beginEpoch,
      epoch: epoch, journalOffset: journalEnd,
      tables: zip(tables, scan.rows).map { ShardCheckpoint.TableRows(name: $0.shape.name, rows: $1) },
      chains: scan.chains.map(ShardCheckpoint.Chain.init), compacts: scan.compacts)
    actions.append(.checkpointFinish(manifest))
  }

  /// Sections of the checkpoint under way were written.
  public mutating func checkpointWritten(sections: Int) {
    unwritten.written(sections)
  }

  /// Says in status what is wrong with checkpoints, until one succeeds.
  mutating func setCheckpointProblem(_ problem: String) { checkpointProblem = problem }

  /// The checkpoint under way is finished, or was given up with a reason.
  public mutating func checkpointEnded(_ result: Result<ShardCheckpoint, ErrorReply>, into actions: inout [ShardAction])
  {
    guard let scan = checkpoint else { return }
    checkpoint = nil
    mustClose = false
    switch result {
    case .success(let manifest):
      count("checkpoints")
      checkpointProblem = ""
      for asker in scan.askers {
        let reply = PlainMessage.text(.checkpoint, manifest.json, request: asker.request)
        actions.append(.send(asker.peer, reply))
      }
    case .failure(let error):
      // A name that is taken is the asker's affair.
      if error.code != .mismatch {
        count("failedCheckpoints")
        checkpointProblem = error.message
      }
      for asker in scan.askers {
        actions.append(.send(asker.peer, error.encoded(opcode: .checkpoint, request: asker.request)))
      }
    }
  }
}

extension ShardCheckpoint.Chain {
  init(_ state: ChainState) {
    self.init(
      consumer: state.chain.consumer, stream: state.chain.stream, partition: state.chain.partition,
      high: state.applied.high, low: state.applied.low, examples: state.exampleCount)
  }
}

extension ShardCore {
  /// Makes room for the rows a checkpoint announces, so that no table grows while they come.
  mutating func reserve(_ announced: [ShardCheckpoint.TableRows]) {
    for table in announced {
      if let index = tableIndex[table.name] { tables[index].table.reserve(rows: table.rows) }
    }
  }
}
