// One batch on its way: examples read, ids grouped by shard, pull sent, gradients made. A trainer has a few of these and
// uses them in turn, so their memory is reused. One thread.

internal import Base
internal import Layers
internal import Sharding
internal import Streams
internal import Wire

/// A batch being filled, waiting for its rows, or being trained on.
struct TrainingBatch {
  /// What of one table one shard is asked for.
  struct Part {
    var table: Int
    /// Places in the table's unique ids.
    var places: [Int32] = []
    var ids: [UInt64] = []
    var sightings: [UInt32] = []
  }

  let partition: Int
  let chain: ChainKey
  let previousEnd: Position
  var end: Position
  var startedAt: Int64
  var recordCount = 0
  var examples: [Example] = []
  var positions: [Position] = []
  var columns: FeatureColumns
  var assembler: BatchAssembler
  var parts: [[Part]] = []
  var ticket: UInt64 = 0
  var eventTime: Milliseconds = .min
  var watermark: Milliseconds = .min
  var arrivals: [ArrivalCount] = []
  /// What dropout draws from: the same whenever these examples are a batch.
  var seed: UInt64 { Hashing.mix(end.low &+ UInt64(partition) << 48) }

  init(
    partition: Int, chain: ChainKey, previousEnd: Position, startedAt: Int64, columns: FeatureColumns,
    assembler: BatchAssembler
  ) {
    self.partition = partition
    self.chain = chain
    self.previousEnd = previousEnd
    end = previousEnd
    self.startedAt = startedAt
    self.columns = columns
    self.assembler = assembler
  }

  /// Takes one record; false when it holds no example of this schema, which counts as a record all the same.
  mutating func take(_ record: StreamRecord, schema: EventSchema) -> Bool {
    recordCount += 1
    end = record.position
    parts = []
    do {
      var reader = record.reader
      try add(Example(decoding: &reader), at: record.position, schema: schema)
      return true
    } catch {
      return false
    }
  }

  private mutating func add(_ example: Example, at position: Position, schema: EventSchema) throws(DecodeError) {
    guard example.labels.count == schema.tasks.count else {
      throw .invalid(
        field: "labels", value: "\(example.labels.count)", expected: "\(schema.tasks.count), one per task")
    }
    try example.features.append(to: &columns, schema: schema)
    examples.append(example)
    positions.append(position)
    eventTime = max(eventTime, example.time)
    watermark = max(watermark, example.due)
    guard example.arrival > 0, ArrivalCount(arrival: example.arrival, count: 1).isPlausible else { return }
    let arrival = example.arrival / 10 * 10
    if let last = arrivals.indices.last, arrivals[last].arrival == arrival {
      arrivals[last].count += 1
    } else {
      arrivals.append(ArrivalCount(arrival: arrival, count: 1))
    }
  }

  /// Finds the unique ids and who owns them: `parts`.
  mutating func group(by map: ClusterMap, tableIndex: [Int]) {
    assembler.assemble(columns)
    parts = (0..<map.shardCount).map { _ in tableIndex.map { Part(table: $0) } }
    for table in tableIndex.indices {
      let (ids, sightings) = (assembler.uniqueIds[table], assembler.sightings[table])
      for (shard, places) in map.places(of: ids).enumerated() {
        parts[shard][table].places = places
        parts[shard][table].ids = places.map { ids[Int($0)] }
        parts[shard][table].sightings = places.map { sightings[Int($0)] }
      }
    }
  }

  /// The model's view of the batch.
  func modelBatch(_ options: TrainerOptions, taskOfModel: [Int], featureOfModel: [Int]) -> Batch {
    let features = zip(options.model.features, featureOfModel).map { feature, schemaIndex in
      FeatureColumn(
        table: feature.table, offsets: columns.offsets[schemaIndex], rows: assembler.rowNumbers[schemaIndex])
    }
    var labels: [Float] = []
    var weights: [Float] = []
    labels.reserveCapacity(examples.count * taskOfModel.count)
    weights.reserveCapacity(examples.count * taskOfModel.count)
    for example in examples {
      for (task, schemaIndex) in zip(options.model.tasks, taskOfModel) {
        let label = example.labels[schemaIndex]
        labels.append(label == .positive ? 1 : 0)
        weights.append(label == .masked ? 0 : task.weight)
      }
    }
    var dense: [Float] = []
    let widths = options.schema.features.indices.filter {
      guard case .dense = options.schema.features[$0].kind else { return false }
      return options.model.denseFeatures?.contains(options.schema.features[$0].name) ?? true
    }
    if !widths.isEmpty, options.model.denseWidth > 0 {
      for example in examples.indices {
        for feature in widths {
          guard case .dense(let width) = options.schema.features[feature].kind else { continue }
          dense.append(contentsOf: columns.numbers[feature][(example * width)..<((example + 1) * width)])
        }
      }
    }
    var batch = Batch(
      exampleCount: examples.count, features: features, dense: dense, labels: labels, weights: weights)
    batch.identities = positions.map { CountingModelSums.identity(partition: partition, end: $0) }
    return batch
  }
}
