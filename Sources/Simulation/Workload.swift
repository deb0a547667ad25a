// What the simulated cluster trains on, and the tables it trains: numbers that make a lost, repeated or foreign update
// visible. Column 0 of a row counts its sightings; the other columns add up small integers hashed from the example's place,
// so that a loss and a repeat cannot cancel. All sums stay whole numbers that float32 holds exactly.

internal import Base
internal import Embeddings
internal import Layers
internal import Sharding
internal import Wire

/// One id in one example with what it adds to its row.
struct Sighting {
  var table: Int
  var id: UInt64
  var adds: [Float]
}

/// One example of a partition.
struct Record {
  var end: Position
  var eventTime: Milliseconds
  var sightings: [Sighting]
  /// What the example adds to the tensor `counts`.
  var adds: [Float]
}

/// The gradients of a batch: per table, ids with sightings and summed changes.
struct BatchChanges {
  struct Row {
    var sightings: UInt32 = 0
    var adds = [Float](repeating: 0, count: Workload.width)
  }

  var order: [[UInt64]] = Array(repeating: [], count: Workload.tableNames.count)
  var rows: [[UInt64: Row]] = Array(repeating: [:], count: Workload.tableNames.count)
  var dense = [Float](repeating: 0, count: Workload.width)
  var count = 0

  init(_ records: ArraySlice<Record>) {
    count = records.count
    for record in records {
      for column in dense.indices { dense[column] += record.adds[column] }
      for sighting in record.sightings {
        if rows[sighting.table][sighting.id] == nil { order[sighting.table].append(sighting.id) }
        var row = rows[sighting.table][sighting.id] ?? Row()
        row.sightings += 1
        for column in row.adds.indices { row.adds[column] += sighting.adds[column] }
        rows[sighting.table][sighting.id] = row
      }
    }
  }
}

/// All examples of all partitions, and the cluster's tables and tensors.
struct Workload {
  static let width = 4
  static let threshold = 3
  /// `plain` and `counted` are held to a model; `bounded` forgets by size and age, so replicas are held to the shards.
  static let tableNames = ["plain", "counted", "bounded"]
  static let tensorNames = ["counts", "sums"]

  let seed: UInt64
  let partitions: [[Record]]

  init(seed: UInt64, options: SimulationOptions) {
    self.seed = seed
    partitions = (0..<options.partitions).map { partition in
      (0..<options.records).map { Self.record(seed: seed, partition: partition, index: $0) }
    }
  }

  private static func record(seed: UInt64, partition: Int, index: Int) -> Record {
    var random = SeededRandom(seed: Hashing.mix(seed ^ Hashing.mix(UInt64(partition) << 32 | UInt64(index))))
    func adds() -> [Float] { [1] + (1..<width).map { _ in Float(Int.random(in: -20...20, using: &random)) } }
    func id(_ pool: Double) -> UInt64 {
      // Few ids are frequent; 0 and UInt64.max are ids like any other.
      let rank = UInt64(pool * random.uniform() * random.uniform())
      return rank == 1 ? .max : rank < 1 ? 0 : Hashing.mix(rank)
    }
    var sightings: [Sighting] = []
    for (table, pool) in [(0, 150.0), (1, 250.0), (2, 200.0)] {
      for _ in 0..<Int.random(in: 1...3, using: &random) {
        sightings.append(Sighting(table: table, id: id(pool), adds: adds()))
      }
    }
    // Positions are ordered, not dense; some partitions count like Redis streams.
    let end =
      partition % 2 == 0
      ? Position(low: UInt64(index + 1) * 16 + random.next() % 16)
      : Position(high: UInt64(index / 3 + 1), low: UInt64(index % 3))
    return Record(end: end, eventTime: 1_700_000_000_000 + Int64(index) * 40, sightings: sightings, adds: adds())
  }

  static func chain(_ partition: Int) -> ChainKey {
    ChainKey(consumer: "model", stream: "examples", partition: partition)
  }

  /// How many records of a partition end at or before a position.
  func count(_ partition: Int, upTo position: Position) -> Int {
    let records = partitions[partition]
    var (low, high) = (0, records.count)
    while low < high {
      let middle = (low + high) / 2
      if records[middle].end <= position { low = middle + 1 } else { high = middle }
    }
    return low
  }

  /// Where a partition's last record ends.
  func end(_ partition: Int) -> Position { partitions[partition].last?.end ?? .start }

  func shardOptions(_ index: Int, of options: SimulationOptions) -> ShardOptions {
    func segment(_ initializer: Initializer, _ rule: OptimizerOptions.Rule, _ rate: Float) -> [Segment] {
      [
        Segment(
          name: "w", width: Self.width, initializer: initializer,
          optimizer: OptimizerOptions(rule: rule, learningRate: rate))
      ]
    }
    let tables = [
      TableOptions(name: "plain", seed: seed, segments: segment(.zeros, .sgd, 1)),
      TableOptions(
        name: "counted", seed: seed, segments: segment(.zeros, .sgd, 1), admission: .count(Self.threshold)),
      TableOptions(
        name: "bounded", seed: seed, segments: segment(.uniform(0.5), .adagrad(initialAccumulator: 0.1), 0.1),
        timeToLive: .seconds(4), rowLimit: 24),
    ]
    let tensors = Self.tensorNames.map { name in
      DenseTensorOptions(
        tensor: DenseTensor(name: name, shape: [Self.width], initial: .zeros),
        optimizer: DenseOptimizerOptions(rule: .sgd, learningRate: 1))
    }
    var shard = ShardOptions(
      index: index, map: ClusterMap(shardCount: options.shards), seed: seed, tables: tables, tensors: tensors)
    shard.epoch = .milliseconds(40)
    shard.copyRows = 32
    shard.retainedBytes = options.retainedBytes
    // A scan takes several epochs, so that blocks close and crashes strike while it goes on.
    shard.checkpointEvery = .milliseconds(170)
    shard.checkpointSliceRows = 6
    shard.checkpointRowRate = 2500
    shard.creditRequests = options.creditRequests
    shard.sweepEvery = .milliseconds(30)
    shard.sweepRows = 64
    return shard
  }
}
