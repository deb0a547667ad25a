// All that one replica serves: the rows of every table, the dense tensors of every model, and the version they are of.
// One thread, the sync client's, writes; predictors read snapshots without ever waiting. Rows of a version become visible
// one by one as they are applied, or all at once (PendingVersion.swift); dense tensors, and a whole base, always at once.

public import Base
internal import Layers
internal import Glibc
internal import Synchronization

/// What readers see at one moment: fixed but for the rows inside the tables.
final class Snapshot: Sendable {
  let tables: [TableView]
  /// Per model its dense tensors.
  let dense: [[[Float]]]
  let version: VersionInfo

  init(tables: [TableView], dense: [[[Float]]], version: VersionInfo) {
    self.tables = tables
    self.dense = dense
    self.version = version
  }
}

/// A model with what the store knows of it.
struct ServedModel: Sendable {
  let name: String
  let model: any Model
  /// Per task ln r.
  let corrections: [Float]
  let denseCounts: [Int]
}

/// The tables and dense tensors of one replica.
///
/// unchecked because: readers reach `published` by its atomic pointer inside read sections only, and all else that
/// changes is behind a mutex.
@safe public final class ReplicaStore: @unchecked Sendable {
  /// The tables, in the order of their numbers.
  public let tableOptions: [ReplicaTableOptions]
  let models: [ServedModel]
  let epochs = ReaderEpochs()
  private let modelIndices: [String: Int]
  private let tableIndices: [String: Int]
  private let published = unsafe Atomic<UnsafeMutableRawPointer?>(nil)
  private let writer = Mutex(Writer())
  private let freshness = Mutex(Histogram())
  private let visibility: RowVisibility
  private let clock: @Sendable () -> Int64
  private let publishedAt = Atomic<Int64>(0)
  private let refusalText = Mutex<String?>(nil)

  private struct Writer: Sendable {
    var staging: Content?
    /// What readers will see with the version's end, when rows become visible together.
    var pending: PendingVersion?
    var stamp = RowStamp(version: 1, created: 0)
    var retired: [(epoch: UInt64, snapshot: Snapshot)] = []
  }

  /// A base that is being loaded.
  private struct Content: Sendable {
    var tables: [ReplicaTable]
    var dense: [[[Float]]?]
  }

  /// An empty store; it serves once a base has been committed.
  /// - Parameter clock: monotonic nanoseconds, by which staleness is measured.
  /// - Throws: `StoreError` when tables and models do not fit each other.
  public init(
    tables: [ReplicaTableOptions], models: [ServedModelOptions], visibility: RowVisibility = .relaxed,
    clock: @escaping @Sendable () -> Int64 = { Clocks.monotonic() }
  ) throws(StoreError) {
    tableOptions = tables
    self.visibility = visibility
    self.clock = clock
    tableIndices = try Self.indices(of: tables.map(\.name))
    modelIndices = try Self.indices(of: models.map(\.name))
    var served: [ServedModel] = []
    for options in models { served.append(try Self.served(options, tables: tables)) }
    self.models = served
  }

  deinit {
    if let last = unsafe published.load(ordering: .acquiring) { unsafe Unmanaged<Snapshot>.fromOpaque(last).release() }
  }

  private static func indices(of names: [String]) throws(StoreError) -> [String: Int] {
    var indices: [String: Int] = [:]
    for (index, name) in names.enumerated() {
      guard indices.updateValue(index, forKey: name) == nil else { throw .repeatedName(name) }
    }
    return indices
  }

