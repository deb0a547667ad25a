import Base
import Layers
import Serving
import Streams

@testable import UserModeling

/// A replica's tables with one user model of 2 × 8 numbers, over ids below 100.
struct Fixture {
  static let schema = EventSchema(
    features: [
      FeatureSpec(name: "user_id"), FeatureSpec(name: "liked", kind: .ids(limit: 4)), FeatureSpec(name: "item"),
      FeatureSpec(name: "vector", kind: .dense(width: 2)),
    ], tasks: [TaskSpec(name: "click")])
  static let shape = EmbeddingShape(count: 2, dimension: 8)

  let store: ReplicaStore
  let predictor: Predictor
  private let model: ModelOptions

  init(
    schema: EventSchema = Fixture.schema, streamFeatures: SharedStreamFeatures? = nil,
    _ adjust: (inout ModelOptions) -> Void = { _ in }
  ) throws {
    var options = ModelOptions(
      kind: "sum",
      features: [
        ModelFeature(name: "user_id", table: 0), ModelFeature(name: "liked", table: 1, combiner: .mean),
        ModelFeature(name: "item", table: 1),
      ], tasks: [ModelTask(name: "click")])
    options.dimension = 4
    options.denseFeatures = []
    options.hidden = [8]
    options.userModel.features = ["user_id", "liked"]
    options.userModel.embeddingDimension = 8
    options.userModel.userTokens = [3]
    options.userModel.mixTokens = [2]
    adjust(&options)
    model = options
    let shape = try makeModel(options)
    store = try ReplicaStore(
      tables: ["user", "item"].enumerated().map { table, name in
        ReplicaTableOptions(name: name, defaultRow: [Float](repeating: 0, count: shape.rowWidth(table: table)))
      }, models: [ServedModelOptions(name: "users", model: options)])
    predictor = try Predictor(store: store, schema: schema, streamFeatures: streamFeatures)
  }

  /// Serves version `number`, whose rows are those of `seed`, moved by `step`.
  func load(version number: UInt64, seed: UInt64 = 1, step: Float = 0) throws {
    let made = try makeModel(model)
    store.beginBase()
    store.begin(version: number, created: 2_000)
    for table in 0..<2 {
      let ids = Array(0..<100 as Range<UInt64>)
      var random = SeededRandom(seed: seed &+ UInt64(table))
      let weights = (0..<100 * made.rowWidth(table: table)).map { _ in Float(random.uniform() - 0.5) + step }
      try store.apply(table: table, ids: View(copying: ids), weights: View(copying: weights))
    }
    try store.setDense(model: "users", tensors: made.initialDense(seed: seed))
    try store.commitBase(VersionInfo(number: number, newestEventTime: 1_000, appliedAt: 2_000))
  }

  /// Serves version `number`, in which only these users' rows are others.
  func change(rowsOf users: [UInt64], version number: UInt64, newestEventTime: Milliseconds) throws {
    let width = try makeModel(model).rowWidth(table: 0)
    var random = SeededRandom(seed: number)
    let weights = (0..<users.count * width).map { _ in Float(random.uniform() - 0.5) }
    store.begin(version: number, created: 2_000)
    try store.apply(table: 0, ids: View(copying: users), weights: View(copying: weights))
    try store.publish(VersionInfo(number: number, newestEventTime: newestEventTime, appliedAt: 2_000))
  }

  /// Takes users' rows out, as a version's tombstones do.
  func removeRows(of users: [UInt64]) throws { try store.remove(table: 0, ids: View(copying: users)) }

  func soap(
    store: any FeatureStore, servedFile: ServedFile? = nil, _ adjust: (inout SoapOptions) -> Void = { _ in },
    now: Milliseconds = 10_000
  ) throws -> Soap {
    var options = SoapOptions(model: "users", userFeature: "user_id")
    adjust(&options)
    return try Soap(options, store: store, predictor: predictor, servedFile: servedFile, clock: { now })
  }

  static func block(user: UInt64, liked: [UInt64] = []) -> FeatureBlock {
    FeatureBlock(schema: schema, values: [.ids([user]), .ids(liked), .ids([]), .numbers([0, 0])])
  }

  static func request(_ user: UInt64, liked: [UInt64] = [], at time: Milliseconds = 5_000) -> ComputeRequest {
    ComputeRequest(user: user, features: block(user: user, liked: liked), eventTime: time)
  }

  static func entry(
    _ value: Float, at time: Milliseconds, version: UInt64 = 1, madeAt: Milliseconds? = nil,
    shape: EmbeddingShape = Fixture.shape
  ) -> EmbeddingEntry {
    EmbeddingEntry(
      version: version, eventTime: time, madeAt: madeAt ?? time, shape: shape,
      values: [Float](repeating: value, count: shape.width))
  }

  /// A directory of its own for one test.
  static func directory() throws -> String {
    let path = "/tmp/guira-users-\(UInt64.random(in: 0 ... .max))"
    try Files.makeDirectory(path)
    return path
  }
}
