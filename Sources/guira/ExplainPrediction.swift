// `guira explain prediction`: why a replica scores a candidate as it does.

import ArgumentParser
import Base
import Cluster
import Foundation
import Serving

struct ExplainPrediction: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "prediction", abstract: "Shows what a prediction is made of.",
    discussion: """
      The file holds a request as a replica takes it: {"instances": [{"user_id": 17, …}]}, or one of the Open Inference
      Protocol. For each candidate you see which of its ids have rows, from which version and how old, and the parts of
      each task's logit: bias, each feature alone, dense numbers, and the interaction of all of them, which add up to it.

      Examples:
        guira explain prediction request.json
        guira explain prediction request.json --model main --replica 1 --json
      """)

  @Argument(help: "The request; - for standard input.") var file: String
  @Option(help: "The model; by default the first one.") var model: String?
  @Option(help: "The replica that is asked, from 0.") var replica = 0
  @OptionGroup var state: StateOption
  @Flag(help: "Print the replica's answer as it is.") var json = false

  func run() throws {
    try reporting {
      let paths = state.paths
      guard Files.exists(paths.configuration) else {
        throw Failure("\(paths.root) is not the state of a cluster; name it with --state")
      }
      let configuration = try ClusterConfiguration(file: paths.configuration)
      guard (0..<configuration.replicas.count).contains(replica) else {
        throw Failure("--replica must be 0 to \(configuration.replicas.count - 1)", code: 2)
      }
      guard let model = model ?? configuration.models.first?.name else { throw Failure("there is no model", code: 2) }
      let body =
        file == "-" ? Array(FileHandle.standardInput.readDataToEndOfFile()) : try Files.read(file)
      let address = Endpoints(configuration, socketDirectory: paths.socketDirectory).http(replica: replica)
      let host = address.host == "0.0.0.0" ? "127.0.0.1" : address.host
      let answer = try ReplicaRequest.post(
        body, path: "/v2/models/\(model)/explain", to: .init(host: host, port: address.port))
      let text = String(decoding: answer.body, as: UTF8.self)
      guard answer.status == 200 else { throw Failure("the replica answered \(answer.status): \(text)") }
      write(json ? text + "\n" : try Self.page(Data(answer.body)))
    }
  }

  private struct Answer: Decodable {
    struct ID: Decodable {
      var id: UInt64
      var found: Bool
      var version: UInt64?
      var age_seconds: Int?
    }
    struct Feature: Decodable {
      var name: String
      var ids: [ID]
      var alone: [String: Float]
      var without: [String: Float]
    }
    struct Task: Decodable {
      var name: String
      var probability: Float
      var logit: Float
      var correction: Float
      var bias: Float
      var dense: Float
      var interaction: Float
    }
    struct Candidate: Decodable {
      var tasks: [Task]
      var features: [Feature]
    }
    var model: String
    var kind: String
    var version: UInt64
    var candidates: [Candidate]
  }

  private static func page(_ data: Data) throws -> String {
    let answer = try JSONDecoder().decode(Answer.self, from: data)
    var lines = ["model \(answer.model) (\(answer.kind)), version \(answer.version)"]
    for (place, candidate) in answer.candidates.enumerated() {
      lines.append("candidate \(place)")
      for feature in candidate.features {
        for id in feature.ids {
          let row =
            id.found ? "row of version \(id.version ?? 0), \(id.age_seconds ?? 0) s old" : "no row: the default one"
          lines.append("  \(feature.name) \(id.id): \(row)")
        }
        if feature.ids.isEmpty { lines.append("  \(feature.name): no value") }
      }
      for task in candidate.tasks {
        lines.append("  \(task.name): probability \(task.probability), logit \(task.logit)")
        lines.append("    bias \(signed(task.bias))")
        for feature in candidate.features {
          lines.append(
            "    \(feature.name) alone \(signed(feature.alone[task.name] ?? 0)); without it the logit would change by "
              + signed(-(feature.without[task.name] ?? 0)))
        }
        if task.dense != 0 { lines.append("    dense numbers \(signed(task.dense))") }
        lines.append("    interaction \(signed(task.interaction))")
        if task.correction != 0 { lines.append("    and for sampled negatives \(signed(task.correction))") }
      }
    }
    return lines.joined(separator: "\n") + "\n"
  }

  private static func signed(_ value: Float) -> String { (value < 0 ? "" : "+") + String(format: "%.5f", value) }
}
