import Base
import Layers
import Streams
import Testing

@testable import Serving

@Suite("Predictor") struct PredictorTests {
  func columns(_ candidates: [(user: UInt64, tags: [UInt64], item: UInt64)]) throws -> FeatureColumns {
    var columns = FeatureColumns(schema: Fixture.schema)
    for candidate in candidates {
      let block = Fixture.block(user: candidate.user, tags: candidate.tags, item: candidate.item)
      try block.append(to: &columns, schema: Fixture.schema)
    }
    return columns
  }

  /// What the trainer computes: every value a row of its own, looked up one by one.
  func expected(_ store: ReplicaStore, _ candidates: [(user: UInt64, tags: [UInt64], item: UInt64)]) -> [Float] {
    let served = store.models[0]
    var rows = [[Float]](repeating: [], count: 3)
    var features = (0..<3).map { FeatureColumn(table: $0, offsets: [0], rows: []) }
    for candidate in candidates {
      for (table, ids) in [[candidate.user], candidate.tags, [candidate.item]].enumerated() {
        let width = store.tableOptions[table].defaultRow.count
        for id in ids {
          features[table].rows.append(Int32(rows[table].count / width))
          rows[table] +=
            id < 100 ? Fixture.row(id, table: table, width: width) : store.tableOptions[table].defaultRow
        }
        features[table].offsets.append(Int32(features[table].rows.count))
      }
    }
    var scratch = Scratch()
    var logits = [Float](repeating: 0, count: candidates.count * 2)
    served.model.forward(
      Batch(exampleCount: candidates.count, features: features), rows: rows, dense: Fixture.dense(store),
      scratch: &scratch, logits: &logits)
    return logits.prefix(candidates.count * 2).map { Losses.sigmoid($0) }
  }

  @Test(arguments: ["logistic", "fm"]) func `probabilities are those of the trainer`(kind: String) throws {
    let predictor = try Fixture.predictor(kind)
    var random = SeededRandom(seed: 5)
    for size in [1, 7, 50, 2] {
      let candidates = (0..<size).map { _ in
        (
          user: UInt64.random(in: 0..<120, using: &random),
          tags: (0..<Int.random(in: 0...4, using: &random)).map { _ in UInt64.random(in: 0..<120, using: &random) },
          item: UInt64.random(in: 0..<120, using: &random)
        )
      }
      let prediction = try #require(predictor.predict(model: kind, columns(candidates)))
      let wanted = expected(predictor.store, candidates)
      #expect(prediction.probabilities.count == wanted.count)
      for (got, want) in zip(prediction.probabilities, wanted) { #expect(abs(got - want) < 1e-5) }
      #expect(Set(prediction.probabilities).count > size)
    }
  }

  @Test func `the odds of a task are multiplied by its sampling rate`() throws {
    let candidates = [(user: UInt64(1), tags: [UInt64(2)], item: UInt64(3))]
    let plain = try #require(Fixture.predictor().predict(model: "fm", columns(candidates)))
    let corrected = try #require(Fixture.predictor(rates: [0.1, 1]).predict(model: "fm", columns(candidates)))
    func odds(_ probability: Float) -> Float { probability / (1 - probability) }
    #expect(abs(odds(corrected.probabilities[0]) / odds(plain.probabilities[0]) - 0.1) < 1e-5)
    #expect(corrected.probabilities[1] == plain.probabilities[1])
  }

  @Test func `an answer from default rows only is told apart`() throws {
    let predictor = try Fixture.predictor()
    let known = try #require(predictor.predict(model: "fm", columns([(500, [], 3)])))
    let unknown = try #require(predictor.predict(model: "fm", columns([(500, [600], 700)])))
    #expect(!known.isFromDefaultRowsOnly && known.rowsAsked == 2 && known.rowsFound == 1)
    #expect(unknown.isFromDefaultRowsOnly)
    #expect(known.version == Fixture.version)
  }

  @Test func `there is no answer before a base, and readers keep the old one until the next is complete`() throws {
    let store = try Fixture.empty()
    let predictor = try Predictor(store: store, schema: Fixture.schema)
    let candidate = try columns([(1, [], 1)])
    #expect(predictor.predict(model: "fm", candidate) == nil)
    #expect(throws: StoreError.noBase) { try store.publish(Fixture.version) }
    try Fixture.load(store)
    let first = try #require(predictor.predict(model: "fm", candidate))
    store.beginBase()
    try store.setDense(model: "fm", tensors: Fixture.dense(store))
    #expect(predictor.predict(model: "fm", candidate) == first)
    try store.commitBase(VersionInfo(number: 4, newestEventTime: 5, appliedAt: 6))
    let second = try #require(predictor.predict(model: "fm", candidate))
    #expect(second.isFromDefaultRowsOnly && second.version.number == 4)
  }

  @Test func `rows, tombstones and dense tensors of a version show in the next prediction`() throws {
    let predictor = try Fixture.predictor()
    let store = predictor.store
    let candidate = try columns([(1, [], 500)])
    let before = try #require(predictor.predict(model: "fm", candidate))
    let width = store.tableOptions[0].defaultRow.count
    try store.apply(
      table: 0, ids: View(copying: [1]), weights: View(copying: Fixture.row(77, table: 0, width: width)))
    let moved = try #require(predictor.predict(model: "fm", candidate))
    #expect(moved.probabilities != before.probabilities)
    try store.remove(table: 0, ids: View(copying: [1]))
    #expect(try #require(predictor.predict(model: "fm", candidate)).isFromDefaultRowsOnly)
    if !Fixture.dense(store).isEmpty {
      let shifted = Fixture.dense(store).map { $0.map { $0 + 1 } }
      let old = try #require(predictor.predict(model: "fm", candidate))
      try store.setDense(model: "fm", tensors: shifted)
      #expect(try #require(predictor.predict(model: "fm", candidate)).probabilities != old.probabilities)
    }
    try store.publish(VersionInfo(number: 9, newestEventTime: 5, appliedAt: 6))
    #expect(predictor.predict(model: "fm", candidate)?.version.number == 9)
  }

  @Test func `what does not fit the store is refused and says why`() throws {
    let store = try Fixture.empty()
    #expect(throws: StoreError.unknownTable("shop")) { try store.table(named: "shop") }
    #expect(throws: StoreError.noBaseBegun) { try store.commitBase(Fixture.version) }
    try Fixture.load(store)
    let width = store.tableOptions[0].defaultRow.count
    #expect(throws: StoreError.countMismatch(table: "user", ids: 1, weights: 1, width: width)) {
      try store.apply(table: 0, ids: View(copying: [1]), weights: View(copying: [1]))
    }
    #expect(throws: StoreError.unknownModel("x")) { try store.setDense(model: "x", tensors: []) }
    var narrow = store.tableOptions
    narrow[1].defaultRow = [0]
    #expect(throws: StoreError.widthMismatch(table: "tag", expected: width, got: 1)) {
      try ReplicaStore(tables: narrow, models: [Fixture.options("fm")])
    }
    #expect(throws: StoreError.tableMissing(model: "fm", table: 2, tables: 2)) {
      try ReplicaStore(tables: Array(store.tableOptions[..<2]), models: [Fixture.options("fm")])
    }
    #expect(throws: PredictorError.unknownFeature(model: "fm", feature: "item")) {
      var schema = Fixture.schema
      schema.features.remove(at: 2)
      _ = try Predictor(store: store, schema: schema)
    }
  }
}
