// What a client sends never makes a record longer than the journal takes, and never breaks who reads it later.

import Base
import Embeddings
import Testing
import Wire

@testable import Sharding

/// A shard whose rows have 96 KiB with their state.
private final class WideShard {
  static let width = 8192
  var core: ShardCore
  init() {
    var options = ShardFixture.options()
    let adam = OptimizerOptions(rule: .adam(beta1: 0.9, beta2: 0.999, epsilon: 1e-8), learningRate: 0.1)
    options.tables = [
      TableOptions(
        name: "wide", seed: 1,
        segments: [Segment(name: "w", width: Self.width, initializer: .zeros, optimizer: adam)])
    ]
    core = ShardCore(options, incarnation: 5, identity: (6, 7))
    _ = core.beginRun(now: 0)
  }
}

@Suite("Limits of a shard") struct LimitTests {
  private typealias Push = ShardFixture.PushShape

  @Test func `sections of wide rows are cut by bytes: in blocks, in checkpoints, in scans`() throws {
    let shard = WideShard()
    var actions: [ShardAction] = []
    func send(_ message: Blob) { shard.core.receive(message, from: ShardFixture.peer, now: 0, into: &actions) }
    send(Claim(chain: ShardFixture.chain, ownership: ShardFixture.owner).encoded(request: 1))
    send(ShardFixture.push(Push(ids: Array(0..<100), width: WideShard.width)))
    send(CheckpointRequest(name: "wide").encoded(request: 2))
    send(ScanRequest(table: 0, rows: 65_536, cursor: 0).encoded(request: 3))
    shard.core.closeEarly()
    var (records, sections, scans) = (0, 0, 0)
    for turn in 0..<200 {
      let work = actions
      actions = []
      for action in work {
        switch action {
        case .append(let record):
          records += record.count
          #expect(record.count < 5 << 20)
        case .checkpointSection(let section):
          sections += section.count
          #expect(section.count < 5 << 20)
          shard.core.checkpointWritten(sections: 1)
        case .sync(let epoch): shard.core.blockSynced(epoch: epoch, into: &actions)
        case .send(_, let reply):
          var reader = ByteReader(reply)
          guard try MessageHeader(decoding: &reader).opcode == .scan else { continue }
          scans += reply.count
          #expect(reply.count < 5 << 20)
          let scan = try ScanReply(decoding: &reader)
          if !scan.isLast { send(ScanRequest(table: 0, rows: 65_536, cursor: scan.cursor).encoded(request: 4)) }
        default: break
        }
      }
      shard.core.work(now: Int64(turn), into: &actions)
    }
    let all = 100 * WideShard.width * 3 * 4
    #expect(records > all && sections > all && scans > all)
  }

  @Test func `arrivals of many pushes close the epoch early, and never make its end longer than a record may be`()
    throws
  {
    let shard = ShardFixture()
    shard.claim()
    let arrivals = (0..<65_536).map { ArrivalCount(arrival: Int64($0), count: 1) }
    var hadWork = false
    for step in 0..<20 as Range<UInt64> {
      #expect(shard.refusal(ShardFixture.push(Push(from: step, to: step + 1, arrivals: arrivals))) == nil)
      if step == 0 { hadWork = shard.core.hasWork }
    }
    #expect(!hadWork && shard.core.hasWork, "the epoch closes although its time has not come")
    let dropped = try #require(shard.core.status().counters["droppedArrivals"])
    #expect(dropped == 5 * 65_536)
    #expect(shard.close().allSatisfy { $0.count < 17 << 20 })
    shard.send(ShardFixture.push(Push(from: 20, to: 21, arrivals: arrivals)))
    #expect(shard.core.status().counters["droppedArrivals"] == dropped, "the next epoch has room again")
    #expect(shard.close().contains { $0.count > 1 << 20 })
  }

  @Test(arguments: [(Int64.min, 1), (-1, 1), (1 << 50, 1), (.max, 1), (4500, 1 + 1 << 32)] as [(Int64, UInt64)])
  func `arrivals that cannot be true are refused`(arrival: Int64, count: UInt64) throws {
    let shard = ShardFixture()
    shard.claim()
    let before = shard.state
    let refusal = try #require(
      shard.refusal(ShardFixture.push(Push(arrivals: [ArrivalCount(arrival: arrival, count: count)]))))
    #expect(refusal.code == .malformed && refusal.message.contains("arrived at \(arrival); expected"))
    #expect(shard.state == before)
  }

  @Test func `a tensor that no record of the journal could hold is refused at the start`() throws {
    let shard = ShardFixture()
    try shard.core.dense.check(recordLimit: 72)
    let error = #expect(throws: RecoveryError.self) { try shard.core.dense.check(recordLimit: 71) }
    #expect(error?.description.hasPrefix("tensor 'bias' takes 72 bytes with the state of its optimizer") == true)
  }

  @Test func `an answer continues inside the block after one that left out numbers of epochs`() throws {
    let shard = ShardFixture()
    #expect(shard.core.recover([ForgottenIDs(epoch: 50, table: "user", ids: [9], chains: [])]) == 0)
    shard.claim()
    shard.send(ShardFixture.push(Push()))
    shard.close()
    func entries(after epoch: UInt64, skip: UInt32) throws -> [(UInt64, UInt32)] {
      let question = BlocksRequest(
        afterEpoch: epoch, skipRecords: skip, waitMilliseconds: 0, persistedEpoch: 0, maximumBytes: .max)
      var reader = ByteReader(try #require(shard.send(question.encoded(request: 1)).first))
      #expect(try MessageHeader(decoding: &reader).kind == .reply)
      return try BlocksReply(decoding: &reader).records.map { ($0.epoch, $0.index) }
    }
    let all = try entries(after: 49, skip: 0)
    #expect(all.first.map { $0 == (50, 0) } == true)
    let rest = try entries(after: 49, skip: 1)
    #expect(rest.map { "\($0)" } == all.dropFirst().map { "\($0)" })
  }

  @Test func `a full table is told in the status for as long as it refuses ids`() {
    let shard = ShardFixture(memoryLimit: 100_000)
    shard.claim()
    shard.send(ShardFixture.push(Push(ids: [1])))
    #expect(shard.core.status().problem.isEmpty)
    shard.send(ShardFixture.push(Push(from: 10, to: 20, ids: Array(2...20_000))))
    #expect(shard.core.status().problem.contains("table 'user': memoryLimitBytes is 100000 and reached"))
    shard.close()
    shard.send(ShardFixture.push(Push(from: 20, to: 30, ids: [1])))
    #expect(!shard.core.status().problem.isEmpty)
    shard.close()
    #expect(shard.core.status().problem.isEmpty)
  }
}
