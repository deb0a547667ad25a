// A shard in the simulation: the real core, a journal that loses what was not synced, and a log of what the core said it
// applied. The log is what the final numbers are held to; the checks here are those that a client could make.

internal import Base
internal import Embeddings
internal import Sharding
internal import Wire

/// Something a shard applied, in order.
struct Applied {
  enum Change {
    case push(partition: Int, from: Position, to: Position)
    case forget(table: Int, ids: [UInt64])
  }

  var epoch: UInt64
  var change: Change
}

/// One shard of the simulated cluster.
final class SimulatedShard {
  let index: Int
  private let options: ShardOptions
  private let partitionCount: Int
  private(set) var core: ShardCore
  private(set) var isUp = true
  private(set) var incarnation: UInt64 = 1
  private(set) var identity: UInt64 = 1

  private var disk = SimulatedDisk()
  private var syncs: [(at: Int64, epoch: UInt64, records: Int)] = []
  /// What the thread that writes checkpoints will have done, and when.
  private var checkpointNews: [(at: Int64, finished: ShardCheckpoint?)] = []
  private(set) var finishedCheckpoints = 0
  /// The disk is slow until then.
  var stalledUntil: Int64 = longAgo

  private(set) var log: [Applied] = []
  private var applied: [ChainKey: Position] = [:]
  private var promised: [ChainKey: Position] = [:]
  private let partitionOf: [ChainKey: Int]
  private var random: SeededRandom
  /// What the shard did that it must not.
  var violations: [String] = []
  /// The newest owner that was ready to push, per chain; older ones are fenced.
  var owners: [ChainKey: Ownership] = [:]

  init(_ options: ShardOptions, partitions: Int, seed: UInt64) {
    self.options = options
    index = options.index
    partitionCount = partitions
    random = SeededRandom(seed: Hashing.mix(seed ^ UInt64(options.index + 77)))
    partitionOf = Dictionary(uniqueKeysWithValues: (0..<partitions).map { (Workload.chain($0), $0) })
    core = ShardCore(options, incarnation: 1, identity: (0, 1))
    disk.append(core.beginRun(now: 0))
    disk.sync(upTo: 1)
  }

  /// Whether something is applied that a crash would lose.
  var hasUnsynced: Bool { !core.isQuiet }

  func appliedPosition(_ partition: Int) -> Position { applied[Workload.chain(partition)] ?? .start }

  // MARK: Messages and time

  func receive(_ message: Blob, from peer: PeerID, now: Int64) -> [(PeerID, Blob)] {
    guard isUp else { return [] }
    // Only these two change rows, and the status is not cheap.
    let isChange = [.push, .forget].contains(Self.opcode(message))
    let epoch = isChange ? core.status().epoch : 0
    var actions: [ShardAction] = []
    core.receive(message, from: peer, now: now, into: &actions)
    if isChange { note(message, epoch: epoch, actions) }
    return perform(actions, now: now)
  }

  private static func opcode(_ message: Blob) -> Opcode? {
    var reader = ByteReader(message)
    return try? MessageHeader(decoding: &reader).opcode
  }

  func work(now: Int64) -> [(PeerID, Blob)] {
    guard isUp else { return [] }
    var actions: [ShardAction] = []
    core.work(now: now, isIdle: false, into: &actions)
    while let first = syncs.first, first.at <= now {
      syncs.removeFirst()
      disk.sync(upTo: first.records)
      core.blockSynced(epoch: first.epoch, journalEnd: UInt64(first.records), into: &actions)
    }
    while let first = checkpointNews.first, first.at <= now {
      checkpointNews.removeFirst()
      if let manifest = first.finished {
        disk.finish(manifest)
        finishedCheckpoints += 1
        core.checkpointEnded(.success(manifest), into: &actions)
      } else {
        core.checkpointWritten(sections: 1)
      }
    }
    return perform(actions, now: now)
  }

  private func perform(_ actions: [ShardAction], now: Int64) -> [(PeerID, Blob)] {
    var sends: [(PeerID, Blob)] = []
    for action in actions {
      switch action {
      case .send(let peer, let message):
        noteReply(message)
        sends.append((peer, message))
      case .append(let record): disk.append(record)
      case .beginSegment, .keepForgotten: break
      case .checkpointBegin: disk.beginCheckpoint()
      case .checkpointCancel: disk.beginCheckpoint()
      case .checkpointSection(let section):
        disk.append(section: section)
        wrote(nil, now: now)
      case .checkpointFinish(let manifest): wrote(manifest, now: now)
      case .sync(let epoch):
        let start = max(now, stalledUntil, syncs.last?.at ?? now)
        let delay = Int64.random(in: 500_000...12_000_000, using: &random)
        syncs.append((start + delay, epoch, disk.end))
      }
    }
    return sends
  }

  private func wrote(_ finished: ShardCheckpoint?, now: Int64) {
    let start = max(now, stalledUntil, checkpointNews.last?.at ?? now)
    checkpointNews.append((start + Int64.random(in: 10_000...2_000_000, using: &random), finished))
  }

