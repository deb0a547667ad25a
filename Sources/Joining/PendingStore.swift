// Pending impressions on disk: RocksDB, kept in the order in which they fall due. Belongs to the joiner's thread.
//
// The directory `pending` is scratch: what it holds beyond the last checkpoint is worth nothing and nothing in it is ever
// synced. The truth is `pending-<n>`, hard links that RocksDB makes of its (immutable) files; the joiner's checkpoint names
// n and is written after them. A start begins with links of those in a new `pending`.

internal import Base
internal import CRocksDB
internal import Glibc
internal import Streams

/// The store of a joiner; the database is opened when something is first put in.
@safe final class PendingStore {
  /// Where it works.
  let path: String
  private let directory: String
  private let writeBufferBytes: Int
  private let cacheBytes: Int
  private var database: OpaquePointer?
  private let writeOptions: OpaquePointer?
  private let batch: OpaquePointer?
  private var isBatchEmpty = true
  private var key = ByteWriter(capacity: 64)
  private var value = ByteWriter(capacity: 1024)
  /// Keys before it belong to impressions that were taken out; the next snapshot deletes them.
  private var front: StoreKey?
  /// How often the database was read: one seek each.
  private(set) var seeks = 0

  /// A store in a joiner's directory that uses about an eighth of `memory` itself.
  init(in directory: String, memory: Int) {
    self.directory = directory
    path = "\(directory)/pending"
    writeBufferBytes = min(max(memory / 32, 64 << 10), 32 << 20)
    cacheBytes = min(max(memory / 64, 64 << 10), 16 << 20)
    unsafe writeOptions = rocksdb_writeoptions_create()
    unsafe batch = rocksdb_writebatch_create()
    unsafe rocksdb_writeoptions_disable_WAL(writeOptions, 1)
  }

  deinit {
    unsafe rocksdb_writebatch_destroy(batch)
    unsafe rocksdb_writeoptions_destroy(writeOptions)
    if let database = unsafe database { unsafe rocksdb_close(database) }
  }

  // MARK: - Snapshots

  /// The directory of a snapshot.
  func snapshotPath(_ number: UInt64) -> String { "\(path)-\(number)" }

  /// Makes the store what a snapshot holds; without one it is empty.
  ///
  /// - Parameter number: 0 when there is none. Other snapshots are of checkpoints that never were; they are removed.
  func begin(with number: UInt64) throws(JoinerError) {
    do throws(FileError) {
      try removeSnapshots(but: number)
      try Files.remove(path)
      guard number > 0 else { return }
      try Files.makeDirectory(path)
      for name in try Files.names(in: snapshotPath(number)) {
        try Files.linkOrCopy("\(snapshotPath(number))/\(name)", to: "\(path)/\(name)", links: name.hasSuffix(".sst"))
      }
    } catch {
      throw .file(error)
    }
    try open()
  }

  /// Makes a snapshot of what has been committed.
  func snapshot(_ number: UInt64) throws(JoinerError) {
    try open()
    if let front {
      StoreKey(beginningOf: .min).encode(into: &key)
      front.encode(into: &value)
      unsafe withBytes(of: key) { first in
        unsafe withBytes(of: value) { last in
          unsafe rocksdb_writebatch_delete_range(
            batch, first.baseAddress, first.count, last.baseAddress, last.count)
        }
      }
      isBatchEmpty = false
    }
    try commit()
    do throws(FileError) { try Files.remove(snapshotPath(number)) } catch { throw .file(error) }
    let maker = try unsafe call { error in unsafe rocksdb_checkpoint_object_create(database, error) }
    defer { unsafe rocksdb_checkpoint_object_destroy(maker) }
    _ = try unsafe call { error in unsafe rocksdb_checkpoint_create(maker, snapshotPath(number), 0, error) }
  }

  /// Removes the snapshots of earlier checkpoints.
  func removeSnapshots(but number: UInt64) throws(FileError) {
    for name in try Files.names(in: directory) where name.hasPrefix("pending-") && name != "pending-\(number)" {
      try Files.remove("\(directory)/\(name)")
    }
  }

