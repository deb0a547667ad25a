import Base
import Synchronization
import Testing

@testable import Serving

@Suite("Replica table") struct ReplicaTableTests {
  let epochs = ReaderEpochs()

  func read(_ table: ReplicaTable, _ ids: [UInt64], _ reader: EpochReader) -> (weights: [Float], found: [UInt8]) {
    var weights = [Float](repeating: -1, count: ids.count * table.dimension)
    var found = [UInt8](repeating: 9, count: ids.count)
    reader.read {
      _ = table.read(ids: ids, into: &weights, found: &found)
    }
    return (weights, found)
  }

  @Test func `an id reads its newest row, any other the default row`() {
    let table = ReplicaTable(defaultRow: [0.5, 0.25, 0], epochs: epochs)
    let reader = EpochReader(epochs)
    table.put([0, .max], [1, 2, 3, 4, 5, 6])
    table.put([0], [7, 8, 9])
    let got = read(table, [.max, 5, 0], reader)
    #expect(got.weights == [4, 5, 6, 0.5, 0.25, 0, 7, 8, 9])
    #expect(got.found == [1, 0, 1])
    table.drop([0, 77])
    #expect(read(table, [0], reader).weights == [0.5, 0.25, 0])
    #expect(table.rowCount == 1)
  }

  @Test(arguments: [false, true]) func `the table equals a dictionary after many changes`(half: Bool) {
    var random = SeededRandom(seed: 3)
    let table = ReplicaTable(defaultRow: [0, 0], halfPrecision: half, epochs: epochs)
    let reader = EpochReader(epochs)
    var model: [UInt64: Float] = [:]
    for round in 0..<300 {
      let ids = (0..<100).map { _ in UInt64.random(in: 0...5000, using: &random) }
      if round % 3 == 2 {
        table.drop(ids)
        for id in ids { model[id] = nil }
      } else {
        let weights = ids.flatMap { id in [Float(round), Float(id % 8)] }
        table.put(ids, weights)
        for id in ids { model[id] = Float(round) }
      }
    }
    let got = read(table, Array(0...5000), reader)
    for id in 0...5000 {
      #expect(got.weights[2 * id] == model[UInt64(id)] ?? 0)
      #expect(got.weights[2 * id + 1] == (model[UInt64(id)] == nil ? 0 : Float(id % 8)))
    }
    #expect(table.rowCount == model.count)
  }

