// `guira events`: datasets in, synthetic traffic, and a look at what a file holds.

import ArgumentParser
import Base
import Cluster
import Glibc
import Streams

struct Events: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Imports, makes and looks at events.",
    subcommands: [EventsImport.self, EventsGenerate.self, EventsInspect.self])
}

struct EventsImport: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "import", abstract: "Turns a dataset, or rows of your own, into events.",
    discussion: """
      Knows KuaiRand, MovieLens, Criteo and MIND by their files; other rows (CSV, delimited text, JSON Lines) by a mapping,
      which `guira init FILE` writes. Lines that cannot be read are counted and set aside in rejected.jsonl.

      Examples:
        guira events import kuairand/ --output events/
        guira events import ml-1m/ --output events/
        guira events import clicks.csv --mapping import.yaml --output events/
      """)

  @Argument(help: "The dataset's directory, or a file of rows.") var dataset: String
  @Option(help: "How rows become events; not needed for datasets that are known.") var mapping: String?
  @Option(name: .shortAndLong, help: "The directory to make; it must not hold anything yet.") var output: String

  func run() throws {
    try reporting {
      let mapping = try mapping.map { try ImportMapping(file: $0) }
      guard let importer = try KnownDatasets.importer(of: dataset, mapping: mapping) else {
        throw Failure(
          "\(dataset) is no dataset that is known; say how its rows become events with --mapping. `guira init \(dataset)` "
            + "writes a mapping")
      }
      let report = try importer.run(into: output, progress: progressBar("importing"))
      write("\(report.impressions) impressions of \(importer.shape.origin) in \(output)\n")
      for (action, count) in report.actions.sorted(by: { $0.key < $1.key }) { write("  \(count) × \(action)\n") }
      if report.duplicates > 0 { write("\(report.duplicates) exact duplicate lines dropped\n") }
      guard report.rejected > 0 else { return }
      write("\(report.rejected) lines could not be read; they are in \(output)/\(Dataset.rejectedName):\n")
      for rejection in report.rejections.prefix(10) { write("  \(rejection)\n") }
    }
  }
}

struct EventsGenerate: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "generate", abstract: "Makes synthetic traffic with known true click probabilities.",
    discussion: """
      Zipf users and items, drifting tastes, delays, repeats, late and out-of-order actions. It fits deploy/cluster.yaml;
      the true probabilities are in truth.jsonl beside the events.

      Example:
        guira events generate --output traffic --impressions 100000
      """)

  @Option(name: .shortAndLong, help: "The directory to make; it must not hold anything yet.") var output: String
  @Option(help: "How many impressions.") var impressions = 100_000
  @Option(help: "The seed: the same seed makes the same events.") var seed: UInt64 = 1
  @Option(help: "Impressions per second of event time.") var rate = 50.0
  @Option(help: "How many users.") var users = 20_000
  @Option(help: "How many items.") var items = 5_000
  @Option(help: "How much moods change what users click: standard deviation of the logit; 0 for no moods.")
  var mood = 0.0
  @Option(help: "After how long, in event time, 1/e of a mood is left.") var moodDrift = "2h"
  @Option(help: "After how long 1/e of a user's taste is left.") var tasteDrift = "2d"

  func validate() throws {
    guard (0...10).contains(mood) else { throw ValidationError("--mood must be 0 to 10.") }
    for drift in [moodDrift, tasteDrift] {
      guard let duration = Duration(words: drift), duration > .zero else {
        throw ValidationError("'\(drift)' is no duration above 0; write 60s, 10m, 6h or 1d.")
      }
    }
    guard (1...1_000_000_000).contains(impressions) else {
      throw ValidationError("--impressions must be 1 to 1000000000.")
    }
    guard rate > 0, rate <= 1e6 else { throw ValidationError("--rate must be above 0, at most 1000000.") }
    guard (1...100_000_000).contains(users), (1...100_000_000).contains(items) else {
      throw ValidationError("--users and --items must be 1 to 100000000.")
    }
  }

  func run() throws {
    try reporting {
      var options = TrafficOptions()
      options.seed = seed
      options.impressions = impressions
      options.impressionsPerSecond = rate
      options.users = users
      options.items = items
      options.mood = mood
      options.moodDrift = Duration(words: moodDrift) ?? options.moodDrift
      options.tasteDrift = Duration(words: tasteDrift) ?? options.tasteDrift
      let dataset = try TrafficGenerator.write(options, into: output)
      let hours = Double(dataset.lastTime - dataset.firstTime) / 3_600_000
      write("\(dataset.impressions) impressions over \((hours * 10).rounded() / 10) hours in \(output)\n")
    }
  }
}

