// What a trainer is told: its model, its partitions, the cluster's tables.

internal import Base
public import Layers
public import Sharding
public import Streams
public import Wire

/// Where the correction ln r of sampled negatives is applied (DESIGN, "Joining"); exactly one place.
public enum SamplingCorrection: String, Sendable, CaseIterable, Codable {
  /// The model learns sampled log-odds; serving and metrics add ln r.
  case serving
  /// The loss adds −ln r, so that the model learns true log-odds.
  case loss
}

/// One trainer of one model.
public struct TrainerOptions: Sendable, Equatable {
  /// The model's name: the consumer of its chains, the prefix of its tables and tensors.
  public var modelName: String
  /// The model.
  public var model: ModelOptions
  /// The events' schema: feature and task order of examples.
  public var schema: EventSchema
  /// The cluster's map.
  public var map: ClusterMap
  /// All tables of the cluster; the shards must agree.
  public var tables: [TableShape]
  /// All dense tensors of the cluster; the shards must agree.
  public var tensors: [TensorShape]
  /// Index of each of the model's tables among the cluster's.
  public var tableIndex: [Int]
  /// Index of each of the model's dense tensors among the cluster's.
  public var tensorIndex: [Int]
  /// The name of the stream of examples.
  public var stream: String = "examples"
  /// Partitions this trainer owns.
  public var partitions: [Int] = [0]
  /// Examples per batch.
  ///
  /// Default 256: quality falls slowly above it (docs/training.md).
  public var batchSize: Int = 256
  /// A batch that is not full is trained on after this time (monotonic).
  ///
  /// Default 50 ms.
  public var flushAfter: Duration = .milliseconds(50)
  /// Bytes of pushes kept until they are durable; when they are reached the trainer waits.
  ///
  /// Default 256 MiB.
  public var pushBufferBytes: Int = 256 << 20
  /// Batches a trainer may be ahead of its slowest acknowledged push.
  ///
  /// Default 16.
  public var batchesAhead: Int = 16
  /// How rows and their gradients travel; dense tensors are always float32.
  ///
  /// Default float32.
  public var numbers: NumberType = .float32
  /// Threads that compute, from two on beside the trainer's own; matrix products take no further ones.
  ///
  /// Default 1. The same number gives the same bits.
  public var threads: Int = 1
  /// Where ln r is applied.
  ///
  /// Default serving.
  public var correction: SamplingCorrection = .serving
  /// How strongly a user model is pulled towards its teacher.
  ///
  /// Default not at all.
  public var stabilization = Stabilization()
  /// How long an answer may take before the trainer asks where the shard stands.
  ///
  /// Default 2 s.
  public var retryAfter: Duration = .seconds(2)

  /// Options with defaults for all but the model and the cluster's shape.
  public init(
    modelName: String, model: ModelOptions, schema: EventSchema, map: ClusterMap, tables: [TableShape],
    tensors: [TensorShape], tableIndex: [Int], tensorIndex: [Int]
  ) {
    self.modelName = modelName
    self.model = model
    self.schema = schema
    self.map = map
    self.tables = tables
    self.tensors = tensors
    self.tableIndex = tableIndex
    self.tensorIndex = tensorIndex
  }

  /// The chain of one partition.
  public func chain(_ partition: Int) -> ChainKey {
    ChainKey(consumer: modelName, stream: stream, partition: partition)
  }

  /// What does not fit in a shard's welcome; nil when all does.
  public func problem(in welcome: Welcome) -> String? {
    if welcome.mapNumber != map.number {
      return
        "its cluster map has number \(welcome.mapNumber), this trainer's \(map.number); restart with one configuration"
    }
    for (own, theirs) in zip(tables, welcome.tables) where own != theirs {
      return "table '\(theirs.name)' has \(theirs.weightCount) weights per row there, table '\(own.name)' "
        + "\(own.weightCount) here; restart with one configuration"
    }
    if welcome.tables.count != tables.count || welcome.tensors != tensors {
      return "it has \(welcome.tables.count) tables and \(welcome.tensors.count) tensors, this trainer "
        + "\(tables.count) and \(tensors.count), or they differ; restart with one configuration"
    }
    return nil
  }
}