  @Test func `float16 rows are read back rounded to the nearest half`() {
    let values: [Float] = [0.1, -1.0 / 3, 65504, 1e-7, 70000, 2049, -0.0, 1.0009766, 6e-8]
    let table = ReplicaTable(
      defaultRow: [Float](repeating: 0, count: values.count), halfPrecision: true, epochs: epochs)
    table.put([1], values)
    let got = read(table, [1], EpochReader(epochs)).weights
    for (value, stored) in zip(values, got) { #expect(stored.bitPattern == Float(Float16(value)).bitPattern) }
  }

  @Test func `the digest depends on the rows alone, not on their history`() {
    let one = ReplicaTable(defaultRow: [0, 0], epochs: epochs)
    let other = ReplicaTable(defaultRow: [0, 0], epochs: epochs)
    for id in 0..<1000 as Range<UInt64> {
      one.put([id], [Float(id), 1])
      other.put([999 - id, id], [3, 3, 4, 4])
    }
    let ids = Array(0..<1000 as Range<UInt64>).reversed() as [UInt64]
    #expect(one.digest() != other.digest())
    other.drop(Array(ids[300..<600]))
    other.put(ids, ids.flatMap { [Float($0), 1] })
    #expect(one.digest() == other.digest())
    one.drop(ids)
    #expect(one.digest() == 0)
  }

  @Test func `memory is used again, whatever the number of updates`() {
    let table = ReplicaTable(defaultRow: [Float](repeating: 0, count: 32), epochs: epochs)
    let ids = Array(0..<1000 as Range<UInt64>)
    let weights = [Float](repeating: 1, count: 32_000)
    table.put(ids, weights)
    let before = table.byteCount
    for _ in 0..<100 {
      table.put(ids, weights)
      table.drop(ids)
    }
    #expect(table.byteCount == before)
  }

  @Test func `what a reader may still see is not used again while it reads`() {
    let table = ReplicaTable(defaultRow: [0], epochs: epochs)
    let held = EpochReader(epochs)
    table.put([1], [1])
    let quietBefore = epochs.lastQuiet()
    held.read {
      table.put([1], [2])
      #expect(epochs.lastQuiet() == quietBefore)
    }
    #expect(epochs.lastQuiet() > quietBefore)
  }

  /// Every row holds one number in all its weights, so that a mix of two rows shows.
  ///
  /// Rows of ids below 64 are always there: a reader that misses one has been misled by growth, removal or reuse.
  @Test func `readers never see a torn, lost or foreign row while a writer changes everything`() {
    let dimension = 40
    let table = ReplicaTable(defaultRow: [Float](repeating: -1, count: dimension), epochs: epochs)
    let lasting = Array(0..<64 as Range<UInt64>)
    func rows(_ ids: [UInt64], round: Int) -> [Float] {
      ids.flatMap { [Float](repeating: Float(round * 4096 + Int($0 % 4096)), count: dimension) }
    }
    table.put(lasting, rows(lasting, round: 0))
    let sections = ReaderGroup()
    let threads = (0..<3).map { number in
      OwnedThread(named: "reader-\(number)") { [epochs] in
        sections.run(table, epochs: epochs, lasting: lasting, seed: UInt64(number))
      }
    }
    while sections.reads.load(ordering: .relaxed) < 100 {}
    var random = SeededRandom(seed: 1)
    for round in 0..<600 {
      let passing = (0..<200).map { _ in UInt64.random(in: 64..<3000, using: &random) }
      table.put(passing, rows(passing, round: round % 1000))
      table.put(lasting, rows(lasting, round: round % 1000))
      if round % 2 == 1 { table.drop(passing) }
    }
    sections.finished.store(true, ordering: .releasing)
    for thread in threads { thread.join() }
    #expect(sections.wrong.load(ordering: .acquiring) == 0)
  }
}

extension ReplicaTable {
  func put(_ ids: [UInt64], _ weights: [Float]) { apply(ids: ids.span, weights: weights.span) }
  func drop(_ ids: [UInt64]) { remove(ids: ids.span) }
}

/// What the reader threads of the stress test share.
final class ReaderGroup: Sendable {
  let finished = Atomic<Bool>(false)
  let wrong = Atomic<Int>(0)
  let reads = Atomic<Int>(0)

  func run(_ table: ReplicaTable, epochs: ReaderEpochs, lasting: [UInt64], seed: UInt64) {
    let reader = EpochReader(epochs)
    var random = SeededRandom(seed: seed)
    let dimension = table.dimension
    while !finished.load(ordering: .acquiring) {
      let ids = lasting + (0..<36).map { _ in UInt64.random(in: 64..<3000, using: &random) }
      var weights = [Float](repeating: 0, count: ids.count * dimension)
      var found = [UInt8](repeating: 0, count: ids.count)
      reader.read {
        _ = table.read(ids: ids, into: &weights, found: &found)
      }
      var mistakes = 0
      for (place, id) in ids.enumerated() {
        let first = weights[place * dimension]
        for weight in weights[(place * dimension)..<((place + 1) * dimension)] where weight != first { mistakes += 1 }
        let expected = found[place] == 1 ? Int(id % 4096) : 4095
        if (Int(first) + 4096) % 4096 != expected { mistakes += 1 }
        if place < lasting.count, found[place] == 0 { mistakes += 1 }
      }
      wrong.add(mistakes, ordering: .relaxed)
      reads.add(1, ordering: .relaxed)
    }
  }

  @Test func `times from outside do not end a replica, however far they are from now`() throws {
    let store = try Fixture.empty()
    store.recordServable(arrivals: [(.min, 5), (1_000, 3), (.max, 2)], at: 2_500)
    #expect(store.statistics().freshness.count == 5, "what no clock can measure is left out")
    for (time, staleness) in [(Int64.min, Int64.max), (.max, 2_500 - Int64.max), (1_000, 1_500)] {
      let version = VersionInfo(number: 3, newestEventTime: time, appliedAt: 2_000)
      #expect(version.staleness(at: 2_500) == staleness)
    }
    try Fixture.load(store)
    let version = VersionInfo(number: 4, newestEventTime: 1_000, appliedAt: 2_000, created: .min)
    #expect(store.lag(of: version) >= .milliseconds(Int64.max))
  }
}
