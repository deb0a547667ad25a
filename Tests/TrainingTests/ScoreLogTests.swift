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
    for torn in [0, 5, 15, 16, 23, 24, 25, 95, 96, 97, whole.count - 1] {
      try whole.prefix(torn).write(to: URL(fileURLWithPath: path))
      let kept = max(0, (torn - 24) / 72)
      var log = try ScoreLog(path: path, tasks: 2)
      #expect(log.lastPosition[0] == (kept == 0 ? nil : Position(low: UInt64(min(kept, 5)))))
      log.append(record(20))
      try log.flush()
      let read = try ScoreLog.read(path)
      #expect(read.count == kept + 1, "\(torn) bytes")
      #expect(read.last == record(20))
    }
  }

  @Test func `old files go, the records of the rest are read in order, and no partition forgets where it was`() throws {
    let path = try path()
    let directory = (path as NSString).deletingLastPathComponent
    defer { try? FileManager.default.removeItem(atPath: directory) }
    let keep = 64 * 1024
    var number: UInt64 = 0
    for run in 0..<4 {
      var log = try ScoreLog(path: path, tasks: 2, keep: keep)
      #expect(log.lastPosition[0] == (run == 0 ? nil : Position(low: number)))
      // Partition 7 was read once, long ago.
      if run == 0 { log.append(record(77, partition: 7)) }
      for _ in 0..<1000 {
        number += 1
        log.append(record(number))
        if number % 10 == 0 { try log.flush() }
      }
      #expect(log.lastPosition[7] == Position(low: 77))
    }
    let names = try FileManager.default.contentsOfDirectory(atPath: directory)
    let bytes = try names.reduce(0) { $0 + (try Data(contentsOf: URL(filePath: "\(directory)/\($1)"))).count }
    #expect(bytes <= keep + 8 * 1024 && bytes > keep / 2, "\(names)")
    let kept = try ScoreLog.read(path)
    #expect(kept.last == record(number) && kept.count > 500)
    #expect(zip(kept, kept.dropFirst()).allSatisfy { $0.ordinal + 1 == $1.ordinal })
    // The end came between two files.
    try FileManager.default.removeItem(atPath: path)
    let positions = try ScoreLog(path: path, tasks: 2, keep: keep).lastPosition
    #expect(positions[7] == Position(low: 77) && (positions[0] ?? .start) > Position(low: number - 200))
  }

  @Test func `a log without a bound keeps all, and one of format 1 is continued`() throws {
    let path = try path()
    defer { try? FileManager.default.removeItem(atPath: (path as NSString).deletingLastPathComponent) }
    var old = ByteWriter()
    old.append(bytes: Array("GUIRSCOR".utf8))
    old.append(UInt32(1))
    old.append(UInt32(2))
    try Data(old.finish().array).write(to: URL(fileURLWithPath: path))
    var log = try ScoreLog(path: path, tasks: 2)
    for number in 1...5000 as ClosedRange<UInt64> { log.append(record(number)) }
    try log.flush()
    let read = try ScoreLog.read(path)
    #expect(read.count == 5000 && read.first == record(1) && read.last == record(5000))
    let positions = try ScoreLog(path: path, tasks: 2).lastPosition
    #expect(positions == [0: Position(low: 5000)])
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
