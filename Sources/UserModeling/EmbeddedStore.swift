// The feature store of one process: a table in memory, and a journal that it comes back from. Writes go to the journal
// first, so what a reader was told survives. When the journal holds much more than the table, and some time after users were
// forgotten or entries became too old, it is written anew: all living entries are appended, and what was before is deleted.

public import Base
internal import Journal
internal import Synchronization

/// Keeps entries in memory and in a journal; readers never wait for the disk.
public final class EmbeddedStore: FeatureStore {
  private enum Kind {
    static let entries: UInt32 = 1
    static let removals: UInt32 = 2
  }

  /// The journal, held by whoever writes.
  private struct Writing: ~Copyable, Sendable {
    var journal: JournalWriter
    /// What must leave the disk since the journal was written anew.
    var isErasing = false
    var isExpiring = false
    /// When that was, and how long it took; monotonic nanoseconds.
    var compactedAt = longAgo
    var compactionTook: Int64 = 0
  }

  private let table: EntryTable
  private let halfPrecision: Bool
  private let compactionBytes: UInt64
  private let erasureDelay: Int64
  private let writing: Mutex<Writing>

  /// Opens the store in `directory`, or makes it, and reads all entries.
  ///
  /// - Parameters:
  ///   - served: states of what is served, of which entries are kept, too.
  ///   - durable: whether `sync` waits for the disk.
  ///   - compactionBytes: so much more than the living entries the journal may hold.
  ///   - erasureDelay: how long the bytes of forgotten users stay on the disk at least, so that many go at once.
  ///   - clock: the wall clock.
  public init(
    directory: String, options: FeatureStoreOptions = FeatureStoreOptions(), keeping served: [ServedVersions] = [],
    durable: Bool = true, compactionBytes: Int = 64 << 20, erasureDelay: Duration = .seconds(60),
    clock: @escaping @Sendable () -> Milliseconds = { Clocks.wall() }
  ) throws(FeatureStoreError) {
    table = EntryTable(options, clock: clock)
    table.keep(served)
    halfPrecision = options.halfPrecision
    self.erasureDelay = erasureDelay.nanoseconds
    self.compactionBytes = UInt64(compactionBytes)
    do throws(JournalError) {
      var journalOptions = JournalOptions()
      journalOptions.durable = durable
      journalOptions.segmentBytes = max(1 << 16, min(journalOptions.segmentBytes, compactionBytes / 2))
      var journal = try JournalWriter(directory: directory, options: journalOptions)
      // What a killed process wrote and did not sync is there; readers are told of it only now.
      try journal.sync()
      writing = Mutex(Writing(journal: journal))
    } catch {
      throw .journal("\(error)")
    }
    try load(directory)
  }

  private func load(_ directory: String) throws(FeatureStoreError) {
    let start = writing.withLock { $0.journal.start }
    do {
      var reader = try JournalReader(directory: directory, from: start)
      var hasRemovals = false
      while let record = try reader.next() {
        var payload = record.payload
        if try apply(&payload) == Kind.removals { hasRemovals = true }
      }
      // Whoever wrote them may have died before their bytes were gone.
      writing.withLock { $0.isErasing = hasRemovals }
    } catch let error as JournalError {
      throw .journal("\(error)")
    } catch {
      throw .damaged("\(error)")
    }
  }

  /// Applies a record; gives its kind.
  private func apply(_ reader: inout ByteReader) throws(DecodeError) -> UInt32 {
    let kind = try reader.read(UInt32.self)
    let count = try reader.count("users", limit: 1 << 24)
    for _ in 0..<count {
      let user = try reader.read(UInt64.self)
      switch kind {
      case Kind.entries:
        table.put(try EntryBytes.decode(&reader), of: user)
        try reader.align()
      case Kind.removals: table.remove(user)
      default: throw .invalid(field: "record kind", value: "\(kind)", expected: "1 or 2")
      }
    }
    try reader.expectEnd()
    return kind
  }

  /// The entries of some users; never waits for a writer's disk.
  public func entries(of users: [UInt64], asOf: Milliseconds?) -> [[EmbeddingEntry]] {
    users.map { table.entries(of: $0, asOf: asOf) }
  }

