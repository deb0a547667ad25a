// What all experiments share: the dataset, the configuration, seeds, and how runs become tables.

internal import Base
public import Cluster
internal import Glibc
internal import Layers
internal import Streams

/// What an experiment is made on.
public struct ExperimentSettings: Sendable {
  /// The cluster; its models, tables and optimizers are those that are judged.
  public var configuration: ClusterConfiguration
  /// How many seeds, from the configuration's on.
  public var seeds = 1
  /// The feature whose values group impressions for GAUC; nil for none.
  public var group: String?

  /// An experiment with a configuration.
  public init(_ configuration: ClusterConfiguration) { self.configuration = configuration }
}

/// One experiment on one recording.
public struct Experiment {
  let settings: ExperimentSettings
  let recording: Recording
  let progress: (Double) -> Void

  /// An experiment that has not run yet.
  /// - Parameter progress: called with the share done, 0…1.
  /// - Throws: `ExperimentError` for settings that do not fit the recording.
  public init(
    _ settings: ExperimentSettings, _ recording: Recording, progress: @escaping (Double) -> Void = { _ in }
  ) throws {
    self.settings = settings
    self.recording = recording
    self.progress = progress
    guard recording.impressions >= 10 else {
      throw ExperimentError("there are \(recording.impressions) impressions; an experiment needs 10 at least")
    }
    guard (1...100).contains(settings.seeds) else { throw ExperimentError("use 1 to 100 seeds, not \(settings.seeds)") }
    if let group = settings.group, idFeature(group) == nil {
      let names = recording.schema.features.filter { $0.kind == .id }.map(\.name).joined(separator: ", ")
      throw ExperimentError("'\(group)' is no feature with one id; group by one of: \(names)")
    }
  }

  /// The feature whose value is the user.
  public var userFeature: String { settings.configuration.soap.user }

  private func idFeature(_ name: String) -> Int? {
    recording.schema.features.firstIndex { $0.name == name && $0.kind == .id }
  }

  var lastFifth: Range<Int> { recording.startOfLastFifth..<recording.impressions }

  /// The configuration of one of the seeds.
  func configuration(seed: Int) -> ClusterConfiguration {
    var configuration = settings.configuration
    configuration.cluster.seed &+= UInt64(seed)
    return configuration
  }

  /// When the configuration publishes versions.
  var configuredTimes: PublicationTimes {
    PublicationTimes(
      sparse: settings.configuration.sync.sparseEvery.milliseconds,
      dense: settings.configuration.sync.denseEvery.milliseconds)
  }

  /// The settings that every report names.
  var described: [String: String] {
    let models = settings.configuration.models.map { "\($0.name): \($0.kind.rawValue), \($0.dimension)" }
    return [
      "impressions": "\(recording.impressions)", "models": models.joined(separator: "; "),
      "batch": settings.configuration.models.map { "\($0.batchSize)" }.joined(separator: "; "),
      "shards": "\(settings.configuration.shards.count)", "trainers": "\(settings.configuration.trainers.count)",
      "seeds": (0..<settings.seeds).map { "\(settings.configuration.cluster.seed &+ UInt64($0))" }
        .joined(separator: " "),
    ]
  }

  /// The id that groups each impression; nil when nothing does.
  func groups() throws -> [UInt64]? {
    guard let group = settings.group, let place = idFeature(group) else { return nil }
    return try recording.features.map { block in
      guard case .ids(let ids) = try block.values(of: recording.schema)[place] else { return 0 }
      return ids.first ?? 0
    }
  }

  /// Runs `body` for every choice and seed, and gives the results by choice.
  func runs<Choice, Result>(
    _ choices: [Choice], _ body: (Choice, ClusterConfiguration, (Double) -> Void) throws -> Result
  ) throws -> [[Result]] {
    let all = Double(choices.count * settings.seeds)
    return try choices.enumerated().map { place, choice in
      try (0..<settings.seeds).map { seed in
        let done = Double(place * settings.seeds + seed)
        let result = try body(choice, configuration(seed: seed)) { progress((done + min($0, 0.999)) / all) }
        progress((done + 1) / all)
        return result
      }
    }
  }

  /// The tasks of the first model: the one that is judged.
  var tasks: [String] {
    settings.configuration.tasks(of: settings.configuration.models[0]).map(\.name)
  }

  /// AUC and NE of each task over some impressions, with one line for each choice.
  func table(
    _ title: String, subject: String, names: [String], _ scores: [[ServedScores]], over impressions: Range<Int>
  ) -> ExperimentReport.Table {
    var table = ExperimentReport.Table(title: title, subject: subject, columns: [], rows: [])
    table.columns = tasks.flatMap { ["\($0) AUC", "\($0) NE"] }
    for (name, runs) in zip(names, scores) {
      var row = ExperimentReport.Row(name: name, values: [:])
      for (task, label) in tasks.enumerated() {
        let metrics = runs.map { $0.metrics(task: task, over: impressions) }
        row.values["\(label) AUC"] = ExperimentReport.Figure(metrics.map(\.auc))
        row.values["\(label) NE"] = ExperimentReport.Figure(metrics.map(\.ne))
      }
      table.rows.append(row)
    }
    return table
  }

  /// A plot of each task's AUC over the lines of a table, less that of the first: tasks lie further apart than lines do.
  func plot(_ table: ExperimentReport.Table) -> Plot {
    Plot(
      title: table.title, across: table.subject, up: "AUC less that of '\(table.rows.first?.name ?? "")'",
      labels: table.rows.map(\.name),
      series: tasks.map { task in
        let name = "\(task) AUC"
        let first = table.rows.first?.values[name]?.mean ?? 0
        return Plot.Series(name: task, values: table.rows.map { row in row.values[name].map { $0.mean - first } })
      })
  }

  /// Calls `body` and says how many seconds it took.
  func timed(_ body: () throws -> ExperimentReport) rethrows -> ExperimentReport {
    let began = Clocks.monotonic()
    var report = try body()
    report.seconds = Double(Clocks.monotonic() - began) / 1e9
    return report
  }
}

/// A duration in its largest whole unit: "10 min", "1 day".
func words(milliseconds: Int64) -> String {
  for (unit, length) in [("day", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1000)] as [(String, Int64)]
  where milliseconds >= length && milliseconds % length == 0 {
    let count = milliseconds / length
    return unit == "day" && count != 1 ? "\(count) days" : "\(count) \(unit)"
  }
  return "\(milliseconds) ms"
}
