import Base
import Layers
import Testing

#if canImport(Glibc)
  import Glibc
#endif

@Suite("Metrics") struct MetricsTests {
  /// Every pair of a positive and a negative, as the definition says.
  func pairAUC(_ predictions: [Float], _ labels: [Float], _ weights: [Float]) -> Double {
    var (won, all) = (0.0, 0.0)
    for i in predictions.indices where labels[i] == 1 {
      for j in predictions.indices where labels[j] == 0 {
        let pair = Double(weights[i] * weights[j])
        all += pair
        won += pair * (predictions[i] > predictions[j] ? 1 : predictions[i] == predictions[j] ? 0.5 : 0)
      }
    }
    return won / all
  }

  @Test(arguments: 1...5) func `AUC is the share of pairs in order, ties half`(seed: UInt64) {
    var random = SeededRandom(seed: seed)
    let predictions = (0..<200).map { _ in Float(Int.random(in: 0...30, using: &random)) / 30 }
    let labels = (0..<200).map { _ in Float(Int.random(in: 0...1, using: &random)) }
    let weights = (0..<200).map { _ in Float(Int.random(in: 1...4, using: &random)) }
    let ones = [Float](repeating: 1, count: 200)
    #expect(abs(Metrics.scores(predictions, labels: labels).auc! - pairAUC(predictions, labels, ones)) < 1e-12)
    #expect(
      abs(
        Metrics.scores(predictions, labels: labels, weights: weights).auc! - pairAUC(predictions, labels, weights))
        < 1e-12)
  }

  @Test func `negative zero ties with zero, and order is that of numbers`() {
    #expect(Metrics.scores([0, -0.0], labels: [1, 0] as [Float]).auc == 0.5)
    #expect(Metrics.scores([-2, -1, 3], labels: [0, 0, 1] as [UInt8]).auc == 1)
    #expect(Metrics.scores([-1, -2, 3], labels: [0, 1, 0] as [UInt8]).auc == 0)
  }

  @Test func `log-loss, NE and calibration follow their definitions`() {
    let scores = Metrics.scores([0.8, 0.4, 0.1, 0.2], labels: [1, 1, 0, 0] as [UInt8])
    let loss =
      -(log(Double(Float(0.8))) + log(Double(Float(0.4))) + log(1 - Double(Float(0.1)))
      + log(1 - Double(Float(0.2)))) / 4
    #expect(abs(scores.logLoss! - loss) < 1e-12)
    #expect(abs(scores.ne! - loss / log(2)) < 1e-12)
    #expect(abs(scores.calibration! - 0.75) < 1e-7)
    #expect(scores.count == 4)
  }

  @Test func `a weight of two is the row twice, a weight of zero no row`() {
    let twice = Metrics.scores([0.3, 0.3, 0.6], labels: [1, 1, 0] as [Float])
    var weighted = Metrics.scores([0.3, 0.6, 0.9], labels: [1, 0, 1] as [Float], weights: [2, 1, 0])
    #expect(weighted.count == 2)
    weighted.count = 3
    #expect(weighted == twice)
  }

  @Test func `the mean label as prediction has NE 1 and calibration 1`() {
    let labels = (0..<1000).map { Float($0 % 4 == 0 ? 1 : 0) }
    let scores = Metrics.scores([Float](repeating: 0.25, count: 1000), labels: labels)
    #expect(abs(scores.ne! - 1) < 1e-12)
    #expect(abs(scores.calibration! - 1) < 1e-12)
    #expect(scores.auc == 0.5)
  }

  @Test func `what cannot be said is nil, and nothing is ever NaN`() {
    let empty = ScoreMetrics(auc: nil, logLoss: nil, ne: nil, calibration: nil, count: 0)
    #expect(Metrics.scores([], labels: [] as [Float]) == empty)
    #expect(Metrics.scores([.nan, .infinity], labels: [1, 0] as [Float]) == empty)
    let positives = Metrics.scores([1, 0], labels: [1, 1] as [Float])
    #expect(positives.auc == nil && positives.ne == nil && positives.calibration == 0.5)
    #expect(abs(positives.logLoss! + log(1e-7) / 2) < 1e-6)
    let negatives = Metrics.scores([0.5], labels: [0] as [Float])
    #expect(negatives.auc == nil && negatives.ne == nil && negatives.calibration == nil)
  }

  @Test func `grouped AUC weighs each user by rows and skips users of one class`() {
    // Group 1: AUC 1 over 3 rows; group 2: AUC 0 over 2 rows; group 3 has no negative.
    let grouped = Metrics.groupedAUC(
      [0.9, 0.1, 0.2, 0.3, 0.7, 0.5], labels: [1, 0, 0, 1, 0, 1], groups: [1, 1, 1, 2, 2, 3])
    #expect(abs(grouped! - 0.6) < 1e-12)
    #expect(Metrics.groupedAUC([0.5], labels: [1], groups: [1]) == nil)
  }

  @Test func `grouped AUC weighs a sampled negative by what it stands for`() {
    // The same groups with negatives sampled at 1/4: 1 + 2 · 4 rows with AUC 1, 1 + 4 rows with AUC 0.
    let grouped = Metrics.groupedAUC(
      [0.9, 0.1, 0.2, 0.3, 0.7, 0.5], labels: [1, 0, 0, 1, 0, 1], groups: [1, 1, 1, 2, 2, 3],
      weights: [1, 4, 4, 1, 4, 1])
    #expect(abs(grouped! - 9.0 / 14) < 1e-12)
  }

  @Test func `a window scores exactly its last rows`() {
    var random = SeededRandom(seed: 9)
    let predictions = (0..<1000).map { _ in Float(random.uniform()) }
    let labels = predictions.map { Float(random.uniform() < Double($0) ? 1 : 0) }
    var window = WindowedMetrics(capacity: 300)
    for index in 0..<1000 {
      window.record(prediction: predictions[index], label: labels[index])
      if index == 99 {
        #expect(window.scores() == Metrics.scores(Array(predictions[..<100]), labels: Array(labels[..<100])))
      }
    }
    let exact = Metrics.scores(Array(predictions[700...]), labels: Array(labels[700...]))
    let scores = window.scores()
    #expect(abs(scores.auc! - exact.auc!) < 1e-12)
    #expect(abs(scores.logLoss! - exact.logLoss!) < 1e-12)
    #expect(scores.count == 300)
    #expect(window.recorded == 1000)
  }
}
