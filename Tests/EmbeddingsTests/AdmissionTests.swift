import Base
import Foundation
import Testing

@testable import Embeddings

@Suite("Admission") struct AdmissionTests {
  @Test func `an id is admitted at its first sighting, with its gradient`() {
    var table = Table(options())
    let before = table.pull([1])
    let counts = table.push([1])
    #expect(counts.admitted == 1 && counts.updated == 1 && counts.droppedGradients == 0)
    #expect(table.pull([1]) == before.map { $0 - 0.5 })
  }

  @Test(arguments: [Admission.count(3), .sketch(3, ids: 100, ageing: nil)])
  func `an id is admitted at its third sighting, and that gradient is dropped`(admission: Admission) {
    var table = Table(options(admission: admission))
    let initial = Table(options()).pull([1])
    for sighting in 1...3 {
      #expect(table.pull([1]) == (sighting == 3 ? initial : [-7, -7]))
      let counts = table.push([1])
      #expect(counts.droppedGradients == 1 && counts.updated == 0 && counts.admitted == (sighting == 3 ? 1 : 0))
    }
    #expect(table.pull([1]) == initial)
    #expect(table.push([1]).updated == 1)
    #expect(table.pull([1]) == initial.map { $0 - 0.5 })
  }

  @Test func `sightings within one batch count one by one`() {
    var table = Table(options(admission: .count(5)))
    table.push([1], sightings: 3)
    #expect(table.pull([1], sightings: 1) == [-7, -7])
    #expect(table.pull([1], sightings: 2) != [-7, -7])
    let counts = table.push([1], sightings: 2)
    #expect(counts.admitted == 1 && counts.droppedGradients == 1)
  }

  @Test func `pulls change nothing`() {
    var table = Table(options(admission: .count(2)))
    for _ in 0..<5 { #expect(table.pull([1]) == [-7, -7]) }
    table.push([1])
    for _ in 0..<5 { _ = table.pull([1]) }
    let (rows, waiting) = (table.rowCount, table.statistics.waiting)
    #expect(rows == 0 && waiting == 1)
  }

  @Test func `probability admits the same share of ids, always the same ones`() {
    var table = Table(options(admission: .probability(0.25)))
    let ids = Array(1...4000 as ClosedRange<UInt64>)
    table.push(ids)
    let rows = table.rowCount
    #expect(abs(rows - 1000) < 120)
    table.push(ids)
    let again = table.rowCount
    #expect(again == rows)
    for share in [0.0, 1.0] {
      var table = Table(options(admission: .probability(share)))
      table.push(ids)
      let rows = table.rowCount
      #expect(rows == (share == 0 ? 0 : ids.count))
    }
  }

  @Test(arguments: [1, 2, 3, 15, 16, 17, 64, 1000])
  func `over a zipf stream count is exact and the sketch is never late and seldom early`(threshold: Int) {
    // `make soak-table` sets ten million.
    let sightings = ProcessInfo.processInfo.environment["GUIRA_TABLE_SIGHTINGS"].flatMap { Int($0) } ?? 60_000
    let different = sightings * 5 / 12
    let stream = ZipfStream(ids: different, sightings: sightings, seed: 4).draw()
    var exact = Table(options(.sgd, width: 1, admission: .count(threshold)))
    var sketched = Table(options(.sgd, width: 1, admission: .sketch(threshold, ids: different, ageing: nil)))
    var counts: [UInt64: Int] = [:]
    var (wrong, late) = (0, 0)
    var early: Set<UInt64> = []
    for batch in stride(from: 0, to: stream.count, by: 500) {
      var distinct: [UInt64: UInt32] = [:]
      for id in stream[batch..<min(batch + 500, stream.count)] { distinct[id, default: 0] += 1 }
      let (ids, sightings) = (Array(distinct.keys), Array(distinct.values))
      let gradients = [Float](repeating: 0, count: ids.count)
      exact.push(ids: ids.span, sightings: sightings.span, gradients: gradients.span, eventTime: 0)
      sketched.push(ids: ids.span, sightings: sightings.span, gradients: gradients.span, eventTime: 0)
      for (id, times) in distinct {
        counts[id, default: 0] += Int(times)
        let isDue = counts[id]! >= threshold
        if (exact.inspect(id)?.weights.isEmpty == false) != isDue { wrong += 1 }
        let isAdmitted = sketched.inspect(id) != nil
        if isDue, !isAdmitted { late += 1 }
        if !isDue, isAdmitted { early.insert(id) }
      }
    }
    #expect(wrong == 0)
    #expect(late == 0)
    #expect(early.count * 100 <= counts.count, "\(early.count) of \(counts.count)")
  }

  @Test func `ageing halves what was counted`() {
    var table = Table(options(admission: .sketch(4, ids: 100, ageing: .seconds(100))))
    table.push([1], sightings: 3, at: 0)
    #expect(table.pull([1], at: 50_000) != [-7, -7], "three and one are four")
    #expect(table.pull([1], at: 150_000) == [-7, -7], "half of three and one are two")
    #expect(table.pull([1], sightings: 3, at: 150_000) != [-7, -7])
    #expect(table.pull([1], sightings: 3, at: 350_000) == [-7, -7], "nothing is left after two more periods")
  }

  @Test func `counts of ids that never came back are given up after their time`() {
    var told = options(admission: .count(3))
    told.timeToLive = .seconds(100)
    var table = Table(told)
    table.sweep(watermark: 0, rows: 0)
    table.push([1], sightings: 2, at: 0)
    #expect(table.pull([1], at: 50_000) != [-7, -7])
    #expect(table.pull([1], at: 250_000) == [-7, -7])
    table.sweep(watermark: 250_000, rows: 1000)
    let waiting = table.statistics.waiting
    #expect(waiting == 0)
  }
}

/// Ids of a few popular and many rare things.
struct ZipfStream {
  var ids: Int
  var sightings: Int
  var seed: UInt64

  func draw() -> [UInt64] {
    var random = SeededRandom(seed: seed)
    var cumulative: [Double] = []
    var total = 0.0
    for rank in 1...ids {
      total += 1 / Double(rank)
      cumulative.append(total)
    }
    return (0..<sightings).map { _ in
      let draw = random.uniform() * total
      var (low, high) = (0, ids - 1)
      while low < high {
        let middle = (low + high) / 2
        if cumulative[middle] < draw { low = middle + 1 } else { high = middle }
      }
      return Hashing.mix(UInt64(low))
    }
  }
}
