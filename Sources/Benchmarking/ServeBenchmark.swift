// `guira bench serve`: rows by id over ZeroMQ beside Redis with the same values, and predictions over HTTP. Servers are
// processes of their own; kinds take turns, so that what else the machine does falls on both.

internal import Base
internal import CKernels
internal import Foundation
internal import Wire

/// What `guira bench serve` runs with.
public struct ServeBenchmarkSettings: Sendable, Equatable {
  /// Rows in the table.
  public var rows = 1_000_000
  /// Weights per row.
  public var dimension = 32
  /// Rows per request.
  public var batch = 100
  /// Requests under way at a time.
  public var inFlight = 8
  /// Candidates per prediction.
  public var candidates = 50
  /// Predictions per second while their latency is measured.
  public var predictionRate = 1000.0
  /// Seconds of one run.
  public var seconds = 2.0
  /// Runs of each kind.
  public var runs = 5
  /// The seed of everything.
  public var seed: UInt64 = 1

  /// The defaults.
  public init() {}
}

/// Measures what replicas answer.
public struct ServeBenchmark {
  private let settings: ServeBenchmarkSettings
  private let executable: String
  private let progress: (String) -> Void
  private let context = LinkContext()

  /// A benchmark of these settings.
  public init(
    _ settings: ServeBenchmarkSettings, executable: String, progress: @escaping (String) -> Void = { _ in }
  ) {
    self.settings = settings
    self.executable = executable
    self.progress = progress
  }

  private var server: PullPushSettings {
    var server = PullPushSettings()
    (server.ids, server.dimension, server.seed) = (settings.rows, settings.dimension, settings.seed)
    return server
  }

  /// Runs everything.
  public func run() throws -> BenchmarkReport {
    var series = Series()
    try measureRows(&series)
    try measurePredictions(&series)
    return BenchmarkReport(
      name: "serve",
      settings: [
        "rows": .number(settings.rows), "dimension": .number(settings.dimension), "batch": .number(settings.batch),
        "inFlight": .number(settings.inFlight), "candidates": .number(settings.candidates),
        "predictionRate": .decimal(settings.predictionRate),
        "seconds": .decimal(settings.seconds), "runs": .number(settings.runs),
      ], results: series.results)
  }

  // MARK: Rows

  private func measureRows(_ series: inout Series) throws {
    let process = try BenchProcess(server, .rows, executable: executable)
    progress("a replica with \(settings.rows) rows")
    let client = try rowsClient(process)
    let redis = try RedisServer(settings, progress)
    _ = try client.run(seconds: settings.seconds / 4)
    _ = try redis?.run(seconds: settings.seconds / 4)
    for run in 1...settings.runs {
      progress("rows: run \(run) of \(settings.runs)")
      let rows = try client.run(seconds: settings.seconds)
      series.add("rows.requestsPerSecond", rows.perSecond, "requests/s")
      series.add("rows.p99Microseconds", rows.run.microseconds(0.99), "µs")
      guard let redis else { continue }
      let other = try redis.run(seconds: settings.seconds)
      series.add("redis.requestsPerSecond", other.perSecond, "requests/s")
      series.add("redis.p99Microseconds", other.run.microseconds(0.99), "µs")
      series.add("rows.timesRedis", rows.perSecond / other.perSecond, "ratio")
      series.add("rows.p99TimesRedis", rows.run.microseconds(0.99) / other.run.microseconds(0.99), "ratio")
    }
  }

  private func rowsClient(_ process: BenchProcess) throws -> QuestionClient {
    let settings = settings
    var random = SeededRandom(seed: settings.seed)
    var ids = [UInt64](repeating: 0, count: settings.batch)
    return try QuestionClient(process, context: context, inFlight: settings.inFlight) { request in
      for place in ids.indices {
        ids[place] = guira_stream_id(settings.seed, UInt64.random(in: 0..<UInt64(settings.rows), using: &random))
      }
      return RowsRequest.encoded(table: "rows", ids: ids, request: request)
    } check: { answer in
      let reply = try RowsReply(decoding: &answer)
      guard reply.found.count == settings.batch, reply.found[0] == 1 else {
        throw BenchmarkError(description: "a row was not found")
      }
    }
  }

  // MARK: Predictions

  private func measurePredictions(_ series: inout Series) throws {
    let process = try BenchProcess(server, .predict, executable: executable)
    progress("a replica with a deepfm")
    let client = try StreamClient.http(to: process)
    var bodies = PredictionBodies(settings)
    _ = try client.run(seconds: settings.seconds / 2) { bodies.next(&$0) }
    for run in 1...settings.runs {
      progress("predictions: run \(run) of \(settings.runs)")
      let cpu = process.cpuTime
      let full = try client.run(seconds: settings.seconds) { bodies.next(&$0) }
      let used = Double(process.cpuTime - cpu) / 1e9
      series.add("predict.requestsPerSecond", full.perSecond, "requests/s")
      series.add("predict.requestsPerCoreSecond", Double(full.answered) / used, "requests/s")
      for (name, rate) in [("atRate", settings.predictionRate), ("atHalfTheMost", full.perSecond / 2)] {
        let paced = try client.run(seconds: settings.seconds, rate: rate) { bodies.next(&$0) }
        series.add("predict.\(name).p99Milliseconds", paced.run.microseconds(0.99) / 1e3, "ms")
      }
    }
  }
}

/// A run's figures with how many requests were answered.
struct AnsweredRun {
  var run: BenchRun
  var answered: Int
  var perSecond: Double { run.seconds > 0 ? Double(answered) / run.seconds : 0 }
}
