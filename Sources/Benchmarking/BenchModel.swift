// The replica behind `guira bench serve`: a table of rows, and a deepfm over KuaiRand's features with as many ids as that
// data has.

internal import Base
internal import CKernels
internal import Layers
internal import Logging
internal import Serving
internal import Streams
internal import Wire

/// The model and its ids.
enum BenchModel {
  static let features = ["user_id", "video_id", "author_id", "tag", "duration_bucket", "tab", "hour"]
  /// How many values each feature has.
  static let values: [UInt64] = [25_156, 6_361, 5_000, 60, 12, 14, 24]
  static let isUsers = [true, false, false, false, false, true, true]

  /// A replica that answers predictions at a port, until the process ends.
  static func serve(port: Int, seed: UInt64) throws {
    var options = ModelOptions(
      kind: "deepfm",
      features: features.enumerated().map { ModelFeature(name: $1, table: $0) }, tasks: [ModelTask(name: "is_click")])
    options.dimension = 8
    let model = try makeModel(options)
    let store = try ReplicaStore(
      tables: features.enumerated().map { table, name in
        ReplicaTableOptions(name: name, defaultRow: Array(repeating: 0, count: model.rowWidth(table: table)))
      }, models: [ServedModelOptions(name: "deepfm", model: options)])
    var random = SeededRandom(seed: seed)
    store.beginBase()
    for table in features.indices {
      let width = model.rowWidth(table: table)
      let ids = Array(0..<values[table])
      let weights = (0..<ids.count * width).map { _ in Float(random.uniform() - 0.5) / 4 }
      try store.apply(table: table, ids: View(copying: ids), weights: View(copying: weights))
    }
    try store.setDense(model: "deepfm", tensors: model.initialDense(seed: seed))
    try store.commitBase(VersionInfo(number: 1, newestEventTime: Clocks.wall(), appliedAt: Clocks.wall()))
    let schema = EventSchema(features: features.map { FeatureSpec(name: $0) }, tasks: [TaskSpec(name: "is_click")])
    let server = try ReplicaServer(
      options: ReplicaServerOptions(port: port), predictor: Predictor(store: store, schema: schema),
      logger: Logger(label: "bench"))
    Mailbox<Void>(bound: 1).pause(.seconds(86_400))
    server.stop()
  }

  /// A replica that answers rows at an endpoint, until the process ends.
  static func serveRows(_ settings: PullPushSettings, endpoint: String) throws {
    let width = settings.dimension
    let store = try ReplicaStore(
      tables: [ReplicaTableOptions(name: "rows", defaultRow: Array(repeating: 0, count: width))], models: [])
    store.beginBase()
    let chunk = 65_536
    let weights = View(copying: (0..<chunk * width).map { Float($0 % width) })
    for begin in stride(from: 0, to: settings.ids, by: chunk) {
      let count = min(chunk, settings.ids - begin)
      let ids = View(copying: (begin..<begin + count).map { guira_stream_id(settings.seed, UInt64($0)) })
      try store.apply(table: 0, ids: ids, weights: View(weights.blob, byteOffset: 0, count: count * width))
    }
    try store.commitBase(VersionInfo(number: 1, newestEventTime: 0, appliedAt: Clocks.wall()))
    try QuestionServer(endpoint: endpoint, security: nil, store: store) { DigestReply() }.run()
  }
}
