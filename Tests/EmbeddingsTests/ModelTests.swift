import Base
import Foundation
import Testing

@testable import Embeddings

/// What a table should be, as a dictionary: one weight, one velocity, plain arithmetic.
struct TableModel {
  struct Row: Equatable {
    var weights: [Float]
    var velocities: [Float]
    var seen: UInt32
    var frequency: UInt32
  }
  struct Waiting: Equatable {
    var count: Int
    var seen: UInt32
  }
  var rows: [UInt64: Row] = [:]
  var waiting: [UInt64: Waiting] = [:]
  var watermark: Milliseconds = 0
  let options: TableOptions
  let rate: Float
  let beta: Float
  let skew: Milliseconds
  /// Initial weights as a table of its own answers them; they have tests of their own.
  private let initialWeights: [UInt64: [Float]]

  init(_ options: TableOptions, ids: [UInt64]) {
    self.options = options
    rate = options.segments[0].optimizer.learningRate
    guard case .momentum(let beta) = options.segments[0].optimizer.rule else { preconditionFailure() }
    self.beta = beta
    skew = options.allowedSkew.milliseconds
    var plain = options
    plain.admission = .always
    let weights = Table(plain).pull(ids)
    var initialWeights: [UInt64: [Float]] = [:]
    for (index, id) in ids.enumerated() { initialWeights[id] = Array(weights[index * 3..<index * 3 + 3]) }
    self.initialWeights = initialWeights
  }

  func now(_ time: Milliseconds) -> Milliseconds { max(watermark, min(time, watermark + skew)) }
  func seconds(_ time: Milliseconds) -> UInt32 { UInt32((min(time, watermark + skew) + 999) / 1000) }

  func isGone(_ seen: UInt32, at now: Milliseconds) -> Bool {
    guard let ttl = options.timeToLive?.milliseconds else { return false }
    return Int64(seen) * 1000 < now - ttl
  }

  func pull(_ id: UInt64, sightings: Int, at time: Milliseconds) -> [Float] {
    let now = now(time)
    if let row = rows[id], !isGone(row.seen, at: now) { return row.weights }
    let before = waiting[id].map { isGone($0.seen, at: now) ? 0 : $0.count } ?? 0
    if before + sightings >= options.admission.threshold { return initialWeights[id]! }
    return [Float](repeating: options.defaultWeight, count: options.weightCount)
  }

  mutating func push(_ id: UInt64, gradient: Float, sightings: Int, at time: Milliseconds) {
    let now = now(time)
    if let row = rows[id], isGone(row.seen, at: now) { rows[id] = nil }
    let mayStep = gradient.isFinite
    if var row = rows[id] {
      if mayStep { step(&row, gradient) }
      row.seen = max(row.seen, seconds(time))
      row.frequency += UInt32(sightings)
      rows[id] = row
      return
    }
    let before = waiting[id].map { isGone($0.seen, at: now) ? 0 : $0.count } ?? 0
    guard before + sightings >= options.admission.threshold else {
      waiting[id] = Waiting(count: before + sightings, seen: seconds(time))
      return
    }
    waiting[id] = nil
    if let limit = options.rowLimit, rows.count >= limit { rows[victim()] = nil }
    var row = Row(
      weights: initialWeights[id]!, velocities: [Float](repeating: 0, count: options.weightCount), seen: seconds(time),
      frequency: UInt32(sightings))
    if mayStep, options.admission.threshold == 1 { step(&row, gradient) }
    rows[id] = row
  }

  private func step(_ row: inout Row, _ gradient: Float) {
    for index in row.weights.indices {
      row.velocities[index] = beta * row.velocities[index] + gradient
      row.weights[index] -= rate * row.velocities[index]
    }
  }

  private func victim() -> UInt64 {
    rows.min { left, right in
      let a = (options.eviction == .lru ? 0 : left.value.frequency, left.value.seen, left.key)
      let b = (options.eviction == .lru ? 0 : right.value.frequency, right.value.seen, right.key)
      return a < b
    }!.key
  }