  private static func served(
    _ options: ServedModelOptions, tables: [ReplicaTableOptions]
  ) throws(StoreError) -> ServedModel {
    let model: any Model
    do throws(ModelError) {
      model = try makeModel(options.model)
    } catch {
      throw .badModel(name: options.name, problems: error.problems)
    }
    for feature in options.model.features {
      guard feature.table < tables.count else {
        throw .tableMissing(model: options.name, table: feature.table, tables: tables.count)
      }
      let table = tables[feature.table]
      let width = model.rowWidth(table: feature.table)
      guard table.defaultRow.count == width else {
        throw .widthMismatch(table: table.name, expected: width, got: table.defaultRow.count)
      }
    }
    let rates = options.negativeRates
    guard rates.count == options.model.tasks.count, rates.allSatisfy({ $0 > 0 && $0 <= 1 }) else {
      throw .badRates(model: options.name, tasks: options.model.tasks.count, rates: rates)
    }
    return ServedModel(
      name: options.name, model: model, corrections: rates.map { log($0) },
      denseCounts: model.denseTensors.map(\.count))
  }

  // MARK: The writer

  /// The number of the table with this name.
  public func table(named name: String) throws(StoreError) -> Int {
    guard let index = tableIndices[name] else { throw .unknownTable(name) }
    return index
  }

  /// Begins a base: what follows fills new tables, and readers keep the old ones until it is committed.
  public func beginBase() {
    let tables = emptyTables()
    let dense = models.map { $0.denseCounts.isEmpty ? [[Float]]() : nil }
    writer.withLock {
      $0.staging = Content(tables: tables, dense: dense)
      $0.pending = nil
    }
  }

  private func emptyTables() -> [ReplicaTable] {
    tableOptions.map { ReplicaTable(defaultRow: $0.defaultRow, halfPrecision: $0.halfPrecision, epochs: epochs) }
  }

  /// Says which version the rows that follow are of.
  public func begin(version: UInt64, created: Milliseconds) {
    writer.withLock { $0.stamp = RowStamp(version: version, created: created) }
  }

  /// Drops a base that will not be completed.
  public func abandonBase() {
    writer.withLock { $0.staging = nil }
  }

  /// Shows readers the new base, all at once.
  public func commitBase(_ version: VersionInfo) throws(StoreError) {
    try writer.withLock { writer throws(StoreError) in
      guard let base = writer.staging else { throw .noBaseBegun }
      var dense: [[[Float]]] = []
      for (index, tensors) in base.dense.enumerated() {
        guard let tensors else { throw .denseMissing(model: models[index].name) }
        dense.append(tensors)
      }
      writer.staging = nil
      show(Snapshot(tables: base.tables.map { TableView($0) }, dense: dense, version: version), &writer)
      publishedAt.store(clock(), ordering: .relaxed)
    }
  }

  /// Gives ids of a table their new rows, in the base that is being loaded, else in what is served.
  /// - Parameter weights: `[ids.count × weights per row]`.
  public func apply(table: Int, ids: Span<UInt64>, weights: Span<Float>) throws(StoreError) {
    try writer.withLock { writer throws(StoreError) in
      let target = try target(table, writer)
      guard weights.count == ids.count * target.dimension else {
        throw .countMismatch(
          table: tableOptions[table].name, ids: ids.count, weights: weights.count, width: target.dimension)
      }
      if preparePending(&writer) {
        writer.pending?.apply(table: table, ids: ids, weights: weights, stamp: writer.stamp)
      } else {
        target.apply(ids: ids, weights: weights, stamp: writer.stamp)
      }
    }
  }

  /// Gives ids of a table their new rows, from a received version.
  public func apply(table: Int, ids: View<UInt64>, weights: View<Float>) throws(StoreError) {
    try apply(table: table, ids: ids.span, weights: weights.span)
  }

  /// Removes ids of a table; they read the default row from now on.
  public func remove(table: Int, ids: Span<UInt64>) throws(StoreError) {
    try writer.withLock { writer throws(StoreError) in
      let target = try target(table, writer)
      if preparePending(&writer) {
        writer.pending?.remove(table: table, ids: ids)
      } else {
        target.remove(ids: ids)
      }
    }
  }

