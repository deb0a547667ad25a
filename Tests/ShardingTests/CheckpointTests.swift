// Checkpoints written while pushes go on: alone they are the state at the end of one epoch, and with the blocks after it
// the shard as it was.

import Base
import Testing
import Wire

@testable import Sharding

@Suite("Shard checkpoints") struct CheckpointTests {
  private typealias Push = ShardFixture.PushShape

  /// What a shard wrote: the sections of its checkpoint, and the journal with the place the checkpoint points at.
  private struct Written {
    var sections: [Blob] = []
    var journal: [Blob] = []
    var finished: ShardCheckpoint?
  }

  /// Pushes random ids while a checkpoint is written in slices of a few rows, with epochs closing meanwhile.
  private func pushBesideCheckpoint(seed: UInt64, _ shard: ShardFixture) -> (Written, [UInt64: String]) {
    var random = SeededRandom(seed: seed)
    var written = Written(journal: [BlockRecord.encode(shard.core.shape)])
    /// The state at the end of each epoch.
    var states: [UInt64: String] = [:]
    var position: UInt64 = 0
    shard.send(Claim(chain: ShardFixture.chain, ownership: ShardFixture.owner).encoded(request: 1))
    for step in 0..<400 {
      if step == 60 { shard.send(CheckpointRequest(name: "wanted").encoded(request: 9)) }
      let draw = Int.random(in: 0..<10, using: &random)
      if draw < 5 {
        let ids = Set((0..<Int.random(in: 1...30, using: &random)).map { _ in random.next() % 300 }).sorted()
        let table = Int.random(in: 0...1, using: &random)
        shard.send(
          ShardFixture.push(
            Push(
              from: position, to: position + 7, table: table, ids: ids, width: table + 2, tensor: (0, 2),
              gradient: Float(Int.random(in: -3...3, using: &random)))))
        position += 7
      } else if draw == 5 {
        let ids = (0..<5).map { _ in random.next() % 300 }
        shard.send(IDsRequest(table: "user", ids: ids).encoded(.forget, request: 4))
      }
      if Int.random(in: 0..<6, using: &random) == 0 { shard.core.closeEarly() }
      let epoch = shard.core.status().epoch
      let state = rows(shard)
      work(shard, &written)
      if shard.core.status().epoch > epoch { states[epoch] = state }
    }
    while written.finished == nil { work(shard, &written) }
    shard.core.closeEarly()
    while !shard.core.isQuiet { work(shard, &written) }
    return (written, states)
  }

  private func work(_ shard: ShardFixture, _ written: inout Written, isIdle: Bool = true) {
    shard.actions = []
    shard.core.work(now: shard.now, isIdle: isIdle, into: &shard.actions)
    var place = 0
    while place < shard.actions.count {
      switch shard.actions[place] {
      case .append(let record): written.journal.append(record)
      case .sync(let epoch):
        shard.core.blockSynced(epoch: epoch, journalEnd: UInt64(written.journal.count), into: &shard.actions)
      case .checkpointSection(let section):
        written.sections.append(section)
        shard.core.checkpointWritten(sections: 1)
      case .checkpointFinish(let manifest):
        written.finished = manifest
        shard.core.checkpointEnded(.success(manifest), into: &shard.actions)
      default: break
      }
      place += 1
    }
  }

  private func rows(_ shard: ShardFixture) -> String {
    let digest = shard.core.digest(halfPrecision: false)
    return "\(digest.tables.sorted { $0.key < $1.key }) \(digest.tensors) \(shard.core.status().chains)"
  }

  private func shard() -> ShardFixture { ShardFixture(checkpointSliceRows: 3) }

  @Test(arguments: 1...12 as ClosedRange<UInt64>)
  func `a checkpoint is the state at the end of its epoch, and with the later blocks the shard`(seed: UInt64) throws {
    let original = shard()
    let (written, states) = pushBesideCheckpoint(seed: seed, original)
    let manifest = try #require(written.finished)
    #expect(manifest.epoch > manifest.beginEpoch + 2, "the scan was meant to take several epochs")
    let again = ShardFixture()
    for section in written.sections { try again.core.restore(section: ByteReader(section)) }
    #expect(rows(again) == states[manifest.epoch])
    for record in written.journal[Int(manifest.journalOffset)...] { try again.core.recover(record) }
    #expect(rows(again) == rows(original))
    #expect(again.core.status().durableEpoch == original.core.status().durableEpoch)
  }

