// The live quality of a model: exact over the last rows of one task.
// A ring of rows that belongs to one thread.

/// Keeps the last `capacity` (prediction, label) rows of a task and scores exactly those.
public struct WindowedMetrics: Sendable {
  /// The rows it keeps at most.
  public let capacity: Int
  /// The rows ever recorded.
  public private(set) var recorded = 0
  private var predictions: [Float] = []
  private var labels: [Float] = []
  private var next = 0

  /// An empty window of at least one row.
  public init(capacity: Int) {
    precondition(capacity > 0, "a window of \(capacity) rows holds nothing")
    self.capacity = capacity
  }

  /// Adds a row, in place of the oldest when the window is full.
  public mutating func record(prediction: Float, label: Float) {
    if predictions.count < capacity {
      predictions.append(prediction)
      labels.append(label)
    } else {
      predictions[next] = prediction
      labels[next] = label
      next = next + 1 == capacity ? 0 : next + 1
    }
    recorded += 1
  }

  /// The quality over the window: sorts it, so ask by the second, not by the row.
  public func scores() -> ScoreMetrics {
    Metrics.scores(predictions, labels: labels)
  }
}