  private func open() throws(JoinerError) {
    guard unsafe database == nil else { return }
    let options = unsafe rocksdb_options_create()
    let table = unsafe rocksdb_block_based_options_create()
    let cache = unsafe rocksdb_cache_create_lru(cacheBytes)
    defer {
      unsafe rocksdb_options_destroy(options)
      unsafe rocksdb_block_based_options_destroy(table)
      unsafe rocksdb_cache_destroy(cache)
    }
    unsafe rocksdb_options_set_create_if_missing(options, 1)
    unsafe rocksdb_options_set_write_buffer_size(options, writeBufferBytes)
    unsafe rocksdb_options_set_max_write_buffer_number(options, 3)
    unsafe rocksdb_options_set_max_background_jobs(options, 2)
    // Ids and hashes do not compress.
    unsafe rocksdb_options_set_compression(options, Int32(rocksdb_no_compression))
    unsafe rocksdb_options_set_max_open_files(options, 256)
    unsafe rocksdb_options_set_info_log_level(options, 3)
    unsafe rocksdb_options_set_keep_log_file_num(options, 1)
    unsafe rocksdb_options_set_stats_dump_period_sec(options, 0)
    unsafe rocksdb_block_based_options_set_block_size(table, 16 << 10)
    unsafe rocksdb_block_based_options_set_block_cache(table, cache)
    unsafe rocksdb_options_set_block_based_table_factory(options, table)
    unsafe database = try unsafe call { error in unsafe rocksdb_open(options, path, error) }
  }

  // MARK: - Writing

  /// Puts an impression in, with its actions; durable with the next snapshot.
  func put(_ stored: StoredImpression) {
    let place = StoreKey(due: stored.due, id: stored.impression.id)
    place.encode(.impression, into: &key)
    stored.encodeValue(into: &value)
    unsafe withBytes(of: key) { key in
      unsafe withBytes(of: value) { value in
        unsafe rocksdb_writebatch_put(batch, key.baseAddress, key.count, value.baseAddress, value.count)
      }
    }
    for action in stored.actions { put(action, of: place) }
    isBatchEmpty = false
  }

  /// Adds an action to an impression that is in the store; a repeat falls upon itself.
  func put(_ action: SeenAction, of place: StoreKey) {
    place.encode(action, into: &key)
    unsafe withBytes(of: key) { key in
      unsafe rocksdb_writebatch_put(batch, key.baseAddress, key.count, key.baseAddress, 0)
    }
    isBatchEmpty = false
  }

  /// Takes an impression and its actions out.
  func delete(_ stored: StoredImpression) {
    let place = StoreKey(due: stored.due, id: stored.impression.id)
    place.encode(.impression, into: &key)
    deleteKey()
    for action in stored.actions {
      place.encode(action, into: &key)
      deleteKey()
    }
    isBatchEmpty = false
  }

  private func deleteKey() {
    unsafe withBytes(of: key) { key in
      unsafe rocksdb_writebatch_delete(batch, key.baseAddress, key.count)
    }
  }

  /// Takes all impressions before a key out; none may be put in before it from now on.
  func deleteAll(before key: StoreKey) { front = key }

  /// Writes what was put in and taken out; when it throws, the next call tries the same again.
  func commit() throws(JoinerError) {
    guard !isBatchEmpty else { return }
    try open()
    _ = try unsafe call { error in unsafe rocksdb_write(database, writeOptions, batch, error) }
    unsafe rocksdb_writebatch_clear(batch)
    isBatchEmpty = true
  }

  // MARK: - Reading

  /// A cursor at the first impression that has not been taken out by `deleteAll`, as of the last commit.
  ///
  /// - Parameter isWhole: whether all will be read, once: read ahead then, and leave the cache alone.
  func cursor(isWhole: Bool = false) throws(JoinerError) -> StoreCursor {
    try open()
    var cursor = unsafe StoreCursor(of: self, database, isWhole: isWhole)
    cursor.seek(to: front ?? StoreKey(beginningOf: .min))
    seeks += 1
    return cursor
  }

  /// The bytes of its files and of what is not in files yet; 0 when it was never needed.
  var bytes: UInt64 {
    guard let database = unsafe database else { return 0 }
    var total: UInt64 = 0
    for property in ["rocksdb.live-sst-files-size", "rocksdb.cur-size-all-mem-tables"] {
      var value: UInt64 = 0
      if unsafe rocksdb_property_int(database, property, &value) == 0 { total += value }
    }
    return total
  }

