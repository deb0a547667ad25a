// Score records survive a kill in the middle of a write, and no example is recorded twice.

import Base
import Foundation
import Testing

@testable import Training

@Suite("Score log") struct ScoreLogTests {
  private func record(_ number: UInt64, partition: UInt32 = 0) -> ScoreRecord {
    ScoreRecord(
      partition: partition, position: Position(low: number), time: Int64(number), ordinal: number,
      tasks: [
        .init(label: 1, prequential: 0.5, served: 0.25, rate: 1),
        .init(label: 0, prequential: 0.1, served: 0.2, rate: 0.5),
      ])
  }

  private func path() throws -> String {
    let directory = FileManager.default.temporaryDirectory.appending(path: "scores-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    return directory.appending(path: "scores").path
  }

  @Test func `a record half written is cut, and writing goes on behind the last whole one`() throws {
    let path = try path()
    defer { try? FileManager.default.removeItem(atPath: (path as NSString).deletingLastPathComponent) }
    do {
      var log = try ScoreLog(path: path, tasks: 2)
      for number in 1...5 as ClosedRange<UInt64> { log.append(record(number)) }
      log.append(record(9, partition: 3))
      try log.flush()
    }
    let whole = try Data(contentsOf: URL(fileURLWithPath: path))
    for torn in [0, 5, 15, 16, 17, 87, 88, 89, whole.count - 1] {
      try whole.prefix(torn).write(to: URL(fileURLWithPath: path))
      let kept = max(0, (torn - 16) / 72)
      var log = try ScoreLog(path: path, tasks: 2)
      #expect(log.lastPosition[0] == (kept == 0 ? nil : Position(low: UInt64(min(kept, 5)))))
      log.append(record(20))
      try log.flush()
      let read = try ScoreLog.read(path)
      #expect(read.count == kept + 1, "\(torn) bytes")
      #expect(read.last == record(20))
    }
  }

  @Test func `a file that is something else is refused`() throws {
    let path = try path()
    defer { try? FileManager.default.removeItem(atPath: (path as NSString).deletingLastPathComponent) }
    try Data("something else entirely".utf8).write(to: URL(fileURLWithPath: path))
    #expect(throws: FileError.self) { _ = try ScoreLog(path: path, tasks: 2) }
    #expect(try Data(contentsOf: URL(fileURLWithPath: path)).count == 23)
  }

  @Test func `quality looks at each example once, and last20 at the last fifth of impressions`() {
    // Ten impressions in a shuffled order, some with two examples; the last two are scored perfectly, the others not.
    var records: [ScoreRecord] = []
    for impression in 0..<10 as Range<UInt64> {
      for part in 0..<(impression % 3 == 0 ? 2 : 1) as Range<UInt64> {
        let isPositive = impression % 2 == 0
        let score: Float = impression < 8 ? (isPositive ? 0.1 : 0.9) : (isPositive ? 0.9 : 0.1)
        records.append(
          ScoreRecord(
            partition: 0, position: Position(low: impression * 2 + part), time: Int64(impression), ordinal: impression,
            tasks: [.init(label: isPositive ? 1 : 0, prequential: score, served: .nan, rate: 1)]))
      }
    }
    var random = SeededRandom(seed: 2)
    let quality = Quality(records: records.shuffled(using: &random) + records, tasks: ["click"])
    #expect(quality.examples == records.count)
    #expect(quality.prequential["click"]?.all.count == records.count)
    // Impressions 8 and 9; 9 has two examples.
    #expect(quality.prequential["click"]?.last20.count == 3)
    #expect(quality.prequential["click"]?.last20.auc == 1)
    #expect(quality.served.isEmpty)
    #expect(Quality(records: [], tasks: ["click"]).examples == 0)
  }
}
