import Base
import Cluster
import Foundation
import Glibc
import Testing
import Wire

/// What operators do with a running cluster and with its files, by the real command.
@Suite("Operating", .serialized) struct OperatorTests {
  /// A cluster that has replayed some traffic and runs on.
  final class Running {
    let scratch: Scratch
    let process: Process
    let log: String

    init(_ scratch: Scratch, events: String) throws {
      self.scratch = scratch
      log = "\(scratch.path)/up.log"
      try? FileManager.default.removeItem(atPath: scratch.report)
      process = try start(scratch.up(events, ["--speed", "max", "--keep-running"]), output: log)
      let process = process
      try waitUntil("the replay is over") {
        FileManager.default.fileExists(atPath: scratch.report) || !process.isRunning
      }
      try #require(process.isRunning, "\(tail(log))")
    }

    deinit { stop() }

    func stop() {
      guard process.isRunning else { return }
      process.interrupt()
      process.waitUntilExit()
    }
  }

  @Test func `a forgotten id is erased from shards and replicas, and no restore brings it back`() throws {
    let scratch = try Scratch()
    let traffic = try scratch.makeTraffic(2000)
    let state = ["--state", scratch.state]
    var cluster = try Running(scratch, events: traffic)
    let configuration = try ClusterConfiguration(file: "\(scratch.state)/cluster.yaml")
    let shards = try ClusterOperator(configuration, paths: StatePaths(scratch.state))
    let id = try #require(
      try (0..<500 as Range<UInt64>).first {
        try shards.inspect(table: "main.user_id", id: $0).contains("\"weights\":[")
      })

    let page = try guira(["explain", "row", "user_id", "\(id)"] + state)
    #expect(page.code == 0 && page.output.contains("main.user_id id \(id)"), "\(page.errors)")
    #expect(page.output.contains("weights") && page.output.contains("written") && page.output.contains("main/0 to"))

    let created = try guira(["checkpoint", "create", "--name", "mine"] + state)
    #expect(created.code == 0 && created.output.contains("shard 1: checkpoint 'mine'"), "\(created.errors)")
    let list = try guira(["checkpoint", "list"] + state)
    #expect(list.code == 0 && list.output.contains("mine") && list.output.contains("main/0="), "\(list.errors)")
    let verified = try guira(["checkpoint", "verify"] + state)
    #expect(verified.code == 0 && verified.output.contains("blocks are whole"), "\(verified.errors)")
    let early = try guira(["checkpoint", "restore", "mine"] + state)
    #expect(early.code == 1 && early.errors.contains("stop the cluster first"), "\(early.errors)")

    let before = try replicaRows(configuration, scratch)
    let forgotten = try guira(["forget", "user_id", "\(id)"] + state)
    #expect(forgotten.code == 0 && forgotten.output.contains("1 of 1 ids were there"), "\(forgotten.errors)")
    #expect(try shards.inspect(table: "main.user_id", id: id) == "[{\"id\":\(id),\"found\":false}]")
    try waitUntil("the replicas have dropped the row") {
      try replicaRows(configuration, scratch) == before.map { $0 - 1 }
    }
    let gone = try guira(["explain", "row", "user_id", "\(id)"] + state)
    #expect(gone.output.contains("no row") && gone.output.contains("removed"))
    cluster.stop()
    let stopped = try guira(["explain", "row", "user_id", "\(id)"] + state)
    #expect(stopped.output.contains("does not answer") && stopped.output.contains("removed"), "\(stopped.errors)")

