// Versions into a replica's store. The sync link's thread calls it; the question thread reads digests.

internal import Base
internal import Layers
public import Serving
internal import Synchronization
public import Syncing
internal import Wire

/// Applies versions to a `ReplicaStore`.
public final class ReplicaTarget: VersionTarget, Sendable {
  private let store: ReplicaStore
  private let tableIndex: [String: Int]
  /// By model: the full names of its tensors in order.
  private let tensorsOfModel: [(model: String, names: [String])]
  private let tensorCounts: [String: Int]
  private let tensors = Mutex<[String: [Float]]>([:])

  /// A target that has taken nothing yet.
  ///
  /// - Parameter tables: the names of the store's tables, in order; nil for all of the cluster's.
  public init(_ plan: ClusterPlan, store: ReplicaStore, tables: [String]? = nil) {
    self.store = store
    let names = tables ?? plan.tables.map(\.name)
    tableIndex = Dictionary(uniqueKeysWithValues: names.enumerated().map { ($1, $0) })
    tensorCounts = Dictionary(uniqueKeysWithValues: plan.tensors.map { ($0.tensor.name, $0.tensor.count) })
    let served = Set(store.modelNames)
    tensorsOfModel = plan.models.filter { served.contains($0.settings.name) }.map { model in
      (model.settings.name, model.tensorIndex.map { plan.tensors[$0].tensor.name })
    }
  }

  /// Begins a base in the store.
  public func beginBase() { store.beginBase() }

  /// Leaves the store as it was before the base.
  public func abandonBase() { store.abandonBase() }

  /// Applies rows and removals of a table that this replica has.
  public func apply(_ change: TableChange, of version: VersionContent) throws {
    // A table the configuration of this replica does not have is another model's: nothing here reads it.
    guard let table = tableIndex[change.table] else { return }
    let width = store.tableOptions[table].defaultRow.count
    guard change.weightCount == width else {
      throw VersionMismatch(
        "table '\(change.table)' has \(change.weightCount) weights per row in version \(version.number) and \(width) in "
          + "this replica's configuration; give both the same")
    }
    store.begin(version: version.number, created: version.created)
    try store.remove(table: table, ids: change.tombstones.span)
    try store.apply(table: table, ids: change.ids.span, weights: change.weights.span)
  }

  /// Gives each model its dense tensors as soon as all of them are known.
  public func setDense(_ changes: [TensorChange]) throws {
    for change in changes {
      guard let count = tensorCounts[change.name], count != change.values.count else { continue }
      throw VersionMismatch(
        "tensor '\(change.name)' has \(change.values.count) numbers in the versions and \(count) in this replica's "
          + "configuration; give both the same")
    }
    let all = tensors.withLock { tensors in
      for change in changes { tensors[change.name] = change.values }
      return tensors
    }
    for (model, names) in tensorsOfModel where names.contains(where: { name in changes.contains { $0.name == name } }) {
      let values = names.compactMap { all[$0] }
      guard values.count == names.count else { continue }
      try store.setDense(model: model, tensors: values)
    }
  }

  /// Serves the base.
  public func commitBase(_ version: VersionContent) throws {
    try store.commitBase(Self.info(version))
    recordServable(version)
  }

  /// Serves the version.
  public func publish(_ version: VersionContent) throws {
    try store.publish(Self.info(version))
    recordServable(version)
  }

  private func recordServable(_ version: VersionContent) {
    store.recordServable(arrivals: version.arrivals.map { ($0.arrival, $0.count) })
  }

  private static func info(_ version: VersionContent) -> VersionInfo {
    VersionInfo(
      number: version.number, newestEventTime: version.newestEventTime, modelStep: version.exampleCount,
      shardEpochs: version.epochs, appliedAt: Clocks.wall(), created: version.created)
  }

  /// The digest of what is served.
  func digest() -> DigestReply {
    var digest = DigestReply()
    let rows = store.statistics().tables.map(\.rows)
    for (index, sum) in (store.digests() ?? []).enumerated() {
      digest.tables[store.tableOptions[index].name] = DigestReply.Entry(count: UInt64(rows[index]), sum: sum)
    }
    for (name, values) in tensors.withLock({ $0 }) { digest.tensors[name] = DigestReply.tensor(values) }
    return digest
  }
}

/// What the versions bring does not fit the replica's configuration.
private struct VersionMismatch: Error, CustomStringConvertible {
  let description: String
  init(_ description: String) { self.description = description }
}