  /// Removes ids of a table, from a received version's tombstones.
  public func remove(table: Int, ids: View<UInt64>) throws(StoreError) {
    try remove(table: table, ids: ids.span)
  }

  private func target(_ table: Int, _ writer: borrowing Writer) throws(StoreError) -> ReplicaTable {
    guard table >= 0, table < tableOptions.count else { throw .unknownTable("\(table)") }
    guard let target = writer.staging?.tables[table] ?? current?.tables[table].rows else { throw .noBase }
    return target
  }

  /// Whether what comes must wait for the end of its version; a place for it is there then.
  private func preparePending(_ writer: inout Writer) -> Bool {
    guard visibility == .consistent, writer.staging == nil else { return false }
    if writer.pending == nil { writer.pending = PendingVersion(tables: emptyTables()) }
    return true
  }

  /// Replaces all dense tensors of a model at once.
  public func setDense(model name: String, tensors: [[Float]]) throws(StoreError) {
    guard let index = modelIndices[name] else { throw .unknownModel(name) }
    let expected = models[index].denseCounts
    guard tensors.map(\.count) == expected else {
      throw .denseMismatch(model: name, expected: expected, got: tensors.map(\.count))
    }
    try writer.withLock { writer throws(StoreError) in
      if writer.staging != nil {
        writer.staging!.dense[index] = tensors
      } else {
        guard let current else { throw .noBase }
        if preparePending(&writer) {
          writer.pending?.dense[index] = tensors
          return
        }
        var dense = current.dense
        dense[index] = tensors
        show(Snapshot(tables: current.tables, dense: dense, version: current.version), &writer)
      }
    }
  }

  /// Says that all of a version has been applied to what is served.
  public func publish(_ version: VersionInfo) throws(StoreError) {
    try writer.withLock { writer throws(StoreError) in
      guard let current else { throw .noBase }
      if let pending = writer.pending {
        writer.pending = nil
        showAtOnce(pending, version, over: current, &writer)
      } else {
        show(Snapshot(tables: current.tables, dense: current.dense, version: version), &writer)
      }
      publishedAt.store(clock(), ordering: .relaxed)
    }
  }

  /// Lays the version over the rows for readers to see it at once, and then writes it into them unseen.
  private func showAtOnce(
    _ pending: borrowing PendingVersion, _ version: VersionInfo, over current: Snapshot, _ writer: inout Writer
  ) {
    var dense = current.dense
    for (model, tensors) in pending.dense { dense[model] = tensors }
    let rows = current.tables.map(\.rows)
    show(Snapshot(tables: pending.views(over: rows), dense: dense, version: version), &writer)
    // Who still reads without the overlay must not see half of what is written now.
    let shown = epochs.advance()
    while epochs.lastQuiet() < shown { sched_yield() }
    pending.write(into: rows)
    show(Snapshot(tables: rows.map { TableView($0) }, dense: dense, version: version), &writer)
  }

  /// Records how long events took from arrival to being servable here.
  /// - Parameter arrivals: wall-clock arrival times, with how many events share each.
  public func recordServable(
    arrivals: [(arrival: Milliseconds, count: UInt64)], at now: Milliseconds = Clocks.wall()
  ) {
    freshness.withLock { histogram in
      for (arrival, count) in arrivals {
        // What arrivals say comes from other processes.
        let (delay, overflow) = now.subtractingReportingOverflow(arrival)
        if !overflow { histogram.record(delay, times: count) }
      }
    }
  }

  /// Why this store does not take what the cluster trains, as its writer found; nil while it does.
  ///
  /// A replica with such a reason is not ready, whatever it serves.
  public var refusal: String? {
    get { refusalText.withLock { $0 } }
    set { refusalText.withLock { $0 = newValue } }
  }

