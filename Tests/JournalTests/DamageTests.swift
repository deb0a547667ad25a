import Base
import Testing

@testable import Journal

@Suite("Damage") struct DamageTests {
  /// A journal of several segments and sync groups, and the offset where its last group begins.
  private static func journal() throws -> (disk: ModelDisk, lastGroup: UInt64, ends: [UInt64]) {
    let disk = ModelDisk()
    var knowledge = Knowledge()
    var writer = try writer(disk)
    var lastGroup: UInt64 = 0
    for index in 0..<40 {
      try knowledge.append(&writer)
      if index % 4 == 3 {
        lastGroup = writer.syncedEnd
        try knowledge.sync(&writer)
      }
    }
    return (disk, lastGroup, knowledge.ends)
  }

  private static func flip(_ disk: ModelDisk, _ path: String, _ bit: Int) -> ModelDisk {
    let flipped = disk.copy()
    var content = disk.content(path)
    content[bit / 8] ^= 1 << (bit % 8)
    flipped.set(path, content)
    return flipped
  }

  /// Whether `place` is the frame or label of the file that has the flipped byte.
  private static func names(_ damage: JournalDamage, _ path: String, byte: Int, _ content: [UInt8]) -> Bool {
    guard damage.file == path, damage.fileOffset <= byte else { return false }
    if damage.fileOffset == 0 { return byte < Label.byteCount }
    let word = content[(damage.fileOffset + 4)..<(damage.fileOffset + 8)].reversed().reduce(0) { $0 << 8 | UInt32($1) }
    return byte < damage.fileOffset + Frame.size(payload: Int(word & 0x3FFF_FFFF))
  }

  @Test func `every one of 10,000 flipped bits is found, with its file and the offset of its frame`() throws {
    let (disk, _, _) = try Self.journal()
    let files = disk.paths.filter { $0 != "j/head" }
    let sizes = files.map { disk.content($0).count * 8 }
    var random = SeededRandom(seed: 20)
    for _ in 0..<10_000 {
      var bit = Int.random(in: 0..<sizes.reduce(0, +), using: &random)
      var index = 0
      while bit >= sizes[index] {
        bit -= sizes[index]
        index += 1
      }
      let flipped = Self.flip(disk, files[index], bit)
      do {
        _ = try writer(flipped)
        Issue.record("bit \(bit) of \(files[index]) was not found")
      } catch JournalError.damaged(let damage) {
        let found = Self.names(damage, files[index], byte: bit / 8, disk.content(files[index]))
        #expect(found, "bit \(bit) of \(files[index]) was reported as \(damage)")
        #expect(damage.lost != nil)
      }
    }
  }

  @Test func `without the head a flipped bit is found by the marks, or cut as a torn tail of the last group`() throws {
    let (disk, lastGroup, ends) = try Self.journal()
    disk.delete("j/head")
    let path = disk.paths.last { $0.hasSuffix(".segment") }!
    let first = try JournalFiles(directory: "j", layer: disk).segments().last!
    for bit in stride(from: Label.byteCount * 8, to: disk.content(path).count * 8, by: 3) {
      let flipped = Self.flip(disk, path, bit)
      let offset = first + UInt64(bit / 8 - Label.byteCount)
      do {
        let opened = try writer(flipped)
        #expect(offset >= lastGroup, "bit \(bit) was cut as a torn tail")
        let tail = try #require(opened.recovery.tornTail)
        #expect(Self.names(tail, path, byte: bit / 8, disk.content(path)))
        let kept = try readAll(flipped).map(\.end)
        #expect(kept == ends.filter { $0 <= max(tail.offset, lastGroup) }, "bit \(bit)")
      } catch JournalError.damaged(let damage) {
        #expect(offset < lastGroup + 8, "bit \(bit): \(damage)")
        #expect(Self.names(damage, path, byte: bit / 8, disk.content(path)))
      }
    }
  }

  @Test func `a flipped bit in the head is reported and costs nothing`() throws {
    let (disk, _, ends) = try Self.journal()
    for bit in stride(from: 0, to: Label.byteCount * 8, by: 5) {
      let flipped = Self.flip(disk, "j/head", bit)
      #expect(throws: JournalError.self) { _ = try reader(flipped) }
      let opened = try writer(flipped)
      #expect(opened.recovery.headUnreadable?.file == "j/head")
      #expect(opened.end == ends.last)
      #expect(try readAll(flipped).count == 40)
    }
  }

  @Test func `a reader reports the flipped bit it meets, and returns all before it`() throws {
    let (disk, _, ends) = try Self.journal()
    let files = try JournalFiles(directory: "j", layer: disk).segments()
    var random = SeededRandom(seed: 21)
    for _ in 0..<500 {
      let first = files.randomElement(using: &random)!
      let path = JournalFiles(directory: "j", layer: disk).segment(first)
      let bit = Int.random(in: 0..<(disk.content(path).count * 8), using: &random)
      let flipped = Self.flip(disk, path, bit)
      let (offset, damage) = try Self.readUntilDamage(flipped)
      if let damage {
        #expect(Self.names(damage, path, byte: bit / 8, disk.content(path)), "bit \(bit) of \(path): \(damage)")
        // Where a segment ends is told by the next one's label; without it the segment is not read.
        #expect(damage.fileOffset == 0 ? offset <= damage.offset : offset == ends.last { $0 <= damage.offset } ?? 0)
      } else {
        Issue.record("bit \(bit) of \(path) was not found")
      }
    }
  }

  private static func readUntilDamage(_ disk: ModelDisk) throws -> (offset: UInt64, damage: JournalDamage?) {
    var offset: UInt64 = 0
    do {
      // A damaged label of the first segment is found before there is a reader.
      var reader = try reader(disk)
      while let record = try reader.next() { offset = record.end }
    } catch JournalError.damaged(let damage) {
      return (offset, damage)
    }
    return (offset, nil)
  }

  @Test func `records stored at another offset, and zeros, are no records`() throws {
    let (disk, _, _) = try Self.journal()
    let path = "j/00000000000000000000.segment"
    let content = disk.content(path)
    var shifted = content
    shifted.replaceSubrange(
      Label.byteCount..., with: content[(Label.byteCount + 16)...] + [UInt8](repeating: 0, count: 16))
    for wrong in [shifted, content.prefix(Label.byteCount) + [UInt8](repeating: 0, count: content.count)] {
      let broken = disk.copy()
      broken.set(path, Array(wrong))
      #expect(throws: JournalError.self) { _ = try writer(broken) }
    }
  }

  @Test func `a file of a later format version is refused, and never given up`() throws {
    let (disk, _, _) = try Self.journal()
    for path in ["j/00000000000000000000.segment", "j/manifest", "j/head"] {
      let later = disk.copy()
      var content = disk.content(path)
      content[8] = 9
      let crc = Hashing.crc32c(Array(content[..<60]).span.bytes)
      for index in 0..<4 { content[60 + index] = UInt8(truncatingIfNeeded: crc >> (8 * UInt32(index))) }
      later.set(path, content)
      #expect(throws: JournalError.unsupportedVersion(file: path, version: 9, supported: 1...1)) {
        _ = try writer(later, acceptLoss: true)
      }
      #expect(later.content(path) == content)
    }
  }
}
