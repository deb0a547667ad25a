// How sure a difference of two AUCs over the same impressions is: impressions are drawn again and again with replacement, and
// both are worked out on each draw. Source: Efron 1979; Poisson weights as in Hanley and MacGibbon 2006.

internal import Base
internal import Glibc

/// Paired bootstrap of AUC differences.
enum PairedBootstrap {
  /// The standard error of AUC(second) − AUC(first); nil when there are not both classes.
  static func standardError(
    _ first: [Float], _ second: [Float], labels: [Float], draws: Int = 200, seed: UInt64
  ) -> Double? {
    let rows = labels.indices.filter { !labels[$0].isNaN }
    guard rows.contains(where: { labels[$0] == 1 }), rows.contains(where: { labels[$0] == 0 }) else { return nil }
    let orders = [first, second].map { scores in rows.sorted { scores[$0] < scores[$1] } }
    var random = SeededRandom(seed: seed)
    var weights = [Double](repeating: 0, count: labels.count)
    var differences: [Double] = []
    for _ in 0..<draws {
      for row in rows { weights[row] = poisson(&random) }
      let a = auc(orders[0], first, labels, weights)
      let b = auc(orders[1], second, labels, weights)
      if let a, let b { differences.append(b - a) }
    }
    guard differences.count > 1 else { return nil }
    let mean = differences.reduce(0, +) / Double(differences.count)
    return (differences.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(differences.count - 1)).squareRoot()
  }

  /// The weighted AUC of rows in the order of their scores; ties count half.
  static func auc(_ order: [Int], _ scores: [Float], _ labels: [Float], _ weights: [Double]) -> Double? {
    var (below, area, positives) = (0.0, 0.0, 0.0)
    var start = 0
    while start < order.count {
      var end = start
      var (zeros, ones) = (0.0, 0.0)
      while end < order.count, scores[order[end]] == scores[order[start]] {
        if labels[order[end]] == 1 { ones += weights[order[end]] } else { zeros += weights[order[end]] }
        end += 1
      }
      area += ones * (below + zeros / 2)
      below += zeros
      positives += ones
      start = end
    }
    return below > 0 && positives > 0 ? area / (below * positives) : nil
  }

  /// How often a row is in one draw: Poisson with mean 1.
  private static func poisson(_ random: inout SeededRandom) -> Double {
    var (count, product) = (0.0, random.uniform())
    while product > 0.36787944117144233 {
      count += 1
      product *= random.uniform()
    }
    return count
  }
}
