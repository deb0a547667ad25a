import Base
import Cluster
import Foundation
import Glibc
import Layers
import Serving
import Sharding
import Streams
import Testing
import Wire

/// The same parameters give the same prediction, whether a replica serves them over HTTP or the trainer's arithmetic
/// runs on rows pulled from the shards.
@Suite("Serving equals training", .serialized) struct PredictionTests {
  @Test(arguments: ["fm", "logistic", "deepfm"]) func `a prediction over HTTP equals the model on the shards' rows`(
    kind: String
  ) throws {
    let scratch = try Scratch()
    let cluster = try ServedCluster(scratch, kind: kind)
    defer { cluster.stop() }
    let (plan, impressions) = (cluster.plan, cluster.impressions)
    let client = PredictionClient(
      options: PredictionClientOptions(replicas: [.init(port: scratch.httpPort)]), model: plan.models[0].settings.name,
      schema: plan.configuration.eventSchema)
    let served = client.predict(impressions)
    let trained = try cluster.trained()
    for (index, answer) in served.enumerated() {
      let answer = try #require(answer)
      #expect(!answer.defaultRowsOnly)
      for (task, probability) in answer.probabilities.enumerated() {
        #expect(abs(probability - trained[index * answer.probabilities.count + task]) <= 1e-5)
      }
    }
    // Trained models differ between impressions: equal constants would prove nothing.
    #expect(Set(served.compactMap { $0?.probabilities.first }).count > 10)
  }
}

/// A cluster that has trained on some traffic and serves it.
final class ServedCluster {
  let plan: ClusterPlan
  /// Fifty of the impressions it was trained on.
  private(set) var impressions: [FeatureBlock] = []
  private let endpoints: Endpoints
  private let process: Process

  init(_ scratch: Scratch, kind: String) throws {
    let traffic = try scratch.makeTraffic(2000)
    let log = "\(scratch.path)/up.log"
    process = try start(
      scratch.up(traffic, ["--speed", "max", "--keep-running", "--set", "models.0.kind=\(kind)"]), output: log)
    let process = process
    do {
      try waitUntil("the replay is over") {
        FileManager.default.fileExists(atPath: scratch.report) || !process.isRunning
      }
      try #require(process.isRunning, "\(tail(log))")
      let configuration = try ClusterConfiguration(file: "\(scratch.state)/cluster.yaml")
      plan = try ClusterPlan(configuration)
      endpoints = Endpoints(configuration, socketDirectory: StatePaths(scratch.state).socketDirectory)
      var input = try EventInput.open(path: traffic, schema: configuration.eventSchema, importInto: scratch.path)
      while impressions.count < 50, let event = try input.next() {
        if case .impression(let impression) = event { impressions.append(impression.features) }
      }
    } catch {
      process.terminate()
      process.waitUntilExit()
      throw error
    }
  }

  func stop() {
    process.terminate()
    process.waitUntilExit()
  }

  /// What the trainer would say of the impressions, from rows pulled over the wire.
  ///
  /// Shape `[impressions × tasks]`.
  func trained() throws -> [Float] {
    let schema = plan.configuration.eventSchema
    let model = try makeModel(plan.models[0].options)
    var columns = FeatureColumns(schema: schema)
    for block in impressions { try block.append(to: &columns, schema: schema) }
    let tableOfFeature = schema.features.map { feature in
      plan.models[0].options.features.first { $0.name == feature.name }?.table
    }
    var assembler = BatchAssembler(tableOfFeature: tableOfFeature, tableCount: plan.tables.count)
    assembler.assemble(columns)
    var rows = plan.tables.indices.map { table in
      [Float](repeating: 0, count: assembler.uniqueIds[table].count * model.rowWidth(table: table))
    }
    var dense = model.denseTensors.map { [Float](repeating: 0, count: $0.count) }
    let context = LinkContext()
    for shard in 0..<plan.configuration.shards.count {
      var asker = try Asker(endpoint: endpoints.shard(shard), context: context)
      let places = plan.tables.indices.map { table in
        assembler.uniqueIds[table].indices.filter { plan.map.shard(of: assembler.uniqueIds[table][$0]) == shard }
      }
      var reader = try asker.ask { request in
        PullRequest.encoded(
          request: request, mapNumber: plan.map.number, eventTime: 0, wantsDense: true,
          sections: plan.tables.indices.map { table in
            (table, places[table].map { assembler.uniqueIds[table][$0] }, places[table].map { _ in 1 })
          })
      }
      let reply = try PullReply(decoding: &reader)
      for table in plan.tables.indices {
        let width = model.rowWidth(table: table)
        for (index, place) in places[table].enumerated() {
          for column in 0..<width { rows[table][place * width + column] = reply.rows[table][index * width + column] }
        }
      }
      for tensor in reply.tensors { dense[tensor.tensor] = tensor.values.array }
    }
    let batch = Batch(
      exampleCount: impressions.count,
      features: plan.models[0].options.features.map { feature in
        let index = schema.features.firstIndex { $0.name == feature.name } ?? 0
        return FeatureColumn(table: feature.table, offsets: columns.offsets[index], rows: assembler.rowNumbers[index])
      })
    var logits: [Float] = []
    var scratch = Layers.Scratch()
    model.forward(batch, rows: rows, dense: dense, scratch: &scratch, logits: &logits)
    return logits.map { Losses.sigmoid($0) }
  }
}
