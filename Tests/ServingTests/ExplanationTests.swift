import Base
import Foundation
import Layers
import Streams
import Testing

@testable import Serving

/// The arithmetic of an explanation, against predictions of the same candidates.
@Suite("Explanations") struct ExplanationTests {
  private struct Answer: Decodable {
    struct Task: Decodable {
      var name: String
      var probability, logit, correction, bias, dense, interaction: Float
    }
    struct Feature: Decodable {
      struct ID: Decodable {
        var id: UInt64
        var found: Bool
        var version: UInt64?
      }
      var name: String
      var ids: [ID]
      var alone, without: [String: Float]
    }
    struct Candidate: Decodable {
      var tasks: [Task]
      var features: [Feature]
    }
    var candidates: [Candidate]
  }

  private typealias Values = (user: [UInt64], tags: [UInt64], item: [UInt64])

  private static let candidates: [Values] = [
    ([1], [2, 3], [5]), ([7], [], [500]), ([], [4, 4, 9], [6]), ([600], [700], [800]),
  ]

  private func explain(_ predictor: Predictor, _ kind: String) throws -> Answer {
    let instances = Self.candidates.map { candidate in
      let user = candidate.user.first.map { "\($0)" } ?? "null"
      let item = candidate.item.first.map { "\($0)" } ?? "null"
      return "{\"user\":\(user),\"tags\":\(candidate.tags),\"item\":\(item)}"
    }
    let body = Array("{\"instances\":[\(instances.joined(separator: ","))]}".utf8)
    let service = InferenceService(predictor: predictor, metrics: RequestMetrics(), stalenessLimit: nil)
    let reply = try service.explain(model: kind, body: body.span.bytes, jsonByteCount: nil)
    return try JSONDecoder().decode(Answer.self, from: Data(reply.body))
  }

  /// The logit of each task as a prediction has it.
  private func logits(_ predictor: Predictor, _ kind: String, _ values: Values) throws -> [Float] {
    var columns = FeatureColumns(schema: Fixture.schema)
    let block = FeatureBlock(
      schema: Fixture.schema,
      values: [.ids(values.user), .ids(values.tags), .ids(values.item), .numbers([0, 0])])
    try block.append(to: &columns, schema: Fixture.schema)
    let prediction = try #require(predictor.predict(model: kind, columns))
    return prediction.probabilities.map { log($0 / (1 - $0)) }
  }

  @Test(arguments: ["logistic", "fm", "deepfm", "dcn"])
  func `the parts of the logit add up to it, and each is a prediction's`(
    kind: String
  ) throws {
    // Without a sampling rate: what is compared are logits before the correction.
    let predictor = try Fixture.predictor(kind)
    let answer = try explain(predictor, kind)
    #expect(answer.candidates.count == Self.candidates.count)
    for (candidate, values) in zip(answer.candidates, Self.candidates) {
      let empty = try logits(predictor, kind, ([], [], []))
      let whole = try logits(predictor, kind, values)
      let only: [Values] = [(values.user, [], []), ([], values.tags, []), ([], [], values.item)]
      let others: [Values] = [
        ([], values.tags, values.item), (values.user, [], values.item), (values.user, values.tags, []),
      ]
      for (task, part) in candidate.tasks.enumerated() {
        let alone = candidate.features.map { $0.alone[part.name] ?? .nan }
        let sum = part.bias + alone.reduce(0, +) + part.dense + part.interaction
        #expect(abs(sum - part.logit) < 1e-5)
        #expect(abs(part.probability - Losses.sigmoid(part.logit + part.correction)) < 1e-6)
        #expect(abs(part.logit - whole[task]) < 1e-4 && abs(part.bias - empty[task]) < 1e-4)
        for feature in 0..<3 {
          let alone = try logits(predictor, kind, only[feature])[task] - empty[task]
          let without = try whole[task] - logits(predictor, kind, others[feature])[task]
          let said = candidate.features[feature]
          #expect(abs((said.alone[part.name] ?? .nan) - alone) < 1e-4)
          #expect(abs((said.without[part.name] ?? .nan) - without) < 1e-4)
        }
        // A sum of the features' own weights has nothing between them; pairs and layers do.
        #expect(kind == "logistic" ? abs(part.interaction) < 1e-5 : true)
      }
      for (feature, ids) in zip(candidate.features, [values.user, values.tags, values.item]) {
        #expect(Set(feature.ids.map(\.id)) == Set(ids))
        for id in feature.ids { #expect(id.found == (id.id < 100) && (id.version != nil) == id.found) }
      }
    }
    let first = try #require(answer.candidates.first)
    #expect(kind == "logistic" || first.tasks.contains { abs($0.interaction) > 1e-4 })
  }

  @Test func `the correction of a sampled task is told beside the logit, not in it`() throws {
    let plain = try explain(Fixture.predictor("fm"), "fm")
    let sampled = try explain(Fixture.predictor("fm", rates: [0.1, 1]), "fm")
    for (one, other) in zip(plain.candidates, sampled.candidates) {
      #expect(one.tasks.map(\.logit) == other.tasks.map(\.logit))
      #expect(abs(other.tasks[0].correction - log(0.1)) < 1e-6 && other.tasks[1].correction == 0)
      #expect(other.tasks[0].probability < one.tasks[0].probability)
    }
  }
}
