// What the users experiment stands on: downstream models that learn, and errors of paired differences.

import Base
import Testing

@testable import Experiments

@Suite("Users experiment") struct UsersTests {
  /// Impressions whose label follows from a hidden number of the user, which only the vector tells.
  private func data(_ count: Int) -> (data: DownstreamData, vectors: [Float]) {
    var random = SeededRandom(seed: 5)
    var data = DownstreamData(columns: [[]], idCounts: [4], labels: [], tasks: ["click"])
    var vectors: [Float] = []
    for _ in 0..<count {
      let taste = random.uniform()
      data.columns[0].append(Int32.random(in: 0..<4, using: &random))
      data.labels.append(random.uniform() < taste ? 1 : 0)
      vectors += [Float(taste) * 100 + 7, 1]
    }
    return (data, vectors)
  }

  @Test func `a vector that knows the user is worth its AUC, and ranks first`() throws {
    let (data, vectors) = data(3000)
    let trial = DownstreamTrial(data: data, training: 0..<2000, judged: 2000..<3000, seed: 1)
    let (none, with) = (try trial.run(vectors: [], width: 0), try trial.run(vectors: vectors, width: 2))
    let before = try #require(trial.metrics(none.predictions, 0, trial.judged).auc)
    let after = try #require(trial.metrics(with.predictions, 0, trial.judged).auc)
    #expect(abs(before - 0.5) < 0.06)
    #expect(after > 0.78)
    #expect(with.importance[0][1] > 0.2 && abs(with.importance[0][0]) < 0.05)
    let error = try #require(
      PairedBootstrap.standardError(
        none.predictions, with.predictions, labels: Array(data.labels[2000...]), seed: 1))
    #expect(error > 0.005 && error < 0.05)
  }

  @Test func `the same scores have no difference and no error`() throws {
    let scores: [Float] = [0.1, 0.4, 0.4, 0.9]
    let labels: [Float] = [0, 1, 0, 1]
    #expect(PairedBootstrap.standardError(scores, scores, labels: labels, seed: 1) == 0)
    #expect(PairedBootstrap.standardError(scores, scores, labels: [1, 1, 1, .nan], seed: 1) == nil)
    #expect(PairedBootstrap.auc([0, 1, 2, 3], scores, labels, [1, 1, 1, 1]) == 0.875)
    #expect(PairedBootstrap.auc([0, 1, 2, 3], scores, labels, [1, 0, 1, 1]) == 1)
  }
}
