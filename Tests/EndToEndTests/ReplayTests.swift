import Base
import Cluster
import Foundation
import Glibc
import Testing

@Suite("The whole loop", .serialized) struct ReplayTests {
  @Test func `a replay trains, ships, predicts and reports without losing a label`() throws {
    let scratch = try Scratch()
    let traffic = try scratch.makeTraffic(4000)
    let outcome = try guira(scratch.up(traffic, ["--speed", "max", "--predict-share", "1"]))
    try #require(outcome.code == 0, "\(outcome.errors)")
    let report = try scratch.readReport()
    check(report, impressions: 4000)
    #expect(report.updates.allSatisfy { $0.repeated == 0 && $0.refused == 0 })
    // Traffic repeats some impressions; a replica is asked about each that is sent.
    #expect(report.predictions.asked >= 4000)
    #expect(report.predictions.answered == report.predictions.asked)
    #expect(report.served["click"]?.all.count == 4000)
    let freshness = try #require(report.freshness)
    #expect(freshness.p50 > 0 && freshness.p50 <= freshness.p99)
    #expect(outcome.output.contains("Replicas equal shards"))
    #expect(scratch.rolePids().allSatisfy { kill($0, 0) != 0 }, "a process was left behind")
  }

  /// Kills one instance of every role, one after the other, while events flow.
  @Test func `kill -9 of every role loses and repeats nothing`() throws {
    let scratch = try Scratch()
    let traffic = try scratch.makeTraffic(6000)
    let log = "\(scratch.path)/up.log"
    let process = try start(scratch.up(traffic, ["--speed", "400/s"]), output: log)
    defer { if process.isRunning { process.terminate() } }
    var victims = ["trainer-0", "shard-1", "joiner-0", "sync-0", "replica-0", "shard-0"]
    let deadline = Clocks.monotonic() + 300_000_000_000
    var nextKill = Clocks.monotonic() + 3_000_000_000
    while process.isRunning, Clocks.monotonic() < deadline {
      usleep(50_000)
      guard Clocks.monotonic() >= nextKill, let victim = victims.first, isTraining(scratch) else { continue }
      guard let pid = pid(of: victim, in: scratch), kill(pid, SIGKILL) == 0 else { continue }
      victims.removeFirst()
      nextKill = Clocks.monotonic() + 1_500_000_000
    }
    try #require(!process.isRunning, "the replay did not end: \(tail(log))")
    #expect(victims.isEmpty, "the replay ended before \(victims) could be killed")
    try #require(process.terminationStatus == 0, "\(tail(log))")
    check(try scratch.readReport(), impressions: 6000)
  }

  /// One process holds shards and trainer; killed, both come back from the disk.
  @Test func `shards within the trainer's process lose and repeat nothing either`() throws {
    let scratch = try Scratch()
    let traffic = try scratch.makeTraffic(5000)
    let log = "\(scratch.path)/up.log"
    let settings = ["--set", "cluster.transport=inproc", "--set", "trainers.count=1", "--set", "trainers.threads=2"]
    let process = try start(scratch.up(traffic, settings + ["--speed", "600/s"]), output: log)
    defer { if process.isRunning { process.terminate() } }
    var kills = 0
    let deadline = Clocks.monotonic() + 300_000_000_000
    var nextKill = Clocks.monotonic() + 3_000_000_000
    while process.isRunning, Clocks.monotonic() < deadline {
      usleep(50_000)
      guard Clocks.monotonic() >= nextKill, kills < 2, isTraining(scratch) else { continue }
      guard let pid = pid(of: "trainer-0", in: scratch), pid == self.pid(of: "shard-0", in: scratch) else { continue }
      guard kill(pid, SIGKILL) == 0 else { continue }
      kills += 1
      nextKill = Clocks.monotonic() + 2_000_000_000
    }
    try #require(!process.isRunning, "the replay did not end: \(tail(log))")
    #expect(kills == 2)
    try #require(process.terminationStatus == 0, "\(tail(log))")
    check(try scratch.readReport(), impressions: 5000)
  }

  /// What holds after every replay, whatever happened meanwhile.
  private func check(_ report: Report, impressions: Int) {
    #expect(report.labels["click"]?.emitted == impressions)
    #expect(report.labels["like"]?.emitted == impressions)
    #expect((report.labels["click"]?.positive ?? 0) > impressions / 20)
    #expect(report.updates.count == 2)
    #expect(report.updates.allSatisfy { $0.missing == 0 })
    #expect(report.prequential["click"]?.all.count == impressions)
    #expect(report.digest.equal, "shards \(report.digest.shards), replicas \(report.digest.replicas)")
    #expect(report.digest.replicas.count == 2)
    #expect(report.tables.values.reduce(0) { $0 + $1.rows } > 100)
    #expect(report.versions.count > 0)
  }

  private func isTraining(_ scratch: Scratch) -> Bool {
    guard let status = status(of: "joiner-0", in: scratch) else { return false }
    return (status.counters["examples"] ?? 0) > 0
  }

  private func pid(of role: String, in scratch: Scratch) -> Int32? { status(of: role, in: scratch)?.pid }

  private func status(of role: String, in scratch: Scratch) -> RoleStatus? {
    guard let data = try? Data(contentsOf: URL(filePath: "\(scratch.state)/\(role)/status.json")) else { return nil }
    return try? JSONDecoder().decode(RoleStatus.self, from: data)
  }
}
