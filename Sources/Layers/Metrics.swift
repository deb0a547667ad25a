// How good predictions are, from (prediction, label) records: exact, so that records of several trainers are simply
// put together. Averages of averages are never taken.

internal import Glibc

/// The quality of predictions; what cannot be said of these rows is nil, never NaN.
public struct ScoreMetrics: Sendable, Equatable, Codable {
  /// Area under the ROC curve, ties counted half; nil without both positives and negatives.
  public var auc: Double?
  /// Mean log-loss of predictions clipped to [1e-7, 1 − 1e-7]; nil without rows.
  public var logLoss: Double?
  /// Normalised entropy: log-loss over the entropy of the same rows' mean label; nil without both classes.
  public var ne: Double?
  /// Sum of predictions over sum of labels; nil without positives.
  public var calibration: Double?
  /// The rows scored.
  public var count: Int

  /// Metrics worked out elsewhere.
  public init(auc: Double?, logLoss: Double?, ne: Double?, calibration: Double?, count: Int) {
    self.auc = auc
    self.logLoss = logLoss
    self.ne = ne
    self.calibration = calibration
    self.count = count
  }
}

/// Quality of predicted probabilities against labels.
public enum Metrics {
  /// Scores predictions.
  ///
  /// Rows whose weight is not above 0, or whose numbers are not finite, are left out; `count` says how many remained.
  ///
  /// - Parameters:
  ///   - predictions: probabilities.
  ///   - labels: 0 or 1, as many; a number between counts as that share of a positive.
  ///   - weights: as many, or nil for 1 each.
  /// - Complexity: O(n log n), for the ranks.
  public static func scores(_ predictions: [Float], labels: [Float], weights: [Float]? = nil) -> ScoreMetrics {
    precondition(
      predictions.count == labels.count && weights.map({ $0.count == labels.count }) ?? true,
      "\(predictions.count) predictions, \(labels.count) labels and \(weights?.count ?? labels.count) weights")
    var tally = Tally()
    var keys: [UInt64] = []
    keys.reserveCapacity(predictions.count)
    for index in predictions.indices {
      let (prediction, label, weight) = (predictions[index], labels[index], weights?[index] ?? 1)
      guard weight > 0, prediction.isFinite, label.isFinite else { continue }
      tally.add(prediction, label: Double(label), weight: Double(weight))
      keys.append(ranking(prediction, index))
    }
    keys.sort()
    var ranks = RankSum()
    for key in keys {
      let index = Int(UInt32(truncatingIfNeeded: key))
      ranks.add(prediction: predictions[index], label: Double(labels[index]), weight: Double(weights?[index] ?? 1))
    }
    return tally.metrics(auc: ranks.auc(), count: keys.count)
  }

  /// Scores predictions against labels kept as bytes.
  public static func scores(_ predictions: [Float], labels: [UInt8], weights: [Float]? = nil) -> ScoreMetrics {
    scores(predictions, labels: labels.map { Float($0) }, weights: weights)
  }

  /// The mean of the groups' own AUCs, each weighted by its rows; groups of one class only do not count.
  ///
  /// - Parameters:
  ///   - groups: the group of each row, a user id, say.
  ///   - weights: how many rows each row stands for; a sampled negative for 1/rate. Default 1.
  /// - Returns: nil when no group has both classes.
  /// Source: Zhu et al. 2017, "Optimized Cost per Click in Taobao Display Advertising", GAUC.
  public static func groupedAUC(
    _ predictions: [Float], labels: [Float], groups: [UInt64], weights: [Float]? = nil
  ) -> Double? {
    precondition(
      predictions.count == labels.count && predictions.count == groups.count
        && predictions.count == weights?.count ?? predictions.count,
      "\(predictions.count) predictions, \(labels.count) labels, \(groups.count) groups, \(weights?.count ?? 0) weights"
    )
    let order = predictions.indices.filter { predictions[$0].isFinite && labels[$0].isFinite }.sorted {
      (groups[$0], predictions[$0], $0) < (groups[$1], predictions[$1], $1)
    }
    var (total, rows) = (0.0, 0.0)
    var start = 0
    while start < order.count {
      var ranks = RankSum()
      var (end, size) = (start, 0.0)
      while end < order.count, groups[order[end]] == groups[order[start]] {
        let row = order[end]
        let weight = weights.map { Double($0[row]) } ?? 1
        ranks.add(prediction: predictions[row], label: Double(labels[row]), weight: weight)
        size += weight
        end += 1
      }
      if let auc = ranks.auc() {
        total += auc * size
        rows += size
      }
      start = end
    }
    return rows == 0 ? nil : total / rows
  }

  /// A word that orders like the prediction and carries the index.
  private static func ranking(_ prediction: Float, _ index: Int) -> UInt64 {
    // IEEE 754 bits order like sign and magnitude; −0 and 0 must tie.
    let bits = (prediction == 0 ? 0 : prediction).bitPattern
    let ordered = bits >> 31 == 0 ? bits | 0x8000_0000 : ~bits
    return UInt64(ordered) << 32 | UInt64(UInt32(index))
  }
}

/// The sums behind log-loss, NE and calibration.
struct Tally {
  var loss = 0.0
  var predicted = 0.0
  var positive = 0.0
  var weight = 0.0

  mutating func add(_ prediction: Float, label: Double, weight: Double) {
    let clipped = min(max(Double(prediction), 1e-7), 1 - 1e-7)
    loss -= weight * (label * log(clipped) + (1 - label) * log(1 - clipped))
    predicted += weight * Double(prediction)
    positive += weight * label
    self.weight += weight
  }

  func metrics(auc: Double?, count: Int) -> ScoreMetrics {
    guard weight > 0 else { return ScoreMetrics(auc: nil, logLoss: nil, ne: nil, calibration: nil, count: 0) }
    let mean = positive / weight
    let entropy = mean > 0 && mean < 1 ? -(mean * log(mean) + (1 - mean) * log(1 - mean)) : 0
    return ScoreMetrics(
      auc: auc, logLoss: loss / weight, ne: entropy > 0 ? loss / weight / entropy : nil,
      calibration: positive > 0 ? predicted / positive : nil, count: count)
  }
}

/// The area under the ROC curve of rows that come in the order of their predictions.
struct RankSum {
  private var below = 0.0
  private var area = 0.0
  private var positives = 0.0
  private var tied = (prediction: Float.nan, positive: 0.0, negative: 0.0)

  mutating func add(prediction: Float, label: Double, weight: Double) {
    if prediction != tied.prediction {
      closeTie()
      tied = (prediction, 0, 0)
    }
    tied.positive += weight * label
    tied.negative += weight * (1 - label)
  }

  /// A positive beats every negative below it, and half of those that tie with it (the mid-rank).
  private mutating func closeTie() {
    area += tied.positive * (below + 0.5 * tied.negative)
    below += tied.negative
    positives += tied.positive
  }

  mutating func auc() -> Double? {
    closeTie()
    tied = (.nan, 0, 0)
    return positives > 0 && below > 0 ? area / (positives * below) : nil
  }
}