  mutating func forget(_ id: UInt64) {
    rows[id] = nil
    waiting[id] = nil
  }

  mutating func expire(_ watermark: Milliseconds) { self.watermark = max(self.watermark, watermark) }

  /// Drops what no request would see any more.
  mutating func dropGone() {
    rows = rows.filter { !isGone($0.value.seen, at: watermark) }
  }
}

@Suite("Table against a dictionary") struct ModelTests {
  enum Policy: CaseIterable { case plain, expiring, counting, expiringCounts, lru, lfu }

  static func options(_ policy: Policy) -> TableOptions {
    let segment = Segment(
      name: "vector", width: 3, initializer: .uniform(1),
      optimizer: OptimizerOptions(rule: .momentum(beta: 0.9), learningRate: 0.1))
    var options = TableOptions(
      name: "item", seed: 3, segments: [segment], defaultWeight: 0.25, allowedSkew: .seconds(20))
    switch policy {
    case .plain: break
    case .expiring: options.timeToLive = .seconds(30)
    case .counting: options.admission = .count(3)
    case .expiringCounts:
      options.admission = .count(3)
      options.timeToLive = .seconds(10_000)
    case .lru: options.rowLimit = 150
    case .lfu:
      options.rowLimit = 150
      options.eviction = .lfu
    }
    return options
  }

  /// Ids worked on in all policies and seeds together; `make soak-table` sets a hundred million.
  static let operations = ProcessInfo.processInfo.environment["GUIRA_TABLE_OPERATIONS"].flatMap { Int($0) }
  static let seeds: [UInt64] = operations == nil ? [1] : [1, 2, 3, 4]

  @Test(arguments: Policy.allCases, seeds)
  func `random operations leave what a dictionary would hold, and blocks replay to the same bits`(
    policy: Policy, seed: UInt64
  ) throws {
    let operations = Self.operations.map { $0 / Self.seeds.count / Policy.allCases.count } ?? 14_000
    try ModelRun(Self.options(policy), seed: seed, operations: operations, ids: seed == 4 ? 3_000 : 500).check()
  }
}

/// Random operations on a table and its model, with every epoch replayed into a second table.
struct ModelRun: ~Copyable {
  var table: Table
  var replay: Table
  var model: TableModel
  var random: SeededRandom
  let operations: Int
  let ids: UInt64
  var done = 0
  var time: Milliseconds = 1_000_000
  /// Sections of the epoch being copied out, and what the table was when it was closed.
  var block: [Blob] = []
  var frozen: TableModel?
  /// A second recovery: a scan under way, and the blocks since it began.
  var cursor: TableCursor?
  var base: [Blob] = []
  var scanEnded = false
  /// True when the block being copied was closed after the scan ended, so that both make what was frozen.
  var isRecoverable = false
  var blocksSinceScan: [[Blob]] = []

  init(_ options: TableOptions, seed: UInt64, operations: Int, ids: UInt64) {
    table = Table(options)
    replay = Table(options)
    model = TableModel(options, ids: [0, .max] + Array(1...ids))
    random = SeededRandom(seed: seed)
    self.operations = operations
    self.ids = ids
    table.sweep(watermark: time, rows: 0)
    model.expire(time)
  }

  mutating func randomID() -> UInt64 {
    // 0 and UInt64.max are ids like others; the rest crowd a small range, in phases that grow and shrink the table.
    switch Int.random(in: 0..<50, using: &random) {
    case 0: 0
    case 1: .max
    default: UInt64.random(in: 1...ids, using: &random)
    }
  }

  consuming func check() throws {
    var step = 0
    while done < operations {
      step += 1
      time += Int64.random(in: 0..<20, using: &random)
      let isGrowing = step / 700 % 2 == 0
      switch Int.random(in: 0..<100, using: &random) {
      case 0..<40: push()
      case 40..<65: pull()
      case 65..<(isGrowing ? 68 : 80): forget()
      case 80..<85: sweep()
      case 85..<88: try closeEpoch()
      default: try copySlice()
      }
    }
    try closeEpoch()
    while table.isCutPending { try copySlice() }
    compareAll(table)
  }

