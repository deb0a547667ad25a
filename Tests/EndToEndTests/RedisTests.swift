import Base
import Cluster
import Foundation
import Glibc
import RedisTesting
import Testing

@Suite("The whole loop on Redis", .serialized) struct RedisTests {
  /// All three streams are on Redis; joiner and trainer are killed, and so is the server.
  @Test func `with streams on Redis, kill -9 of roles and of the server loses and repeats nothing`() throws {
    guard let server = try RedisProcess() else { return }
    let scratch = try Scratch()
    let traffic = try scratch.makeTraffic(4000)
    let log = "\(scratch.path)/up.log"
    let settings = ["impressions", "actions", "examples"].flatMap {
      ["--set", "streams.\($0).carrier=redis://127.0.0.1:\(server.port)/test"]
    }
    let process = try start(scratch.up(traffic, settings + ["--speed", "500/s"]), output: log)
    defer { if process.isRunning { process.terminate() } }
    var victims = ["joiner-0", "redis", "trainer-0", "redis", "joiner-0"]
    let deadline = Clocks.monotonic() + 150_000_000_000
    var nextKill = Clocks.monotonic() + 2_000_000_000
    while process.isRunning, Clocks.monotonic() < deadline {
      usleep(50_000)
      guard Clocks.monotonic() >= nextKill, let victim = victims.first,
        (status(of: "joiner-0", in: scratch)?.counters["examples"] ?? 0) > 0
      else { continue }
      if victim == "redis" {
        server.kill()
        try server.start()
      } else {
        guard let pid = status(of: victim, in: scratch)?.pid, kill(pid, SIGKILL) == 0 else { continue }
      }
      victims.removeFirst()
      nextKill = Clocks.monotonic() + 1_000_000_000
    }
    try #require(!process.isRunning, "the replay did not end: \(tail(log))")
    #expect(victims.isEmpty, "the replay ended before \(victims) could be killed")
    try #require(process.terminationStatus == 0, "\(tail(log))")
    let report = try scratch.readReport()
    #expect(report.labels["click"]?.emitted == 4000 && report.labels["like"]?.emitted == 4000)
    #expect(report.updates.count == 2 && report.updates.allSatisfy { $0.missing == 0 })
    #expect(report.prequential["click"]?.all.count == 4000)
    #expect(report.digest.equal)
    // Nothing of the streams is in the state directory.
    #expect(!Files.exists("\(scratch.state)/streams/examples"))
  }

  private func status(of role: String, in scratch: Scratch) -> RoleStatus? {
    guard let data = try? Data(contentsOf: URL(filePath: "\(scratch.state)/\(role)/status.json")) else { return nil }
    return try? JSONDecoder().decode(RoleStatus.self, from: data)
  }
}
