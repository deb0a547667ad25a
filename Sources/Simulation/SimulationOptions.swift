// How large a simulated cluster is and how much goes wrong in it. Everything random comes from the seed beside it.

internal import Base

/// The size of a simulated cluster, its load and its faults.
public struct SimulationOptions: Sendable, Equatable {
  /// Shards.
  public var shards = 3
  /// Trainers; partitions are dealt out among them.
  public var trainers = 2
  /// Partitions of the stream of examples.
  public var partitions = 3
  /// Replicas.
  public var replicas = 2
  /// Examples per partition.
  public var records = 300
  /// How often each partition gets an example (virtual).
  public var recordEvery: Duration = .milliseconds(5)
  /// How many random faults strike while examples arrive; 0 leaves the network perfect too.
  public var faults = 12
  /// Whether versions round rows to float16.
  public var halfPrecision = false
  /// Blocks a shard keeps for sync, in bytes; a small number makes sync take new bases.
  public var retainedBytes = 1 << 20
  /// Requests a trainer may have unanswered at a shard; a small number makes them wait for each other.
  public var creditRequests = 256
  /// How long (virtual) the cluster may take to become quiet once examples and faults are over.
  public var quietWithin: Duration = .seconds(30)

  /// The defaults: a run of a few virtual seconds.
  public init() {}

  /// What a seed alone stands for, in tests and in `guira simulate`: seeds differ in how many shards there are, what
  /// versions round to, how soon sync must take a new base, and how many requests may be unanswered.
  public init(seed: UInt64) {
    shards = 1 + Int(seed % 3)
    halfPrecision = seed % 3 == 0
    retainedBytes = seed % 5 == 0 ? 4_000 : 1 << 20
    creditRequests = seed % 4 == 1 ? 2 : 256
  }
}
