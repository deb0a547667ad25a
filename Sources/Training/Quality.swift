// Quality from score records: exact over all impressions and over the last fifth of them.

internal import Base
public import Layers

/// The quality of one task's predictions.
public struct TaskQuality: Sendable, Equatable, Codable {
  /// Over all scored impressions.
  public var all: ScoreMetrics
  /// Over the last 20 % of impressions, in impression order.
  public var last20: ScoreMetrics
}

/// The two kinds of quality, never mixed (DESIGN, "Training").
public struct Quality: Sendable, Equatable {
  /// Scored by the trainer just before it trained on the example, by task.
  public var prequential: [String: TaskQuality] = [:]
  /// Scored by a replica when the impression was shown, by task; empty where nothing was asked.
  public var served: [String: TaskQuality] = [:]
  /// Scored examples.
  public var examples = 0

  /// The quality of one model from the records of all its trainers; repeated records of an example count once.
  public init(records: [ScoreRecord], tasks: [String]) {
    var seen: Set<Key> = []
    var ordered = records.filter { seen.insert(Key(partition: $0.partition, position: $0.position)).inserted }
    ordered.sort { ($0.time, $0.ordinal, $0.position) < ($1.time, $1.ordinal, $1.position) }
    examples = ordered.count
    let lastStart = Self.startOfLastFifth(ordered)
    for (task, name) in tasks.enumerated() {
      prequential[name] = Self.quality(ordered, lastStart, task, \.prequential)
      let served = Self.quality(ordered, lastStart, task, \.served)
      if served.all.count > 0 { self.served[name] = served }
    }
  }

  private struct Key: Hashable {
    let partition: UInt32
    let position: Position
  }

  /// Where in the ordered records the last 20 % of impressions begin; an impression may have several examples.
  private static func startOfLastFifth(_ ordered: [ScoreRecord]) -> Int {
    var starts: [Int] = []
    for index in ordered.indices
    where index == 0 || ordered[index].ordinal != ordered[index - 1].ordinal
      || ordered[index].time != ordered[index - 1].time
    {
      starts.append(index)
    }
    guard !starts.isEmpty else { return 0 }
    return starts[min(starts.count - 1, starts.count * 4 / 5)]
  }

  private static func quality(
    _ ordered: [ScoreRecord], _ lastStart: Int, _ task: Int, _ score: KeyPath<ScoreRecord.Task, Float>
  ) -> TaskQuality {
    func metrics(_ records: ArraySlice<ScoreRecord>) -> ScoreMetrics {
      var predictions: [Float] = []
      var labels: [Float] = []
      var weights: [Float] = []
      for record in records {
        let figures = record.tasks[task]
        let prediction = figures[keyPath: score]
        guard !figures.label.isNaN, !prediction.isNaN else { continue }
        predictions.append(prediction)
        labels.append(figures.label)
        // A sampled negative stands for 1/rate negatives.
        weights.append(figures.label == 0 && figures.rate > 0 ? 1 / figures.rate : 1)
      }
      return Metrics.scores(predictions, labels: labels, weights: weights)
    }
    return TaskQuality(all: metrics(ordered[...]), last20: metrics(ordered[lastStart...]))
  }
}