struct EventsInspect: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "inspect", abstract: "Reads events and says what is in them, and which lines cannot be read.",
    discussion: """
      Examples:
        guira events inspect traffic/
        guira events inspect mine.jsonl --config cluster.yaml
        guira events inspect clicks.csv

      Of rows that are no events yet it says what each column holds. Exit code 1 when lines cannot be read.
      """)

  @Argument(help: "A directory of events, a file of JSON Lines, or a file of rows.") var path: String
  @Option(help: "The configuration the events are for; needed for a lone file.") var config: String?

  func run() throws {
    try reporting {
      let schema: EventSchema
      if let config {
        schema = try ClusterConfiguration(file: config).eventSchema
      } else if Files.exists("\(path)/\(Dataset.manifestName)") {
        schema = try Dataset(directory: path).schema
      } else if Files.exists(path), (try? Files.names(in: path)) == nil, let guess = try? TableGuess(path: path),
        !guess.isEvents
      {
        return write(guess.summary(try? guess.mapping()))
      } else if Files.exists(path) {
        throw Failure("\(path) does not say which features it has; add --config with the cluster.yaml it is for")
      } else {
        throw Failure("there is nothing at \(path); give a directory of events or a file of JSON Lines")
      }
      var input = try EventInput.open(path: path, schema: schema, importInto: "\(path)-imported")
      try inspect(&input)
    }
  }

  private func inspect(_ input: inout EventInput) throws {
    if let dataset = input.dataset { write("\(dataset.origin)\n") }
    var impressions = 0
    var actions: [String: Int] = [:]
    var times = Milliseconds.max...Milliseconds.max
    let bar = progressBar("reading")
    while let event = try input.next() {
      let time: Milliseconds
      switch event {
      case .impression(let impression):
        impressions += 1
        time = impression.time
        if impressions % 10_000 == 0 { bar(input.fraction) }
      case .action(let action):
        actions[action.name, default: 0] += 1
        time = action.time
      case .watermark: continue
      }
      let earliest = min(times.lowerBound, time)
      times = earliest...(times.upperBound == .max ? time : max(times.upperBound, time))
    }
    bar(1)
    let hours = impressions == 0 ? 0 : Double(times.upperBound - times.lowerBound) / 3_600_000
    write("\(impressions) impressions over \((hours * 10).rounded() / 10) hours\n")
    for (name, count) in actions.sorted(by: { $0.key < $1.key }) { write("  \(count) × \(name)\n") }
    guard input.faultCount > 0 else { return }
    let shown = input.faults.prefix(10).map { "  \($0)" }.joined(separator: "\n")
    throw Failure("\(input.faultCount) lines cannot be read:\n\(shown)")
  }
}

/// A bar on standard error while that is a terminal; nothing otherwise.
func progressBar(_ what: String) -> (Double) -> Void {
  guard isatty(STDERR_FILENO) == 1 else { return { _ in } }
  return { share in
    let filled = Int((min(1, max(0, share)) * 40).rounded())
    let bar = String(repeating: "█", count: filled) + String(repeating: "░", count: 40 - filled)
    write("\r\u{1B}[2K\(what) \(bar) \(Int(share * 100)) %\(share >= 1 ? "\n" : "")", to: STDERR_FILENO)
  }
}

extension TableGuess {
  /// Whether the rows are events already.
  var isEvents: Bool { format.kind == .jsonl && Set(columns.map(\.name)).isSuperset(of: ["type", "time"]) }
}
