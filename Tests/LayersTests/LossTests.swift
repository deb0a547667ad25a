import Layers
import Testing

#if canImport(Glibc)
  import Glibc
#endif

@Suite("Losses") struct LossTests {
  @Test func `loss and gradient follow their definitions, per task and weighted`() {
    let logits: [Float] = [0.5, -1, 2, 3]
    let batch = Batch(exampleCount: 2, features: [], labels: [1, 0, 0, 1], weights: [1, 2, 0.5, 1])
    var gradients: [Float] = []
    let losses = Losses.weightedLogLoss(logits: logits, batch: batch, gradients: &gradients)
    func p(_ z: Float) -> Double { 1 / (1 + exp(-Double(z))) }
    #expect(abs(losses[0] - (-log(p(0.5)) - 0.5 * log(1 - p(2)))) < 1e-6)
    #expect(abs(losses[1] - (-2 * log(1 - p(-1)) - log(p(3)))) < 1e-6)
    let expected = [p(0.5) - 1, 2 * p(-1), 0.5 * p(2), p(3) - 1]
    for (a, b) in zip(gradients, expected) { #expect(abs(Double(a) - b) < 1e-6) }
  }

  @Test func `a masked label costs nothing, even when it is NaN`() {
    let batch = Batch(exampleCount: 1, features: [], labels: [.nan, 1], weights: [0, 1])
    var gradients: [Float] = []
    let losses = Losses.weightedLogLoss(logits: [3, 0], batch: batch, gradients: &gradients)
    #expect(losses[0] == 0 && gradients[0] == 0)
    #expect(gradients[1] == -0.5)
  }

  @Test func `extreme logits stay finite`() {
    #expect(Losses.sigmoid(200) == 1)
    #expect(Losses.sigmoid(-200) >= 0 && Losses.sigmoid(-200) < 1e-30)
    #expect(Losses.sigmoid(-20) > 2e-9)
    let batch = Batch(exampleCount: 1, features: [], labels: [0, 1], weights: [1, 1])
    var gradients: [Float] = []
    #expect(Losses.weightedLogLoss(logits: [500, -500], batch: batch, gradients: &gradients) == [500, 500])
    #expect(gradients == [1, -1])
  }
}
