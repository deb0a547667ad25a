// A feature store that forgets: for experiments and tests, where nothing has to come back.

public import Base

/// Keeps entries in memory only.
public final class MemoryStore: FeatureStore {
  private let table: EntryTable

  /// An empty store.
  ///
  /// - Parameter clock: the wall clock.
  public init(
    _ options: FeatureStoreOptions = FeatureStoreOptions(),
    clock: @escaping @Sendable () -> Milliseconds = { Clocks.wall() }
  ) { table = EntryTable(options, clock: clock) }

  /// The entries of some users.
  public func entries(of users: [UInt64], asOf: Milliseconds?) -> [[EmbeddingEntry]] {
    users.map { table.entries(of: $0, asOf: asOf) }
  }

  /// Stores entries.
  public func write(_ writes: [EmbeddingWrite]) {
    for write in writes { table.put(write.entry, of: write.user) }
  }

  /// Also keeps entries of these states of what is served.
  public func keep(_ served: [ServedVersions]) { table.keep(served) }

  /// Forgets users.
  public func remove(_ users: [UInt64]) {
    for user in users { table.remove(user) }
  }

  /// Users of whom an entry was made with a row of theirs.
  public func learnedUsers(_ body: ([UInt64]) -> Void) { table.learnedUsers(body) }

  /// Lets go of what is too old.
  public func sync() { _ = table.sweep() }

  /// How much is in memory.
  public var extent: FeatureStoreExtent { table.extent }
}
