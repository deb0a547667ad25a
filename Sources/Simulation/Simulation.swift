// A whole cluster on one thread with virtual time: the real cores of shards, clients, sync and replicas, a network that
// loses and repeats, journals that lose what was not synced, processes that crash and come back. Everything random comes
// from one seed, so a run that found something can be run again (DESIGN, 3.1 to 3.5).

internal import Base

/// A simulated cluster with faults, repeatable from its seed.
public struct Simulation {
  let cluster: Cluster
  /// What everything random comes from.
  public let seed: UInt64
  private let options: SimulationOptions

  /// A cluster that has not run yet.
  public init(seed: UInt64, options: SimulationOptions = SimulationOptions()) {
    self.seed = seed
    self.options = options
    cluster = Cluster(seed: seed, options: options)
  }

  /// How much was compared once the cluster was quiet.
  public struct Compared: Sendable, Equatable {
    /// Rows of shards with what the examples add up to, and rows of replicas with the shards'.
    public var rows = 0
    /// The numbers in them.
    public var numbers = 0
    /// Dense tensors of shards and replicas.
    public var tensors = 0
    /// Chains of shards: examples counted, and every push where the one before ended.
    public var chains = 0

    /// Nothing yet.
    public init() {}
  }

  /// How often each kind of fault struck.
  public var faults: [String: Int] { cluster.struck }

  /// What was compared at the end; empty when the cluster never became quiet.
  public var compared: Compared { cluster.compared }

  /// Messages on the network.
  public var messages: Int { cluster.network.messages }

  /// What was promised and did not hold; empty when all did.
  public var violations: [String] { cluster.violations }

  /// Runs with random faults until the cluster is quiet, then compares all numbers.
  public mutating func run() {
    cluster.scheduleFaults()
    finish()
  }

  /// What happened, in one line.
  public var summary: String {
    let pushes = cluster.shards.map { $0.log.count }.reduce(0, +)
    return "seed \(seed): \(cluster.now / 1_000_000) ms, \(cluster.network.messages) messages, \(pushes) pushes kept, "
      + "\(cluster.shards.map { $0.finishedCheckpoints }.reduce(0, +)) checkpoints, "
      + "\(cluster.sync.published) versions, \(cluster.sync.stores) stores, \(cluster.stoppedOwners) trainers stopped, "
      + "\(violations.isEmpty ? "all held" : "\(violations.count) violations")"
  }

  /// Runs until the examples are trained on, published and applied, then compares all numbers.
  mutating func finish() {
    let start = options.recordEvery.nanoseconds * Int64(options.records)
    let deadline = max(cluster.now, start) + options.quietWithin.nanoseconds
    step(until: deadline) { $0.isTrained }
    cluster.sync.publish()
    step(until: deadline) { $0.isTrained && $0.isSynced }
    guard cluster.isTrained, cluster.isSynced else {
      cluster.report(["the cluster does not become quiet: \(cluster.waitsFor)"])
      return
    }
    cluster.judge()
  }

  /// Runs on until something holds; false when it did not in time.
  @discardableResult mutating func step(until deadline: Int64, _ holds: (Cluster) -> Bool) -> Bool {
    while cluster.now < deadline {
      if holds(cluster) { return true }
      cluster.step()
    }
    return holds(cluster)
  }
}
