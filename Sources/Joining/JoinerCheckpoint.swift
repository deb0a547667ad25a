// A joiner's checkpoint: the core's state and how far the outputs went when it was taken. One file, replaced atomically.
//
// Layout, little-endian: UInt32 magic; UInt32 count of example partitions, their ends (Position each); the end of the late
// actions (Position); UInt32 count of late actions withheld, each a UInt32 length, its bytes and a UInt32 count; the store
// (UInt64 each: number of its snapshot, impressions in it, the sum of their digests, the rules' fingerprint); the core's
// state; UInt32 CRC-32C of all before it. Format 1 has no store.

internal import Base
internal import Streams

/// Reads and writes the checkpoint file.
struct JoinerCheckpoint {
  private static let magic: UInt32 = 0x3252_4A47  // "GJR2"
  private static let magicWithoutStore: UInt32 = 0x3152_4A47  // "GJR1"

  /// What the store held when the checkpoint was taken.
  struct Store: Equatable, BitwiseCopyable {
    /// The number of its newest snapshot; this checkpoint's when there are impressions in it.
    var number: UInt64 = 0
    var impressions: UInt64 = 0
    var digest: UInt64 = 0
    /// Of the rules it was written by.
    var rules: UInt64 = 0
  }

  /// The file in a joiner's directory.
  static func path(in directory: String) -> String { "\(directory)/joiner.checkpoint" }

  /// The ends of the example partitions.
  var exampleEnds: [Position] = []
  /// The end of the late actions.
  var lateEnd = Position.start
  /// Late actions before that end which the core has still to make again, with how often.
  var withheldLate: [[UInt8]: Int] = [:]
  /// What the core keeps on disk.
  var store = Store()

  /// Replaces the file, a piece at a time: a joiner with a bound on its memory has none to spare for a copy of its state.
  /// - Returns: the bytes of the file.
  func write(_ core: borrowing JoinerCore, to path: String) throws(FileError) -> Int {
    var (bytes, checksum) = (0, UInt32(0))
    try Files.replace(path) { write throws(FileError) in
      var writer = ByteWriter(capacity: Self.pieceBytes * 2)
      appendHead(to: &writer)
      func put(_ writer: inout ByteWriter) throws(FileError) {
        checksum = Hashing.crc32c(writer.written, continuing: checksum)
        bytes += writer.count
        try write(writer.written)
        writer.clear()
      }
      try core.encode(into: &writer) { writer throws(FileError) in
        if writer.count >= Self.pieceBytes { try put(&writer) }
      }
      try put(&writer)
      writer.append(checksum)
      bytes += writer.count
      try write(writer.written)
    }
    return bytes
  }

  private static let pieceBytes = 1 << 20

  private func appendHead(to writer: inout ByteWriter) {
    writer.append(Self.magic)
    writer.append(UInt32(exampleEnds.count))
    writer.append(array: exampleEnds)
    writer.append(lateEnd)
    writer.append(UInt32(withheldLate.count))
    for (bytes, count) in withheldLate {
      writer.append(UInt32(bytes.count))
      writer.append(bytes: bytes)
      writer.append(UInt32(clamping: count))
    }
    writer.append(store)
  }

  /// What `write` wrote: the ends, and a reader that stands before the core's state.
  static func decode(_ blob: Blob) throws(DecodeError) -> (checkpoint: JoinerCheckpoint, core: ByteReader) {
    let body = max(0, blob.count - 4)
    var tail = ByteReader(blob, range: body..<blob.count)
    let stored = try tail.read(UInt32.self)
    let found = Hashing.crc32c(blob.bytes.extracting(0..<body))
    guard stored == found else {
      throw .invalid(field: "checksum", value: "\(found)", expected: "\(stored)")
    }
    var reader = ByteReader(blob, range: 0..<body)
    let magic = try reader.read(UInt32.self)
    guard magic == Self.magic || magic == Self.magicWithoutStore else {
      throw .invalid(field: "joiner checkpoint format", value: "\(magic)", expected: "\(Self.magic)")
    }
    var checkpoint = JoinerCheckpoint()
    for _ in 0..<(try reader.count("example partitions", limit: 65_536)) {
      checkpoint.exampleEnds.append(try reader.read())
    }
    checkpoint.lateEnd = try reader.read()
    for _ in 0..<(try reader.count("late actions withheld", limit: .max)) {
      let bytes = try reader.view(UInt8.self, count: try reader.count("bytes of an action", limit: Event.byteLimit))
      checkpoint.withheldLate[bytes.array] = Int(try reader.read(UInt32.self))
    }
    if magic == Self.magic { checkpoint.store = try reader.read() }
    return (checkpoint, reader)
  }
}
