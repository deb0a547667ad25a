import Base
import Cluster
import Foundation
import Glibc
import Support
import Testing
import Wire

/// Keys as an operator meets them: made, shown, missing, revoked; and a whole cluster that speaks by them over tcp.
@Suite("Keys", .serialized) struct KeysTests {
  private let scratch: Scratch

  init() throws { scratch = try Scratch() }

  private func keys(_ command: String, _ more: [String] = []) throws -> Outcome {
    try guira(["keys", command, "--config", sampleConfiguration, "--state", scratch.state] + more)
  }

  private func read(_ name: String) throws -> String {
    String(decoding: try Files.read("\(scratch.state)/keys/\(name)"), as: UTF8.self)
  }

  private func permissions(_ name: String) -> mode_t {
    var status = stat()
    return stat("\(scratch.state)/keys/\(name)", &status) == 0 ? status.st_mode & 0o777 : 0
  }

  private static let names = [
    "shard-0", "shard-1", "sync-0", "replica-0", "replica-1", "trainer-0", "operator-0",
  ]

  @Test func `keys are made once, private, and shown without secrets`() throws {
    let none = try keys("show")
    #expect(none.code == 1 && none.errors.contains("guira keys create"))
    let made = try keys("create")
    #expect(made.code == 0, "\(made.errors)")
    #expect(made.output.contains("7 made, 0 kept") && made.output.contains("security.mode is none"))
    #expect(permissions("") == 0o700)
    let secrets = try Self.names.map { name in
      #expect(permissions("\(name).secret") == 0o600)
      return String(try read("\(name).secret").split(separator: "\n")[1])
    }
    let list = try read("allowed")
    let shown = try keys("show")
    #expect(shown.code == 0)
    for (name, secret) in zip(Self.names, secrets) {
      let key = try #require(SecretKey(secret)).publicKey.description
      #expect(list.contains("\(name) ") && list.contains(key))
      #expect(shown.output.contains(key))
      for text in [list, shown.output, shown.errors, made.output] { #expect(!text.contains(secret)) }
    }
    // Again: nothing changes, also not what was added by hand.
    let again = try keys("create")
    #expect(again.output.contains("0 made, 7 kept"))
    #expect(try read("allowed") == list)
  }

  @Test func `what is missing, revoked or replaced is told`() throws {
    #expect(try keys("create").code == 0)
    let before = try read("trainer-0.secret")
    let more = try keys("show", ["--set", "replicas.count=3"])
    #expect(more.output.contains("replica-2   replica   ----") && more.output.contains("missing: it has no key"))
    let fewer = try keys("show", ["--set", "replicas.count=1"])
    #expect(fewer.output.contains("not in the configuration"))

    let list = try read("allowed").split(separator: "\n").filter { !$0.hasPrefix("trainer-0 ") }
    try Files.replace("\(scratch.state)/keys/allowed", with: Array(list.map { "\($0)\n" }.joined().utf8))
    #expect(try keys("show").output.contains("revoked: its line is gone"))
    let create = try keys("create")
    #expect(create.output.contains("trainer-0 was revoked and stays so"))
    #expect(try read("trainer-0.secret") == before)

    let replaced = try keys("create", ["--replace", "trainer-0"])
    #expect(replaced.output.contains("1 made, 6 kept"))
    #expect(try read("trainer-0.secret") != before)
    #expect(!(try keys("show").output.contains("revoked")))
    let unknown = try keys("create", ["--replace", "trainer-9"])
    #expect(unknown.code == 1 && unknown.errors.contains("there is no trainer-9 in this cluster"))
  }

  @Test func `without keys a cluster that needs them does not start, and says how to make them`() throws {
    let traffic = try scratch.makeTraffic(100)
    let outside = try guira(
      scratch.up(traffic, ["--set", "cluster.transport=tcp", "--set", "cluster.host=0.0.0.0"]))
    #expect(outside.code == 2)
    #expect(outside.errors.contains("make keys with `guira keys create`"), "\(outside.errors)")
    let curve = try guira(scratch.up(traffic, ["--set", "security.mode=curve"]))
    #expect(curve.code == 2)
    #expect(curve.errors.contains("guira keys create --config FILE --state"), "\(curve.errors)")
    #expect(!Files.exists(scratch.state))

    #expect(try keys("create").code == 0)
    chmod("\(scratch.state)/keys/sync-0.secret", 0o644)
    let open = try guira(scratch.up(traffic, ["--set", "security.mode=curve"]))
    #expect(open.code == 2)
    #expect(open.errors.contains("sync-0.secret has permissions 644"), "\(open.errors)")
    #expect(!Files.exists("\(scratch.state)/cluster.json"))
  }

  @Test(arguments: ["tcp", "ipc"]) func `a cluster with keys trains, ships, predicts, and lets nobody else in`(
    transport: String
  ) throws {
    let traffic = try scratch.makeTraffic(3000)
    #expect(try keys("create").code == 0)
    let base = try Ports.free(8)
    let log = "\(scratch.path)/up.log"
    let process = try start(
      scratch.up(
        traffic,
        [
          "--speed", "max", "--predict-share", "1", "--keep-running", "--set", "security.mode=curve", "--set",
          "cluster.transport=\(transport)", "--set", "cluster.basePort=\(base)",
        ]), output: log)
    defer {
      if process.isRunning { process.terminate() }
      process.waitUntilExit()
    }
    try wait(for: 300, while: { process.isRunning }) { Files.exists(scratch.report) }
    try #require(Files.exists(scratch.report), "\((try? String(contentsOfFile: log, encoding: .utf8)) ?? "")")
    let report = try scratch.readReport()
    #expect(report.digest.equal && report.digest.shards == report.digest.replicas.first)
    #expect(report.updates.allSatisfy { $0.missing == 0 && $0.refused == 0 })
    #expect(report.predictions.answered == report.predictions.asked)

    let configuration = try ClusterConfiguration(file: "\(scratch.state)/cluster.yaml")
    let paths = StatePaths(scratch.state)
    let endpoints = Endpoints(configuration, socketDirectory: paths.socketDirectory)
    let keys = ClusterKeys(configuration, paths)
    var asker = try Asker(
      endpoint: endpoints.shard(0), context: LinkContext(try keys.security(of: ClusterKeys.operatorName)))
    let forget = { (request: UInt64) in
      IDsRequest(table: "main.user_id", ids: [1]).encoded(.forget, request: request)
    }
    _ = try asker.ask(forget)
    var trainer = try Asker(
      endpoint: endpoints.shard(0), context: LinkContext(try keys.security(of: "trainer-0")))
    #expect(throws: ErrorReply.forbidden(.forget, to: .trainer)) { _ = try trainer.ask(forget) }
    let stranger = try SocketGroup(connecting: [endpoints.shard(0)], context: LinkContext())
    #expect(stranger.send(forget(1), to: 0))
    try wait(for: 300, while: { process.isRunning }) {
      let counters = try asker.shardStatus()?.counters ?? [:]
      return counters["nullClients"] ?? 0 > 0 && counters["forbidden"] == 1
    }
    let counters = try asker.shardStatus()?.counters ?? [:]
    #expect(counters["nullClients"] ?? 0 > 0 && counters["forbidden"] == 1)
    #expect(try stranger.receive(from: 0) == nil)
  }

  private func wait(for seconds: Int64, while goesOn: () -> Bool, until isDone: () throws -> Bool) throws {
    let deadline = Clocks.monotonic() + seconds * 1_000_000_000
    while goesOn(), Clocks.monotonic() < deadline, !(try isDone()) { usleep(50_000) }
  }
}
