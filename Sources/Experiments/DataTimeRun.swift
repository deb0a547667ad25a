// One run of a recording through a cluster in data time: what the replica said of every impression at its arrival, and
// the labels that came later. Belongs to the calling thread.

internal import Base
internal import Cluster
internal import Layers
internal import Serving
internal import Streams

/// What one run does beside training and serving.
struct RunOptions {
  /// When versions are published.
  var times: PublicationTimes
  /// The first impression that is scored; versions are published from there on, and one at that moment.
  var scoredFrom = 0
  /// Features whose values are exchanged between impressions, to see what the model makes of each.
  var permuted: [Int] = []
  /// Impressions from which on the permuted features are scored.
  var permutedFrom = 0
  /// The seed of the permutation.
  var seed: UInt64 = 1
  /// A shard that loses its files.
  var loss: Loss?

  /// A shard comes back, at one impression, as it was at another.
  struct Loss {
    var shard: Int
    var checkpointAt: Int
    var lostAt: Int
  }
}

/// What came out of a run.
struct RunResult {
  /// Per model.
  var served: [ServedScores]
  /// Of the first model, per permuted feature.
  var permuted: [ServedScores]
  var publications = 0
  var examples = 0
}

/// Runs a recording through a cluster.
final class DataTimeRun {
  private let cluster: DataTimeCluster
  private let recording: Recording
  private let options: RunOptions
  private let taskOfModel: [[Int]]
  private var result: RunResult
  /// Impressions that wait to be scored with what is served now, with their features at their arrival.
  private var waiting: [(impression: Int, features: FeatureBlock)] = []
  /// What every impression is served with, for features that change places.
  private var exchanged: [FeatureBlock] = []
  private var columns: FeatureColumns
  private var order: [Int] = []

  init(_ recording: Recording, _ configuration: ClusterConfiguration, _ options: RunOptions) throws {
    self.recording = recording
    self.options = options
    cluster = try DataTimeCluster(configuration, recording, times: options.times)
    columns = FeatureColumns(schema: recording.schema)
    let names = recording.schema.tasks.map(\.name)
    taskOfModel = cluster.plan.models.map { model in model.options.tasks.compactMap { names.firstIndex(of: $0.name) } }
    let served = cluster.plan.models.map { model in
      var scores = ServedScores(tasks: model.options.tasks.map(\.name), impressions: recording.impressions)
      scores.rates = model.negativeRates
      return scores
    }
    result = RunResult(served: served, permuted: options.permuted.map { _ in served[0] })
    if !options.permuted.isEmpty {
      order = Self.order(of: recording.impressions, options)
      exchanged = ServedFeatures.all(recording, configuration.streamFeatureRules)
    }
  }

  /// The other impression that each impression takes a value from: a permutation of those that are scored so.
  private static func order(of impressions: Int, _ options: RunOptions) -> [Int] {
    var random = SeededRandom(seed: Hashing.mix(options.seed ^ 0x7065_726d))
    var order = Array(0..<impressions)
    order[options.permutedFrom...].shuffle(using: &random)
    return order
  }

  /// Runs everything.
  func run(progress: (Double) -> Void) throws -> RunResult {
    var index = 0
    var kept: [Blob] = []
    if options.scoredFrom == 0 { try cluster.publish(always: true) }
    for event in recording.events {
      switch event {
      case .watermark: continue
      case .action(let action):
        try advance(to: action.time, isPublishing: index > options.scoredFrom)
        cluster.act(action)
      case .impression(let impression):
        try advance(to: impression.time, isPublishing: index > options.scoredFrom)
        if index == options.scoredFrom, index > 0 { try cluster.publish(always: true) }
        if let loss = options.loss {
          if index == loss.checkpointAt { kept = try cluster.checkpoint(shard: loss.shard) }
          if index == loss.lostAt {
            try score()
            try cluster.lose(shard: loss.shard, comingBackFrom: kept)
          }
        }
        if index >= options.scoredFrom { waiting.append((index, cluster.served(impression))) }
        if waiting.count == Self.scoredTogether { try score() }
        cluster.show(impression)
        index += 1
        if index % 1000 == 0 { progress(Double(index) / Double(recording.impressions)) }
      }
    }
    try score()
    let window = recording.schema.tasks.map(\.windowMilliseconds).max() ?? 0
    let end = (recording.events.last?.time ?? 0) + window + recording.latenessMilliseconds + 1
    try advance(to: end, isPublishing: false)
    result.publications = cluster.publications
    result.examples = cluster.trained
    progress(1)
    return result
  }

  private static let scoredTogether = 512

  private func advance(to time: Milliseconds, isPublishing: Bool) throws {
    try cluster.advance(
      to: time, isPublishing: isPublishing, score: { try self.score() },
      label: { example in
        let impression = DataTimeCluster.impression(of: example)
        for model in taskOfModel.indices {
          for (task, place) in taskOfModel[model].enumerated() where example.labels[place] != .masked {
            result.served[model].labels[impression * taskOfModel[model].count + task] =
              example.labels[place] == .positive ? 1 : 0
          }
        }
      })
  }

  /// Asks the replica about the impressions that wait.
  private func score() throws {
    guard !waiting.isEmpty else { return }
    columns.clear()
    for entry in waiting { try entry.features.append(to: &columns, schema: recording.schema) }
    let impressions = waiting.map(\.impression)
    for model in result.served.indices { try predict(model, columns, impressions, into: &result.served[model]) }
    let judged = waiting.filter { $0.impression >= options.permutedFrom }
    if !judged.isEmpty {
      for (place, feature) in options.permuted.enumerated() {
        columns.clear()
        for entry in judged {
          var values = try entry.features.values(of: recording.schema)
          values[feature] = try exchanged[order[entry.impression]].values(of: recording.schema)[feature]
          try FeatureBlock(schema: recording.schema, values: values).append(to: &columns, schema: recording.schema)
        }
        try predict(0, columns, judged.map(\.impression), into: &result.permuted[place])
      }
    }
    waiting.removeAll(keepingCapacity: true)
  }

  private func predict(
    _ model: Int, _ columns: FeatureColumns, _ impressions: [Int], into scores: inout ServedScores
  ) throws {
    guard let answer = cluster.predict(model: model, columns) else {
      throw ExperimentError("the replica serves nothing yet")
    }
    let tasks = scores.tasks.count
    for (place, impression) in impressions.enumerated() {
      for task in 0..<tasks {
        scores.predictions[impression * tasks + task] = answer.probabilities[place * tasks + task]
      }
    }
  }
}

extension RunResult {
  /// The permuted features have the labels of the served scores.
  mutating func shareLabels() {
    for place in permuted.indices { permuted[place].labels = served[0].labels }
  }
}
