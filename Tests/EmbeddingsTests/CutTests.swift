import Base
import Testing

@testable import Embeddings

@Suite("Cut and sections") struct CutTests {
  @Test func `a cut holds rows as they were when the epoch closed`() throws {
    var table = Table(options(.adagrad(initialAccumulator: 0.1)))
    let ids = Array(1...500 as ClosedRange<UInt64>)
    table.push(ids)
    let frozen = table.pull(ids)
    table.closeEpoch()
    let first = try #require(try slice(&table, rows: 50))
    // Everything that can happen to a row while the cut is under way.
    table.push(Array(1...300))
    table.forget(Array(200...400).span)
    table.push(Array(390...420))
    table.push(Array(600...900))
    var replay = Table(options(.adagrad(initialAccumulator: 0.1)))
    try replay.apply([first] + table.cut(rows: 33))
    #expect(replay.pull(ids) == frozen)
    let rows = replay.rowCount
    #expect(rows == 500)
    table.closeEpoch()
    try replay.apply(table.cut())
    let (digest, expected) = (replay.digest(halfPrecision: false), table.digest(halfPrecision: false))
    #expect(digest == expected)
    #expect(digest != 0)
  }

  private func slice(_ table: inout Table, rows: Int) throws -> Blob? {
    var writer = ByteWriter()
    return table.copyCut(rows: rows, into: &writer) ? writer.finish() : nil
  }

  @Test func `an epoch without changes has nothing to copy`() {
    var table = Table(options())
    table.closeEpoch()
    let isPending = table.isCutPending
    #expect(isPending)
    #expect(table.cut().isEmpty)
    let isStillPending = table.isCutPending
    #expect(!isStillPending)
  }

  @Test func `the watermark travels, even alone`() throws {
    var table = Table(options())
    table.sweep(watermark: 77_000, rows: 0)
    table.closeEpoch()
    var replay = Table(options())
    try replay.apply(table.cut())
    #expect(replay.watermark == 77_000)
  }

  @Test func `a removed id is a tombstone, and made anew in the same epoch a row`() throws {
    var table = Table(options())
    table.push([1, 2, 3])
    table.closeEpoch()
    _ = table.cut()
    table.forget([1, 2].span)
    table.push([2], gradient: 5)
    table.closeEpoch()
    var reader = ByteReader(try #require(table.cut().first))
    let section = try CutSection(&reader)
    #expect(section.tombstones.array == [1, 2])
    #expect(section.ids.array == [2])
    #expect(Array(table.pull([2])) == (0..<2).map { section.weights(0)[$0] })
  }

  @Test func `closing an epoch before the last one is copied out traps`() async {
    await #expect(processExitsWith: .failure) {
      var table = Table(options())
      table.closeEpoch()
      table.closeEpoch()
    }
  }

  @Test func `an exact count changed and removed between slices ends as it should`() throws {
    var table = Table(options(admission: .count(9)))
    var replay = Table(options(admission: .count(9)))
    for round in 0..<20 {
      table.push([1, 2, 3])
      table.forget([1].span)
      if round % 2 == 0 { table.push([1], sightings: 2) }
      table.closeEpoch()
      try replay.apply(table.cut(rows: 2))
      for id in 1...3 as ClosedRange<UInt64> { #expect(replay.inspect(id) == table.inspect(id)) }
    }
  }

  @Test func `a sketch replays from blocks and from a scan`() throws {
    let told = options(admission: .sketch(5, ids: 200, ageing: .seconds(50)))
    var table = Table(told)
    var replay = Table(told)
    var random = SeededRandom(seed: 8)
    for round in 0..<30 {
      table.push((0..<20).map { _ in UInt64.random(in: 0..<300, using: &random) }, at: Int64(round) * 7000)
      table.closeEpoch()
      try replay.apply(table.cut(rows: 7))
    }
    var recovered = Table(told)
    try recovered.apply(table.scan(rows: 9))
    let probes = Array(0..<300 as Range<UInt64>)
    for sightings in 1...5 as ClosedRange<UInt32> {
      let expected = table.pull(probes, sightings: sightings, at: 203_000)
      #expect(replay.pull(probes, sightings: sightings, at: 203_000) == expected)
      #expect(recovered.pull(probes, sightings: sightings, at: 203_000) == expected)
    }
  }

  @Test func `applying blocks again is harmless`() throws {
    var table = Table(options())
    var blocks: [[Blob]] = []
    for round in 0..<6 as Range<UInt64> {
      table.push(Array(round * 10..<round * 10 + 30))
      table.forget([round * 10 + 3].span)
      table.closeEpoch()
      blocks.append(table.cut())
    }
    var replay = Table(options())
    for block in blocks + blocks[2...] { try replay.apply(block) }
    let (digest, expected) = (replay.digest(halfPrecision: true), table.digest(halfPrecision: true))
    #expect(digest == expected)
  }

  @Test func `damaged sections are errors, never traps`() throws {
    var table = Table(options(.momentum(beta: 0.5), admission: .count(2)))
    table.push(Array(1...40), sightings: 2)
    table.push(Array(30...60))
    table.forget([5].span)
    table.closeEpoch()
    let bytes = try #require(table.cut(rows: 1000).first).array
    var random = SeededRandom(seed: 6)
    var failures = 0
    for round in 0..<900 {
      var damaged = bytes
      switch round % 3 {
      case 0: damaged.removeLast(Int.random(in: 1...bytes.count, using: &random))
      case 1: damaged[Int.random(in: 0..<64, using: &random)] = UInt8.random(in: 0...255, using: &random)
      default: for _ in 0..<4 { damaged[Int.random(in: bytes.indices, using: &random)] ^= 0xFF }
      }
      var victim = Table(options(.momentum(beta: 0.5), admission: .count(2)))
      var reader = ByteReader(Blob(damaged))
      do { try victim.apply(section: &reader) } catch { failures += 1 }
    }
    #expect(failures > 450)
  }

  @Test func `a section of another shape is refused with the table's name`() throws {
    var table = Table(options(width: 3))
    table.push([1])
    table.closeEpoch()
    let section = try #require(table.cut().first)
    var narrow = Table(options(width: 2))
    var reader = ByteReader(section)
    #expect(throws: DecodeError.invalid(field: "weights per row", value: "3", expected: "2")) {
      try narrow.apply(section: &reader)
    }
    var other = Table(options(.adagrad(initialAccumulator: 0), width: 3))
    var again = ByteReader(section)
    #expect(throws: DecodeError.invalid(field: "table 'item': floats per row", value: "3", expected: "6")) {
      try other.apply(section: &again)
    }
  }
}
