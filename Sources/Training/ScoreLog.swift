// The records that quality is computed from: one per example and training pass, written before the example's push leaves,
// so that `kill -9` neither loses nor repeats one. Exact AUC comes from these records, not from averaged AUCs.
//
// File: a header ("GUIRSCOR", UInt32 format 2, UInt32 tasks, UInt32 partitions, UInt32 0, then per partition position,
// UInt32 number, UInt32 0: where the records before this file end), then records of 40 + 16 × tasks bytes. Format 1 ends
// its header behind tasks. Full files get a number behind their name, and the oldest of them go.

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
  /// How many files of a log are full before the oldest goes.
  private static let files = 8

  private var descriptor: Int32
  private let path: String
  private let tasks: Int
  private let keep: Int?
  private var pending = ByteWriter(capacity: 1 << 16)
  /// Bytes of the file at `path`, with what is pending.
  private var size = 0
  /// Per partition, the last position that has a record.
  public private(set) var lastPosition: [UInt32: Position] = [:]

  /// Opens or makes the file at `path`; a half-written record at its end is cut.
  ///
  /// Only the newest file is read, in pieces.
  ///
  /// - Parameter keep: about how many bytes of records stay on the disk; nil for all.
  public init(path: String, tasks: Int, keep: Int? = nil) throws(FileError) {
    var (positions, whole): ([UInt32: Position], Int) = ([:], 0)
    func note(_ found: ScoreFile) {
      if found.tasks == tasks { (positions, whole) = (found.positions, found.wholeBytes) }
    }
    let full = try Self.fullFiles(path)
    if Files.exists(path), let found = try ScoreFile.read(path) {
      note(found)
      // Other tasks: these records say nothing about the model any more.
      if found.tasks != tasks { for file in full { try Files.remove(file) } }
    } else if let last = full.last, let found = try ScoreFile.read(last) {
      // The end came between two files.
      note(found)
      whole = 0
    }
    let descriptor = try Self.open(path, keeping: whole)
    self.descriptor = descriptor
    self.path = path
    self.tasks = tasks
    self.keep = keep
    lastPosition = positions
    size = whole
    if whole == 0 { beginFile() }
  }

  /// A log that keeps nothing: for runs whose quality is worked out elsewhere.
  public init(discarding tasks: Int) {
    descriptor = -1
    path = ""
    self.tasks = tasks
    keep = nil
  }

  deinit { if descriptor >= 0 { close(descriptor) } }

  private static func open(_ path: String, keeping bytes: Int) throws(FileError) -> Int32 {
    let descriptor = unsafe Glibc.open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
    guard descriptor >= 0 else { throw FileError(errno, "open \(path)") }
    guard ftruncate(descriptor, bytes) == 0, lseek(descriptor, 0, SEEK_END) >= 0 else {
      let code = errno
      close(descriptor)
      throw FileError(code, "truncate \(path)")
    }
    return descriptor
  }

  /// The full files of a log, oldest first.
  private static func fullFiles(_ path: String) throws(FileError) -> [String] {
    let slash = path.lastIndex(of: "/")
    let directory = slash.map { String(path[...$0]) } ?? "./"
    let prefix = slash.map { String(path[path.index(after: $0)...]) } ?? path
    guard Files.exists(directory) else { return [] }
    return try Files.names(in: directory).compactMap { name -> (number: Int, path: String)? in
      guard name.hasPrefix(prefix + "."), let number = Int(name.dropFirst(prefix.count + 1)) else { return nil }
      return (number, directory + name)
    }.sorted { $0.number < $1.number }.map(\.path)
  }

  private mutating func beginFile() {
    pending.append(bytes: ScoreFile.magic)
    pending.append(UInt32(2))
    pending.append(UInt32(tasks))
    pending.append(UInt32(lastPosition.count))
    pending.append(UInt32(0))
    for (partition, position) in lastPosition.sorted(by: { $0.key < $1.key }) {
      pending.append(position)
      pending.append(partition)
      pending.append(UInt32(0))
    }
    size = pending.count
  }

  /// Adds a record; `flush` writes it.
  public mutating func append(_ record: ScoreRecord) {
    precondition(record.tasks.count == tasks, "\(record.tasks.count) tasks in a log of \(tasks)")
    pending.append(record.position)
    pending.append(record.time)
    pending.append(record.ordinal)
    pending.append(record.partition)
    pending.append(UInt32(0))
    pending.append(array: record.tasks)
    size += ScoreFile.recordBytes(tasks: tasks)
    lastPosition[record.partition] = record.position
  }

  /// Hands what was added to the kernel: from then on it survives the end of the process.
  public mutating func flush() throws(FileError) {
    guard pending.count > 0 else { return }
    guard descriptor >= 0 else { return pending.clear() }
    try Files.write(pending.written, to: descriptor, path: path)
    pending.clear()
    if let keep, size >= max(1, keep / Self.files) { try turnOver(keep: keep) }
  }

  /// Begins a new file, which says first where the records before it end, and deletes the oldest.
  private mutating func turnOver(keep: Int) throws(FileError) {
    let full = try Self.fullFiles(path)
    let number = (full.last?.split(separator: ".").last).flatMap { Int($0) } ?? 0
    guard unsafe rename(path, "\(path).\(number + 1)") == 0 else { throw FileError(errno, "rename \(path)") }
    let next = try Self.open(path, keeping: 0)
    close(descriptor)
    descriptor = next
    beginFile()
    try Files.write(pending.written, to: descriptor, path: path)
    pending.clear()
    for file in full.dropLast(Self.files - 2) { try Files.remove(file) }
  }

  /// All whole records that are kept of a log.
  /// - Throws: `FileError` when one of its files cannot be read or is not a score log.
  public static func read(_ path: String) throws(FileError) -> [ScoreRecord] {
    var records: [ScoreRecord] = []
    for file in try fullFiles(path) + (Files.exists(path) ? [path] : []) {
      _ = try ScoreFile.read(file) { records.append($0) }
    }
    return records
  }
}
