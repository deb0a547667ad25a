import Base
import Glibc
import Support
import Testing

@testable import Journal

@Suite("Formats") struct FormatTests {
  private static let identity = JournalIdentity(high: 0x0011_2233_4455_6677, low: 0x8899_AABB_CCDD_EEFF)

  /// The files of the example in docs/formats.md, made by the writers.
  private static func example() throws -> [String: [UInt8]] {
    let disk = ModelDisk()
    let files = JournalFiles(directory: "j", layer: disk)
    try files.makeSegment(first: 0, previousEnd: 0, identity: identity, durable: true)
    disk.set(files.head, Label(.head, number: 1, identity: identity).encoded.array)
    disk.set(files.manifest, Label(.manifest, identity: identity).encoded.array)
    var writer = try writer(disk)
    try writer.append(Array("guira".utf8))
    try writer.sync()
    try writer.append([])
    try writer.append([1, 2, 3])
    try writer.sync()
    try JournalConsumers.commit(
      directory: "j", consumer: "model", processed: 40, safe: 16, durable: true, layer: disk)
    var checkpoint = try CheckpointWriter(
      files: CheckpointFiles(directory: "c", layer: disk), name: "daily", fileBytes: 1 << 20, durable: true,
      identity: identity)
    try checkpoint.append(([1] as [UInt8]).span.bytes)
    try checkpoint.append(([2, 3] as [UInt8]).span.bytes)
    try checkpoint.finish(manifest: Blob("guira"))
    return [
      "segment": disk.content("j/00000000000000000000.segment"), "head": disk.content("j/head"),
      "manifest": disk.content("j/manifest"), "consumer": disk.content("j/consumer-model"),
      "checkpoint-data": disk.content("c/daily-000000.data"), "checkpoint-manifest": disk.content("c/daily.checkpoint"),
    ]
  }

  @Test func `the hex examples in docs_formats are the bytes that are written`() throws {
    let documented = try HexExamples.documented(sourceFile: #filePath).filter { example in
      !["shard-", "sync-"].contains { example.key.hasPrefix($0) }
    }
    let written = try Self.example()
    #expect(documented.keys.sorted() == written.keys.sorted())
    for (name, bytes) in written {
      #expect(documented[name] == HexExamples.dump(bytes), "\(name):\n\(HexExamples.dump(bytes))")
    }
  }

  @Test func `the golden journal is read`() throws {
    let disk = ModelDisk()
    let files = try Self.example()
    disk.set("j/00000000000000000000.segment", files["segment"]!)
    disk.set("j/head", files["head"]!)
    let records = try readAll(disk)
    #expect(records.map(\.bytes) == [Array("guira".utf8), [], [1, 2, 3]])
    #expect(records.map(\.end) == [16, 32, 48])
  }

  @Test func `labels of any bytes are an error or a label, never a trap`() throws {
    var random = SeededRandom(seed: 23)
    for _ in 0..<20_000 {
      let kind = LabelKind.allCases.randomElement(using: &random)!
      var bytes = Label(kind, number: 1, first: 2, second: 3, identity: Self.identity).encoded.array
      for _ in 0..<Int.random(in: 0...3, using: &random) {
        bytes[Int.random(in: 0..<60, using: &random)] = UInt8.random(in: 0...255, using: &random)
      }
      if Bool.random(using: &random) {
        let crc = Hashing.crc32c(Array(bytes[..<60]).span.bytes)
        for index in 0..<4 { bytes[60 + index] = UInt8(truncatingIfNeeded: crc >> (8 * UInt32(index))) }
      }
      if Bool.random(using: &random) { bytes = Array(bytes.prefix(Int.random(in: 0...64, using: &random))) }
      if let label = try? Label(kind, in: Blob(bytes), file: "f") { #expect(label.encoded.array == bytes) }
    }
  }

  @Test func `frames of any bytes are an error or a record inside the file, never a trap`() throws {
    var random = SeededRandom(seed: 24)
    for _ in 0..<8_000 {
      var frames = FrameBuffer(capacity: 64)
      let first = UInt64.random(in: 0...Label.offsetLimit, using: &random) & ~7
      for _ in 0..<Int.random(in: 1...3, using: &random) {
        frames.append(record(Int.random(in: 0..<100, using: &random)).span.bytes, at: first + UInt64(frames.count))
      }
      var bytes = [UInt8](repeating: 0, count: Label.byteCount) + frames.waiting.withUnsafeBytes { Array($0) }
      let at = Label.byteCount
      for _ in 0..<Int.random(in: 1...3, using: &random) {
        bytes[Int.random(in: (at + 4)..<bytes.count, using: &random)] ^= 1 << UInt8.random(in: 0..<8, using: &random)
      }
      let size = Frame.size(payload: Int(bytes[at + 4]) | Int(bytes[at + 5]) << 8)
      if at + size <= bytes.count {
        // A liar who can work out a CRC.
        let crc = Hashing.crc32c(Array(bytes[(at + 4)..<(at + size)]).span.bytes, continuing: Frame.seed(first))
        for index in 0..<4 { bytes[at + index] = UInt8(truncatingIfNeeded: crc >> (8 * UInt32(index))) }
      }
      if Bool.random(using: &random) { bytes.removeLast(Int.random(in: 0...(bytes.count - at), using: &random)) }
      let disk = ModelDisk()
      disk.set("f", bytes)
      var cursor = FrameCursor(try OpenFile("f", .read, layer: disk), first: first, at: first)
      let limit = first + UInt64.random(in: 0...UInt64(bytes.count), using: &random)
      var payload = 0
      let fault = try damage { while let frame = try cursor.next(limit: limit) { payload += frame.payload.count } }
      #expect(payload <= bytes.count - at && cursor.offset <= limit)
      if let fault { #expect(fault.fileOffset == cursor.fileOffset && fault.file == "f") }
    }
  }
}