  private func show(_ snapshot: Snapshot, _ writer: inout Writer) {
    let old = unsafe published.exchange(
      Unmanaged.passRetained(snapshot).toOpaque(), ordering: .acquiringAndReleasing)
    guard let old = unsafe old else { return }
    writer.retired.append((epochs.advance(), unsafe Unmanaged<Snapshot>.fromOpaque(old).takeRetainedValue()))
    let quiet = epochs.lastQuiet()
    writer.retired.removeAll { $0.epoch <= quiet }
  }

  /// The newest snapshot; only under the writer's lock, where nobody can retire it.
  private var current: Snapshot? {
    guard let pointer = unsafe published.load(ordering: .acquiring) else { return nil }
    return unsafe Unmanaged<Snapshot>.fromOpaque(pointer).takeUnretainedValue()
  }

  // MARK: Readers

  /// Calls `body` with what is served now; nil before the first base.
  ///
  /// The snapshot must not leave `body`.
  func read<Result>(_ reader: EpochReader, _ body: (Snapshot) -> Result) -> Result? {
    reader.read {
      guard let pointer = unsafe published.load(ordering: .acquiring) else { return nil }
      return unsafe Unmanaged<Snapshot>.fromOpaque(pointer)._withUnsafeGuaranteedRef { body($0) }
    }
  }

  /// The same for a caller without a reader of its own; never waits for the writer.
  private func peek<Result>(_ body: (Snapshot) -> Result) -> Result? { read(EpochReader(epochs), body) }

  /// The number of the model with this name.
  func model(named name: String) -> Int? { modelIndices[name] }

  /// The names of the models, in order.
  public var modelNames: [String] { models.map(\.name) }

  /// Whether a base has been committed.
  public var isReady: Bool { version != nil }

  /// The version that is served; nil before the first base.
  public var version: VersionInfo? { peek { $0.version } }

  /// Time since the last version was published here; nil before the first base.
  ///
  /// Empty versions count: they say that nothing newer exists.
  public var age: Duration? {
    isReady ? .nanoseconds(clock() - publishedAt.load(ordering: .relaxed)) : nil
  }

  /// How old what is served is: the time since its version was made; nil before the first base.
  ///
  /// Grows while nothing comes, and while what comes is old because the replica catches up.
  public var lag: Duration? {
    version.map { lag(of: $0) }
  }

  /// The same for the version that is served, by one who has just read it.
  func lag(of version: VersionInfo) -> Duration {
    .nanoseconds(clock() - publishedAt.load(ordering: .relaxed))
      + .milliseconds(version.wait)
  }

  /// Per table the wrapping sum of its rows' digests; nil before the first base.
  ///
  /// Scans all rows on the caller's thread and holds up the writer, but no reader, meanwhile.
  public func digests() -> [UInt64]? {
    writer.withLock { _ in current?.tables.map { $0.rows.digest() } }
  }

  /// What the replica holds and how fresh it has been.
  public func statistics() -> StoreStatistics {
    let held = peek { snapshot in snapshot.tables.map { (rows: $0.rows.rowCount, bytes: $0.rows.byteCount) } }
    let tables = tableOptions.enumerated().map { index, options in
      StoreStatistics.Table(name: options.name, rows: held?[index].rows ?? 0, bytes: held?[index].bytes ?? 0)
    }
    return StoreStatistics(
      tables: tables, version: version, age: age, lag: lag, freshness: freshness.withLock { $0 })
  }
}

/// What a replica holds at one moment.
public struct StoreStatistics: Equatable, Sendable {
  /// One table's rows.
  public struct Table: Equatable, Sendable {
    /// The table's name.
    public var name: String
    /// How many ids have a row.
    public var rows: Int
    /// Memory held for them, index included.
    public var bytes: Int
  }

  /// The tables in order.
  public var tables: [Table]
  /// The version that is served; nil before the first base.
  public var version: VersionInfo?
  /// Time since it was published.
  public var age: Duration?
  /// Time since it was made.
  public var lag: Duration?
  /// Milliseconds from an event's arrival to being servable here.
  public var freshness: Histogram
}
