import Base
import Cluster
import Foundation
import Serving
import Testing

@Suite("A replica of another configuration") struct MismatchTests {
  @Test func `it lives on, is never ready, and says which table differs`() throws {
    let scratch = try Scratch()
    let cluster = try OperatorTests.Running(scratch, events: try scratch.makeTraffic(300))
    defer { cluster.stop() }
    let configuration = try ClusterConfiguration(file: "\(scratch.state)/cluster.yaml")
    let endpoints = Endpoints(configuration, socketDirectory: StatePaths(scratch.state).socketDirectory)
    // A third replica, whose vectors are shorter than the shards'.
    let other = "\(scratch.path)/other.yaml"
    let text = try ClusterConfiguration(
      file: "\(scratch.state)/cluster.yaml", overrides: ["models.0.dimension=4", "replicas.count=3"]
    ).text
    try text.write(toFile: other, atomically: true, encoding: .utf8)
    try Files.makeDirectory("\(scratch.path)/other")
    let log = "\(scratch.path)/replica.log"
    let process = try start(
      ["replica", "--config", other, "--state", "\(scratch.path)/other", "--index", "2"], output: log,
      environment: ["GUIRA_SYNC": endpoints.sync])
    defer {
      process.terminate()
      process.waitUntilExit()
    }
    let place = PredictionClientOptions.Replica(port: scratch.httpPort + 2)
    let sentence = "weights per row in version"
    var ready: (status: Int, body: [UInt8]) = (0, [])
    try waitUntil("the replica says what differs") {
      ready = (try? ReplicaRequest.get("/readyz", from: place)) ?? (0, [])
      return String(decoding: ready.body, as: UTF8.self).contains(sentence) || !process.isRunning
    }
    try #require(process.isRunning, "\(tail(log))")
    let said = String(decoding: ready.body, as: UTF8.self)
    #expect(ready.status == 503)
    #expect(configuration.features.contains { said.contains("table 'main.\($0.name)' has ") }, "\(said)")
    #expect(try ReplicaRequest.get("/healthz", from: place).status == 200)
    let health = try ReplicaRequest.get("/v2/health/ready", from: place)
    #expect(health.status == 503 && health.body == ready.body)
    let status = try ReplicaRequest.get("/status", from: place)
    #expect(String(decoding: status.body, as: UTF8.self).contains(sentence))
    try waitUntil("status file and log say it too") {
      let file = (try? String(contentsOfFile: "\(scratch.path)/other/replica-2/status.json", encoding: .utf8)) ?? ""
      let lines = (try? String(contentsOfFile: log, encoding: .utf8)) ?? ""
      return file.contains(sentence) && lines.contains(sentence)
    }
    #expect(process.isRunning)
    // The others serve on.
    let first = try ReplicaRequest.get("/readyz", from: PredictionClientOptions.Replica(port: scratch.httpPort))
    #expect(first.status == 200)
  }
}
