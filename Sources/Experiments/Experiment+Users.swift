// What user embeddings are worth downstream, and what serving them late costs: SUM's tables 2 to 5, on any recording.

internal import Base
internal import Cluster
internal import Layers
internal import Streams
internal import UserModeling

/// What the users experiment is told beside the configuration.
public struct UserExperimentOptions: Sendable {
  /// The tasks of the downstream models.
  public var downstream: [String]
  /// How often the upstream model publishes a version after the first 60 %, data time in milliseconds.
  public var interval: Int64 = 3_600_000
  /// Whether the upstream model is also run without each of its extractors.
  public var ablation = false

  /// An experiment with downstream models for some tasks.
  public init(downstream: [String]) { self.downstream = downstream }
}

extension Experiment {
  /// The upstream model learns; downstream models are trained on 60–80 % and judged frozen on the last 20 %.
  public func users(_ options: UserExperimentOptions) throws -> ExperimentReport {
    try timed {
      let upstream = try upstream()
      let data = try downstreamData(options.downstream, upstream: upstream, from: recording.impressions * 3 / 5)
      let trials = try runs([()]) { _, configuration, progress in
        try userTrial(configuration, upstream, data, options, progress)
      }[0]
      var report = ExperimentReport(
        name: "users", settings: described,
        tables: trials[0].tables.indices.map { place in .means(of: trials.map { $0.tables[place] }) }, seconds: 0,
        plot: Plot(title: "", across: "", up: "", labels: [], series: []))
      report.settings["upstream"] =
        "\(upstream.name), \(upstream.users.embeddings) × \(upstream.users.embeddingDimension)"
      report.settings["interval"] = words(milliseconds: options.interval)
      report.settings["versions"] = "\(trials[0].versions)"
      let table = report.tables[0]
      report.plot = Plot(
        title: "downstream AUC by way of serving", across: table.subject, up: "AUC", labels: table.rows.map(\.name),
        series: options.downstream.map { task in
          Plot.Series(name: task, values: table.rows.map { $0.values["\(task) AUC"]?.mean })
        })
      return report
    }
  }

  /// One seed: the upstream model learns, and every way of serving has its downstream models.
  private func userTrial(
    _ configuration: ClusterConfiguration, _ upstream: ModelSettings, _ data: DownstreamData,
    _ options: UserExperimentOptions, _ progress: (Double) -> Void
  ) throws -> (tables: [ExperimentReport.Table], versions: Int) {
    let first = recording.impressions - data.count
    let (cut, end) = (recording.startOfLastFifth - first, data.count)
    let trial = DownstreamTrial(
      data: data, training: 0..<cut, judged: cut..<end, seed: configuration.cluster.seed)
    var done = 0.0
    let ways = VectorWay.all + (configuration.userActions.isEmpty ? [] : VectorWay.onAction)
    let steps = Double(2 + ways.count + (options.ablation ? 2 * upstream.users.extractors.count : 0))
    func advance(_ share: Double = 1) { progress(min(1, (done + share) / steps)) }
    let made = try vectors(configuration, upstream, ways, from: first, options) { advance($0) }
    done += 1
    let none = try trial.run(vectors: [], width: 0)
    done += 1
    var results: [(name: String, result: DownstreamResult)] = [("no vector", none)]
    for (way, values) in zip(ways, made.values) {
      results.append((way.name, try trial.run(vectors: values, width: made.width)))
      done += 1
      advance(0)
    }
    var tables = [
      gains(trial, results), coverage(made, ways, count: end), importance(trial, results, upstream), shifts(made),
      kept(trial, results),
    ]
    if options.ablation, upstream.users.extractors.count > 1 {
      var ablated: [(name: String, result: DownstreamResult)] = [("no vector", none)]
      ablated.append(("all extractors", results[3].result))
      for extractor in upstream.users.extractors {
        var without = upstream
        without.users.extractors.removeAll { $0 == extractor }
        let made = try vectors(configuration, without, [VectorWay.all[2]], from: first, options) { advance($0) }
        done += 1
        ablated.append(("without \(extractor.rawValue)", try trial.run(vectors: made.values[0], width: made.width)))
        done += 1
      }
      var table = gains(trial, ablated)
      table.title = "an extractor less, async, last 20 %"
      tables.append(table)
    }
    return (tables, made.versions)
  }

