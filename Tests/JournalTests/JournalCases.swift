// Records whose content follows from their number, and the checks every crash test ends with.

import Base
import Testing

@testable import Journal

/// Record `index`: its number, then bytes that follow from it; lengths from 0 to a few hundred.
func record(_ index: Int) -> [UInt8] {
  var random = SeededRandom(seed: UInt64(index))
  let length = [0, 1, 7, 8, 9, 40, 100, 300].randomElement(using: &random)!
  return withUnsafeBytes(of: index) { Array($0) } + (0..<length).map { _ in UInt8.random(in: 0...255, using: &random) }
}

extension JournalWriter {
  @discardableResult mutating func append(_ bytes: [UInt8]) throws -> UInt64 { try append(bytes.span.bytes) }
}

extension JournalRecord {
  var array: [UInt8] { bytes.withUnsafeBytes { Array($0) } }
}

func writer(_ disk: ModelDisk, segmentBytes: Int = 1 << 10, acceptLoss: Bool = false) throws -> JournalWriter {
  var options = JournalOptions()
  options.segmentBytes = segmentBytes
  return try JournalWriter(
    files: JournalFiles(directory: "j", layer: disk), options: options, acceptLoss: acceptLoss, lock: nil)
}

func reader(_ disk: ModelDisk, from offset: UInt64 = 0) throws -> JournalReader {
  try JournalReader(files: JournalFiles(directory: "j", layer: disk), from: offset)
}

/// All records from `offset` on, with their ends.
func readAll(_ disk: ModelDisk, from offset: UInt64 = 0) throws -> [(end: UInt64, bytes: [UInt8])] {
  var reader = try reader(disk, from: offset)
  var records: [(end: UInt64, bytes: [UInt8])] = []
  while let record = try reader.next() { records.append((record.end, record.array)) }
  return records
}

/// What a program that writes numbered records knows about them.
struct Knowledge {
  /// The end of each record that was appended, by number.
  var ends: [UInt64] = []
  /// How many were acknowledged as synced.
  var acknowledged = 0
  /// Where the oldest record kept may begin at most.
  var deletedBefore: UInt64 = 0
  var identities: Set<JournalIdentity> = []

  mutating func append(_ writer: inout JournalWriter) throws {
    let end = try writer.append(record(ends.count))
    ends.append(end)
  }

  mutating func sync(_ writer: inout JournalWriter) throws {
    try writer.sync()
    acknowledged = ends.count
  }

  /// Takes over what a recovery kept, after checking that it is an acknowledged state or a later one.
  mutating func check(_ disk: ModelDisk, _ context: String) throws {
    let start = try Label(.manifest, at: "j/manifest", layer: disk).first
    #expect(start <= deletedBefore, "\(context): retention went too far")
    let records = try readAll(disk, from: start)
    let first = ends.firstIndex { $0 > start } ?? ends.count
    #expect(first + records.count >= acknowledged, "\(context): acknowledged records are gone")
    #expect(first + records.count <= ends.count, "\(context): records nobody appended")
    for (index, read) in records.enumerated() where first + index < ends.count {
      #expect(read.end == ends[first + index], "\(context): record \(first + index) ends elsewhere")
      #expect(read.bytes == record(first + index), "\(context): record \(first + index) reads differently")
    }
    ends.removeSubrange(min(ends.count, first + records.count)...)
  }
}

/// The damage `body` throws; nil when it throws nothing.
func damage(_ body: () throws -> Void) throws -> JournalDamage? {
  do { try body() } catch JournalError.damaged(let damage) { return damage }
  return nil
}
