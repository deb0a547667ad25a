// `guira bench`: what this build reaches on this machine, beside the machine's own limits.

public import ArgumentParser
public import Benchmarking
import CKernels
import Cluster
import Embeddings
import Glibc

struct Bench: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Measures what this build reaches on this machine, beside the machine's own limits.",
    discussion: """
      Figures are medians with their range; ratios are taken between neighbours in time, so they hold on a busy machine
      too. Progress goes to standard error.

      Examples:
        guira bench pull
        guira bench push --json --journal /var/tmp | jq '.results | map_values(.median)'
        guira bench table --ids 1000000
      """,
    subcommands: [
      BenchTable.self, BenchPull.self, BenchPush.self, BenchCheckpoint.self, BenchRecovery.self, BenchTrain.self,
      BenchSync.self, BenchServe.self, BenchUsers.self, BenchJoin.self, BenchServer.self,
    ])
}

/// Prints a report as the user wants it.
func show(_ report: BenchmarkReport, json: Bool) throws {
  write(json ? try report.json() + "\n" : report.page)
}

func progress(_ what: String) { write("\(what)\n", to: STDERR_FILENO) }

enum WireChoice: String, ExpressibleByArgument, CaseIterable {
  case float32, float16
}

struct PullPushOptions: ParsableArguments {
  @Option(help: "Ids in the table.") var ids = 10_000_000
  @Option(help: "Weights per row; AdaGrad state comes on top.") var dimension = 32
  @Option(help: "Rows per request.") var batch = 4096
  @Option(help: "Requests under way at a time.") var inFlight = 4
  @Option(help: "Seconds of one run.") var seconds = 2.0
  @Option(help: "Runs of each kind, taken in turns.") var runs = 5
  @Option(
    help: "How ids are drawn: uniform, zipf, or zipf:EXPONENT.",
    transform: {
      guard let distribution = IDDistribution($0) else {
        throw ValidationError("'\($0)' is not uniform, zipf or zipf:EXPONENT.")
      }
      return distribution
    })
  var distribution = IDDistribution.zipf(1.05)
  @Flag(help: "Only distinct ids in a request, as in a trainer's batch; else as drawn.") var distinct = false
  @Option(help: "How rows and gradients travel: float32 or float16.") var wire = WireChoice.float32
  @Option(help: "The seed of everything.") var seed: UInt64 = 1
  @Flag(help: "Print one JSON object.") var json = false

  func settings() throws -> PullPushSettings {
    var settings = PullPushSettings()
    settings.ids = ids
    settings.dimension = dimension
    settings.batch = batch
    settings.inFlight = inFlight
    settings.seconds = seconds
    settings.runs = runs
    settings.distribution = distribution
    settings.isDistinct = distinct
    settings.seed = seed
    settings.numbers = wire == .float16 ? .float16 : .float32
    return settings
  }
}

/// Refuses settings that cannot be run.
private func checked(_ settings: PullPushSettings) throws -> PullPushSettings {
  guard settings.problems.isEmpty else { throw ValidationError(settings.problems.joined(separator: "\n")) }
  return settings
}

struct BenchPull: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "pull", abstract: "Rows per second that one client pulls from one shard, beside plain ZeroMQ.",
    discussion: """
      Two server processes of this program, one with a full table and one that answers frames of the same size with no
      table behind them (the ceiling), take turns. Needs about 300 bytes of memory per id.
      """)
  @OptionGroup var options: PullPushOptions

  func run() throws {
    let settings = try checked(options.settings())
    try reporting {
      let benchmark = PullPushBenchmark(settings, executable: Preflight.ownExecutable(), progress: progress)
      try show(benchmark.pull(), json: options.json)
    }
  }
}

struct BenchPush: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "push", abstract: "Rows per second that one client pushes to one shard, with and without its journal.",
    discussion: """
      AdaGrad steps. Three server processes take turns: the ceiling, a shard without a journal, and one whose journal is
      synced each epoch; then the latter beside one that does not sync, while 200,000 distinct rows change per second.
      Needs about 600 bytes of memory per id, and several gigabytes of disk for a moment; the disk's own speed is
      measured with each run.
      """)
  @OptionGroup var options: PullPushOptions
  @Option(help: "Where the journal is made, and removed again.") var journal = "/tmp"
  @Option(help: "What the shard does with its blocks: epoch (sync) or none.") var durability = BenchService.epoch

  func run() throws {
    var settings = try options.settings()
    settings.journalDirectory = journal
    settings.durability = durability
    settings = try checked(settings)
    try reporting {
      let benchmark = PullPushBenchmark(settings, executable: Preflight.ownExecutable(), progress: progress)
      try show(benchmark.push(), json: options.json)
    }
  }
}

