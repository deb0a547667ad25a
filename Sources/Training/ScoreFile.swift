// One file of a score log, read from its beginning in pieces: memory does not grow with the file.

internal import Base
internal import Glibc
internal import Streams

/// What a file of score records says of itself and of what came before it.
struct ScoreFile {
  static let magic: [UInt8] = Array("GUIRSCOR".utf8)

  let tasks: Int
  /// Per partition, the last position that has a record, here or before.
  private(set) var positions: [UInt32: Position] = [:]
  /// Where the last whole record ends.
  private(set) var wholeBytes = 0

  static func recordBytes(tasks: Int) -> Int { 40 + 16 * tasks }

  /// Reads a file; nil when it ends inside its header.
  static func read(
    _ path: String, _ body: (ScoreRecord) -> Void = { _ in }
  ) throws(FileError) -> ScoreFile? {
    let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw FileError(errno, "open \(path)") }
    defer { close(descriptor) }
    guard let head = try take(16, from: descriptor, path) else { return nil }
    do {
      var reader = ByteReader(head)
      let magic = try reader.view(UInt8.self, count: 8).array
      let format = try reader.read(UInt32.self)
      let tasks = Int(try reader.read(UInt32.self))
      guard magic == Self.magic, format == 1 || format == 2, tasks <= EventSchema.taskLimit else {
        throw DecodeError.invalid(field: "score log", value: "format \(format)", expected: "format 1 or 2")
      }
      var file = ScoreFile(tasks: tasks)
      file.wholeBytes = 16
      if format == 2 {
        guard let rest = try take(8, from: descriptor, path) else { return nil }
        var counts = ByteReader(rest)
        let partitions = try counts.count("partitions", limit: 1 << 20)
        guard let known = try take(24 * partitions, from: descriptor, path) else { return nil }
        var entries = ByteReader(known)
        for _ in 0..<partitions {
          let position = try entries.read(Position.self)
          file.positions[try entries.read(UInt32.self)] = position
          _ = try entries.read(UInt32.self)
        }
        file.wholeBytes += 8 + 24 * partitions
      }
      try file.readRecords(from: descriptor, path, body)
      return file
    } catch let error as FileError {
      throw error
    } catch {
      throw FileError(EINVAL, "read the score log \(path): \(error)")
    }
  }

  private mutating func readRecords(from descriptor: Int32, _ path: String, _ body: (ScoreRecord) -> Void) throws {
    let recordBytes = Self.recordBytes(tasks: tasks)
    let piece = max(1, (1 << 20) / recordBytes) * recordBytes
    while let bytes = try Self.take(piece, from: descriptor, path, orLess: true) {
      var reader = ByteReader(bytes)
      while reader.remaining >= recordBytes {
        let position = try reader.read(Position.self)
        let time = try reader.read(Milliseconds.self)
        let ordinal = try reader.read(UInt64.self)
        let partition = try reader.read(UInt32.self)
        _ = try reader.read(UInt32.self)
        let figures = try reader.view(ScoreRecord.Task.self, count: tasks).array
        positions[partition] = max(positions[partition] ?? .start, position)
        wholeBytes += recordBytes
        body(ScoreRecord(partition: partition, position: position, time: time, ordinal: ordinal, tasks: figures))
      }
      if bytes.count < piece { return }
    }
  }

  /// The next bytes; nil at the end, and when there are fewer unless those will do.
  private static func take(
    _ count: Int, from descriptor: Int32, _ path: String, orLess: Bool = false
  ) throws(FileError) -> Blob? {
    var bytes = [UInt8](repeating: 0, count: count)
    var have = 0
    while have < count {
      let got = unsafe bytes.withUnsafeMutableBytes { target in
        unsafe Glibc.read(descriptor, target.baseAddress! + have, count - have)
      }
      if got < 0 && errno == EINTR { continue }
      guard got >= 0 else { throw FileError(errno, "read \(path)") }
      if got == 0 { break }
      have += got
    }
    guard have == count || (orLess && have > 0) else { return nil }
    bytes.removeLast(count - have)
    return Blob(bytes)
  }
}