  @Test func `the asker is answered when the checkpoint is finished, with its manifest`() throws {
    let shard = shard()
    shard.claim()
    shard.send(ShardFixture.push(Push()))
    #expect(shard.send(CheckpointRequest(name: "mine").encoded(request: 9)).isEmpty)
    var written = Written()
    var answers: [Blob] = []
    for _ in 0..<100 where answers.isEmpty {
      work(shard, &written)
      answers += shard.actions.compactMap { if case .send(_, let blob) = $0 { blob } else { nil } }.filter {
        var reader = ByteReader($0)
        return (try? MessageHeader(decoding: &reader))?.opcode == .checkpoint
      }
    }
    var reader = ByteReader(try #require(answers.first))
    #expect(try MessageHeader(decoding: &reader) == MessageHeader(.checkpoint, .reply, request: 9))
    let manifest = try #require(ShardCheckpoint(json: try PlainMessage.text(decoding: &reader)))
    #expect(manifest.name == "mine" && manifest.tables.map(\.rows) == [3, 0] && !manifest.isAutomatic)
    #expect(manifest.chains.map(\.low) == [10])
  }

  @Test func `a checkpoint that cannot be written is refused and the next one succeeds`() throws {
    let shard = shard()
    shard.claim()
    shard.send(CheckpointRequest(name: "first").encoded(request: 9))
    shard.actions = []
    shard.core.work(now: shard.now, into: &shard.actions)
    let sections = shard.actions.count { if case .checkpointSection = $0 { true } else { false } }
    shard.core.checkpointWritten(sections: sections)
    shard.actions = []
    shard.core.checkpointEnded(.failure(ErrorReply(.busy, "no space is left")), into: &shard.actions)
    guard case .send(_, let blob)? = shard.actions.first else {
      Issue.record("nobody was answered")
      return
    }
    var reader = ByteReader(blob)
    #expect(try MessageHeader(decoding: &reader).kind == .error)
    #expect(shard.core.status().problem == "no space is left")
    shard.send(CheckpointRequest(name: "second").encoded(request: 10))
    var written = Written()
    for _ in 0..<100 where written.finished == nil { work(shard, &written) }
    #expect(written.finished?.name == "second" && shard.core.status().problem.isEmpty)
  }

  @Test func `a checkpoint the disk cannot keep up with is given up, and what waits for the disk is bounded`() throws {
    let shard = ShardFixture(checkpointSliceRows: 3, checkpointQueueBytes: 4096)
    shard.claim()
    shard.send(ShardFixture.push(Push(to: 1, ids: Array(0..<60))))
    shard.close()
    shard.send(CheckpointRequest(name: "first").encoded(request: 9))
    var handedOver: [Int] = []
    var waiting = 0
    var refusals = 0
    var cancels = 0
    // Nothing is ever written while epochs close.
    for step in 1..<100 as Range<UInt64> {
      shard.send(ShardFixture.push(Push(from: step, to: step + 1, ids: Array(step * 9..<step * 9 + 9))))
      shard.core.closeEarly()
      for _ in 0..<10 {
        shard.actions = []
        shard.core.work(now: shard.now, into: &shard.actions)
        for action in shard.actions {
          switch action {
          case .sync(let epoch): shard.core.blockSynced(epoch: epoch, into: &shard.actions)
          case .checkpointSection(let section): handedOver.append(section.count)
          case .checkpointCancel: cancels += 1
          case .send(_, let blob):
            var reader = ByteReader(blob)
            guard try MessageHeader(decoding: &reader) == MessageHeader(.checkpoint, .error, request: 9) else {
              continue
            }
            refusals += 1
            #expect(try ErrorReply(decoding: &reader).message.contains("the disk is 0 MiB behind"))
          default: break
          }
        }
      }
      waiting = handedOver.reduce(0, +)
      #expect(waiting <= 4096)
    }
    #expect(waiting > 2048 && refusals == 1 && cancels == 1)
    #expect(shard.core.status().counters["failedCheckpoints"] == 1)
    #expect(shard.core.status().problem.hasPrefix("the checkpoint was given up"))
    // What it left behind is written, then the next one begins and succeeds.
    shard.send(CheckpointRequest(name: "second").encoded(request: 10))
    shard.actions = []
    shard.core.work(now: shard.now, into: &shard.actions)
    #expect(!shard.actions.contains { if case .checkpointBegin = $0 { true } else { false } })
    shard.core.checkpointWritten(sections: handedOver.count)
    var written = Written()
    for _ in 0..<1000 where written.finished == nil { work(shard, &written) }
    #expect(written.finished?.name == "second" && shard.core.status().problem.isEmpty)
  }

  @Test func `beside requests a scan keeps to its rate, but stays ahead of what changes meanwhile`() throws {
    let shard = shard()
    shard.claim()
    shard.send(ShardFixture.push(Push(to: 1, ids: Array(0..<900))))
    shard.close()
    shard.send(CheckpointRequest(name: "wanted").encoded(request: 9))
    var written = Written()
    // The clock stands still, so the rate allows nothing.
    for _ in 0..<400 { work(shard, &written, isIdle: false) }
    let before = written.sections.count
    #expect(written.finished == nil && before < 10)
    for step in 1...100 as ClosedRange<UInt64> where written.finished == nil {
      shard.send(ShardFixture.push(Push(from: step, to: step + 1, ids: Array(0..<30))))
      shard.core.closeEarly()
      for _ in 0..<100 { work(shard, &written, isIdle: false) }
    }
    let manifest = try #require(written.finished)
    #expect(manifest.tables.reduce(0) { $0 + $1.rows } == 900)
    // Blocks of 30 rows against 900 that are read twice as fast; these slices of few rows are half as long again.
    let epochs = manifest.epoch - manifest.beginEpoch
    #expect(epochs > 3 && epochs < 35, "\(epochs) epochs")
  }

  @Test func `a full disk refuses pushes, says so, and goes on when there is space`() throws {
    let shard = shard()
    shard.claim()
    shard.send(ShardFixture.push(Push()))
    let before = shard.state
    shard.core.setStall("no space is left to write the journal")
    let refusal = try #require(shard.refusal(ShardFixture.push(Push(from: 10, to: 20))))
    #expect(refusal.code == .busy && refusal.message == "no space is left to write the journal")
    #expect(shard.state == before)
    #expect(shard.core.status().problem == "no space is left to write the journal")
    #expect(!shard.send(ShardFixture.pull()).isEmpty, "pulls are answered all the while")
    shard.core.setStall(nil)
    #expect(shard.refusal(ShardFixture.push(Push(from: 10, to: 20))) == nil)
    #expect(shard.core.status().problem.isEmpty)
  }
}
