// What a run leaves behind: for every impression the probabilities it was served with, and the labels that came later.

internal import Base
public import Layers

/// The probabilities of one model and the labels, by impression.
public struct ServedScores: Sendable {
  /// The tasks of the model.
  public let tasks: [String]
  /// `[impressions × tasks]`; NaN where nothing was served.
  public internal(set) var predictions: [Float]
  /// `[impressions × tasks]`: 0, 1, or NaN while no label came.
  public internal(set) var labels: [Float]
  /// `[tasks]`: the share of negatives that sampling kept.
  public internal(set) var rates: [Float]

  init(tasks: [String], impressions: Int) {
    self.tasks = tasks
    predictions = Array(repeating: .nan, count: impressions * tasks.count)
    labels = predictions
    rates = Array(repeating: 1, count: tasks.count)
  }

  /// The quality of a task over some impressions; a sampled negative stands for 1/rate of them.
  public func metrics(task: Int, over impressions: Range<Int>) -> ScoreMetrics {
    let (predictions, labels) = columns(task, impressions)
    return Metrics.scores(predictions, labels: labels, weights: weights(task, labels))
  }

  /// The mean AUC of groups of impressions, weighted by their size; a sampled negative stands for 1/rate of them.
  public func groupedAUC(task: Int, over impressions: Range<Int>, groups: [UInt64]) -> Double? {
    let (predictions, labels) = columns(task, impressions)
    return Metrics.groupedAUC(
      predictions, labels: labels, groups: Array(groups[impressions]), weights: weights(task, labels))
  }

  private func weights(_ task: Int, _ labels: [Float]) -> [Float] { labels.map { $0 == 0 ? 1 / rates[task] : 1 } }

  private func columns(_ task: Int, _ impressions: Range<Int>) -> (predictions: [Float], labels: [Float]) {
    let places = impressions.map { $0 * tasks.count + task }
    return (places.map { predictions[$0] }, places.map { labels[$0] })
  }
}