  /// The first model of kind `sum`.
  private func upstream() throws -> ModelSettings {
    guard let model = settings.configuration.models.first(where: { $0.kind == .sum }) else {
      throw ExperimentError("the configuration has no model of kind sum; deploy/kuairand-users.yaml has one")
    }
    return model
  }

  private func vectors(
    _ configuration: ClusterConfiguration, _ upstream: ModelSettings, _ ways: [VectorWay], from first: Int,
    _ options: UserExperimentOptions, _ progress: (Double) -> Void
  ) throws -> UserVectors {
    var configuration = configuration
    configuration.models = [upstream]
    configuration.soap.model = upstream.name
    return try UserVectorRun(
      recording: recording, configuration: configuration, ways: ways, first: first, interval: options.interval
    ).run(progress: progress)
  }

  /// The features that downstream models read: events give them, and they are not the user's.
  private func downstreamFeatures(_ upstream: ModelSettings) -> [Int] {
    recording.schema.features.enumerated().filter { _, feature in
      feature.kind == .id && feature.stream == nil && !upstream.users.features.contains(feature.name)
        && feature.name != settings.configuration.soap.user
    }.map(\.offset)
  }

  /// The impressions from `first` on, with the features that are not the user's and the labels of some tasks.
  private func downstreamData(
    _ tasks: [String], upstream: ModelSettings, from first: Int
  ) throws -> DownstreamData {
    let schema = recording.schema
    let places = try tasks.map { task in
      guard let place = schema.tasks.firstIndex(where: { $0.name == task }) else {
        let names = schema.tasks.map(\.name).joined(separator: ", ")
        throw ExperimentError("'\(task)' is no task of the events; use some of: \(names)")
      }
      return place
    }
    let context = downstreamFeatures(upstream)
    guard !context.isEmpty else { throw ExperimentError("no feature with one id is left for the downstream models") }
    var data = DownstreamData(
      columns: context.map { _ in [] }, idCounts: context.map { _ in 0 }, labels: [], tasks: tasks)
    var numbers = context.map { _ in [UInt64: Int32]() }
    for block in recording.features[first...] {
      let values = try block.values(of: schema)
      for (column, place) in context.enumerated() {
        guard case .ids(let ids) = values[place] else { continue }
        // An impression without a value reads a row of its own.
        let id = ids.first.map { Hashing.mix($0) } ?? 0
        let number = numbers[column][id] ?? Int32(numbers[column].count)
        numbers[column][id] = number
        data.columns[column].append(number)
      }
    }
    data.idCounts = numbers.map(\.count)
    data.labels = labels(places, from: first)
    return data
  }

  /// A label is 1 when a positive action of the task came within its window.
  private func labels(_ tasks: [Int], from first: Int) -> [Float] {
    let schema = recording.schema
    var index: [ImpressionID: Int] = [:]
    var labels = [Float](repeating: 0, count: (recording.impressions - first) * tasks.count)
    var number = 0
    for event in recording.events {
      switch event {
      case .impression(let impression):
        if number >= first { index[impression.id] = number }
        number += 1
      case .action(let action):
        guard let impression = index[action.impression] else { continue }
        for (place, task) in tasks.enumerated() where schema.tasks[task].positiveActions.contains(action.name) {
          guard action.time <= recording.times[impression] + schema.tasks[task].windowMilliseconds else { continue }
          labels[(impression - first) * tasks.count + place] = 1
        }
      case .watermark: continue
      }
    }
    return labels
  }

  // MARK: Tables

