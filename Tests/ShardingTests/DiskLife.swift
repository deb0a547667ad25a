// A shard's life on a model of a disk, with the threads that write its files: pushes, claims, forgotten ids, blocks,
// checkpoints, and the deletion of what they made superfluous. It keeps in mind what the shard was after every epoch.

import Base
import Embeddings
import Wire

@testable import Journal
@testable import Sharding

/// What a shard is: all that a crash must not mix.
struct ShardState: Equatable {
  var rows: [[UInt64: [Float]]] = []
  var counts: [[UInt64: UInt32]] = []
  var tensors: [String: UInt64] = [:]
  var chains: [ShardStatus.Chain] = []

  init(_ core: inout ShardCore) throws {
    for table in core.tables.indices {
      var rows: [UInt64: [Float]] = [:]
      var counts: [UInt64: UInt32] = [:]
      var cursor: UInt64 = 0
      while true {
        var actions: [ShardAction] = []
        core.receive(
          ScanRequest(table: table, rows: 1000, cursor: cursor).encoded(request: 1), from: PeerID([9]), now: 0,
          into: &actions)
        guard case .send(_, let answer)? = actions.first else { break }
        var reader = ByteReader(answer)
        _ = try MessageHeader(decoding: &reader)
        var reply = try ScanReply(decoding: &reader)
        while reply.section.remaining > 0 {
          let section = try CutSection(&reply.section)
          let width = section.floatCount
          for (place, id) in section.ids.array.enumerated() {
            rows[id] = (0..<width).map { section.floats[place * width + $0] }
          }
          for (place, id) in section.countedIDs.array.enumerated() {
            counts[id] = section.countedValues[place] & 0xFFFF
          }
        }
        if reply.isLast { break }
        cursor = reply.cursor
      }
      self.rows.append(rows)
      self.counts.append(counts)
    }
    tensors = core.digest(halfPrecision: false).tensors.mapValues(\.sum)
    chains = core.status().chains
  }
}

/// One life of a shard, from what is on its disk to a crash or the end of the script.
final class DiskLife {
  private let disk: ShardDisk
  private let core: CoreBox
  /// What the shard was at the end of each epoch.
  private(set) var states: [UInt64: ShardState]
  /// The newest epoch that was called durable.
  private(set) var acknowledged: UInt64 = 0
  private(set) var finishedCheckpoints = 0
  private(set) var failure: String?
  private var applied: UInt64 = 0
  private var now: Int64 = 1_000_000_000
  private var requests: UInt64 = 0
  private var state: ShardState
  private var isTouched = false

  static var options: ShardOptions {
    var options = ShardFixture.options()
    options.checkpointSliceRows = 7
    options.checkpointEvery = .zero
    return options
  }

  private static var journalOptions: JournalOptions {
    var options = JournalOptions()
    options.segmentBytes = 4 << 10
    return options
  }

  /// Recovers a shard from its files.
  static func recover(_ files: ShardFiles) throws -> (writer: JournalBox, core: CoreBox, summary: RecoverySummary) {
    var recovery = ShardRecovery(options, files: files, acceptLoss: false)
    let (writer, core) = try recovery.run(journalOptions, incarnation: 5)
    return (writer, core, recovery.summary)
  }

  /// What the shard came back as, and the epoch that ended so.
  let origin: (epoch: UInt64, state: ShardState)
  let summary: RecoverySummary

  /// Begins a life with what the files hold.
  init(_ files: ShardFiles) throws {
    let (writer, core, summary) = try Self.recover(files)
    self.core = core
    self.summary = summary
    state = try ShardState(&core.core)
    origin = (core.core.status().durableEpoch, state)
    states = [origin.epoch: state]
    acknowledged = origin.epoch
    disk = ShardDisk(writer, files: files, shard: 0, isDurable: true, keepCheckpoints: 2)
    applied = core.core.status().chains.first?.applied ?? 0
    do { try disk.perform(.append(core.core.beginRun(now: now))) } catch { failure = "\(error)" }
  }

  /// Ends the threads; what they were given is written, unless the disk is gone.
  func end() { disk.stop() }

  // MARK: What the shard is asked

  func claim(generation: UInt64) {
    receive(
      Claim(chain: ShardFixture.chain, ownership: Ownership(generation: generation, owner: 9)).encoded(
        request: request()))
    owner = Ownership(generation: generation, owner: 9)
    closeEpoch()
  }

  private var owner = ShardFixture.owner

  func push(ids: [UInt64], table: Int) {
    var shape = ShardFixture.PushShape(from: applied, to: applied + 10)
    shape.ownership = owner
    shape.ids = ids
    shape.table = table
    shape.width = table + 2
    shape.gradient = Float(applied % 7) - 3
    shape.tensor = (0, 2)
    receive(ShardFixture.push(shape))
    applied += 10
  }

