// `guira experiment`: the papers' tables on any dataset, made by the real cores in data time.

import ArgumentParser
import Base
import Cluster
import Experiments
import Foundation
import Streams

struct ExperimentCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "experiment", abstract: "Measures on your data what the papers measured on theirs.",
    discussion: """
      The real cores of joiner, trainer, shards, sync and replica run on one thread under data time: "sync every 60s" means
      60 seconds of the events. Every impression is scored by the replica at its arrival, with parameters that have seen
      nothing later; its labels come when its view has ended. Figures are over the last 20 % of impressions.

      Choose settings with --share 0.8: then nothing is known of the impressions that are judged.

      Examples:
        guira experiment quality deploy/kuairand.yaml --events events/ --set sync.sparseEvery=60s
        guira experiment sync-interval deploy/kuairand.yaml --events events/ --seeds 3 --svg intervals.svg
        guira experiment collisions deploy/kuairand.yaml --events events/ --slots 65536,4096
        guira experiment snapshot-loss deploy/kuairand.yaml --events events/ --set shards.count=10
        guira experiment users deploy/kuairand-users.yaml --events events/ --svg users.svg
        guira experiment users deploy/kuairand-users.yaml --events events/ --regularization 1,10 --distillation 0.2,0.5
      """,
    subcommands: [
      ExperimentQuality.self, ExperimentSyncInterval.self, ExperimentCollisions.self, ExperimentSnapshotLoss.self,
      ExperimentUsers.self,
    ])
}

/// What every experiment is told.
struct ExperimentOptions: ParsableArguments {
  @Argument(help: "The configuration file. Default: ./cluster.yaml, or the built-in sample when there is none.")
  var file: String?
  @Option(help: "The events: what `guira events import` or `generate` made, or a dataset that is known.")
  var events: String
  @Option(name: .customLong("set"), help: "A value to put in, key.path=value; may be repeated.")
  var overrides: [String] = []
  @Option(help: "How many seeds; figures are means over them.") var seeds = 1
  @Option(help: "Only the first share of impressions, to choose settings on.") var share = 1.0
  @Option(help: "Where imported events are kept.") var imported = "./guira-experiment"
  @Option(help: "Where to write a plot, as SVG.") var svg: String?
  @Flag(help: "Print one JSON object.") var json = false

  func validate() throws {
    guard (1...100).contains(seeds) else { throw ValidationError("--seeds must be 1 to 100.") }
    guard share > 0, share <= 1 else { throw ValidationError("--share must be above 0, at most 1.") }
  }

  /// Reads configuration and events, makes the experiment and shows its report.
  func run(
    group: String? = nil, _ body: (Experiment) throws -> ExperimentReport
  ) throws {
    try reporting {
      let configuration = try readConfiguration()
      let schema = configuration.eventSchema
      let mapping = try MappingFile.find(nil, configuration: file, events: events)
      try EventsCheck.run(events, mapping, schema: schema)
      if let svg { try Files.replace(svg, with: []) }
      var input = try EventInput.open(
        path: events, schema: schema, importInto: imported, mapping: mapping, progress: progressBar("importing"))
      var recording = try Recording(reading: &input, schema: schema, progress: progressBar("reading"))
      if recording.faults > 0 {
        write("\(recording.faults) lines of the events could not be read and are left out\n", to: STDERR_FILENO)
      }
      if share < 1 { recording = recording.first(share) }
      var settings = ExperimentSettings(configuration)
      settings.seeds = seeds
      settings.group = group
      let experiment = try Experiment(settings, recording, progress: progressBar("running"))
      let report = try body(experiment)
      if let svg { try Files.replace(svg, with: Array(report.svg.utf8)) }
      write(json ? try report.json() + "\n" : report.page)
    }
  }

  private func readConfiguration() throws -> ClusterConfiguration {
    if let file { return try ClusterConfiguration(file: file, overrides: overrides) }
    if Files.exists("./cluster.yaml") { return try ClusterConfiguration(file: "./cluster.yaml", overrides: overrides) }
    return try ClusterConfiguration(
      text: ClusterConfiguration.sample.text, file: "the built-in sample", overrides: overrides)
  }
}

struct ExperimentQuality: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "quality", abstract: "How good the served predictions are, task by task.",
    discussion: "The plot shows the AUC of each day of data time.")
  @OptionGroup var options: ExperimentOptions
  @Option(help: "A feature with one id, user_id say, whose values group impressions for GAUC.") var group: String?
  @Flag(help: "Also say what each feature is worth, by exchanging its values between impressions.")
  var importance = false

  func run() throws { try options.run(group: group) { try $0.quality(importance: importance) } }
}