struct BenchCheckpoint: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "checkpoint", abstract: "What a checkpoint costs those who pull and push meanwhile.",
    discussion: "Needs about 600 bytes of memory per id, and 800 bytes of disk per id for a moment.")
  @OptionGroup var options: PullPushOptions
  @Option(help: "Where the files are made, and removed again.") var journal = "/tmp"

  func run() throws {
    var settings = try options.settings()
    settings.journalDirectory = journal
    settings = try checked(settings)
    try reporting {
      let benchmark = CheckpointBenchmark(settings, executable: Preflight.ownExecutable(), progress: progress)
      try show(benchmark.run(), json: options.json)
    }
  }
}

struct BenchJoin: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "join",
    abstract: "Events per second: JSON Lines and protobuf to examples, and over HTTP into the journal.",
    discussion: """
      json, protobuf: events are parsed and appended on one thread and joined on another, until the last example is on
      disk. joiner: the joiner alone. http: one client, so many events a request, until all are acknowledged. Needs about 2 KiB of disk
      for each impression for a moment. --pending measures only a joiner with so many pending impressions: while they
      come, and then while as many leave as come; it needs about 500 bytes of disk for each.
      """)
  @Option(help: "Impressions of a run; about two and a half events each.") var impressions = 200_000
  @Option(help: "Runs of each kind, taken in turns.") var runs = 5
  @Option(help: "Events of a request over HTTP.") var batch = 500
  @Option(help: "Connections of the client, each with one request under way.") var connections = 4
  @Option(help: "The seed of the traffic.") var seed: UInt64 = 1
  @Option(help: "Where the journals are made, and removed again.") var journal = "/tmp"
  @Option(help: "Pending impressions: measure that instead.") var pending: Int?
  @Option(help: "The joiner's bound on memory with --pending, in bytes.") var memory = 1 << 30
  @Flag(help: "Print one JSON object.") var json = false

  func validate() throws {
    guard (10_000...1_000_000_000).contains(pending ?? 10_000), memory >= 0 else {
      throw ValidationError("--pending must be 10000 to 1000000000 and --memory not negative.")
    }
    guard (1...100_000_000).contains(impressions), runs > 0, (1...10_000).contains(batch),
      (1...64).contains(connections)
    else { throw ValidationError("all numbers must be positive, --batch at most 10000, --connections at most 64.") }
  }

  func run() throws {
    if let pending {
      var benchmark = PendingBenchmark()
      benchmark.pending = pending
      benchmark.memory = memory
      benchmark.directory = journal
      return try reporting { try show(benchmark.run(progress: progress), json: json) }
    }
    var benchmark = JoinBenchmark()
    benchmark.impressions = impressions
    benchmark.runs = runs
    benchmark.batch = batch
    benchmark.connections = connections
    benchmark.seed = seed
    benchmark.directory = journal
    try reporting { try show(benchmark.run(progress: progress), json: json) }
  }
}

struct BenchRecovery: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "recovery", abstract: "Rows per second that a shard comes back with from a checkpoint and its blocks.",
    discussion: "Needs about 600 bytes of memory and 500 bytes of disk per row; the files are read from the page cache."
  )
  @Option(help: "Rows in the checkpoint.") var rows = 10_000_000
  @Option(help: "Weights per row; AdaGrad state comes on top.") var dimension = 32
  @Option(help: "Blocks after the checkpoint.") var epochs = 60
  @Option(help: "Rows in each block.") var changedRows = 100_000
  @Option(help: "How often the files are read.") var runs = 5
  @Option(help: "Where the files are made, and removed again.") var journal = "/tmp"
  @Flag(help: "Print one JSON object.") var json = false

  func validate() throws {
    guard rows > 0, (1...4096).contains(dimension), epochs >= 0, (1...rows).contains(changedRows), runs > 0 else {
      throw ValidationError("all numbers must be positive, --dimension at most 4096, --changed-rows at most --rows.")
    }
  }

  func run() throws {
    try reporting {
      try show(
        RecoveryMeasurement.run(
          rows: rows, dimension: dimension, epochs: epochs, changedRows: changedRows, runs: runs, directory: journal,
          progress: progress), json: json)
    }
  }
}

struct BenchServer: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "server", abstract: "The server's process of a benchmark.", shouldDisplay: false)
  @OptionGroup var options: PullPushOptions
  @Option var service: BenchService
  @Option var endpoint: String
  @Option var journal: String
  @Option var parent: Int32

  func run() throws {
    _ = guira_signal_on_parent_death(SIGKILL)
    guard getppid() == parent else { throw ExitCode(1) }
    var settings = try options.settings()
    settings.journalDirectory = journal
    try reporting { try Benchmarking.BenchServer(settings, service: service, endpoint: endpoint).run() }
  }
}

