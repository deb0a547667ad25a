// The whole cluster in the words of its parts: which tables and tensors there are, in which order, and what each role is
// told. Every role derives it from the same configuration, so they agree without asking each other.

public import Embeddings
public import Layers
public import Serving
public import Sharding
public import Syncing
public import Training
internal import Wire

/// Options of every role, from one configuration.
public struct ClusterPlan: Sendable {
  /// One model with the numbers of its tables and tensors among the cluster's.
  public struct PlannedModel: Sendable {
    /// The model's section of the configuration.
    public let settings: ModelSettings
    /// Its shape.
    public let options: ModelOptions
    /// Its tables' indices among `ClusterPlan.tables`.
    public let tableIndex: [Int]
    /// Its tensors' indices among `ClusterPlan.tensors`.
    public let tensorIndex: [Int]
    /// The sampling rates of its tasks' negatives.
    public let negativeRates: [Float]
    /// The rates that serving corrects for: 1 where the loss does.
    public var servedRates: [Float] { settings.correction == .loss ? negativeRates.map { _ in 1 } : negativeRates }
  }

  /// The configuration.
  public let configuration: ClusterConfiguration
  /// The cluster's map.
  public let map: ClusterMap
  /// All tables of all models.
  public let tables: [TableOptions]
  /// All dense tensors of all models, named `<model>/<tensor>`.
  public let tensors: [DenseTensorOptions]
  /// The models in the order of the file.
  public let models: [PlannedModel]

  /// Derives the plan.
  /// - Throws: `ModelError` for a model that the configuration's checks should have refused.
  public init(_ configuration: ClusterConfiguration) throws {
    self.configuration = configuration
    map = ClusterMap(shardCount: configuration.shards.count)
    var tables: [TableOptions] = []
    var tensors: [DenseTensorOptions] = []
    var models: [PlannedModel] = []
    for settings in configuration.models {
      let options = configuration.modelOptions(of: settings)
      let own = try configuration.tableOptions(of: settings)
      let shape = try makeModel(options).denseTensors
      models.append(
        PlannedModel(
          settings: settings, options: options, tableIndex: own.indices.map { $0 + tables.count },
          tensorIndex: shape.indices.map { $0 + tensors.count },
          negativeRates: configuration.tasks(of: settings).map { Float($0.negativeRate) }))
      tables += own
      tensors += shape.map { tensor in
        var named = tensor
        named.name = "\(settings.name)/\(tensor.name)"
        return DenseTensorOptions(tensor: named, optimizer: settings.denseOptimizer.options)
      }
    }
    self.tables = tables
    self.tensors = tensors
    self.models = models
  }

  /// Whether shards and trainer are threads of one process.
  var isOneProcess: Bool { configuration.cluster.transport == .inproc }

  private var tensorShapes: [TensorShape] {
    tensors.map {
      TensorShape(name: $0.tensor.name, count: $0.tensor.count, shard: map.shard(ofTensor: $0.tensor.name))
    }
  }

  /// What shard `index` is told.
  public func shard(_ index: Int) -> ShardOptions {
    var options = ShardOptions(
      index: index, map: map, seed: configuration.cluster.seed, tables: tables, tensors: tensors)
    options.schedules = Dictionary(
      uniqueKeysWithValues: models.map { ($0.settings.name, $0.settings.schedule.options) })
    options.epoch = configuration.shards.epoch
    options.retainedBytes = configuration.shards.blockBytes
    options.checkpointEvery = configuration.shards.checkpointEvery
    return options
  }

  /// What trainer `index` is told about one model.
  public func trainer(_ index: Int, of model: PlannedModel) -> TrainerOptions {
    var options = TrainerOptions(
      modelName: model.settings.name, model: model.options, schema: configuration.eventSchema, map: map,
      tables: tables.map { options in
        let table = Table(options)
        return TableShape(name: options.name, weightCount: table.weightCount, floatCount: table.floatCount)
      },
      tensors: tensorShapes, tableIndex: model.tableIndex, tensorIndex: model.tensorIndex)
    options.partitions = (0..<configuration.streams.examples.partitions).filter {
      $0 % configuration.trainers.count == index
    }
    options.correction = model.settings.correction
    options.batchSize = model.settings.batchSize
    options.flushAfter = model.settings.flushAfter
    options.pushBufferBytes = configuration.trainers.pushBufferBytes
    options.batchesAhead = configuration.trainers.maxAhead
    options.threads = configuration.trainers.threads
    options.stabilization = model.settings.users.stabilization
    options.numbers = configuration.trainers.wire == .float16 ? .float16 : .float32
    return options
  }

  /// What sync is told.
  public var sync: SyncOptions {
    var options = SyncOptions(shardCount: configuration.shards.count, replicaCount: configuration.replicas.count)
    options.sparseEvery = configuration.sync.sparseEvery
    options.denseEvery = configuration.sync.denseEvery
    options.denseAt = configuration.sync.denseAt
    options.halfPrecision = configuration.sync.precision == .float16
    options.versionBytes = configuration.sync.versionBytes
    options.keepVersions = configuration.sync.keepVersions
    return options
  }

  /// The number under which trainer `index` follows sync as the teacher of the model at `place`: behind all replicas and
  /// the user-modelling platform.
  func teacher(_ index: Int, of place: Int) -> Int {
    configuration.replicas.count + configuration.soapCount + index * models.count + place
  }

  /// A replica's tables, in the order of `tables`.
  public var replicaTables: [ReplicaTableOptions] {
    tables.map { table in
      ReplicaTableOptions(
        name: table.name,
        defaultRow: [Float](repeating: table.defaultWeight, count: table.segments.reduce(0) { $0 + $1.width }),
        halfPrecision: configuration.replicas.halfPrecision)
    }
  }

  /// What the user-modelling platform holds: the upstream model, and the tables it reads, in the order of its own numbers;
  /// nil when there is no such model.
  public var upstream: (tables: [ReplicaTableOptions], model: ServedModelOptions)? {
    guard let name = configuration.soap.model, let model = models.first(where: { $0.settings.name == name }) else {
      return nil
    }
    return alone(model)
  }

  /// What a replica of one model alone holds: the model, and the tables it reads, in the order of its own numbers.
  func alone(_ model: PlannedModel) -> (tables: [ReplicaTableOptions], model: ServedModelOptions) {
    let all = replicaTables
    return (
      model.tableIndex.map { all[$0] },
      ServedModelOptions(name: model.settings.name, model: model.options, negativeRates: model.servedRates)
    )
  }

  /// The name of the table that holds the rows of users in the upstream model; nil when it reads none.
  public var userTable: String? {
    guard let name = configuration.soap.model, let model = models.first(where: { $0.settings.name == name }),
      let feature = model.options.features.first(where: { $0.name == configuration.soap.user })
    else { return nil }
    return tables[model.tableIndex[feature.table]].name
  }

  /// The models a replica serves; their features name the replica's tables by number.
  public var servedModels: [ServedModelOptions] {
    models.map { model in
      var options = model.options
      options.features = options.features.map {
        ModelFeature(name: $0.name, table: model.tableIndex[$0.table], combiner: $0.combiner)
      }
      return ServedModelOptions(name: model.settings.name, model: options, negativeRates: model.servedRates)
    }
  }
}
