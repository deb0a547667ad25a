// `guira bench users`: what one process of the user-modelling platform answers, over ZeroMQ and HTTP, with its compute centre at
// work beside it and slowed down. Servers are processes of their own.

internal import Base
internal import Foundation
internal import Layers
internal import Logging
internal import Serving
internal import Streams
internal import UserModeling
internal import Wire

/// What `guira bench users` runs with.
public struct UsersBenchmarkSettings: Sendable, Equatable {
  /// Users with embeddings.
  public var users = 100_000
  /// Embeddings per user, of 96 numbers each.
  public var embeddings = 2
  /// Users per request over ZeroMQ.
  public var batch = 50
  /// Requests under way at a time.
  public var inFlight = 8
  /// Seconds of one run.
  public var seconds = 2.0
  /// Runs of each kind.
  public var runs = 5
  /// The seed of everything.
  public var seed: UInt64 = 1

  /// The defaults.
  public init() {}
}

/// Measures what a platform answers.
public struct UsersBenchmark {
  private let settings: UsersBenchmarkSettings
  private let executable: String
  private let progress: (String) -> Void
  private let context = LinkContext()

  /// A benchmark of these settings.
  public init(
    _ settings: UsersBenchmarkSettings, executable: String, progress: @escaping (String) -> Void = { _ in }
  ) {
    self.settings = settings
    self.executable = executable
    self.progress = progress
  }

  private var server: PullPushSettings {
    var server = PullPushSettings()
    (server.ids, server.dimension, server.seed) = (settings.users, settings.embeddings * 96, settings.seed)
    server.batch = settings.batch
    return server
  }

  /// Runs everything.
  public func run() throws -> BenchmarkReport {
    var series = Series()
    try measureMessages(&series)
    try measureHTTP(&series)
    return BenchmarkReport(
      name: "users",
      settings: [
        "users": .number(settings.users), "embeddings": .number(settings.embeddings), "batch": .number(settings.batch),
        "inFlight": .number(settings.inFlight), "seconds": .decimal(settings.seconds), "runs": .number(settings.runs),
      ], results: series.results)
  }

  private func measureMessages(_ series: inout Series) throws {
    let busy = try BenchProcess(server, .users, executable: executable)
    let slow = try BenchProcess(server, .slowUsers, executable: executable)
    progress("two platforms with \(settings.users) users, one of them with a slow compute centre")
    let (client, other) = (try usersClient(busy), try usersClient(slow))
    let echo = try echoClient(BenchProcess(server, .echo, executable: executable))
    let readers = (try usersClient(busy, for: 1), try usersClient(busy, for: BenchUsers.models.count))
    _ = try client.run(seconds: settings.seconds / 4)
    for run in 1...settings.runs {
      progress("messages: run \(run) of \(settings.runs)")
      let cpu = busy.cpuTime
      let full = try client.run(seconds: settings.seconds)
      let used = Double(busy.cpuTime - cpu) / 1e9
      series.add("messages.embeddingsPerSecond", full.perSecond * Double(settings.batch), "embeddings/s")
      series.add(
        "messages.embeddingsPerCoreSecond", Double(full.answered * settings.batch) / max(used, 1e-9), "embeddings/s")
      let half = try settled(client, rate: full.perSecond / 2)
      series.add("messages.halfLoad.p99Microseconds", half.run.microseconds(0.99), "µs")
      let slowed = try settled(other, rate: full.perSecond / 2)
      series.add("messages.slowCompute.p99Microseconds", slowed.run.microseconds(0.99), "µs")
      // What this machine makes of the same bytes at the same rate.
      let echoed = try settled(echo, rate: full.perSecond / 2)
      series.add("messages.echo.p99Microseconds", echoed.run.microseconds(0.99), "µs")
      let one = try costs(of: readers.0, at: busy)
      let hundred = try costs(of: readers.1, at: busy)
      series.add("messages.oneModel.embeddingsPerCoreSecond", 1 / one, "embeddings/s")
      series.add("messages.hundredModels.embeddingsPerCoreSecond", 1 / hundred, "embeddings/s")
      series.add("messages.hundredModels.costRatio", hundred / one, "ratio")
    }
  }

  /// A run at a rate by a client whose platform has been at that rate for a while, so that both are alike.
  private func settled(_ client: QuestionClient, rate: Double) throws -> AnsweredRun {
    _ = try client.run(seconds: settings.seconds / 4, rate: rate)
    return try client.run(seconds: settings.seconds, rate: rate)
  }

  /// Seconds of the process's cores that one user's embeddings take, what the compute centre needs beside them included.
  private func costs(of client: QuestionClient, at process: BenchProcess) throws -> Double {
    let cpu = process.cpuTime
    let answered = try client.run(seconds: settings.seconds).answered
    return Double(process.cpuTime - cpu) / 1e9 / Double(max(1, answered * settings.batch))
  }

  /// - Parameter readers: how many downstream models a request names; the last of them is served least.
  private func usersClient(_ process: BenchProcess, for readers: Int = 0) throws -> QuestionClient {
    let settings = settings
    let models = Array(BenchUsers.models.suffix(readers))
    var random = SeededRandom(seed: settings.seed)
    var users = [UInt64](repeating: 0, count: settings.batch)
    return try QuestionClient(process, context: context, inFlight: settings.inFlight) { request in
      for place in users.indices { users[place] = UInt64.random(in: 0..<UInt64(settings.users), using: &random) }
      return EmbedRequest.encoded(model: "users", users: users, for: models, request: request)
    } check: { answer in
      let reply = try EmbedReply(decoding: &answer)
      guard reply.origins.count == settings.batch, reply.origins[0].source > 0 else {
        throw BenchmarkError(description: "a user was not found")
      }
    }
  }

