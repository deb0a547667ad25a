// What user embeddings are worth downstream, and what serving them late costs: SUM's tables 2 to 5, on any recording.

internal import Base
internal import Cluster
internal import Layers
public import Streams
internal import UserModeling

/// What the users experiment is told beside the configuration.
public struct UserExperimentOptions: Sendable {
  /// The tasks of the downstream models.
  public var downstream: [String]
  /// How often the upstream model publishes a version after the first 60 %, data time in milliseconds.
  public var interval: Int64 = 3_600_000
  /// Whether the upstream model is also run without each of its extractors.
  public var ablation = false
  /// The upstream model is also run with each of these as its `regularization`.
  public var regularizations: [Double] = []
  /// The upstream model is also run with each of these as its `distillation`.
  public var distillations: [Double] = []
  /// Features of users by their id, which the downstream models read too; nil for none.
  public var userTable: UserTable?

  /// An experiment with downstream models for some tasks.
  public init(downstream: [String]) { self.downstream = downstream }
}

extension Experiment {
  /// The upstream model learns; downstream models are trained on 60–80 % and judged frozen on the last 20 %.
  public func users(_ options: UserExperimentOptions) throws -> ExperimentReport {
    try timed {
      let upstream = try upstream()
      let data = try downstreamData(
        options.downstream, upstream: upstream, users: options.userTable, from: recording.impressions * 3 / 5)
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
    let variants = options.variants(of: upstream)
    var done = 0.0
    let recompute = configuration.soap.recompute
    let paper = VectorWay.all(recompute)
    let served = paper + VectorWay.choices(beside: recompute, hasActions: !configuration.userActions.isEmpty)
    let steps = Double(2 + served.count + 2 * variants.count)
    func advance(_ share: Double = 1) { progress(min(1, (done + share) / steps)) }
    let made = try vectors(configuration, upstream, served, from: first, options) { advance($0) }
    done += 1
    let none: JudgedWay = ("no vector", try trial.run(vectors: [], width: 0))
    done += 1
    var ways = [none]
    for (way, values) in zip(served, made.values) {
      ways.append((way.name, try trial.run(vectors: values, width: made.width)))
      done += 1
      advance(0)
    }
    var tables = [gains(trial, ways), coverage(made, served, count: end), importance(trial, ways), shifts(made)]
    var (ablated, steadied) = ([none, ("all extractors", ways[3].result)], [none])
    var moves: [UserVectors.Moves] = [(nil, nil)]
    for (entries, way) in [(1, 6), (2, 5), (3, 3)] {
      steadied.append(("pooling \(entries)", ways[way].result))
      moves.append(made.moves(pooling: entries))
    }
    for variant in variants {
      let made = try vectors(configuration, variant.model, [paper[2]], from: first, options) { advance($0) }
      done += 1
      let way: JudgedWay = (variant.name, try trial.run(vectors: made.values[0], width: made.width))
      done += 1
      if variant.isAblation {
        ablated.append(way)
      } else {
        steadied.append(way)
        moves.append(made.moves(pooling: 3))
      }
    }
    if ablated.count > 2 { tables.append(gains(trial, ablated, title: "an extractor less, async, last 20 %")) }
    if steadied.count > 4 { tables.append(stabilisation(trial, steadied, moves)) }
    tables.append(kept(trial, ways))
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

  /// The features of events that downstream models read: they are not the user's.
  private func downstreamFeatures(_ upstream: ModelSettings) -> [Int] {
    recording.schema.features.enumerated().filter { _, feature in
      feature.kind == .id && feature.stream == nil && !upstream.users.features.contains(feature.name)
        && feature.name != settings.configuration.soap.user
    }.map(\.offset)
  }

  /// The impressions from `first` on, with the features that are not the user's and the labels of some tasks.
  private func downstreamData(
    _ tasks: [String], upstream: ModelSettings, users: UserTable?, from first: Int
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
    guard !context.isEmpty || users != nil else {
      throw ExperimentError("no feature with one id is left for the downstream models")
    }
    var data = DownstreamData(
      columns: context.map { _ in [] }, idCounts: context.map { _ in 0 }, labels: [], tasks: tasks)
    data.names = context.map { schema.features[$0].name } + (users?.names ?? [])
    let user = schema.features.firstIndex { $0.name == settings.configuration.soap.user && $0.kind == .id }
    var people: [Int] = []
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
      if let users {
        guard let user, case .ids(let ids) = values[user] else { throw noUsers }
        people.append(users.place(of: ids.first))
      }
    }
    data.idCounts = numbers.map(\.count)
    if let users {
      data.columns += users.columns.map { column in people.map { column[$0] } }
      data.idCounts += users.idCounts
    }
    data.labels = labels(places, from: first)
    return data
  }

  private var noUsers: ExperimentError {
    ExperimentError(
      "events have no feature '\(settings.configuration.soap.user)' with one id to find users in a table by")
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
}

/// A way of serving and what downstream models reach with it.
typealias JudgedWay = (name: String, result: DownstreamResult)

extension UserExperimentOptions {
  /// The upstream models that are run besides the one that is configured.
  func variants(of upstream: ModelSettings) -> [(name: String, model: ModelSettings, isAblation: Bool)] {
    func variant(_ name: String, isAblation: Bool = false, _ change: (inout UserModelSettings) -> Void)
      -> (name: String, model: ModelSettings, isAblation: Bool)
    {
      var model = upstream
      change(&model.users)
      return (name, model, isAblation)
    }
    let extractors = ablation && upstream.users.extractors.count > 1 ? upstream.users.extractors : []
    return extractors.map { extractor in
      variant("without \(extractor.rawValue)", isAblation: true) { $0.extractors.removeAll { $0 == extractor } }
    }
      + regularizations.map { weight in
        variant("regularization \(shortest(weight))") { ($0.regularization, $0.distillation) = (weight, 0) }
      }
      + distillations.map { share in
        variant("distillation \(shortest(share))") { ($0.regularization, $0.distillation) = (0, share) }
      }
  }
}

/// A number without a point where it is whole.
private func shortest(_ value: Double) -> String { value == value.rounded() ? "\(Int(value))" : "\(value)" }
