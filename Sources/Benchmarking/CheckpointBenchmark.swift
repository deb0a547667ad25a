// `guira bench checkpoint` and `recovery`: what a checkpoint costs those who pull and push meanwhile, and how fast a shard
// comes back. The first takes turns, with and without, so that what else the machine does falls on both.

internal import Base
internal import CKernels
internal import Foundation
internal import Glibc
internal import Sharding
internal import Synchronization
internal import Wire

/// Measures checkpoints under load.
public struct CheckpointBenchmark {
  private let settings: PullPushSettings
  private let executable: String
  private let progress: (String) -> Void
  private let context = LinkContext()

  /// A benchmark of these settings, which have no problems.
  public init(_ settings: PullPushSettings, executable: String, progress: @escaping (String) -> Void = { _ in }) {
    self.settings = settings
    self.executable = executable
    self.progress = progress
    guira_keep_freed_memory()
  }

  /// Pulls and pushes with and without a checkpoint being written.
  public func run() throws -> BenchmarkReport {
    var settings = settings
    let directory = "\(settings.journalDirectory)/guira-bench-\(getpid())"
    settings.journalDirectory = directory
    defer { try? FileManager.default.removeItem(atPath: directory) }
    let process = try BenchProcess(settings, .epoch, executable: executable)
    progress("filling a table with \(settings.ids) ids")
    var client = try BenchClient(settings, process, context)
    var ids = BenchIDs(settings)
    var series = Series()
    _ = try client.pull(&ids, inFlight: settings.inFlight, seconds: 1)
    for run in 1...settings.runs {
      progress("run \(run) of \(settings.runs)")
      for isPush in [false, true] {
        let kind = isPush ? "push" : "pull"
        let without = try measure(&client, &ids, isPush) { $0 < settings.seconds }
        let checkpoint = PendingCheckpoint(process.endpoint, context)
        let with = try measure(&client, &ids, isPush) { _ in !checkpoint.isDone }
        series.add("checkpoint.seconds", try checkpoint.seconds(), "s")
        series.add("\(kind).rowsPerSecond", without.rowsPerSecond, "rows/s")
        series.add("\(kind).p99Microseconds", without.microseconds(0.99), "µs")
        series.add("\(kind).beside.rowsPerSecond", with.rowsPerSecond, "rows/s")
        series.add("\(kind).beside.p99Microseconds", with.microseconds(0.99), "µs")
        series.add("\(kind).p99Ratio", with.microseconds(0.99) / without.microseconds(0.99), "ratio")
        series.add("\(kind).throughputLoss", 1 - with.rowsPerSecond / without.rowsPerSecond, "ratio")
        _ = try client.settle(context)
      }
    }
    return BenchmarkReport(name: "checkpoint", settings: settings.described, results: series.results)
  }

  /// Goes on in short runs while `wants` says so, asked with the seconds so far.
  private func measure(
    _ client: inout BenchClient, _ ids: inout BenchIDs, _ isPush: Bool, while wants: (Double) -> Bool
  ) throws -> BenchRun {
    var whole = BenchRun()
    repeat {
      let part =
        isPush
        ? try client.push(&ids, inFlight: settings.inFlight, seconds: 0.25)
        : try client.pull(&ids, inFlight: settings.inFlight, seconds: 0.25)
      whole.rows += part.rows
      whole.seconds += part.seconds
      whole.latencies.merge(part.latencies)
    } while wants(whole.seconds)
    return whole
  }
}

/// A checkpoint that a shard was asked for, on a thread of its own.
private final class PendingCheckpoint: Sendable {
  private let outcome: Mailbox<Result<Double, BenchmarkError>>
  private let done = Atomic<Bool>(false)

  init(_ endpoint: String, _ context: LinkContext) {
    let outcome = Mailbox<Result<Double, BenchmarkError>>(bound: 1)
    self.outcome = outcome
    _ = OwnedThread(named: "bench-ask") { [self] in
      let start = Clocks.monotonic()
      do {
        var asker = try Asker(endpoint: endpoint, context: context)
        _ = try asker.ask(timeout: .seconds(600)) { CheckpointRequest().encoded(request: $0) }
        _ = outcome.offer(.success(Double(Clocks.monotonic() - start) / 1e9))
      } catch { _ = outcome.offer(.failure(BenchmarkError(description: "\(error)"))) }
      done.store(true, ordering: .releasing)
    }
  }

  var isDone: Bool { done.load(ordering: .acquiring) }

  func seconds() throws -> Double {
    guard let first = outcome.waitAll(timeout: .seconds(600)).first else {
      throw BenchmarkError(description: "no checkpoint within ten minutes")
    }
    return try first.get()
  }
}

/// Measures how fast a shard comes back from its files.
public enum RecoveryMeasurement {
  /// Makes a checkpoint and a minute of blocks below `directory`, and reads them `runs` times.
  public static func run(
    rows: Int, dimension: Int, epochs: Int, changedRows: Int, runs: Int, directory: String,
    progress: @escaping (String) -> Void
  ) throws -> BenchmarkReport {
    guira_keep_freed_memory()
    let directory = "\(directory)/guira-bench-\(getpid())"
    defer { try? FileManager.default.removeItem(atPath: directory) }
    var benchmark = RecoveryBenchmark()
    benchmark.rows = rows
    benchmark.dimension = dimension
    benchmark.epochs = epochs
    benchmark.changedRows = changedRows
    benchmark.runs = runs
    let seconds = try benchmark.run(directory: directory, progress: progress)
    let read = rows + epochs * changedRows
    return BenchmarkReport(
      name: "recovery",
      settings: [
        "rows": .number(rows), "dimension": .number(dimension), "epochs": .number(epochs),
        "changedRows": .number(changedRows), "runs": .number(runs),
      ],
      results: [
        "seconds": Measurement(seconds, "s"),
        "rowsPerSecond": Measurement(seconds.map { Double(rows) / $0 }, "rows/s"),
        "rowsReadPerSecond": Measurement(seconds.map { Double(read) / $0 }, "rows/s"),
      ])
  }
}
