import Base
import Joining
import Streams
import Testing

@Suite("Sampling negatives") struct SamplingTests {
  @Test(arguments: [0.5, 0.1]) func `adding ln r to the odds of what is kept gives the true share`(
    rate: Double
  ) {
    var scenario = Scenario(task("click", window: 100, rate: rate))
    var random = SeededRandom(seed: 5)
    var clicks = 0
    let count = 60_000
    for number in 0..<UInt64(count) {
      let time = Int64(number) + 1000
      scenario.shown(impression(number, at: time))
      guard random.uniform() < 0.2 else { continue }
      clicks += 1
      scenario.done(action("click", number, at: time))
    }
    let examples = scenario.pass(1_000_000)
    let positives = examples.count { $0.labels == [.positive] }
    let negatives = examples.count - positives
    #expect(positives == clicks, "positives are always kept")
    #expect(examples.allSatisfy { $0.rates == [Float(rate)] })
    // What a model learns of these examples are the odds positives / negatives; ln r added to its logit multiplies them.
    let odds = Double(positives) / Double(negatives) * rate
    let predicted = odds / (1 + odds)
    let calibration = predicted / (Double(clicks) / Double(count))
    #expect(abs(calibration - 1) < 0.02, "the mean prediction is \(calibration) of the mean label")
    #expect(rate > 0.3 || Double(positives) / Double(examples.count) > 2 * predicted, "uncorrected it is far off")
  }
}