extension BenchService: ExpressibleByArgument {}

struct BenchTrain: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "train",
    abstract: "Examples per second that one trainer trains on, beside the matrix product's limit.",
    discussion: """
      Made-up examples: 13 numbers and 26 ids each by default, one task, layers 512-256 above and below. The limit is the
      speed of large float32 matrix products on as many threads, divided by the operations of an example; it is measured
      with each run. The shard's journal is written as ever.

      Examples:
        guira bench train --model dlrm
        guira bench train --transport ipc --threads 1 --json
      """)
  @Option(help: "The kind of model: dlrm, deepfm, dcn, fm, logistic.") var model = "dlrm"
  @Option(help: "inproc: the shard is a thread of this process; ipc: a process of its own.") var transport = "inproc"
  @Option(help: "Threads that compute a batch.") var threads = 2
  @Option(help: "Examples of a batch.") var batch = 2048
  @Option(help: "Ids of each feature, zipf-distributed.") var ids = 1_000_000
  @Option(help: "Examples made beforehand; they are gone through in a circle.") var examples = 200_000
  @Option(help: "Numbers in a vector.") var dimension = 16
  @Option(help: "Seconds of one run.") var seconds = 10.0
  @Option(help: "Runs.") var runs = 5
  @Option(help: "Where the journal is made, and removed again.") var journal = "/tmp"
  @Option(help: "The seed of everything.") var seed: UInt64 = 1
  @Flag(help: "Print one JSON object.") var json = false

  func validate() throws {
    guard ["inproc", "ipc"].contains(transport) else {
      throw ValidationError("--transport is '\(transport)'; use inproc or ipc.")
    }
    guard (1...256).contains(threads), (1...100_000).contains(batch), (2...100_000_000).contains(ids),
      (1...10_000_000).contains(examples), (1...1024).contains(dimension), seconds > 0, seconds <= 3600,
      (1...1000).contains(runs)
    else { throw ValidationError("every number must be above 0, and --ids at least 2.") }
  }

  func run() throws {
    var settings = TrainBenchmarkSettings()
    settings.model = model
    settings.isSeparate = transport == "ipc"
    settings.threads = threads
    settings.batch = batch
    settings.ids = ids
    settings.examples = examples
    settings.dimension = dimension
    settings.seconds = seconds
    settings.runs = runs
    settings.directory = journal
    settings.seed = seed
    try reporting {
      let benchmark = TrainBenchmark(settings, executable: Preflight.ownExecutable(), progress: progress)
      try show(benchmark.run(), json: json)
    }
  }
}

struct BenchTable: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "table",
    abstract: "Look-ups, updates and growth of one table on one thread, beside the memory's limit.",
    discussion: "Needs about 600 bytes of memory per id at the default dimension.")
  @Option(help: "Ids in the table.") var ids = 10_000_000
  @Option(help: "Weights per row; AdaGrad state comes on top.") var dimension = 32
  @Option(help: "Ids per batch.") var batch = 4096
  @Option(help: "Batches per repeat.") var batches = 500
  @Option(help: "Repeats.") var repeats = 5
  @Option(help: "How often the table is filled; from three on, the longest batch by medians too.") var fills = 1
  @Option(help: "The program that does the same with other hash tables, as `make bench-peers` builds it.")
  var peers: String?
  @Option(help: "The seed of everything.") var seed: UInt64 = 1
  @Flag(help: "Print one JSON object.") var json = false

  func validate() throws {
    guard (1...200_000_000).contains(ids), (1...4096).contains(dimension), (1...1_000_000).contains(batch), batches > 0,
      repeats > 0, fills > 0
    else { throw ValidationError("every number must be above 0; at most 200,000,000 ids, 4,096 weights per row.") }
  }

  func run() throws {
    var benchmark = TableBenchmark()
    benchmark.ids = ids
    benchmark.dimension = dimension
    benchmark.batch = batch
    benchmark.batches = batches
    benchmark.repeats = repeats
    benchmark.fills = fills
    benchmark.peers = peers
    benchmark.seed = seed
    let results = try benchmark.run(progress: progress)
    let settings: [String: Setting] = [
      "ids": .number(ids), "dimension": .number(dimension), "batch": .number(batch), "batches": .number(batches),
      "repeats": .number(repeats), "fills": .number(fills), "seed": .number(Int(clamping: seed)),
    ]
    let report = BenchmarkReport(name: "table", settings: settings, results: results)
    try show(report, json: json)
  }
}