  /// Calls a function of RocksDB that reports its failure as a text.
  private func call<Result>(
    _ body: (UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>) -> Result
  ) throws(JoinerError) -> Result {
    var message: UnsafeMutablePointer<CChar>?
    let result = unsafe body(&message)
    guard let message = unsafe message else { return result }
    let reason = unsafe String(cString: message)
    unsafe rocksdb_free(message)
    throw .pendingStore(path: path, reason: reason)
  }
}

/// Calls `body` with what was written, as C takes it.
private func withBytes(of writer: borrowing ByteWriter, _ body: (UnsafeBufferPointer<CChar>) -> Void) {
  unsafe writer.written.withUnsafeBytes { unsafe body($0.assumingMemoryBound(to: CChar.self)) }
}

/// Goes through the impressions of a store by due time.
@safe struct StoreCursor: ~Copyable {
  private let iterator: OpaquePointer
  private let options: OpaquePointer
  /// A database may not be closed before its iterators, and nobody else may have it any more.
  private let store: PendingStore

  fileprivate init(of store: PendingStore, _ database: OpaquePointer?, isWhole: Bool) {
    self.store = store
    unsafe options = rocksdb_readoptions_create()
    if isWhole {
      unsafe rocksdb_readoptions_set_fill_cache(options, 0)
      unsafe rocksdb_readoptions_set_readahead_size(options, 4 << 20)
    }
    unsafe iterator = rocksdb_create_iterator(database, options)
  }

  deinit {
    unsafe rocksdb_iter_destroy(iterator)
    unsafe rocksdb_readoptions_destroy(options)
  }

  /// Goes to the first impression at or behind a key.
  mutating func seek(to key: StoreKey) {
    var writer = ByteWriter(capacity: 64)
    key.encode(into: &writer)
    unsafe withBytes(of: writer) { key in
      unsafe rocksdb_iter_seek(iterator, key.baseAddress, key.count)
    }
  }

  /// The key of the impression that `next` will give; nil at the end.
  func peek() throws(JoinerError) -> StoreKey? {
    guard unsafe rocksdb_iter_valid(iterator) != 0 else {
      var message: UnsafeMutablePointer<CChar>?
      unsafe rocksdb_iter_get_error(iterator, &message)
      guard let message = unsafe message else { return nil }
      let reason = unsafe String(cString: message)
      unsafe rocksdb_free(message)
      throw .pendingStore(path: store.path, reason: reason)
    }
    guard let key = withKey({ StoreKey($0) }) else {
      throw .pendingStore(path: store.path, reason: "a key has too few bytes")
    }
    return key
  }

  /// The next impression with the actions that were put beside it; nil at the end.
  mutating func next() throws(JoinerError) -> StoredImpression? {
    guard let place = try peek() else { return nil }
    guard withKey({ StoreKey.isImpression($0) }), var stored = withValue({ StoredImpression(place, value: $0) })
    else {
      throw .pendingStore(
        path: store.path, reason: "what is under impression \(place.id), due \(place.due), is no impression")
    }
    unsafe rocksdb_iter_next(iterator)
    while let further = try peek(), further == place {
      guard let action = withKey({ StoreKey.action($0) }) else {
        throw .pendingStore(
          path: store.path, reason: "an action of impression \(place.id), due \(place.due), does not read")
      }
      stored.actions.append(action)
      unsafe rocksdb_iter_next(iterator)
    }
    return stored
  }

  private func withKey<Result>(_ body: (RawSpan) -> Result) -> Result {
    var count = 0
    let start = unsafe rocksdb_iter_key(iterator, &count)
    let bytes = unsafe UnsafeRawBufferPointer(start: start, count: count)
    return unsafe body(bytes.bytes)
  }

  private func withValue<Result>(_ body: (RawSpan) -> Result) -> Result {
    var count = 0
    let start = unsafe rocksdb_iter_value(iterator, &count)
    let bytes = unsafe UnsafeRawBufferPointer(start: start, count: count)
    return unsafe body(bytes.bytes)
  }
}
