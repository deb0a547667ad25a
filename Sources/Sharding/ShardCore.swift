// The shard without its thread, sockets and files: messages and time in, actions out. The same code runs in a process, in
// tests and in simulation. What each request does is in ShardCore+Requests.swift, epochs in ShardCore+Epochs.swift.
//
// Invariants: pull changes nothing; a push is validated whole, then applied whole; a row changes only under a stamp, by
// expiry or by forget; what is acknowledged as durable is in a synced block.

public import Base
internal import Embeddings
public import Wire

/// What the shell must do for the core, in order.
public enum ShardAction: Sendable {
  /// Send a message; dropped when the peer is gone (it will ask again).
  case send(PeerID, Blob)
  /// Append a record to the journal.
  case append(Blob)
  /// Make all appended records durable, then call `blockSynced`.
  case sync(epoch: UInt64)
  /// Begin a new segment of the journal, so that everything before can be deleted.
  case beginSegment
  /// Keep for ever which ids were forgotten, durably before the next `sync` counts.
  case keepForgotten(Blob)
  /// Begin a checkpoint; every section that is written is told to `checkpointWritten`.
  case checkpointBegin(name: String)
  /// Append a section to the checkpoint.
  case checkpointSection(Blob)
  /// Drop the checkpoint under way; sections that were handed over are still told to `checkpointWritten`.
  case checkpointCancel
  /// Finish the checkpoint, delete what it makes superfluous, and tell `checkpointEnded`.
  case checkpointFinish(ShardCheckpoint)
}

/// One shard: its tables, tensors, chains and epochs.
public struct ShardCore: ~Copyable {
  /// A table in a place of its own: arrays cannot hold noncopyable values.
  final class TableBox {
    var table: Table
    let shape: TableShape
    init(_ options: TableOptions) {
      table = Table(options)
      shape = TableShape(name: options.name, weightCount: table.weightCount, floatCount: table.floatCount)
    }

    /// How many rows one section may have: at most `limit`, at most `sliceBytes` of them, at least one.
    ///
    /// Whatever the width of the rows, a section then fits a journal's record, and writing it delays nobody for long.
    func slice(_ limit: Int) -> Int {
      // Besides its floats a row has an id, the time it was seen and a frequency; a line of a sketch has 64 bytes.
      let rowBytes = max(64, shape.floatCount * 4 + 16)
      return max(1, min(limit, ShardCore.sliceBytes / rowBytes))
    }
  }

  /// One chain with the peer that is told when it becomes durable.
  struct Chain {
    var state: ChainState
    var pusher: PeerID?
    var lastPush: Int64 = longAgo
  }

  /// A closed epoch that is being copied out.
  struct Cut {
    var epoch: UInt64
    var table = 0
    var records: [Blob] = []
    var tail: [Blob]
    var applied: [ChainKey: Position]
  }

  /// A synced or soon synced block, kept for sync.
  struct RetainedBlock {
    var epoch: UInt64
    var records: [Blob]
    var bytes: Int
  }

  /// A request that is answered when an epoch is durable.
  struct Awaiting {
    var peer: PeerID
    var request: UInt64
    var epoch: UInt64
    var opcode: Opcode
    /// The chain that was claimed, and as whose.
    var claim: Claim?
    var text = ""
  }

  /// A `blocksSince` that waits for news.
  struct WaitingReader {
    var peer: PeerID
    var request: UInt64
    var question: BlocksRequest
    var deadline: Int64
  }

  /// The most chains a shard keeps; a block holds all of them.
  static let chainLimit = 1 << 16
  /// The most bytes of rows in one section of a block, a checkpoint or a scan, unless a single row has more: 4 MiB.
  static let sliceBytes = 4 << 20
  /// The most bytes of arrivals in one block, whose end is one record; at half of it the epoch closes early: 16 MiB.
  static let arrivalBytes = 16 << 20
  /// The most bytes of records one answer to `blocksSince` holds, whatever was asked for: 64 MiB.
  static let replyBytes: UInt64 = 64 << 20
  /// The most readers that may wait for blocks; the longest waiting is answered early beyond it.
  static let readerLimit = 64
  /// The most ids one `inspect` may ask for: the answer is JSON.
  static let inspectLimit = 4096
  /// The most peers whose word for their role is remembered; beyond it all are forgotten, which lets them ask anything.
  static let saidRoleLimit = 4096

  let options: ShardOptions
  let tables: [TableBox]
  let tableIndex: [String: Int]
  /// How step sizes change, by the hash of the consumer's name; constant ones are left out.
  let schedules: [UInt64: LearningRateSchedule]
  var dense: DenseStore
  var chains: [ChainKey: Chain] = [:]

  /// Drawn at random by the shell at every start.
  public let incarnation: UInt64
  /// The identity of the journal.
  public let identity: (high: UInt64, low: UInt64)

