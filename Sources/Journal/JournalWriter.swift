// The one writer of a journal. Its owner is any one thread at a time; what it writes is read by other processes.
//
// Records go to a buffer, then to the page cache (`flush`), then to the disk (`sync`); only then the head file tells
// readers. `end` >= what is written >= `syncedEnd` >= what readers are told.

internal import Base

/// Appends records to a journal.
///
/// Disk full: `append`, `flush` and `sync` throw `diskFull`; what was accepted stays in memory, and the same call goes
/// on where it stopped once there is space. A failed fsync stops the writer for good (`syncFailed`, then `stopped`):
/// open the journal anew, in this process or the next; opening copies what was not synced to a new segment and syncs
/// that. Records neither flushed nor synced are gone when the writer goes.
public struct JournalWriter: ~Copyable, Sendable {
  /// So many bytes wait before `append` writes them by itself.
  static let flushBytes = 1 << 20

  private let files: JournalFiles
  private let options: JournalOptions
  private let lock: FileLock?
  /// The journal's identity, which every consumer should keep beside its position.
  public private(set) var identity: JournalIdentity
  /// What opening found and did.
  public let recovery: RecoveryReport
  private var segments: [Segment]
  private var file: OpenFile
  private let head: OpenFile
  private let generation: UInt32
  private var buffer: FrameBuffer
  /// The offset of the first byte that is not in the file.
  private var written: UInt64
  /// The offset up to which readers were told.
  private var published: UInt64?
  private var markIsDue = false
  private var failure: String?

  /// The offset of the last appended record's end.
  public private(set) var end: UInt64
  /// The offset up to which records are on the disk.
  public private(set) var syncedEnd: UInt64
  /// The offset of the oldest record kept.
  public private(set) var start: UInt64

  /// Opens the journal in `directory`, or makes it, and locks it.
  ///
  /// - Parameter acceptLoss: give up damaged records, and those behind them, and go on with a new identity.
  /// - Throws: `locked` when another writer has it; `damaged`, with what would be lost, when anything but a torn tail
  ///   is found and `acceptLoss` is false.
  public init(directory: String, options: JournalOptions = JournalOptions(), acceptLoss: Bool = false)
    throws(JournalError)
  {
    let layer = FileLayers.layer(of: directory)
    let files = JournalFiles(directory: directory, layer: layer)
    do throws(FileError) { try layer.makeDirectory(directory) } catch { throw JournalError(error, directory) }
    try self.init(files: files, options: options, acceptLoss: acceptLoss, lock: try Self.lock(files))
  }

  private static func lock(_ files: JournalFiles) throws(JournalError) -> FileLock? {
    do throws(FileError) {
      return try files.layer.lock(files.lock)
    } catch {
      throw error.isWouldBlock ? .locked(directory: files.directory) : JournalError(error, files.lock)
    }
  }

  /// Opens or makes a journal on any file layer; tests pass no lock.
  init(files: JournalFiles, options: JournalOptions, acceptLoss: Bool, lock: consuming FileLock?) throws(JournalError) {
    var recovery = Recovery(files: files, options: options, acceptLoss: acceptLoss)
    let found = try recovery.run()
    let file = try files.open(segment: found.segments[found.segments.count - 1].first, .write)
    let isThere = try files.layer.has(files.head)
    let head = try OpenFile(files.head, isThere ? .write : .create, layer: files.layer)
    let label = Label(
      .head, number: found.generation, first: found.end, second: found.segments[found.segments.count - 1].first,
      identity: found.identity)
    try head.write(label.encoded.bytes, at: 0)
    if !isThere && options.durable {
      try head.sync(dataOnly: false)
      try files.layer.makeNamesDurable(files.directory)
    }
    self.files = files
    self.options = options
    self.lock = lock
    self.file = file
    self.head = head
    buffer = FrameBuffer(capacity: Self.flushBytes + (64 << 10))
    identity = found.identity
    self.recovery = found.report
    segments = found.segments
    start = found.start
    end = found.end
    written = found.end
    syncedEnd = found.end
    generation = found.generation
    published = found.end
  }

  private var currentFirst: UInt64 { segments[segments.count - 1].first }

  /// The offset of the next frame.
  private var next: UInt64 { written + UInt64(buffer.count) }

  /// How many bytes the kept records take, with their frames and with what waits in memory.
  public var keptBytes: UInt64 {
    let ends = segments.dropFirst().map(\.previousEnd) + [end]
    return zip(segments, ends).reduce(0) { $0 + ($1.1 - $1.0.first) }
  }

