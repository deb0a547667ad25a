// What a platform says of itself: for status files, metrics and tests.

public import Base
internal import Synchronization

/// What a platform has done and holds.
public struct SoapStatus: Sendable, Equatable {
  /// Users answered with an embedding of the newest version and inputs.
  public var currentReads: UInt64 = 0
  /// Users answered from older entries.
  public var storedReads: UInt64 = 0
  /// Users answered with the default.
  public var defaultReads: UInt64 = 0
  /// Users answered with the default because no entry is of a version that is served to the models that asked.
  public var withheldReads: UInt64 = 0
  /// What the downstream models that wait for it have seen.
  public var seen: [SeenStatus] = []
  /// Embeddings worked out.
  public var computed: UInt64 = 0
  /// Users queued because a version changed their row.
  public var changed: UInt64 = 0
  /// Users that wait, for whatever reason.
  public var queued = 0
  /// Requests that a newer one of the same user took the place of.
  public var replaced: UInt64 = 0
  /// Requests dropped because the queue was full.
  public var dropped: UInt64 = 0
  /// Users who were forgotten, or whose row is gone.
  public var forgotten: UInt64 = 0
  /// Times the store failed.
  public var storeFailures: UInt64 = 0
  /// The version in use; 0 before the first.
  public var version: UInt64 = 0
  /// The version that is held back, when one is.
  public var heldVersion: UInt64?
  /// How many versions were held back.
  public var heldVersions = 0
  /// How far the last version moved users.
  public var shift: SnapshotShift?
  /// Microseconds of the compute centre's batches.
  public var batches = Histogram()
  /// What the store holds.
  public var extent = FeatureStoreExtent()
  /// What is wrong; empty when nothing is.
  public var problem = ""
}

extension Soap {
  /// What the platform does.
  public var status: SoapStatus {
    let (count, counters) = queue.withLock { ($0.count, $0.counters) }
    let changedCount = changed.withLock { $0.count }
    let state = state.withLock { $0 }
    var status = SoapStatus()
    status.currentReads = state.reads[.current] ?? 0
    status.storedReads = state.reads[.stored] ?? 0
    status.defaultReads = state.reads[.default] ?? 0
    status.withheldReads = state.withheld
    status.seen = seen.withLock { $0?.status ?? [] }
    status.computed = state.computed
    status.changed = state.changed
    status.queued = count + changedCount
    status.replaced = counters.replaced
    status.dropped = counters.dropped
    status.storeFailures = state.storeFailures
    status.version = state.gate.acceptedVersion
    status.heldVersion = state.gate.heldVersion
    status.heldVersions = state.gate.heldCount
    status.shift = state.gate.shift
    status.batches = state.batches
    status.extent = store.extent
    status.problem =
      predictor.store.refusal ?? state.gate.heldVersion.map { "version \($0) moves users too far and is held back" }
      ?? (state.storeProblem.isEmpty ? state.servingProblem : state.storeProblem)
    status.forgotten = erasures.withLock { $0.count }
    return status
  }
}