  // MARK: Crash and recovery

  /// The process dies; of the records not yet synced, the first `kept` are found on the disk later.
  func crash(keeping kept: Int? = nil) {
    guard isUp else { return }
    isUp = false
    let unsynced = disk.unsynced
    disk.crash(keeping: min(unsynced, kept ?? Int.random(in: 0...unsynced, using: &random)))
    syncs = []
    checkpointNews = []
  }

  /// A new process reads the newest checkpoint and the blocks after it.
  func restart(now: Int64) {
    guard !isUp else { return }
    isUp = true
    incarnation += 1
    core = ShardCore(options, incarnation: incarnation, identity: (0, identity))
    do {
      for section in disk.checkpoint?.sections ?? [] { try core.restore(section: ByteReader(section)) }
      for record in disk.recordsAfterCheckpoint { try core.recover(record) }
    } catch {
      violations.append("shard \(index) cannot read its own journal: \(error)")
    }
    disk.append(core.beginRun(now: now))
    disk.sync(upTo: disk.end)
    let durable = core.status().durableEpoch
    log.removeAll { $0.epoch > durable }
    applied = [:]
    for entry in log {
      if case .push(let partition, _, let end) = entry.change { applied[Workload.chain(partition)] = end }
    }
    for state in chainStates() {
      if state.applied != applied[state.chain] ?? .start {
        violations.append(
          "shard \(index) came back at \(state.applied), its blocks up to epoch \(durable) end at "
            + "\(applied[state.chain] ?? .start)")
      }
      if state.applied < promised[state.chain] ?? .start {
        violations.append(
          "shard \(index) lost what it had called durable: \(promised[state.chain] ?? .start), now \(state.applied)")
      }
    }
  }

  /// An operator restores an older state: the last blocks are gone and the journal has another identity.
  func loseJournal(records: Int) {
    crash(keeping: 0)
    disk.lose(records)
    identity += 1
    promised = [:]
  }

  private func chainStates() -> [ChainState] {
    let hello = Hello(role: .operator, chains: (0..<partitionCount).map { Workload.chain($0) })
    guard let reply = ask(hello.encoded(request: 1)), let header = try? MessageHeader(decoding: &reply.reader),
      header.kind == .reply, let welcome = try? Welcome(decoding: &reply.reader)
    else { return [] }
    return welcome.chains
  }

  /// What the core answers at once, outside the network.
  func ask(_ message: Blob) -> Answer? {
    var actions: [ShardAction] = []
    core.receive(message, from: PeerID([0]), now: 0, into: &actions)
    guard case .send(_, let blob)? = actions.first else { return nil }
    return Answer(reader: ByteReader(blob))
  }

  final class Answer {
    var reader: ByteReader
    init(reader: ByteReader) { self.reader = reader }
  }

  // MARK: What was applied

  private func note(_ message: Blob, epoch: UInt64, _ actions: [ShardAction]) {
    var reader = ByteReader(message)
    guard let header = try? MessageHeader(decoding: &reader), header.kind == .request else { return }
    if header.opcode == .forget, let request = try? IDsRequest(decoding: &reader),
      let table = Workload.tableNames.firstIndex(of: request.table)
    {
      log.append(Applied(epoch: epoch, change: .forget(table: table, ids: request.ids)))
    }
    guard header.opcode == .push, let push = try? PushRequest(decoding: &reader),
      let partition = partitionOf[push.stamp.chain], case .send(_, let blob)? = actions.first
    else { return }
    var answer = ByteReader(blob)
    guard let kind = try? MessageHeader(decoding: &answer).kind, kind == .reply,
      let state = try? ChainReply(decoding: &answer).state
    else { return }
    let before = applied[push.stamp.chain] ?? .start
    guard push.stamp.end > before else { return }
    if push.stamp.previousEnd != before || state.applied != push.stamp.end {
      violations.append(
        "shard \(index) applied \(push.stamp.previousEnd)...\(push.stamp.end) of partition \(partition) at \(before)")
    }
    if let owner = owners[push.stamp.chain], push.stamp.ownership < owner {
      violations.append(
        "shard \(index) applied a push of generation \(push.stamp.ownership.generation) after generation "
          + "\(owner.generation) was ready")
    }
    applied[push.stamp.chain] = push.stamp.end
    let change = Applied.Change.push(partition: partition, from: before, to: push.stamp.end)
    log.append(Applied(epoch: epoch, change: change))
  }

  private func noteReply(_ message: Blob) {
    var reader = ByteReader(message)
    guard let header = try? MessageHeader(decoding: &reader), header.kind == .reply,
      [.claim, .push, .durable].contains(header.opcode), let state = try? ChainReply(decoding: &reader).state
    else { return }
    promise(state.durable, of: state.chain)
  }

  /// A position that somebody relies on: the shard must never come back behind it.
  func promise(_ position: Position, of chain: ChainKey) {
    promised[chain] = max(promised[chain] ?? .start, position)
  }
}