  /// Appends a record and returns its end, which is its position.
  ///
  /// Nothing is accepted when it throws.
  @discardableResult
  public mutating func append(_ record: RawSpan) throws(JournalError) -> UInt64 {
    guard failure == nil else { throw stopped() }
    guard record.byteCount <= min(options.recordLimit, Frame.payloadLimit) else {
      throw .recordTooLong(bytes: record.byteCount, limit: min(options.recordLimit, Frame.payloadLimit))
    }
    if buffer.count >= Self.flushBytes { try flush() }
    let used = Int(end - currentFirst)
    if used > 0, used + Frame.size(payload: record.byteCount) + Label.byteCount > options.segmentBytes { try roll() }
    if markIsDue {
      _ = buffer.appendMark(at: next)
      markIsDue = false
    }
    buffer.append(record, at: next)
    end = next
    return end
  }

  /// Hands all appended records to the system: they survive the death of this process, not that of the machine.
  public mutating func flush() throws(JournalError) {
    guard failure == nil else { throw stopped() }
    do throws(JournalError) {
      let place = Label.byteCount + Int(written - currentFirst)
      if buffer.count > 0, FaultPoint.blockTorn.isDue {
        try file.write(buffer.waiting.extracting(0..<buffer.count / 2), at: place)
        FaultPoint.blockTorn.die(after: .milliseconds(10))
      }
      try buffer.write(to: file, at: place, counting: &written)
    } catch {
      throw note(error)
    }
  }

  /// Brings all appended records to the disk and tells the readers.
  public mutating func sync() throws(JournalError) {
    try flush()
    do throws(JournalError) {
      if syncedEnd < end {
        if options.durable { try file.sync(dataOnly: true) }
        syncedEnd = end
        markIsDue = options.durable
      }
      if published != syncedEnd { try publish() }
    } catch {
      throw note(error)
    }
  }

  /// Ends the segment, unless it is empty, so that what was appended can be deleted without what follows.
  public mutating func beginSegment() throws(JournalError) {
    guard failure == nil else { throw stopped() }
    if end > currentFirst { try roll() }
  }

  /// Ends the segment and begins the next.
  ///
  /// All that was appended is synced: only a last segment may have a torn tail.
  private mutating func roll() throws(JournalError) {
    try sync()
    do throws(JournalError) {
      try files.makeSegment(first: end, previousEnd: end, identity: identity, durable: options.durable)
      file = try files.open(segment: end, .write)
    } catch {
      throw note(error)
    }
    segments.append(Segment(first: end, previousEnd: end))
    markIsDue = false
  }

  /// Deletes the segments whose records all end at or before `offset`; the last segment stays.
  public mutating func deleteSegments(before offset: UInt64) throws(JournalError) {
    guard failure == nil else { throw stopped() }
    var count = 0
    while count + 1 < segments.count, segments[count + 1].previousEnd <= offset { count += 1 }
    guard count > 0 else { return }
    let newStart = segments[count].first
    do throws(JournalError) {
      // The manifest first: a crash in between must not make a deleted segment a missing one.
      try writeManifest(identity: identity, start: newStart)
      start = newStart
      FaultPoint.segmentUnnamed.pass()
      while segments[0].first < newStart {
        try files.layer.remove(files.segment(segments[0].first))
        segments.removeFirst()
      }
    } catch {
      throw note(error)
    }
  }

  /// Gives the journal a new identity, durably, and tells the readers: they begin anew.
  public mutating func renewIdentity() throws(JournalError) {
    guard failure == nil else { throw stopped() }
    do throws(JournalError) {
      let renewed = JournalIdentity.random()
      try writeManifest(identity: renewed, start: start)
      identity = renewed
      try publish()
    } catch {
      throw note(error)
    }
  }

  private func writeManifest(identity: JournalIdentity, start: UInt64) throws(JournalError) {
    let label = Label(.manifest, first: start, identity: identity)
    try files.layer.replace(files.manifest, with: label.encoded, in: files.directory, durable: options.durable)
  }

  private mutating func publish() throws(JournalError) {
    published = nil
    let label = Label(.head, number: generation, first: syncedEnd, second: currentFirst, identity: identity)
    try head.write(label.encoded.bytes, at: 0)
    published = syncedEnd
  }

  /// Remembers an error that the writer cannot go on after.
  private mutating func note(_ error: JournalError) -> JournalError {
    if case .diskFull = error { return error }
    failure = error.description
    return error
  }

  private func stopped() -> JournalError { .stopped(after: failure ?? "") }
}