  /// Of a server that answers with as many bytes as users' embeddings have, and looks nothing up.
  private func echoClient(_ process: BenchProcess) throws -> QuestionClient {
    let ids = (0..<UInt64(settings.batch)).map { $0 }
    return try QuestionClient(process, context: context, inFlight: settings.inFlight) { request in
      PullRequest.encoded(
        request: request, mapNumber: 1, eventTime: 0, wantsDense: false,
        sections: [(0, ids, Array(repeating: 0, count: ids.count))])
    } check: { _ in
    }
  }

  private func measureHTTP(_ series: inout Series) throws {
    let process = try BenchProcess(server, .usersHTTP, executable: executable)
    progress("a platform over HTTP")
    let client = try StreamClient.http(to: process)
    var random = SeededRandom(seed: settings.seed)
    let users = settings.users
    func next(_ output: inout [UInt8]) {
      let user = Int.random(in: 0..<users, using: &random)
      output += Array("GET /v1/models/users/users/\(user) HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".utf8)
    }
    _ = try client.run(seconds: settings.seconds / 2) { next(&$0) }
    for run in 1...settings.runs {
      progress("HTTP: run \(run) of \(settings.runs)")
      let cpu = process.cpuTime
      let full = try client.run(seconds: settings.seconds) { next(&$0) }
      let used = Double(process.cpuTime - cpu) / 1e9
      series.add("http.requestsPerSecond", full.perSecond, "requests/s")
      series.add("http.requestsPerCoreSecond", Double(full.answered) / used, "requests/s")
      let half = try client.run(seconds: settings.seconds, rate: full.perSecond / 2) { next(&$0) }
      series.add("http.halfLoad.p99Milliseconds", half.run.microseconds(0.99) / 1e3, "ms")
    }
  }
}

/// The platform behind the benchmark: users with two entries each, and requests that keep the compute centre at work.
enum BenchUsers {
  /// Downstream models that wait for versions to be seen.
  static let models = (0..<100).map { "downstream-\($0)" }

  static func serve(_ settings: PullPushSettings, endpoint: String, isHTTP: Bool, delay: Duration) throws {
    let schema = EventSchema(
      features: [FeatureSpec(name: "user_id"), FeatureSpec(name: "item_id")], tasks: [TaskSpec(name: "click")])
    var options = ModelOptions(
      kind: "sum", features: [ModelFeature(name: "user_id", table: 0), ModelFeature(name: "item_id", table: 1)],
      tasks: [ModelTask(name: "click")])
    options.dimension = 16
    options.userModel.features = ["user_id"]
    options.userModel.embeddings = settings.dimension / 96
    let model = try makeModel(options)
    let store = try ReplicaStore(
      tables: ["user_id", "item_id"].enumerated().map { table, name in
        ReplicaTableOptions(name: name, defaultRow: Array(repeating: 0, count: model.rowWidth(table: table)))
      }, models: [ServedModelOptions(name: "users", model: options)])
    store.beginBase()
    try store.setDense(model: "users", tensors: model.initialDense(seed: settings.seed))
    try store.commitBase(VersionInfo(number: 1, newestEventTime: Clocks.wall(), appliedAt: Clocks.wall()))
    var soapOptions = SoapOptions(model: "users", userFeature: "user_id")
    soapOptions.computeDelay = delay
    soapOptions.downstream = models
    soapOptions.seen = SeenOptions(models: models.map { DownstreamModel(name: $0, windowMilliseconds: 0) }, examples: 1)
    let entries = MemoryStore()
    let soap = try Soap(soapOptions, store: entries, predictor: Predictor(store: store, schema: schema))
    let values = (0..<settings.dimension).map { Float($0) / 100 - 0.7 }
    // Two versions: all models have seen the first, half of them the second.
    for version in 1...2 as ClosedRange<UInt64> {
      soap.versionComes(version, of: 1)
      for user in 0..<UInt64(settings.ids) {
        let entry = EmbeddingEntry(
          version: version, eventTime: Int64(version), madeAt: Clocks.wall(), shape: soap.shape,
          values: values.map { $0 + Float(user % 97) })
        entries.write([EmbeddingWrite(user: user, entry: entry)])
      }
      let seeing = Array(models.prefix(models.count / Int(version)))
      for model in seeing { soap.modelProgressed(consumer: Hashing.xxh3(model), examples: 0, watermark: .min) }
      _ = try soap.vectors(of: Array(0..<UInt64(min(settings.ids, 10_000))), for: soap.audience(seeing))
      for model in seeing {
        soap.modelProgressed(consumer: Hashing.xxh3(model), examples: version, watermark: .max)
      }
    }
    let compute = OwnedThread(named: "compute", yields: true) { soap.run() }
    let (users, seed) = (UInt64(settings.ids), settings.seed)
    // A thousand users a second act.
    let acting = OwnedThread(named: "acting") {
      var random = SeededRandom(seed: seed)
      let pace = Mailbox<Void>(bound: 1)
      while true {
        let user = UInt64.random(in: 0..<users, using: &random)
        let block = FeatureBlock(schema: schema, values: [.ids([user]), .ids([])])
        soap.offer([ComputeRequest(user: user, features: block, eventTime: Clocks.wall())])
        _ = pace.waitAll(timeout: .milliseconds(1))
      }
    }
    defer {
      compute.join()
      acting.join()
    }
    if isHTTP, let port = endpoint.split(separator: ":").last.flatMap({ Int($0) }) {
      let server = try SoapServer(
        options: ReplicaServerOptions(port: port), soap: soap, logger: Logger(label: "bench"))
      Mailbox<Void>(bound: 1).pause(.seconds(86_400))
      server.stop()
    } else {
      try SoapMessages(endpoint: endpoint, security: nil, soap: soap).run()
    }
  }
}
