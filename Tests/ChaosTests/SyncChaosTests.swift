import Base
import Foundation
import Support
import Testing

@Suite("Chaos between sync and replicas") struct SyncChaosTests {
  /// `make chaos-sync` sets the number of faults; the default is what every test run does.
  @Test func `replicas behind a bad network end up equal to the shards and never serve what is gone`() throws {
    let options = SyncChaosOptions()
    let root = "/tmp/guira-syncchaos-\(getpid())"
    defer { try? FileManager.default.removeItem(atPath: root) }
    let outcome = Mailbox<Result<SyncChaosReport, any Error>>(bound: 1)
    // Processes end with the thread that started them, so one thread does all of it.
    let thread = OwnedThread(named: "sync-chaos") { _ = outcome.offer(Result { try Self.run(options, root: root) }) }
    thread.join()
    let report = try #require(outcome.takeAll().first).get()
    print(report.json)
    if let path = options.report { try Data(report.json.utf8).write(to: URL(filePath: path)) }
    #expect(report.differences == [])
    #expect(report.wrong == [])
    #expect(report.total >= options.faults)
    #expect(report.rows > 0 && report.questions > 0)
    #expect(report.toldStale == report.faults[SyncFault.cutOff.rawValue] ?? 0)
    if options.faults >= 100 {
      #expect(SyncFault.allCases.allSatisfy { report.faults[$0.rawValue, default: 0] > 0 })
      for harm in [Harm.lose, .twice, .late, .cut, .flip(0)] { #expect(report.faults[harm.name, default: 0] > 0) }
    }
  }

  private static func run(_ options: SyncChaosOptions, root: String) throws -> SyncChaosReport {
    try Files.makeDirectory(root)
    let run = try SyncChaosRun(
      options, root: "\(root)/state", httpPort: Ports.free(SyncChaosOptions.replicas))
    defer {
      run.end()
      if let kept = ProcessInfo.processInfo.environment["GUIRA_CHAOS_KEEP"] { ChaosTests.keep(root, as: kept) }
    }
    do { return try run.run() } catch {
      throw ChaosError("seed \(options.seed): \(error)\n\(run.report.json)")
    }
  }
}