  private mutating func push() {
    let count = Int.random(in: 1...40, using: &random)
    done += count
    var chosen: [UInt64] = []
    for _ in 0..<count { chosen.append(randomID()) }
    var gradients: [Float] = []
    var sightings: [UInt32] = []
    let eventTime = time + (Int.random(in: 0..<10, using: &random) == 0 ? 1_000_000 : 0)
    for id in chosen {
      let gradient = Int.random(in: 0..<30, using: &random) == 0 ? Float.nan : Float.random(in: -1...1, using: &random)
      let times = UInt32.random(in: 1...2, using: &random)
      gradients += [Float](repeating: gradient, count: table.weightCount)
      sightings.append(times)
      model.push(id, gradient: gradient, sightings: Int(times), at: eventTime)
    }
    table.push(ids: chosen.span, sightings: sightings.span, gradients: gradients.span, eventTime: eventTime)
  }

  private mutating func pull() {
    let chosen = [randomID(), randomID(), randomID()]
    done += chosen.count
    let weights = table.pull(chosen, sightings: 2, at: time)
    let expected = chosen.flatMap { model.pull($0, sightings: 2, at: time) }
    #expect(weights == expected, "ids \(chosen) at \(time)")
  }

  private mutating func forget() {
    for _ in 0..<5 {
      done += 1
      let id = randomID()
      model.forget(id)
      table.forget([id].span)
    }
  }

  private mutating func sweep() {
    let watermark = time - Int64.random(in: 0..<3000, using: &random)
    table.sweep(watermark: watermark, rows: 50)
    model.expire(watermark)
  }

  private mutating func closeEpoch() throws {
    while table.isCutPending { try copySlice() }
    if model.options.timeToLive != nil {
      // Rows past their time are gone for every request; sweep them so that tables can be compared whole.
      table.sweep(watermark: model.watermark, rows: 100_000)
      model.dropGone()
    }
    table.closeEpoch()
    frozen = model
    block = []
    isRecoverable = scanEnded
  }

  private mutating func copySlice() throws {
    if var position = cursor, !scanEnded {
      var writer = ByteWriter()
      if table.scan(cursor: &position, rows: 20, into: &writer) {
        base.append(writer.finish())
      } else {
        scanEnded = true
      }
      cursor = position
    }
    guard table.isCutPending else { return }
    var writer = ByteWriter()
    if table.copyCut(rows: Int.random(in: 1...60, using: &random), into: &writer) {
      block.append(writer.finish())
      return
    }
    try replay.apply(block)
    blocksSinceScan.append(block)
    let expected = frozen!
    compare(replay, with: expected)
    if isRecoverable {
      var recovered = Table(model.options)
      try recovered.apply(base)
      for block in blocksSinceScan { try recovered.apply(block) }
      compare(recovered, with: expected)
      #expect(recovered.digest(halfPrecision: false) == replay.digest(halfPrecision: false))
    }
    if cursor == nil || isRecoverable {
      (cursor, base, scanEnded, blocksSinceScan) = (TableCursor(), [], false, [])
    }
  }

  private borrowing func compareAll(_ table: borrowing Table) { compare(table, with: model) }

  private borrowing func compare(_ table: borrowing Table, with expected: TableModel) {
    var wrong: [UInt64] = []
    for (id, row) in expected.rows {
      let inspection = table.inspect(id)
      let isSame =
        inspection?.weights == row.weights && inspection?.state == row.velocities
        && inspection?.lastSeen == Int64(row.seen) * 1000
        && (inspection?.frequency ?? Int(row.frequency)) == Int(row.frequency)
      if !isSame { wrong.append(id) }
    }
    for (id, waiting) in expected.waiting where !expected.isGone(waiting.seen, at: expected.watermark) {
      if table.inspect(id)?.waitingCount != waiting.count { wrong.append(id) }
    }
    let rowCount = table.rowCount
    #expect(rowCount == expected.rows.count && wrong.isEmpty, "\(wrong.count) ids differ: \(wrong.prefix(5))")
  }
}
