// `guira train`: the parameters of a cluster from files, before it goes online or beside it.

import ArgumentParser
import Base
import Cluster
import Glibc
import Logging
import Streams

struct Train: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Trains on files, in one process: one ordered pass, or epochs.",
    discussion: """
      Events are joined, and the same trainer and shards that work online go through the examples. What they learn is in the
      state directory, and `guira up` with the same configuration goes on from there. A run that was stopped goes on where
      it stopped. The cluster must not be up meanwhile.

      Examples:
        guira train cluster.yaml --events history/ --state guira-run
        guira train cluster.yaml --events history/ --state guira-run --epochs 3 --shuffle
      """)
  @Argument(help: "The configuration file.") var file: String
  @OptionGroup var state: StateOption
  @Option(help: "The events: a directory of events, a file of JSON Lines, a dataset, or rows with an import.yaml.")
  var events: String
  @Option(help: "Passes over all examples.") var epochs = 1
  @Flag(help: "Give each pass an order of its own; else impressions come in theirs.") var shuffle = false
  @Option(name: .customLong("set"), help: "A value to put in, key.path=value; may be repeated.")
  var overrides: [String] = []

  func validate() throws {
    guard (1...1000).contains(epochs) else { throw ValidationError("--epochs must be 1 to 1000.") }
  }

  func run() throws {
    try reporting {
      let configuration = try ClusterConfiguration(file: file, overrides: overrides)
      let mapping = try MappingFile.find(nil, configuration: file, events: events)
      try EventsCheck.run(events, mapping, schema: configuration.eventSchema)
      let directory = try StateDirectory(state.state, for: configuration)
      defer { directory.removeSockets() }
      var input = try EventInput.open(
        path: events, schema: configuration.eventSchema, importInto: directory.paths.root, mapping: mapping,
        progress: progressBar("importing"))
      var options = BatchTraining.Options()
      options.epochs = epochs
      options.shuffles = shuffle
      let training = try BatchTraining(
        configuration, events: &input, options: options, progress: progressBar("joining"))
      if input.faultCount > 0 { write("\(input.faultCount) lines of the events were refused\n", to: STDERR_FILENO) }
      let began = Clocks.monotonic()
      var logger = Logger(label: "train")
      logger.logLevel = .warning
      let bar = ProgressBox("training")
      let passes = try training.run(paths: directory.paths, logger: logger) { bar.show($0) }
      let seconds = Double(Clocks.monotonic() - began) / 1e9
      let trained = passes.reduce(0) { $0 + $1.trained }
      guard trained > 0 else {
        return write(
          "\(training.exampleCount) examples, \(epochs) passes: all were made before, there is nothing to do\n")
      }
      let rate = Int(Double(trained) / max(seconds, 1e-9))
      write("\(training.exampleCount) examples, \(epochs) passes; this run trained on \(trained), \(rate) examples/s\n")
      for pass in passes {
        for figures in pass.quality {
          let (auc, ne) = (figures.auc.map { "\($0)" } ?? "–", figures.ne.map { "\($0)" } ?? "–")
          write(
            "\(pass.model) \(figures.task): AUC \(auc.prefix(6)), NE \(ne.prefix(6)) of the last 20,000, before training\n"
          )
        }
      }
    }
  }
}

/// A progress bar that threads may share.
private final class ProgressBox: Sendable {
  private let what: String
  init(_ what: String) { self.what = what }
  func show(_ share: Double) { progressBar(what)(share) }
}
