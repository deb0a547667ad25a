// `guira bench sync` and `guira bench serve`.

import ArgumentParser
import Benchmarking
import Cluster

struct BenchSync: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "sync", abstract: "What a version costs, how fast a replica applies it, and what readers feel of it.",
    discussion: """
      The last figure of --held is compared with the first: the cost of a version should grow with what changed and not
      with what is held. Needs about 250 bytes of memory per row held, at the default dimension.

      Example:
        guira bench sync --held 1000000,50000000 --json
      """)
  @Option(help: "Rows that change between two versions.") var changed = 100_000
  @Option(
    help: "Rows held, separated by commas.",
    transform: { text in
      let numbers = text.split(separator: ",").compactMap { Int($0) }
      guard !numbers.isEmpty, numbers.allSatisfy({ (1...200_000_000).contains($0) }) else {
        throw ValidationError("'\(text)' is not a list of numbers up to 200,000,000.")
      }
      return numbers
    })
  var held = [1_000_000, 10_000_000]
  @Option(help: "Weights per row where versions are made.") var dimension = 16
  @Option(help: "Rows of the replica.") var replicaRows = 1_000_000
  @Option(help: "Weights per row of the replica.") var replicaDimension = 32
  @Option(help: "Rows per second that are applied while reads are measured.") var appliedPerSecond = 300_000
  @Option(help: "Repeats.") var runs = 9
  @Option(help: "Rows that a real cluster ships to two replicas; 0 leaves that and the rollback out.")
  var shippedRows = 100_000
  @Option(help: "Weights per row that is shipped.") var shippedDimension = 1024
  @Option(help: "Repeats of what the real cluster does.") var shippedRuns = 3
  @Option(help: "How rows travel: float32 or float16.") var precision = WireChoice.float32
  @Option(help: "The seed of everything.") var seed: UInt64 = 1
  @Flag(help: "Print one JSON object.") var json = false

  func validate() throws {
    guard changed > 0, changed <= (held.min() ?? 0), (1...4096).contains(dimension), replicaRows >= 1000,
      (1...4096).contains(replicaDimension), appliedPerSecond > 0, runs > 0, (0...10_000_000).contains(shippedRows),
      (1...4096).contains(shippedDimension), shippedRuns > 0
    else { throw ValidationError("numbers must be positive, --changed at most the least of --held.") }
  }

  func run() throws {
    var settings = SyncBenchmarkSettings()
    settings.changed = changed
    settings.held = held
    settings.dimension = dimension
    settings.replicaRows = replicaRows
    settings.replicaDimension = replicaDimension
    settings.appliedPerSecond = appliedPerSecond
    settings.runs = runs
    settings.shippedRows = shippedRows
    settings.shippedDimension = shippedDimension
    settings.shippedRuns = shippedRuns
    settings.halfPrecision = precision == .float16
    settings.seed = seed
    try reporting {
      let benchmark = SyncBenchmark(settings, executable: Preflight.ownExecutable(), progress: progress)
      try show(benchmark.run(), json: json)
    }
  }
}

struct BenchServe: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "serve", abstract: "Rows over ZeroMQ beside Redis with the same values, and predictions over HTTP.",
    discussion: "redis-server is taken from the path, and left out, loudly, when it is not there.")
  @Option(help: "Rows in the table.") var rows = 1_000_000
  @Option(help: "Weights per row.") var dimension = 32
  @Option(help: "Rows per request.") var batch = 100
  @Option(help: "Requests under way at a time.") var inFlight = 8
  @Option(help: "Candidates per prediction.") var candidates = 50
  @Option(help: "Predictions per second while their latency is measured.") var predictionRate = 1000.0
  @Option(help: "Seconds of one run.") var seconds = 2.0
  @Option(help: "Runs of each kind, taken in turns.") var runs = 5
  @Option(help: "The seed of everything.") var seed: UInt64 = 1
  @Flag(help: "Print one JSON object.") var json = false

  func validate() throws {
    guard rows > 0, (1...1024).contains(dimension), (1...65_536).contains(batch), (1...1000).contains(inFlight),
      (1...100_000).contains(candidates), predictionRate > 0, seconds > 0, seconds <= 3600, runs > 0
    else { throw ValidationError("a number is out of range.") }
  }

  func run() throws {
    var settings = ServeBenchmarkSettings()
    settings.rows = rows
    settings.dimension = dimension
    settings.batch = batch
    settings.inFlight = inFlight
    settings.candidates = candidates
    settings.predictionRate = predictionRate
    settings.seconds = seconds
    settings.runs = runs
    settings.seed = seed
    try reporting {
      let benchmark = ServeBenchmark(settings, executable: Preflight.ownExecutable(), progress: progress)
      try show(benchmark.run(), json: json)
    }
  }
}
