import Base
import Layers
import Streams

@testable import Serving

/// A store with one model of each kind, over the same three features, and rows for ids below 100.
struct Fixture {
  static let schema = EventSchema(
    features: [
      FeatureSpec(name: "user"), FeatureSpec(name: "tags", kind: .ids(limit: 4)), FeatureSpec(name: "item"),
      FeatureSpec(name: "age", kind: .dense(width: 2)),
    ], tasks: [TaskSpec(name: "click"), TaskSpec(name: "like")])
  static let features = [
    ModelFeature(name: "user", table: 0), ModelFeature(name: "tags", table: 1), ModelFeature(name: "item", table: 2),
  ]
  static let tasks = [ModelTask(name: "click"), ModelTask(name: "like")]

  static func options(_ kind: String, rates: [Float]? = nil) -> ServedModelOptions {
    var model = ModelOptions(kind: kind, features: features, tasks: tasks)
    model.dimension = 4
    return ServedModelOptions(name: kind, model: model, negativeRates: rates)
  }

  /// A store for one model, without a base.
  static func empty(
    _ kind: String = "fm", rates: [Float]? = nil, clock: @escaping @Sendable () -> Int64 = { 0 }
  ) throws -> ReplicaStore {
    let model = try makeModel(options(kind, rates: rates).model)
    return try ReplicaStore(
      tables: ["user", "tag", "item"].enumerated().map { table, name in
        ReplicaTableOptions(name: name, defaultRow: [Float](repeating: 0, count: model.rowWidth(table: table)))
      }, models: [options(kind, rates: rates)], clock: clock)
  }

  static let version = VersionInfo(number: 3, newestEventTime: 1_000, appliedAt: 2_000)

  /// The row of an id: any numbers, but always the same.
  static func row(_ id: UInt64, table: Int, width: Int) -> [Float] {
    var random = SeededRandom(seed: id &* 31 &+ UInt64(table))
    return (0..<width).map { _ in Float(random.uniform() - 0.5) }
  }

  static func dense(_ store: ReplicaStore) -> [[Float]] {
    store.models[0].denseCounts.enumerated().map { number, count in row(UInt64(number), table: 9, width: count) }
  }

  static func load(_ store: ReplicaStore) throws {
    store.beginBase()
    for (table, options) in store.tableOptions.enumerated() {
      let ids = Array(0..<100 as Range<UInt64>)
      let weights = ids.flatMap { row($0, table: table, width: options.defaultRow.count) }
      try store.apply(table: table, ids: View(copying: ids), weights: View(copying: weights))
    }
    try store.setDense(model: store.modelNames[0], tensors: dense(store))
    try store.commitBase(version)
  }

  static func predictor(_ kind: String = "fm", rates: [Float]? = nil) throws -> Predictor {
    let store = try empty(kind, rates: rates)
    try load(store)
    return try Predictor(store: store, schema: schema)
  }

  static func block(user: UInt64, tags: [UInt64], item: UInt64) -> FeatureBlock {
    FeatureBlock(schema: schema, values: [.ids([user]), .ids(tags), .ids([item]), .numbers([0.5, 1])])
  }
}