  var openEpoch: UInt64 = 1
  var durableEpoch: UInt64 = 0
  var isChanged = false
  var wantsEarlyClose = false
  var nextClose: Int64 = 0
  var nextSweep: Int64 = 0
  var cut: Cut?
  var syncing: [(epoch: UInt64, applied: [ChainKey: Position])] = []
  var openArrivals: [BlockRecord.PushArrivals] = []
  var openArrivalBytes = 0
  /// Bounded by what clients may have unanswered; a shard refuses chains beyond `chainLimit`.
  var awaiting: [Awaiting] = []
  var waitingReaders: [WaitingReader] = []
  var retained: [RetainedBlock] = []
  var retainedBytes = 0
  var oldestRetained: UInt64 = 1
  var recovering: [BlockRecord.Parsed] = []
  var recoveringRecords: [Blob] = []
  var recoveredShape: BlockRecord.Shape?
  var counters: [String: UInt64] = [:]
  var checkpoint: CheckpointScan?
  var unwritten = UnwrittenSections()
  var wantedCheckpoints: [(ask: CheckpointRequest, askers: [CheckpointScan.Asker])] = []
  var nextCheckpoint: Int64 = longAgo
  /// Bytes of blocks since the last checkpoint began.
  var changesSinceCheckpoint = 0
  var checkpointProblem = ""
  /// Which table refused rows in the open epoch or the one before, because its memory limit is reached.
  var fullTable: (open: String, last: String) = ("", "")
  /// Close the epoch although nothing changed: a checkpoint ends with it.
  var mustClose = false
  /// Why pushes are refused for now; empty when they are not.
  public internal(set) var stall = ""
  /// What was forgotten after the examples that are still to come; empty but after a restore or a loss.
  var ahead = ForgottenAhead()
  var clients = LivingClients()
  /// What peers without keys said they are.
  var saidRoles: [PeerID: PeerRole] = [:]
  /// Who was not let in, as the shell's socket tells; shown in status.
  public var linkRefusals = LinkRefusals()

  /// An empty shard.
  ///
  /// `recover` its journal's records before anything else.
  public init(_ options: ShardOptions, incarnation: UInt64, identity: (high: UInt64, low: UInt64)) {
    self.options = options
    self.incarnation = incarnation
    self.identity = identity
    tables = options.tables.map { TableBox($0) }
    tableIndex = Dictionary(uniqueKeysWithValues: options.tables.enumerated().map { ($1.name, $0) })
    schedules = Dictionary(
      uniqueKeysWithValues: options.schedules.filter { !$0.value.isConstant }.map { (Hashing.xxh3($0.key), $0.value) })
    dense = DenseStore(options)
  }

  /// The tables and tensors by index, as clients and the journal's shape record see them.
  var shape: BlockRecord.Shape {
    BlockRecord.Shape(
      tables: tables.map(\.shape),
      tensors: options.tensors.map {
        TensorShape(name: $0.tensor.name, count: $0.tensor.count, shard: options.map.shard(ofTensor: $0.tensor.name))
      })
  }

  mutating func count(_ counter: String, _ by: UInt64 = 1) {
    counters[counter, default: 0] += by
  }

  /// Event time up to which all active chains have read; the clock of expiry.
  ///
  /// A chain is active for a minute after a push.
  func eventClock(now: Int64) -> Milliseconds {
    chains.values.filter { now - $0.lastPush < 60_000_000_000 }.map(\.state.watermark).min() ?? .min
  }

  /// What this shard says of itself.
  public func status(problem: String = "") -> ShardStatus {
    var figures: [String: ShardStatus.Table] = [:]
    for box in tables {
      let statistics = box.table.statistics
      figures[box.shape.name] = ShardStatus.Table(
        rows: UInt64(box.table.rowCount), admitted: UInt64(statistics.admitted), refused: UInt64(statistics.refused),
        expired: UInt64(statistics.expired + statistics.evicted + statistics.forgotten),
        bytes: UInt64(statistics.bytes))
    }
    var counters = counters
    counters["clients"] = UInt64(clients.count)
    var status = ShardStatus(
      shard: options.index, epoch: openEpoch, durableEpoch: durableEpoch,
      isQuiet: !isChanged && cut == nil && syncing.isEmpty,
      chains: chains.values.map { ShardStatus.Chain($0.state) }
        .sorted { ($0.consumer, $0.stream, $0.partition) < ($1.consumer, $1.stream, $1.partition) },
      counters: counters.merging(linkRefusals.counters) { own, _ in own }, tables: figures,
      problem: [problem, stall, checkpointProblem, fullTable.open, fullTable.last, linkRefusals.problem]
        .first { !$0.isEmpty } ?? "")
    status.isStalled = !stall.isEmpty
    return status
  }

  /// The digest of everything this shard holds.
  public func digest(halfPrecision: Bool) -> DigestReply {
    var digest = DigestReply()
    for box in tables {
      digest.tables[box.shape.name] = DigestReply.Entry(
        count: UInt64(box.table.rowCount), sum: box.table.digest(halfPrecision: halfPrecision))
    }
    for entry in dense.entries.compactMap({ $0 }) {
      digest.tensors[entry.options.tensor.name] = DigestReply.tensor(entry.values)
    }
    return digest
  }
}
