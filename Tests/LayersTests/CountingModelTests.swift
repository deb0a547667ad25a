import Base
import Layers
import Testing

@Suite("Counting model") struct CountingModelTests {
  private func model(_ combiner: Combiner = .sum) throws -> any Model {
    var options = ModelOptions(
      kind: "counting",
      features: [ModelFeature(name: "user", table: 0), ModelFeature(name: "items", table: 1, combiner: combiner)],
      tasks: [ModelTask(name: "click")])
    options.dimension = 3
    return try makeModel(options)
  }

  @Test func `gradients are minus what the examples add, once per occurrence`() throws {
    let model = try model()
    var batch = Batch(
      exampleCount: 2,
      features: [
        FeatureColumn(table: 0, rows: [1, 0]), FeatureColumn(table: 1, offsets: [0, 2, 3], rows: [0, 0, 1]),
      ], labels: [0, 1], weights: [0, 1])
    batch.identities = [7, .max]
    let rows = [[Float](repeating: .nan, count: 6), [Float](repeating: 5, count: 6)]
    let dense = [[Float](repeating: 9, count: 3)]
    var (scratch, logits) = (Scratch(), [Float]())
    model.forward(batch, rows: rows, dense: dense, scratch: &scratch, logits: &logits)
    #expect(logits == [0, 0])
    var rowGradients = rows.map { [Float](repeating: 0, count: $0.count) }
    var denseGradients = [[Float](repeating: 0, count: 3)]
    model.backward(
      batch, rows: rows, dense: dense, logitGradients: [1, 1], scratch: &scratch, rowGradients: &rowGradients,
      denseGradients: &denseGradients)
    func adds(_ example: Int) -> [Float] {
      (0..<3).map { -Float(CountingModelSums.addend(of: batch.identities[example], column: $0)) }
    }
    #expect(rowGradients[0] == adds(1) + adds(0))
    #expect(rowGradients[1] == adds(0).map { 2 * $0 } + adds(1))
    #expect(denseGradients[0] == zip(adds(0), adds(1)).map { $0 + $1 })
    #expect(adds(0)[0] == -1 && adds(1)[0] == -1)
  }

  @Test func `addends are small, spread out, and depend on partition and position`() {
    let identities = (0..<4000).map {
      CountingModelSums.identity(partition: $0 % 4, end: Position(low: UInt64($0 / 4)))
    }
    #expect(Set(identities).count == 4000)
    let addends = identities.map { CountingModelSums.addend(of: $0, column: 2) }
    #expect(Set(addends) == Set(-20...20))
    #expect(identities.allSatisfy { CountingModelSums.addend(of: $0, column: 0) == 1 })
  }

  @Test func `combiners that do not add up are refused`() {
    #expect {
      _ = try model(.mean)
    } throws: { error in
      "\(error)" == "model.features 'items' is combined by mean; a counting model adds up, use sum"
    }
  }
}