  /// Stores entries: in the journal, where a killed process's successor finds them, and then in memory.
  public func write(_ writes: [EmbeddingWrite]) throws(FeatureStoreError) {
    guard !writes.isEmpty else { return }
    try writing.withLock { (writing: inout sending Writing) throws(FeatureStoreError) in
      try append(writes, to: &writing.journal)
      do throws(JournalError) { try writing.journal.flush() } catch { throw .journal("\(error)") }
      for write in writes { table.put(write.entry, of: write.user) }
      if isOutgrown(writing.journal.keptBytes) { try compact(&writing) }
    }
  }

  private func append(_ writes: [EmbeddingWrite], to journal: inout JournalWriter) throws(FeatureStoreError) {
    var record = ByteWriter(capacity: 1 << 16)
    record.append(Kind.entries)
    record.append(UInt32(writes.count))
    for write in writes {
      record.append(write.user)
      EntryBytes.append(write.entry, half: halfPrecision, to: &record)
      record.align()
    }
    do throws(JournalError) { try journal.append(record.written) } catch { throw .journal("\(error)") }
  }

  /// Also keeps entries of these states of what is served.
  public func keep(_ served: [ServedVersions]) { table.keep(served) }

  /// Forgets users; their entries leave the journal with a later call of `sync`.
  public func remove(_ users: [UInt64]) throws(FeatureStoreError) {
    try writing.withLock { (writing: inout sending Writing) throws(FeatureStoreError) in
      let users = users.filter { table.contains($0) }
      guard !users.isEmpty else { return }
      do throws(JournalError) {
        for start in stride(from: 0, to: users.count, by: 1 << 20) {
          let some = Array(users[start..<min(users.count, start + (1 << 20))])
          var record = ByteWriter(capacity: 8 + 8 * some.count)
          record.append(Kind.removals)
          record.append(UInt32(some.count))
          record.append(array: some)
          try writing.journal.append(record.written)
        }
        try writing.journal.sync()
      } catch {
        throw .journal("\(error)")
      }
      for user in users { table.remove(user) }
      writing.isErasing = true
    }
  }

  /// Users of whom an entry was made with a row of theirs.
  public func learnedUsers(_ body: ([UInt64]) -> Void) { table.learnedUsers(body) }

  /// Brings everything written to the disk, and takes from it what is forgotten or too old.
  ///
  /// Writing the journal anew for that takes at most a twentieth of the time.
  public func sync() throws(FeatureStoreError) {
    try writing.withLock { (writing: inout sending Writing) throws(FeatureStoreError) in
      do throws(JournalError) { try writing.journal.sync() } catch { throw .journal("\(error)") }
      if table.sweep() > 0 { writing.isExpiring = true }
      let delay = writing.isErasing ? erasureDelay : writing.isExpiring ? Self.expiryDelay : .max
      let isDue =
        delay < .max && Clocks.monotonic() - writing.compactedAt >= max(delay, 20 * writing.compactionTook)
      if isDue || isOutgrown(writing.journal.keptBytes) { try compact(&writing) }
    }
  }

  /// How long the bytes of entries that are too old stay on the disk at least: a day.
  private static let expiryDelay: Int64 = 86_400_000_000_000

  private func isOutgrown(_ kept: UInt64) -> Bool { kept > 2 * UInt64(table.extent.bytes) + compactionBytes }

  private func compact(_ writing: inout Writing) throws(FeatureStoreError) {
    let began = Clocks.monotonic()
    let old: UInt64
    do throws(JournalError) {
      try writing.journal.beginSegment()
      old = writing.journal.end
    } catch {
      throw .journal("\(error)")
    }
    var batch: [EmbeddingWrite] = []
    try table.forEach { (user: UInt64, entries: [EmbeddingEntry]) throws(FeatureStoreError) in
      batch += entries.map { EmbeddingWrite(user: user, entry: $0) }
      if batch.count >= 1024 {
        try append(batch, to: &writing.journal)
        batch = []
      }
    }
    if !batch.isEmpty { try append(batch, to: &writing.journal) }
    do throws(JournalError) {
      // The copies first: a crash in between leaves both, and entries may be read twice.
      try writing.journal.sync()
      try writing.journal.deleteSegments(before: old)
    } catch {
      throw .journal("\(error)")
    }
    (writing.isErasing, writing.isExpiring) = (false, false)
    writing.compactedAt = Clocks.monotonic()
    writing.compactionTook = writing.compactedAt - began
  }

  /// Bytes of the journal's records.
  var journalBytes: UInt64 { writing.withLock { $0.journal.keptBytes } }

  /// How much is in memory.
  public var extent: FeatureStoreExtent { table.extent }
}
