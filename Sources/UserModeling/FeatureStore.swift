// The face of what keeps user embeddings. Two stores have it: one in this process with a journal, and Redis. Any thread
// may read; one thread at a time writes.

public import Base

/// What is to be stored for one user.
public struct EmbeddingWrite: Equatable, Sendable {
  /// The user's id.
  public var user: UInt64
  /// The entry.
  public var entry: EmbeddingEntry

  /// A write from its parts.
  public init(user: UInt64, entry: EmbeddingEntry) {
    self.user = user
    self.entry = entry
  }
}

/// Keeps the last entries of every user, of each shape.
public protocol FeatureStore: Sendable {
  /// The entries of some users, newest event time first; nothing for a user who is not known.
  ///
  /// - Parameter asOf: only entries made from events up to this event time; nil for all.
  func entries(of users: [UInt64], asOf: Milliseconds?) throws(FeatureStoreError) -> [[EmbeddingEntry]]

  /// Stores entries; one of the same event time and shape is replaced.
  ///
  /// When it returns, the death of this process loses none of them.
  func write(_ writes: [EmbeddingWrite]) throws(FeatureStoreError)

  /// From now on also keeps, of each user and shape, entries for each of these states of what is served, and for what they
  /// become.
  func keep(_ served: [ServedVersions])

  /// Forgets users.
  ///
  /// When it returns, nobody reads their entries again; the bytes leave a disk of the store's own with later calls of
  /// `sync`.
  func remove(_ users: [UInt64]) throws(FeatureStoreError)

  /// Calls `body` with all users of whom an entry was made with a row of theirs, some at a time.
  func learnedUsers(_ body: ([UInt64]) -> Void) throws(FeatureStoreError)

  /// Brings everything written to the disk, where the store has one of its own, and lets go of what is too old.
  ///
  /// Called about twice a second by the thread that writes.
  func sync() throws(FeatureStoreError)

  /// How many users have entries, and the memory or disk they take, where the store knows.
  var extent: FeatureStoreExtent { get }
}

/// How much a store holds.
public struct FeatureStoreExtent: Equatable, Sendable {
  /// Users with entries.
  public var users = 0
  /// Bytes of the entries.
  public var bytes = 0

  /// Nothing.
  public init() {}
}

/// How entries are kept.
public struct FeatureStoreOptions: Equatable, Sendable {
  /// How many entries of a user and shape are kept; default 4: the pooled ones, and one to look back at.
  public var entriesPerUser = 4
  /// Whether numbers are kept in float16: half the bytes, three digits; default false.
  public var halfPrecision = false
  /// How long after it was made an entry is kept, by the wall clock; nil, the default, for ever.
  public var timeToLive: Duration?

  /// The defaults.
  public init() {}
}

/// Why a store cannot answer.
public enum FeatureStoreError: Error, Equatable, Sendable, CustomStringConvertible {
  /// The journal failed, in its own words.
  case journal(String)
  /// The server that keeps the entries failed, or cannot be reached.
  case server(address: String, problem: String)
  /// Stored bytes that are no entry.
  case damaged(String)

  /// What is wrong.
  public var description: String {
    switch self {
    case .journal(let problem): "the feature store's journal: \(problem)"
    case .server(let address, let problem): "the feature store at \(address): \(problem)"
    case .damaged(let problem): "the feature store holds bytes that are no entry: \(problem)"
    }
  }
}
