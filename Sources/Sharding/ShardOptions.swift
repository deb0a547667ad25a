// What a shard is made of. Configuration builds these; nothing here reads files.

public import Embeddings
public import Layers

/// A dense tensor of the cluster: its first values and the rule that changes them.
public struct DenseTensorOptions: Sendable, Equatable {
  /// Its name and shape; the name begins with the model's.
  public var tensor: DenseTensor
  /// The optimizer that runs on the shard.
  public var optimizer: DenseOptimizerOptions

  /// A tensor with its optimizer.
  public init(tensor: DenseTensor, optimizer: DenseOptimizerOptions) {
    self.tensor = tensor
    self.optimizer = optimizer
  }
}

/// Everything a shard needs to know.
public struct ShardOptions: Sendable, Equatable {
  /// Which shard this is.
  public var index: Int
  /// The cluster's map.
  public var map: ClusterMap
  /// The cluster's seed: first values of rows and tensors depend on it.
  public var seed: UInt64
  /// All tables of the cluster, in index order.
  public var tables: [TableOptions]
  /// All dense tensors of the cluster, in index order; each lives on one shard.
  public var tensors: [DenseTensorOptions]
  /// How step sizes change, by the consumer whose pushes they are for: the model.
  ///
  /// Default empty: they do not.
  public var schedules: [String: LearningRateSchedule] = [:]
  /// How often an epoch closes (monotonic).
  ///
  /// Default 1 s: what a crash may make the trainers send again.
  public var epoch: Duration = .seconds(1)
  /// Rows copied between two rounds of requests while a cut is copied out.
  ///
  /// Default 1,024: about half a millisecond.
  public var copyRows: Int = 1024
  /// Blocks kept in memory for sync.
  ///
  /// Default 512 MiB; beyond it the oldest go and sync takes a new base.
  public var retainedBytes: Int = 512 << 20
  /// How often a checkpoint is written (monotonic) when something has changed; zero for never.
  ///
  /// Default 10 min: a recovery reads the blocks since the last one.
  public var checkpointEvery: Duration = .seconds(600)
  /// A checkpoint is also written when the blocks since the last one have so many bytes.
  ///
  /// Default 4 GiB: bounds the disk and the time of a recovery under heavy change.
  public var checkpointBytes: Int = 4 << 30
  /// Rows copied into a checkpoint between two rounds of requests.
  ///
  /// Default 512: a few tens of microseconds.
  public var checkpointSliceRows: Int = 512
  /// Rows a second that a checkpoint copies while requests come in; it is faster when none do.
  ///
  /// Default 250,000: 70 MB/s at dimension 32 with AdaGrad, a few per cent of the thread and little of a disk.
  public var checkpointRowRate: Int = 250_000
  /// Bytes of a checkpoint that may wait for the disk; beyond it the checkpoint is given up.
  ///
  /// Default 512 MiB: a disk that is seconds behind, while epochs close.
  public var checkpointQueueBytes: Int = 512 << 20
  /// Rows looked at by one slice of expiry.
  ///
  /// Default 4,096.
  public var sweepRows: Int = 4096
  /// How often a slice of expiry runs (monotonic).
  ///
  /// Default 100 ms.
  public var sweepEvery: Duration = .milliseconds(100)
  /// Requests one client may have unanswered.
  ///
  /// Default 256; what it sends beyond waits in its own queues.
  public var creditRequests: Int = 256
  /// Bytes of requests one client may have unanswered, in whole mebibytes; a longer request is refused.
  ///
  /// Default 256 MiB.
  public var creditBytes: Int = 256 << 20

  /// Options with defaults for everything but the shape of the cluster.
  public init(index: Int, map: ClusterMap, seed: UInt64, tables: [TableOptions], tensors: [DenseTensorOptions]) {
    self.index = index
    self.map = map
    self.seed = seed
    self.tables = tables
    self.tensors = tensors
  }
}
