import Base
import Foundation
import Streams
import Testing

/// A client that others wrote against the same protocol.
///
/// `make test-triton` puts it into an environment of its own; without that the test says loudly that it was skipped.
@Suite("tritonclient", .serialized) struct TritonTests {
  private struct Answer: Decodable {
    var live, ready, modelReady: Bool
    var server: String
    var inputs, outputs: [String]
    var answers: [String: [String: [Float]]]
    var lacking, unknown: String?
  }

  private static let python = packageRoot + ".build/triton/bin/python"

  private static var isThere: Bool {
    FileManager.default.isExecutableFile(atPath: python)
      && (try? DeployTests.run(python, ["-c", "import tritonclient.http"], in: packageRoot))?.code == 0
  }

  @Test func `health, metadata and predictions, by JSON and by binary tensors, are the trainer's`() throws {
    guard Self.isThere else {
      print("*** SKIPPED: tritonclient[http] is not in .build/triton; it was NOT tested. make test-triton ***")
      return
    }
    let scratch = try Scratch()
    let cluster = try ServedCluster(scratch, kind: "deepfm")
    defer { cluster.stop() }
    let schema = cluster.plan.configuration.eventSchema
    let tasks = cluster.plan.models[0].options.tasks.map(\.name)
    var columns: [String: [UInt64]] = [:]
    for impression in cluster.impressions {
      for (feature, value) in zip(schema.features, try impression.values(of: schema)) {
        guard case .ids(let ids) = value else { continue }
        columns[feature.name, default: []].append(try #require(ids.first))
      }
    }
    let question: [String: Any] = [
      "url": "127.0.0.1:\(scratch.httpPort)", "model": cluster.plan.models[0].settings.name, "tasks": tasks,
      "inputs": columns,
    ]
    let file = "\(scratch.path)/question.json"
    try JSONSerialization.data(withJSONObject: question).write(to: URL(filePath: file))
    let said = try DeployTests.run(
      Self.python, [packageRoot + "Tests/Python/triton_predict.py", file], in: packageRoot)
    try #require(said.code == 0, "\(said.text)")
    let answer = try JSONDecoder().decode(Answer.self, from: Data(said.text.utf8))
    #expect(answer.live && answer.ready && answer.modelReady && answer.server == "guira")
    #expect(Set(answer.inputs) == Set(columns.keys) && answer.outputs == tasks)
    let trained = try cluster.trained()
    #expect(answer.answers.count == 5)
    for (way, outputs) in answer.answers {
      for (task, name) in tasks.enumerated() {
        let probabilities = try #require(outputs[name])
        #expect(probabilities.count == cluster.impressions.count)
        for (index, probability) in probabilities.enumerated() {
          #expect(abs(probability - trained[index * tasks.count + task]) <= 1e-5, "\(way)")
        }
        #expect(Set(probabilities).count > 10)
      }
    }
    #expect(answer.lacking?.contains("'") == true && answer.unknown?.contains("nobody") == true)
  }
}
