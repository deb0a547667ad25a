// `guira bench pull` and `push`: one server process, one client process, tcp over loopback. The ceiling is a server of
// the same build that answers the same frames with no table behind them, measured in turns with the shard, so that what
// else the machine does falls on both; a share is the ratio of two neighbours in time.

internal import Base
internal import CKernels
internal import Foundation
internal import Glibc
internal import Wire

/// Measures pulls and pushes.
public struct PullPushBenchmark {
  private let settings: PullPushSettings
  private let executable: String
  private let progress: (String) -> Void
  private let context = LinkContext()

  /// A benchmark of these settings, which have no problems.
  /// - Parameters:
  ///   - executable: this program, which serves in a process of its own.
  ///   - progress: hears what is being done.
  public init(_ settings: PullPushSettings, executable: String, progress: @escaping (String) -> Void = { _ in }) {
    self.settings = settings
    self.executable = executable
    self.progress = progress
    guira_keep_freed_memory()
  }

  private func connect(_ service: BenchService, _ settings: PullPushSettings) throws -> BenchClient {
    let process = try BenchProcess(settings, service, executable: executable)
    if service != .echo { progress("\(service): filling a table with \(settings.ids) ids") }
    return try BenchClient(settings, process, context)
  }

  // MARK: Pull

  /// Runs `guira bench pull`.
  public func pull() throws -> BenchmarkReport {
    var echo = try connect(.echo, settings)
    var shard = try connect(.table, settings)
    try check(shard.server)
    var ids = BenchIDs(settings)
    _ = try shard.pull(&ids, inFlight: settings.inFlight, seconds: settings.seconds / 4)
    _ = try echo.pull(&ids, inFlight: settings.inFlight, seconds: settings.seconds / 4)
    var series = Series()
    for run in 1...settings.runs {
      progress("run \(run) of \(settings.runs)")
      for inFlight in [settings.inFlight, 1] {
        let ceiling = try echo.pull(&ids, inFlight: inFlight, seconds: settings.seconds)
        let figures = try shard.pull(&ids, inFlight: inFlight, seconds: settings.seconds)
        series.add(figures, ceiling: ceiling, inFlight == 1 ? .alone : .pipelined)
      }
    }
    try check(shard.server)
    return BenchmarkReport(name: "pull", settings: settings.described, results: series.results)
  }

  /// A table with fewer rows than ids would answer faster than it should.
  private func check(_ process: BenchProcess) throws {
    let status = try BenchClient.status(process, context)
    guard status.tables["bench"]?.rows == UInt64(settings.ids) else {
      throw BenchmarkError(
        description: "the table holds \(status.tables["bench"]?.rows ?? 0) rows, not \(settings.ids)")
    }
  }

  // MARK: Push

  /// Runs `guira bench push`: without a journal, with it, and what an epoch's fsync costs at a set rate of change.
  public func push() throws -> BenchmarkReport {
    let directory = "\(settings.journalDirectory)/guira-bench-\(getpid())"
    try Files.makeDirectory(directory)
    defer { try? FileManager.default.removeItem(atPath: directory) }
    var journaled = settings
    journaled.journalDirectory = "\(directory)/\(settings.durability)"
    var other = settings
    other.journalDirectory = "\(directory)/\(BenchService.none)"

    var echo = try connect(.echo, settings)
    var shard = try connect(settings.durability, journaled)
    var series = Series()
    try withoutJournal(&echo, &shard, &series, journal: journaled.journalDirectory, directory)
    if settings.durability == .epoch { try compare(&shard, other, &series) }
    var described = settings.described
    described["durability"] = .text(settings.durability.rawValue)
    described["journal"] = .text(settings.journalDirectory)
    return BenchmarkReport(name: "push", settings: described, results: series.results)
  }

  private func withoutJournal(
    _ echo: inout BenchClient, _ shard: inout BenchClient, _ series: inout Series,
    journal: String, _ directory: String
  ) throws {
    var bare = try connect(.table, settings)
    var ids = BenchIDs(settings)
    _ = try echo.push(&ids, inFlight: settings.inFlight, seconds: settings.seconds / 4)
    _ = try bare.push(&ids, inFlight: settings.inFlight, seconds: settings.seconds / 4)
    _ = try shard.push(&ids, inFlight: settings.inFlight, seconds: settings.seconds / 4)
    for run in 1...settings.runs {
      progress("run \(run) of \(settings.runs)")
      series.add("disk.megabytesPerSecond", try DiskSpeed.measure(in: directory), "MB/s")
      for inFlight in [settings.inFlight, 1] {
        let flight = inFlight == 1 ? Series.Flight.alone : .pipelined
        let ceiling = try echo.push(&ids, inFlight: inFlight, seconds: settings.seconds)
        let without = try bare.push(&ids, inFlight: inFlight, seconds: settings.seconds)
        series.add(without, ceiling: ceiling, flight, prefix: "withoutJournal.")
        let before = Self.bytes(of: journal)
        let figures = try shard.push(&ids, inFlight: inFlight, seconds: settings.seconds)
        series.add(figures, ceiling: ceiling, flight)
        let settling = try shard.settle(context)
        guard inFlight == settings.inFlight else { continue }
        series.add(
          "journal.megabytesPerSecond", (Self.bytes(of: journal) - before) / (figures.seconds + settling) / 1e6, "MB/s")
        series.add("journal.secondsBehind", settling, "s")
      }
    }
    try check(bare.server)
    try check(shard.server)
  }

