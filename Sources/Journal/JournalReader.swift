// A reader of a journal, in any process; any number of them. Reads no further than the head file says, so it never sees
// a record that a recovery could cut.

internal import Base

/// Reads a journal's synced records in order, while it is written.
public struct JournalReader: ~Copyable, Sendable {
  private let files: JournalFiles
  private let head: OpenFile
  private var cursor: FrameCursor
  /// Where the cursor's segment is known to go to.
  private var limit: UInt64
  private var generation: UInt32
  /// The identity of the journal that is read.
  public let identity: JournalIdentity
  /// The end of the last record returned, or where the reader began.
  public private(set) var offset: UInt64

  /// A reader that begins with the record at `offset`: 0, or the end of an earlier record.
  ///
  /// - Throws: `notThere` when no journal has been made yet; `deleted` when the record is no longer kept; `beyondEnd`
  ///   when that offset was not reached, or, after a power failure, until the writer has opened the journal again.
  public init(directory: String, from offset: UInt64) throws(JournalError) {
    try self.init(files: JournalFiles(directory: directory, layer: FileLayers.layer(of: directory)), from: offset)
  }

  init(files: JournalFiles, from offset: UInt64) throws(JournalError) {
    let file = try OpenFile(files.head, .read, layer: files.layer)
    let head = try Self.read(file)
    guard offset <= head.first else { throw .beyondEnd(offset: offset, syncedEnd: head.first) }
    let cursor = try Self.cursor(at: offset, files)
    self.files = files
    self.head = file
    self.offset = offset
    self.cursor = cursor
    identity = head.identity
    generation = head.number
    limit = offset
  }

  /// The next record; nil when all that is synced has been read.
  ///
  /// - Throws: `damaged`; `deleted` when retention overtook the reader; `identityChanged` when the journal lost records
  ///   or was restored. The reader stays where it is.
  public mutating func next() throws(JournalError) -> JournalRecord? {
    while true {
      if let frame = try cursor.next(limit: limit) {
        if frame.isMark { continue }
        offset = cursor.offset
        return JournalRecord(end: offset, blob: frame.blob, range: frame.payload)
      }
      guard try moveLimit() else { return nil }
    }
  }

  /// The end of what is synced now.
  public mutating func syncedEnd() throws(JournalError) -> UInt64 { try currentHead().first }

  /// The offsets of the oldest record kept and of the synced end.
  public static func bounds(directory: String) throws(JournalError) -> Range<UInt64> {
    let files = JournalFiles(directory: directory, layer: FileLayers.layer(of: directory))
    let end = try read(try OpenFile(files.head, .read, layer: files.layer)).first
    let manifest = try Label(.manifest, at: files.manifest, layer: files.layer)
    return manifest.first..<max(manifest.first, end)
  }

  /// Looks for more to read: in this segment or, when it has ended, in the next.
  ///
  /// False when there is none.
  private mutating func moveLimit() throws(JournalError) -> Bool {
    let head = try currentHead()
    if head.number != generation {
      // A new writer may have replaced the file this reader has open.
      cursor = try Self.cursor(at: offset, files)
      generation = head.number
    }
    if head.second == cursor.first {
      limit = head.first
      return cursor.offset < limit
    }
    guard let first = try files.segments().first(where: { $0 > cursor.first }) else { return false }
    limit = try label(ofSegment: first).second
    if cursor.offset < limit {
      try mindRetention(next: first)
      return true
    }
    // At the end of this segment, or in a gap that an accepted loss left.
    cursor = FrameCursor(try open(segment: first), first: first, at: first)
    limit = first
    return true
  }

  /// Lowers the limit to this segment's own end when retention took the ones between it, which is open, and the next.
  ///
  /// - Throws: `deleted` when that end has been reached.
  private mutating func mindRetention(next first: UInt64) throws(JournalError) {
    let fileEnd = cursor.first + UInt64(max(0, try cursor.file.size() - Label.byteCount))
    guard fileEnd < limit, try Label(.manifest, at: files.manifest, layer: files.layer).first > cursor.first else {
      return
    }
    guard cursor.offset < fileEnd else { throw .deleted(offset: cursor.offset, first: first) }
    limit = fileEnd
  }

  private func currentHead() throws(JournalError) -> Label {
    let head = try Self.read(head)
    guard head.identity == identity else { throw .identityChanged(was: identity, now: head.identity) }
    return head
  }

  /// The head as the writer published it; read again while the writer is in the middle of it.
  private static func read(_ file: borrowing OpenFile) throws(JournalError) -> Label {
    var bytes = try file.read(count: Label.byteCount, at: 0)
    for _ in 0..<1000 {
      // A head is written over in place: one that is too short is not about to change.
      guard bytes.count == Label.byteCount, !Label.verifies(bytes) else { break }
      bytes = try file.read(count: Label.byteCount, at: 0)
    }
    return try Label(.head, in: bytes, file: file.path)
  }

  private static func cursor(at offset: UInt64, _ files: JournalFiles) throws(JournalError) -> FrameCursor {
    let segments = try files.segments()
    guard let first = segments.last(where: { $0 <= offset }) else {
      throw .deleted(offset: offset, first: segments.first ?? 0)
    }
    // Later segments' labels say where their predecessors end; nothing would look at the first one's.
    _ = try files.label(ofSegment: first)
    return FrameCursor(try files.open(segment: first), first: first, at: offset)
  }

  private func label(ofSegment first: UInt64) throws(JournalError) -> Label {
    do throws(JournalError) {
      return try files.label(ofSegment: first)
    } catch {
      throw error.isNotThere ? .deleted(offset: cursor.offset, first: first + 1) : error
    }
  }

  private func open(segment first: UInt64) throws(JournalError) -> OpenFile {
    do throws(JournalError) {
      return try files.open(segment: first)
    } catch {
      throw error.isNotThere ? .deleted(offset: cursor.offset, first: first + 1) : error
    }
  }
}
