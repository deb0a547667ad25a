import Base
import Cluster
import Foundation
import Glibc
import Support
import Testing

@Suite("Chaos") struct ChaosTests {
  /// `make chaos` sets the number of faults and the data; the default is what every test run does.
  @Test func `a cluster under faults ends with every number exact`() throws {
    let options = ChaosOptions()
    let root = "/tmp/guira-chaos-\(getpid())"
    defer { try? FileManager.default.removeItem(atPath: root) }
    let outcome = Mailbox<Result<ChaosReport, any Error>>(bound: 1)
    // Processes end with the thread that started them, so one thread does all of it.
    let thread = OwnedThread(named: "chaos") { _ = outcome.offer(Result { try Self.run(options, root: root) }) }
    thread.join()
    let report = try #require(outcome.takeAll().first).get()
    print(report.table)
    if let path = options.report { try Data(report.json.utf8).write(to: URL(filePath: path)) }
    #expect(report.isExact)
    #expect(report.totalFaults >= options.faults)
    #expect(report.endings == [])
    if options.faults >= 100 {
      let hit = Set(report.phases.filter { $0.kills > 0 }.map(\.name))
      #expect(
        hit.isSuperset(of: [
          "push", "block write", "fsync", "acknowledgement", "claim", "checkpoint write", "checkpoint rename",
          "checkpoint clearing",
        ]))
      #expect(Fault.allCases.allSatisfy { report.faults[$0.rawValue, default: 0] > 0 })
    }
  }

  private static func run(_ options: ChaosOptions, root: String) throws -> ChaosReport {
    var events = options.events
    if events == nil {
      try Files.makeDirectory(root)
      let traffic = try generateTraffic(options, in: root)
      events = traffic
    }
    let run = try ChaosRun(options, root: "\(root)/state", httpPort: Ports.free(), events: events ?? "")
    var report: ChaosReport
    do { report = try run.run() } catch {
      run.end()
      if let kept = ProcessInfo.processInfo.environment["GUIRA_CHAOS_KEEP"] { keep(root, as: kept) }
      throw ChaosError("seed \(options.seed): \(error)\n\(run.report.table)")
    }
    run.end()
    report.messagesLost = run.report.messagesLost
    if let kept = ProcessInfo.processInfo.environment["GUIRA_CHAOS_KEEP"] { keep(root, as: kept) }
    return report
  }

  /// Puts the state directory aside, for a look at logs and journals.
  static func keep(_ root: String, as path: String) {
    try? FileManager.default.removeItem(atPath: path)
    try? FileManager.default.moveItem(atPath: root, toPath: path)
  }

  private static func generateTraffic(_ options: ChaosOptions, in root: String) throws -> String {
    let process = Process()
    process.executableURL = URL(filePath: options.command)
    process.arguments = [
      "events", "generate", "-o", "\(root)/traffic", "--impressions", "\(options.impressions)", "--seed",
      "\(options.seed)",
    ]
    process.standardOutput = FileHandle.nullDevice
    process.standardError = FileHandle.nullDevice
    try process.run()
    process.waitUntilExit()
    guard process.terminationStatus == 0 else { throw ChaosError("no traffic: code \(process.terminationStatus)") }
    return "\(root)/traffic"
  }
}