  /// AUC and NE of every way, and how much better than the first one, with the standard error of the difference.
  private func gains(
    _ trial: DownstreamTrial, _ results: [(name: String, result: DownstreamResult)]
  ) -> ExperimentReport.Table {
    let tasks = trial.data.tasks
    var table = ExperimentReport.Table(
      title: "downstream, frozen after 80 %, last 20 %", subject: "user vector",
      columns: tasks.flatMap { ["\($0) AUC", "\($0) gain", "\($0) error", "\($0) NE gain %"] }, rows: [])
    let judged = trial.judged
    for (name, result) in results {
      var row = ExperimentReport.Row(name: name, values: [:])
      for (task, label) in tasks.enumerated() {
        let metrics = trial.metrics(result.predictions, task, judged)
        row.values["\(label) AUC"] = ExperimentReport.Figure([metrics.auc])
        guard name != results[0].name else { continue }
        let base = trial.metrics(results[0].result.predictions, task, judged)
        func column(_ values: [Float]) -> [Float] { (0..<judged.count).map { values[$0 * tasks.count + task] } }
        if let auc = metrics.auc, let without = base.auc {
          row.values["\(label) gain"] = ExperimentReport.Figure([auc - without])
        }
        row.values["\(label) error"] = ExperimentReport.Figure([
          PairedBootstrap.standardError(
            column(results[0].result.predictions), column(result.predictions),
            labels: judged.map { trial.data.labels[$0 * tasks.count + task] }, seed: trial.seed)
        ])
        if let ne = metrics.ne, let without = base.ne {
          row.values["\(label) NE gain %"] = ExperimentReport.Figure([100 * (without - ne) / without])
        }
      }
      table.rows.append(row)
    }
    return table
  }

  private func coverage(_ made: UserVectors, _ ways: [VectorWay], count: Int) -> ExperimentReport.Table {
    ExperimentReport.Table(
      title: "coverage: impressions after 60 % with an embedding of their user", subject: "user vector",
      columns: ["share"],
      rows: zip(ways, made.defaults).map { way, defaults in
        ExperimentReport.Row(
          name: way.name,
          values: ExperimentReport.Figure([1 - Double(defaults) / Double(count)]).map { ["share": $0] } ?? [:])
      })
  }

  /// The AUC lost when a feature's values are exchanged, and the rank of each feature by it; for `async`.
  private func importance(
    _ trial: DownstreamTrial, _ results: [(name: String, result: DownstreamResult)], _ upstream: ModelSettings
  ) -> ExperimentReport.Table {
    let names = downstreamFeatures(upstream).map { recording.schema.features[$0].name } + ["user vector"]
    let tasks = trial.data.tasks
    var table = ExperimentReport.Table(
      title: "what a downstream model loses when a feature's values are exchanged, async", subject: "feature",
      columns: tasks.flatMap { ["\($0) AUC", "\($0) rank"] },
      rows: names.map { ExperimentReport.Row(name: $0, values: [:]) })
    for (task, label) in tasks.enumerated() {
      let losses = results[3].result.importance[task]
      for (place, loss) in losses.enumerated() {
        table.rows[place].values["\(label) AUC"] = ExperimentReport.Figure([loss])
        table.rows[place].values["\(label) rank"] = ExperimentReport.Figure([
          Double(1 + losses.count { $0 > loss })
        ])
      }
    }
    return table
  }

  private func shifts(_ made: UserVectors) -> ExperimentReport.Table {
    ExperimentReport.Table(
      title: "shift between daily versions on the same inputs", subject: "pooling",
      columns: ["mean cosine", "L2 ratio", "days"],
      rows: made.shifts.enumerated().map { place, shifts in
        var row = ExperimentReport.Row(name: "\(place + 1)", values: [:])
        row.values["mean cosine"] = ExperimentReport.Figure([mean(shifts.map(\.meanCosine))])
        row.values["L2 ratio"] = ExperimentReport.Figure([mean(shifts.map(\.l2Ratio))])
        row.values["days"] = ExperimentReport.Figure([Double(shifts.count)])
        return row
      })
  }

  private func mean(_ values: [Double]) -> Double? {
    values.isEmpty ? nil : values.reduce(0, +) / Double(values.count)
  }
}
