import Base
import Testing

@testable import Embeddings

@Suite("Expiry and eviction") struct ExpiryTests {
  private func expiring(_ seconds: Int) -> TableOptions {
    var told = options()
    told.timeToLive = .seconds(seconds)
    told.allowedSkew = .seconds(10)
    return told
  }

  @Test func `a row past its time counts as absent, whether or not the sweep came by`() {
    var table = Table(expiring(100))
    table.sweep(watermark: 0, rows: 0)
    let initial = table.pull([1])
    table.push([1], at: 0)
    table.sweep(watermark: 100_000, rows: 0)
    #expect(table.pull([1], at: 100_000) == initial.map { $0 - 0.5 }, "at its last moment it is still there")
    table.sweep(watermark: 101_000, rows: 0)
    #expect(table.pull([1], at: 101_000) == initial)
    let counts = table.push([1], at: 101_000)
    #expect(counts.admitted == 1)
    #expect(table.pull([1], at: 101_000) == initial.map { $0 - 0.5 }, "it began anew")
    let expired = table.statistics.expired
    #expect(expired == 1)
  }

  @Test func `the sweep goes round in slices`() {
    var table = Table(expiring(100))
    table.sweep(watermark: 0, rows: 0)
    table.push(Array(1...1000), at: 0)
    table.push([5000], at: 9_000)
    var expired = 0
    for _ in 0..<11 { expired += table.sweep(watermark: 105_000, rows: 100) }
    let rows = table.rowCount
    #expect(expired == 1000 && rows == 1)
  }

  @Test func `one bad clock does not expire a table`() {
    var table = Table(expiring(100))
    table.sweep(watermark: 1_000_000, rows: 0)
    table.push([1], at: 1_000_000)
    table.push([2], at: 1_000_000_000_000)
    #expect(table.sweep(watermark: 1_050_000, rows: 100) == 0)
    #expect(table.inspect(2)?.lastSeen == 1_010_000, "clamped to the skew")
    #expect(table.sweep(watermark: 1_101_000, rows: 100) == 1)
    #expect(table.sweep(watermark: 1_111_000, rows: 100) == 1)
  }

  @Test(arguments: [Eviction.lru, .lfu])
  func `a full table evicts what a full search would choose`(eviction: Eviction) {
    var told = options(width: 1)
    told.rowLimit = 6000
    told.eviction = eviction
    var table = Table(told)
    var model: [UInt64: (frequency: Int, seen: Int64)] = [:]
    var random = SeededRandom(seed: 2)
    var wrong = 0
    for step in 0..<9000 {
      let time = Int64(step) * 10
      // Mostly new ids, so that the table is full for long; some old ones, so that ranks grow.
      for _ in 0..<3 {
        let isNew = Int.random(in: 0..<3, using: &random) == 0
        let id = isNew ? UInt64(step) + 1 : UInt64.random(in: 1...UInt64(step + 1), using: &random)
        if model[id] == nil, model.count == 6000, step % 16 != 0 { continue }
        if model[id] == nil, model.count == 6000 {
          let victim = model.min {
            eviction == .lru
              ? ($0.value.seen, $0.key) < ($1.value.seen, $1.key)
              : ($0.value.frequency, $0.value.seen, $0.key) < ($1.value.frequency, $1.value.seen, $1.key)
          }!.key
          model[victim] = nil
          table.push([id], at: time)
          if table.inspect(victim) != nil { wrong += 1 }
        } else {
          table.push([id], at: time)
        }
        let seen = (time + 999) / 1000
        model[id] = ((model[id]?.frequency ?? 0) + 1, max(model[id]?.seen ?? 0, seen))
      }
    }
    for id in model.keys where table.inspect(id) == nil { wrong += 1 }
    let (rows, evicted) = (table.rowCount, table.statistics.evicted)
    #expect(wrong == 0)
    #expect(rows == 6000 && evicted > 100)
  }

  @Test func `memory is given back after mass expiry, and what stays is intact`() throws {
    var told = options(.adagrad(initialAccumulator: 0.1), width: 64)
    told.timeToLive = .seconds(100)
    var table = Table(told)
    table.sweep(watermark: 0, rows: 0)
    let ids = Array(1...60_000 as ClosedRange<UInt64>)
    table.push(ids, at: 0)
    let kept = ids.filter { $0 % 20 == 0 }
    table.push(kept, at: 90_000)
    let weights = table.pull(kept, at: 90_000)
    table.closeEpoch()
    _ = table.cut()
    table.closeEpoch()
    let before = table.statistics.bytes
    for _ in 0..<200 { table.sweep(watermark: 110_000, rows: 1000) }
    let (after, rows) = (table.statistics.bytes, table.rowCount)
    #expect(rows == kept.count)
    #expect(table.pull(kept, at: 110_000) == weights)
    #expect(Double(after) < 0.4 * Double(before), "\(before) before, \(after) after")
  }

  @Test func `a memory limit refuses new ids and serves the others`() {
    var told = options(width: 16)
    told.memoryLimitBytes = 100_000
    var table = Table(told)
    let counts = table.push(Array(1...2000))
    #expect(counts.refused > 500 && counts.admitted > 500 && counts.refused + counts.admitted == 2000)
    let refusal = table.refusal(counts)
    #expect(refusal == TableFull(table: "item", limitBytes: 100_000, refused: counts.refused))
    #expect(
      refusal.map { "\($0)" }
        == "table 'item': memoryLimitBytes is 100000 and reached; \(counts.refused) new ids were refused a row")
    #expect(
      table.pull([2000]) == [Float](repeating: -7, count: 16), "an id that would be refused is not promised a row")
    let step = table.push([1])
    #expect(step.updated == 1)
    #expect(table.refusal(step) == nil)
    table.forget(Array(1...100).span)
    #expect(table.push(Array(3001...3100)).admitted == 100, "rows given back are used again")
    let bytes = table.boundedBytes
    #expect(bytes <= 100_000)
  }
}