struct ExperimentSyncInterval: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "sync-interval", abstract: "How quality depends on how often versions are published.",
    discussion: """
      Up to the last 20 % of impressions all runs are the same; there every run publishes what it has learnt, and from there
      on rows and dense tensors at its interval (Monolith, Table 2).
      """)
  @OptionGroup var options: ExperimentOptions
  @Option(help: "The intervals, in data time, apart by commas; 'never' publishes nothing more.")
  var intervals = "1s,60s,10m,1h,6h,1d,never"

  func run() throws {
    let intervals = try Self.durations(intervals, word: "never")
    guard intervals.allSatisfy({ $0.map { $0 > .zero } ?? true }) else {
      throw ValidationError("an interval of --intervals must be longer than nothing.")
    }
    try options.run { try $0.syncInterval(intervals) }
  }

  /// Durations apart by commas, with a word that stands for none.
  static func durations(_ text: String, word: String) throws -> [Duration?] {
    try text.split(separator: ",").map { part in
      if part == word { return nil }
      guard let duration = Duration(words: String(part)) else {
        throw ValidationError("'\(part)' is no duration; write 60s, 10m, 6h, 1d, or \(word).")
      }
      return duration
    }
  }
}

struct ExperimentCollisions: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "collisions", abstract: "What it costs when ids share rows: hashed into slots beside tables without.",
    discussion: "Every table's ids are hashed into so many slots (Monolith, Figure 7 and Table 1).")
  @OptionGroup var options: ExperimentOptions
  @Option(help: "Numbers of slots per table, apart by commas.") var slots = "65536,16384,4096,1024"

  func run() throws {
    let slots = try slots.split(separator: ",").map { part in
      guard let count = Int(part), count > 0 else { throw ValidationError("'\(part)' is no number of slots.") }
      return count
    }
    try options.run { try $0.collisions(slots: slots) }
  }
}

struct ExperimentSnapshotLoss: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "snapshot-loss", abstract: "What it costs when a shard comes back with an old state.",
    discussion: """
      Where the last 20 % of impressions begin, shard 0 loses its files and comes back from a checkpoint of some age; what it
      was given since is not trained on again (Monolith, section 2.2.3). An age beyond the first event is an empty shard.
      """)
  @OptionGroup var options: ExperimentOptions
  @Option(help: "The ages, in data time, apart by commas; 'none' loses nothing.")
  var ages = "none,1h,6h,1d,3d,7d,1000d"

  func run() throws {
    let ages = try ExperimentSyncInterval.durations(ages, word: "none")
    try options.run { try $0.snapshotLoss(ages: ages) }
  }
}

struct ExperimentUsers: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "users", abstract: "What user embeddings are worth to other models, and what serving them late costs.",
    discussion: """
      The first model of kind sum learns from the first 60 % of impressions and then goes on, publishing versions at an
      interval. Platforms of every mode answer for each later impression. Downstream logistic regressions, which read
      everything that is not the user's and the vector as it was served, are trained on 60-80 % with settings chosen there,
      and judged frozen on the last 20 %. Errors are of paired differences, by bootstrap (docs/user-modelling.md).
      """)
  @OptionGroup var options: ExperimentOptions
  @Option(help: "The tasks of the downstream models, apart by commas.") var downstream = "long_view"
  @Option(help: "How often the user model publishes a version, in data time.") var interval = "1h"
  @Flag(help: "Also run the user model without each of its extractors.") var ablation = false
  @Option(help: "Also run the user model with these values of users.regularization, apart by commas.")
  var regularization: String?
  @Option(help: "Also run the user model with these values of users.distillation, 0 to 1, apart by commas.")
  var distillation: String?
  @Option(
    help: "A CSV file with features of users for the downstream models; its column named as soap.user holds the ids.")
  var userTable: String?

  func run() throws {
    guard let interval = Duration(words: interval), interval > .zero else {
      throw ValidationError("'\(interval)' is no duration; write 60s, 10m, 6h or 1d.")
    }
    var users = UserExperimentOptions(downstream: downstream.split(separator: ",").map(String.init))
    users.interval = interval.milliseconds
    users.ablation = ablation
    users.regularizations = try Self.numbers(regularization, "--regularization", 0...1e6)
    users.distillations = try Self.numbers(distillation, "--distillation", 0...1)
    try options.run { experiment in
      if let userTable { users.userTable = try UserTable(path: userTable, key: experiment.userFeature) }
      return try experiment.users(users)
    }
  }

  private static func numbers(_ text: String?, _ option: String, _ range: ClosedRange<Double>) throws -> [Double] {
    try (text ?? "").split(separator: ",").map { part in
      guard let number = Double(part), range.contains(number) else {
        throw ValidationError(
          "'\(part)' of \(option) is not a number from \(range.lowerBound) to \(range.upperBound).")
      }
      return number
    }
  }
}

extension Duration {
  /// "500ms", "60s", "10m", "6h", "1d"; nil for anything else.
  init?(words text: String) {
    let digits = text.prefix { $0.isNumber }
    let units: [Substring: Int64] = ["ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000]
    guard let count = Int64(digits), let unit = units[text.dropFirst(digits.count)] else { return nil }
    let (milliseconds, overflow) = count.multipliedReportingOverflow(by: unit)
    guard !overflow, milliseconds < 1 << 52 else { return nil }
    self = .milliseconds(milliseconds)
  }
}
