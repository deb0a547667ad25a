import Base
import Cluster
import Foundation
import Serving
import Syncing
import Testing
import Wire

/// What operators ask of sync, what applications ask of replicas, by the real command and over real sockets.
@Suite("Steering sync", .serialized) struct SyncCommandTests {
  private final class Box {
    var asker: Asker
    init(_ asker: consuming Asker) { self.asker = asker }
  }

  @Test func `all replicas go back to a version, stay, and come on again`() throws {
    let scratch = try Scratch()
    let traffic = try scratch.makeTraffic(3000)
    let state = ["--state", scratch.state]
    let cluster = try OperatorTests.Running(scratch, events: traffic)
    defer { cluster.stop() }
    let configuration = try ClusterConfiguration(file: "\(scratch.state)/cluster.yaml")
    let endpoints = Endpoints(configuration, socketDirectory: StatePaths(scratch.state).socketDirectory)
    let context = LinkContext()
    let replicas = try (0..<configuration.replicas.count).map {
      Box(try Asker(endpoint: endpoints.replica($0), context: context))
    }
    let shards = try (0..<configuration.shards.count).map {
      Box(try Asker(endpoint: endpoints.shard($0), context: context))
    }
    func served() throws -> [DigestReply] { try replicas.map { try $0.asker.digest(halfPrecision: false) } }
    var all = DigestReply()
    for shard in shards { all.merge(try shard.asker.digest(halfPrecision: false)) }
    #expect(try served().allSatisfy { $0 == all })

    let list = try guira(["sync", "list", "--json"] + state)
    let versions = try JSONDecoder().decode([VersionSummary].self, from: Data(list.output.utf8))
    let target = try #require(versions.first { $0.canReturn && ($0.rows ?? 1) > 0 })
    let shown = try guira(["sync", "show", "\(target.number)"] + state)
    #expect(shown.code == 0 && shown.output.contains("checksum right"), "\(shown.errors)")

    let back = try guira(["sync", "rollback", "--to", "\(target.number)"] + state)
    #expect(
      back.code == 0 && back.output.contains("2 replicas serve the state of version \(target.number)"), "\(back.errors)"
    )
    let pinned = try served()
    #expect(pinned[0] == pinned[1])
    // Under load all rows may have come in one version; then the state of it is that of now.
    let isNewest = !versions.contains { $0.number > target.number && ($0.rows ?? 1) > 0 }
    #expect(pinned[0] != all || isNewest)
    let again = try guira(["sync", "list"] + state)
    #expect(again.output.contains("back to \(target.number)"))

    let on = try guira(["sync", "resume"] + state)
    #expect(on.code == 0 && on.output.contains("2 replicas follow the shards again"), "\(on.errors)")
    #expect(try served().allSatisfy { $0 == all })

    let pause = try guira(["sync", "pause"] + state)
    #expect(pause.code == 0 && pause.output.contains("2 replicas stay at the state"), "\(pause.errors)")
    #expect(try served().allSatisfy { $0 == all })
    let found = try rows(replicas[0], Array(0..<500)).found.array
    let user = try #require(found.firstIndex(of: 1))
    let forgotten = try guira(["forget", "user_id", "\(user)"] + state)
    #expect(forgotten.code == 0, "\(forgotten.errors)")
    try waitUntil("paused replicas have dropped the row") {
      try replicas.allSatisfy { try rows($0, [UInt64(user)]).found[0] == 0 }
    }
    #expect(try guira(["sync", "resume"] + state).code == 0)
    #expect(try guira(["sync", "resume"] + state).errors.contains("replicas are not pinned"))
    #expect(try guira(["sync", "rollback", "--to", "99999999"] + state).code == 1)
  }

  private func rows(_ replica: Box, _ ids: [UInt64], table: String = "main.user_id") throws -> RowsReply {
    var reader = try replica.asker.ask { RowsRequest.encoded(table: table, ids: ids, request: $0) }
    return try RowsReply(decoding: &reader)
  }

  @Test func `rows over ZeroMQ and explanations agree with the shards`() throws {
    let scratch = try Scratch()
    let cluster = try OperatorTests.Running(scratch, events: try scratch.makeTraffic(1000))
    defer { cluster.stop() }
    let configuration = try ClusterConfiguration(file: "\(scratch.state)/cluster.yaml")
    let endpoints = Endpoints(configuration, socketDirectory: StatePaths(scratch.state).socketDirectory)
    let replica = Box(try Asker(endpoint: endpoints.replica(0), context: LinkContext()))
    let shards = try ClusterOperator(configuration, paths: StatePaths(scratch.state))
    let ids = Array(0..<100 as Range<UInt64>)
    let reply = try rows(replica, ids)
    #expect(reply.found.array.contains(1) && reply.version > 0)
    struct Row: Decodable {
      var found: Bool
      var weights: [Float]?
    }
    for (place, id) in ids.enumerated() {
      let row = try #require(
        JSONDecoder().decode([Row].self, from: Data(shards.inspect(table: "main.user_id", id: id).utf8)).first)
      #expect(row.found == (reply.found[place] == 1))
      guard let weights = row.weights else { continue }
      #expect(Array(reply.weights.array[place * reply.width..<(place + 1) * reply.width]) == weights)
    }
    #expect(throws: ErrorReply.self) { try rows(replica, [1], table: "nobody") }
    #expect(throws: ErrorReply.self) { try rows(replica, Array(repeating: 1, count: 65_537)) }

    let user = try #require(reply.found.array.firstIndex(of: 1))
    let features = configuration.features.map { feature in
      "\"\(feature.name)\": " + (feature.name == "user_id" ? "\(user)" : "null")
    }
    let request = "\(scratch.path)/request.json"
    try Data("{\"instances\": [{\(features.joined(separator: ", "))}]}".utf8).write(to: URL(filePath: request))
    let page = try guira(["explain", "prediction", request, "--state", scratch.state])
    #expect(page.code == 0 && page.output.contains("user_id \(user): row of version"), "\(page.errors)")
    #expect(page.output.contains("interaction"))

    let metrics = try ReplicaRequest.get("/metrics", from: .init(port: scratch.httpPort))
    #expect(metrics.status == 200)
    let status = try guira(["status", "--metrics", "--state", scratch.state])
    guard let tool = DeployTests.find("promtool") else { return }
    for text in [Data(metrics.body), Data(status.output.utf8)] {
      let said = try DeployTests.run(tool, ["check", "metrics"], input: text)
      #expect(said.code == 0 && said.text == "", "\(said.text)")
    }
  }
}