    let restored = try guira(["checkpoint", "restore", "mine"] + state)
    #expect(restored.code == 0 && restored.output.contains("1 forgotten rows were left out"), "\(restored.errors)")
    #expect(restored.output.contains("the state before is checkpoint 'before-restore-"))
    // The same events again: nothing is new, so only what the restore brought back is there.
    cluster = try Running(scratch, events: traffic)
    #expect(try shards.inspect(table: "main.user_id", id: id) == "[{\"id\":\(id),\"found\":false}]")
    #expect(try scratch.readReport().digest.equal)
  }

  @Test func `a restore killed before it counts changes nothing, and one that counts is trained on from there`() throws
  {
    let scratch = try Scratch()
    let traffic = try scratch.makeTraffic(2000)
    let state = ["--state", scratch.state]
    let empty = try start(scratch.up(), output: "\(scratch.path)/empty.log")
    defer { if empty.isRunning { empty.interrupt() } }
    try waitUntil("the shards write a checkpoint") {
      try guira(["checkpoint", "create", "--name", "empty"] + state).code == 0
    }
    empty.interrupt()
    empty.waitUntilExit()

    var cluster = try Running(scratch, events: traffic)
    let before = try scratch.readReport()
    cluster.stop()
    let killed = try guira(
      ["checkpoint", "restore", "empty", "--discard"] + state, environment: ["GUIRA_FAULT": "checkpoint.renamed:1"])
    #expect(killed.code == SIGKILL && !killed.output.contains("restored"))
    // The same events again are nothing new.
    cluster = try Running(scratch, events: traffic)
    #expect(try scratch.readReport().digest == before.digest)
    cluster.stop()

    let restored = try guira(["checkpoint", "restore", "empty", "--discard"] + state)
    #expect(restored.code == 0, "\(restored.errors)")
    cluster = try Running(scratch, events: traffic)
    let after = try scratch.readReport()
    #expect(after.digest.equal && after.updates.allSatisfy { $0.missing == 0 && $0.repeated == 0 })
  }

  /// Rows of the users' table on each replica.
  private func replicaRows(_ configuration: ClusterConfiguration, _ scratch: Scratch) throws -> [Int] {
    let endpoints = Endpoints(configuration, socketDirectory: StatePaths(scratch.state).socketDirectory)
    let context = LinkContext()
    return try (0..<configuration.replicas.count).map {
      var asker = try Asker(endpoint: endpoints.replica($0), context: context)
      return Int(try asker.digest(halfPrecision: false).tables["main.user_id"]?.count ?? 0)
    }
  }

  @Test func `a damaged shard refuses to start, says what it costs, and goes on when that is accepted`() throws {
    let scratch = try Scratch()
    let traffic = try scratch.makeTraffic(1000)
    try Running(scratch, events: traffic).stop()
    let journal = "\(scratch.state)/shard-0/journal"
    let name = try #require(
      try FileManager.default.contentsOfDirectory(atPath: journal).first { $0.hasSuffix(".segment") })
    var bytes = try Data(contentsOf: URL(filePath: "\(journal)/\(name)"))
    bytes[bytes.count / 2] ^= 1
    try bytes.write(to: URL(filePath: "\(journal)/\(name)"))
    let verified = try guira(["checkpoint", "verify", "--state", scratch.state])
    #expect(verified.code == 1 && verified.errors.contains("\(name) is damaged at byte"), "\(verified.errors)")
    let refused = try guira(["shard", "--state", scratch.state, "--index", "0"])
    #expect(refused.code == 1 && refused.errors.contains("going on with accepted loss gives up"), "\(refused.errors)")
    let process = try start(
      ["shard", "--state", scratch.state, "--index", "0", "--accept-loss"], output: "\(scratch.path)/shard.log")
    defer { process.terminate() }
    let configuration = try ClusterConfiguration(file: "\(scratch.state)/cluster.yaml")
    let endpoint = Endpoints(configuration, socketDirectory: StatePaths(scratch.state).socketDirectory).shard(0)
    let context = LinkContext()
    var asker = try Asker(endpoint: endpoint, context: context)
    #expect(try asker.shardStatus(timeout: .seconds(20)) != nil)
  }

  /// Needs a file system of its own, which only some users may mount.
  @Test func `a full disk holds pushes back and loses nothing`() throws {
    let scratch = try Scratch()
    let traffic = try scratch.makeTraffic(6000)
    let disk = "\(scratch.state)/shard-0"
    // `guira up` takes no strange directory: it makes this one, with a shard that holds nothing yet.
    let first = try start(["up", sampleConfiguration, "--state", scratch.state], output: "\(scratch.path)/first.log")
    try waitUntil("the shard runs") { status(of: "shard-0", scratch)?.state == .ready }
    first.interrupt()
    first.waitUntilExit()
    try FileManager.default.removeItem(atPath: disk)
    try FileManager.default.createDirectory(atPath: disk, withIntermediateDirectories: true)
    guard mountSmallDisk(disk) else {
      print("skipped: a full disk: mounting a tmpfs is not allowed here")
      return
    }
    defer { unmount(disk) }
    let log = "\(scratch.path)/up.log"
    let process = try start(
      scratch.up(traffic, ["--speed", "600/s", "--set", "shards.checkpointEvery=1s"]), output: log)
    defer { if process.isRunning { process.terminate() } }
    try waitUntil("the shard takes pushes") { (counter("pushes", of: "shard-0", scratch) ?? 0) > 3 }
    let filler = "\(disk)/filler"
    try fill(filler)
    try waitUntil("the shard says that its disk is full") {
      status(of: "shard-0", scratch)?.message.contains("no space is left") == true
    }
    let full = try ClusterStatus.read(StatePaths(scratch.state))
    #expect(full.problems.contains { $0.contains("no space is left") }, "\(full.problems)")
    let pushes = counter("pushes", of: "shard-0", scratch)
    usleep(1_500_000)  // long enough for a status written after the disk was full
    let held = counter("pushes", of: "shard-0", scratch)
    #expect((held ?? 0) <= (pushes ?? 0) + 16, "pushes go on being applied: \(pushes ?? 0), \(held ?? 0)")
    #expect(status(of: "shard-0", scratch)?.pid == pid(full), "the shard was started again")
    try FileManager.default.removeItem(atPath: filler)
    process.waitUntilExit()
    try #require(process.terminationStatus == 0, "\(tail(log))")
    let report = try scratch.readReport()
    #expect(report.labels["click"]?.emitted == 6000 && report.digest.equal)
    #expect(report.updates.allSatisfy { $0.missing == 0 })
  }

  private func pid(_ status: ClusterStatus) -> Int32? {
    status.entries.first { $0.instance == RoleInstance(.shard, 0) }?.status?.pid
  }

  private func counter(_ name: String, of role: String, _ scratch: Scratch) -> Double? {
    status(of: role, scratch)?.counters[name]
  }

  private func status(of role: String, _ scratch: Scratch) -> RoleStatus? {
    guard let data = try? Data(contentsOf: URL(filePath: "\(scratch.state)/\(role)/status.json")) else { return nil }
    return try? JSONDecoder().decode(RoleStatus.self, from: data)
  }

  private func mountSmallDisk(_ path: String) -> Bool { mount("tmpfs", path, "tmpfs", 0, "size=24m") == 0 }

  private func unmount(_ path: String) { umount2(path, Int32(MNT_DETACH)) }

  /// Takes all the space there is.
  private func fill(_ path: String) throws {
    let descriptor = open(path, O_WRONLY | O_CREAT, 0o644)
    try #require(descriptor >= 0)
    defer { close(descriptor) }
    let zeros = [UInt8](repeating: 0, count: 4096)
    while write(descriptor, zeros, zeros.count) > 0 {}
  }
}

/// Asks again and again until something holds; five minutes at most, which only a test that fails takes.
func waitUntil(_ what: String, _ holds: () throws -> Bool) throws {
  let deadline = Clocks.monotonic() + 300_000_000_000
  while Clocks.monotonic() < deadline {
    if try holds() { return }
    usleep(50_000)
  }
  try #require(try holds(), "not within five minutes: \(what)")
}

func tail(_ path: String) -> String {
  let text = (try? String(contentsOfFile: path, encoding: .utf8)) ?? ""
  return text.split(separator: "\n").suffix(15).joined(separator: "\n")
}