  /// The price of durability at 200,000 distinct rows changed per second: each second has a window of so many ids.
  private func compare(
    _ shard: inout BenchClient, _ other: PullPushSettings, _ series: inout Series
  ) throws {
    var unsynced = try connect(.none, other)
    let window = min(200_000, settings.ids)
    var ids = BenchIDs(uniform: window, settings)
    let windows = settings.ids / window
    let offset = { Int(Clocks.monotonic() / 1_000_000_000) % windows * window }
    let seconds = max(settings.seconds, 3)
    _ = try unsynced.push(&ids, inFlight: settings.inFlight, seconds: 2, offset: offset)
    for run in 1...settings.runs {
      progress("price of durability, run \(run) of \(settings.runs)")
      let without = try unsynced.push(&ids, inFlight: settings.inFlight, seconds: seconds, offset: offset)
      _ = try unsynced.settle(context)
      let with = try shard.push(&ids, inFlight: settings.inFlight, seconds: seconds, offset: offset)
      _ = try shard.settle(context)
      series.add("durability.none.rowsPerSecond", without.rowsPerSecond, "rows/s")
      series.add("durability.epoch.rowsPerSecond", with.rowsPerSecond, "rows/s")
      series.add("durability.cost", 1 - with.rowsPerSecond / without.rowsPerSecond, "ratio")
      series.add("durability.cpuCost", with.cpuNanosecondsPerRow / without.cpuNanosecondsPerRow - 1, "ratio")
    }
  }

  private static func bytes(of directory: String) -> Double {
    let names = (try? Files.names(in: directory)) ?? []
    return names.reduce(0) { sum, name in
      var info = stat()
      guard unsafe stat("\(directory)/\(name)", &info) == 0 else { return sum }
      return sum + Double(info.st_size)
    }
  }
}

/// What was measured so far, by metric.
struct Series {
  enum Flight { case pipelined, alone }

  private var values: [String: (values: [Double], unit: String)] = [:]

  mutating func add(_ name: String, _ value: Double, _ unit: String) {
    values[name, default: ([], unit)].values.append(value)
  }

  /// One run beside its neighbour with no table.
  mutating func add(_ run: BenchRun, ceiling: BenchRun, _ flight: Flight, prefix: String = "") {
    switch flight {
    case .pipelined:
      add("\(prefix)rowsPerSecond", run.rowsPerSecond, "rows/s")
      add("\(prefix)shareOfCeiling", run.rowsPerSecond / ceiling.rowsPerSecond, "ratio")
      add("\(prefix)cpuNanosecondsPerRow", run.cpuNanosecondsPerRow, "ns")
      add("\(prefix)inFlight.p50Microseconds", run.microseconds(0.5), "µs")
      add("\(prefix)inFlight.p99Microseconds", run.microseconds(0.99), "µs")
      if prefix.isEmpty {
        add("ceiling.rowsPerSecond", ceiling.rowsPerSecond, "rows/s")
        add("ceiling.cpuNanosecondsPerRow", ceiling.cpuNanosecondsPerRow, "ns")
      }
    case .alone:
      add("\(prefix)alone.rowsPerSecond", run.rowsPerSecond, "rows/s")
      add("\(prefix)p50Microseconds", run.microseconds(0.5), "µs")
      add("\(prefix)p99Microseconds", run.microseconds(0.99), "µs")
      add("\(prefix)p99ToP50", run.microseconds(0.99) / run.microseconds(0.5), "ratio")
      if prefix.isEmpty {
        add("ceiling.p50Microseconds", ceiling.microseconds(0.5), "µs")
        add("ceiling.p99Microseconds", ceiling.microseconds(0.99), "µs")
      }
    }
  }

  var results: [String: Measurement] { values.mapValues { Measurement($0.values, $0.unit) } }
}