  func forget(_ ids: [UInt64], table: String) {
    receive(IDsRequest(table: table, ids: ids).encoded(.forget, request: request()))
    closeEpoch()
  }

  func requestCheckpoint(compacts: Bool) {
    receive(CheckpointRequest(compacts: compacts).encoded(request: request()))
  }

  /// Does one turn of work.
  func turn() {
    guard failure == nil else { return }
    now += 1_000_000
    remember()
    var actions: [ShardAction] = []
    core.core.work(now: now, into: &actions)
    perform(actions)
    take(disk.news.takeAll())
  }

  /// Closes the epoch and waits until its block is durable.
  func closeEpoch() {
    core.core.closeEarly()
    work { !$0.isQuiet }
  }

  /// Waits until the checkpoint under way is finished or given up.
  func finishCheckpoint() {
    work { $0.checkpoint != nil || !$0.wantedCheckpoints.isEmpty }
  }

  /// Works for as long as something is left to do, sleeping until the disk has news.
  private func work(while isLeft: (borrowing ShardCore) -> Bool) {
    while failure == nil, isLeft(core.core) {
      turn()
      if failure == nil, isLeft(core.core), !core.core.hasWork {
        take(disk.news.waitAll(timeout: .milliseconds(200)))
      }
    }
  }

  private func request() -> UInt64 {
    requests += 1
    return requests
  }

  private func receive(_ message: Blob) {
    guard failure == nil else { return }
    isTouched = true
    var actions: [ShardAction] = []
    core.core.receive(message, from: ShardFixture.peer, now: now, into: &actions)
    perform(actions)
  }

  /// The open epoch will be this when it closes, unless more comes.
  private func remember() {
    if isTouched {
      do { state = try ShardState(&core.core) } catch { failure = "\(error)" }
      isTouched = false
    }
    states[core.core.status().epoch] = state
  }

  private func perform(_ actions: [ShardAction]) {
    do { for action in actions { try disk.perform(action) } } catch { failure = "\(error)" }
  }

  private func take(_ news: [DiskNews]) {
    for item in news where failure == nil {
      var actions: [ShardAction] = []
      switch item {
      case .synced(let epoch, let end):
        core.core.blockSynced(epoch: epoch, journalEnd: end, into: &actions)
        acknowledged = max(acknowledged, epoch)
      case .full(let problem): core.core.setStall(problem)
      case .failed(let problem): failure = problem
      case .written(let sections): core.core.checkpointWritten(sections: sections)
      case .kept(let problem): core.core.setCheckpointProblem(problem)
      case .checkpoint(let result, let offset):
        if case .success = result { finishedCheckpoints += 1 }
        core.core.checkpointEnded(result, into: &actions)
        if offset > 0 { disk.deleteBlocks(before: offset) }
      }
      perform(actions)
    }
  }
}

extension DiskLife {
  /// Mounts a disk for as long as `body` runs.
  static func with<Result>(
    _ disk: ModelDisk, at directory: String, _ body: (ShardFiles) throws -> Result
  ) rethrows -> Result {
    FileLayers.mount(SharedDisk(disk), at: directory)
    defer { FileLayers.unmount(directory) }
    return try body(ShardFiles(directory: directory))
  }

  /// What was known of a life when it ended.
  struct Knowledge {
    var states: [UInt64: ShardState] = [:]
    var acknowledged: UInt64 = 0
    var checkpoints = 0
    var failure: String?
  }

  /// Everything a shard does to its files, on a disk that may stop.
  static func live(_ disk: ModelDisk, at directory: String) throws -> Knowledge {
    try with(disk, at: directory) { files in
      let life: DiskLife
      do { life = try DiskLife(files) } catch let error where disk.crashAt != nil {
        return Knowledge(failure: "\(error)")
      }
      life.claim(generation: 1)
      for step in 0..<16 as Range<UInt64> where life.failure == nil {
        life.push(ids: Array(step * 5..<step * 5 + 20), table: Int(step % 2))
        life.push(ids: Array(step * 3..<step * 3 + 8), table: 1)
        switch step {
        case 3, 6: life.requestCheckpoint(compacts: false)
        case 5, 8, 14: life.finishCheckpoint()
        case 9: life.forget([3, 30, 31], table: "user")
        case 11: life.requestCheckpoint(compacts: true)
        case 12: life.claim(generation: 2)
        default: break
        }
        if step % 3 == 1 { life.closeEpoch() } else { life.turn() }
      }
      life.closeEpoch()
      life.end()
      return Knowledge(
        states: life.states, acknowledged: life.acknowledged, checkpoints: life.finishedCheckpoints,
        failure: life.failure)
    }
  }
}
