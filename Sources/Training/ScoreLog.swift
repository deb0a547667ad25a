// The records that quality is computed from: one per example and training pass, written before the example's push leaves,
// so that `kill -9` neither loses nor repeats one. Exact AUC comes from these records, not from averaged AUCs.
//
// File: 16 bytes of header ("GUIRSCOR", UInt32 format 1, UInt32 tasks), then records of 40 + 16 × tasks bytes.

public import Base
internal import Glibc
internal import Streams

/// One scored example.
public struct ScoreRecord: Equatable, Sendable {
  /// The partition of the example's stream.
  public var partition: UInt32
  /// The example's position there.
  public var position: Position
  /// The impression's event time.
  public var time: Milliseconds
  /// The impression's place among all impressions.
  public var ordinal: UInt64
  /// Per task.
  public var tasks: [Task]

  /// One task of a scored example; NaN means there is none.
  public struct Task: Equatable, Sendable, BitwiseCopyable {
    /// 0 or 1; NaN when masked.
    public var label: Float
    /// The trainer's probability just before it trained on the example.
    public var prequential: Float
    /// The probability the impression was served with.
    public var served: Float
    /// The sampling rate of negatives: they count 1/rate.
    public var rate: Float

    /// A task's figures.
    public init(label: Float, prequential: Float, served: Float, rate: Float) {
      self.label = label
      self.prequential = prequential
      self.served = served
      self.rate = rate
    }
  }

  /// A record from its parts.
  public init(partition: UInt32, position: Position, time: Milliseconds, ordinal: UInt64, tasks: [Task]) {
    self.partition = partition
    self.position = position
    self.time = time
    self.ordinal = ordinal
    self.tasks = tasks
  }
}

/// Writes score records; belongs to the trainer's thread.
public struct ScoreLog: ~Copyable {
  private static let magic: [UInt8] = Array("GUIRSCOR".utf8)
  private let descriptor: Int32
  private let path: String
  private let tasks: Int
  private var pending = ByteWriter(capacity: 1 << 16)
  /// Per partition, the last position that has a record.
  public private(set) var lastPosition: [UInt32: Position] = [:]

  /// Opens or makes the file at `path`; a half-written record at its end is cut.
  public init(path: String, tasks: Int) throws(FileError) {
    var existing: [ScoreRecord] = []
    var keep = 0
    if Files.exists(path) {
      existing = try Self.read(path)
      keep = existing.isEmpty ? 0 : 16 + existing.count * Self.recordBytes(tasks: existing[0].tasks.count)
      if let first = existing.first, first.tasks.count != tasks { (existing, keep) = ([], 0) }
    }
    let descriptor = unsafe open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
    guard descriptor >= 0 else { throw FileError(errno, "open \(path)") }
    guard ftruncate(descriptor, keep) == 0, lseek(descriptor, 0, SEEK_END) >= 0 else {
      let code = errno
      close(descriptor)
      throw FileError(code, "truncate \(path)")
    }
    self.descriptor = descriptor
    self.path = path
    self.tasks = tasks
    if keep == 0 {
      pending.append(bytes: Self.magic)
      pending.append(UInt32(1))
      pending.append(UInt32(tasks))
    }
    for record in existing {
      lastPosition[record.partition] = max(lastPosition[record.partition] ?? .start, record.position)
    }
  }

  deinit { close(descriptor) }

  private static func recordBytes(tasks: Int) -> Int { 40 + 16 * tasks }

  /// Adds a record; `flush` writes it.
  public mutating func append(_ record: ScoreRecord) {
    precondition(record.tasks.count == tasks, "\(record.tasks.count) tasks in a log of \(tasks)")
    pending.append(record.position)
    pending.append(record.time)
    pending.append(record.ordinal)
    pending.append(record.partition)
    pending.append(UInt32(0))
    pending.append(array: record.tasks)
    lastPosition[record.partition] = record.position
  }

  /// Hands what was added to the kernel: from then on it survives the end of the process.
  public mutating func flush() throws(FileError) {
    guard pending.count > 0 else { return }
    try Files.write(pending.written, to: descriptor, path: path)
    pending.clear()
  }

  /// All whole records of a file.
  /// - Throws: `FileError` when it cannot be read or is not a score log.
  public static func read(_ path: String) throws(FileError) -> [ScoreRecord] {
    let blob = Blob(try Files.read(path))
    guard blob.count >= 16 else { return [] }
    var reader = ByteReader(blob)
    do throws(DecodeError) {
      let magic = try reader.view(UInt8.self, count: 8).array
      let format = try reader.read(UInt32.self)
      let tasks = Int(try reader.read(UInt32.self))
      guard magic == Self.magic, format == 1, tasks <= EventSchema.taskLimit else {
        throw .invalid(field: "score log", value: "format \(format)", expected: "format 1")
      }
      var records: [ScoreRecord] = []
      records.reserveCapacity(reader.remaining / recordBytes(tasks: tasks))
      while reader.remaining >= recordBytes(tasks: tasks) {
        let position = try reader.read(Position.self)
        let time = try reader.read(Milliseconds.self)
        let ordinal = try reader.read(UInt64.self)
        let partition = try reader.read(UInt32.self)
        _ = try reader.read(UInt32.self)
        let figures = try reader.view(ScoreRecord.Task.self, count: tasks).array
        records.append(
          ScoreRecord(partition: partition, position: position, time: time, ordinal: ordinal, tasks: figures))
      }
      return records
    } catch {
      throw FileError(EINVAL, "read the score log \(path): \(error)")
    }
  }
}
