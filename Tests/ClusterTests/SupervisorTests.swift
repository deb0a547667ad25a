import Base
import Cluster
import Foundation
import Glibc
import Testing

/// A directory that goes with the value.
final class Scratch: Sendable {
  let path: String
  init() {
    path = FileManager.default.temporaryDirectory.appending(path: "guira-tests-\(UUID().uuidString.prefix(8))").path
    try? FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
  }
  deinit { try? FileManager.default.removeItem(atPath: path) }
}

@Suite("Supervisor") struct SupervisorTests {
  let scratch = Scratch()

  /// A role that is a shell script.
  private func child(_ role: Role, _ index: Int = 0, _ script: String) -> ChildSpec {
    ChildSpec(
      RoleInstance(role, index), executable: "/bin/sh", arguments: ["-c", script],
      log: "\(scratch.path)/\(role.rawValue)-\(index)/log.jsonl")
  }

  /// Waits for an event that `pick` accepts; nil after a minute.
  private func next<Value>(
    _ events: Mailbox<SupervisorEvent>, _ seen: inout [SupervisorEvent], _ pick: (SupervisorEvent) -> Value?
  ) -> Value? {
    let end = Clocks.monotonic() + 60_000_000_000
    while true {
      while !seen.isEmpty {
        if let value = pick(seen.removeFirst()) { return value }
      }
      if Clocks.monotonic() > end { return nil }
      seen += events.waitAll(timeout: .milliseconds(100))
    }
  }

  private func start(
    _ specs: [ChildSpec], grace: Duration = .seconds(10)
  ) -> (supervisor: Supervisor, events: Mailbox<SupervisorEvent>) {
    let events = Mailbox<SupervisorEvent>(bound: 10_000)
    var options = SupervisionOptions()
    options.firstDelay = .milliseconds(10)
    options.stopGrace = grace
    return (Supervisor(specs, options: options, status: StatePaths(scratch.path)) { _ = events.offer($0) }, events)
  }

  @Test(arguments: [ConfigurationError.exitCode, ProcessEnding.needsOperator])
  func `a process that only an operator can help is not started again, and all are stopped`(code: Int32) throws {
    let script = "echo 'updates are lost' >&2; exit \(code)"
    let (supervisor, events) = start([child(.shard, 0, "exec sleep 100"), child(.trainer, 0, script)])
    var seen: [SupervisorEvent] = []
    let message = next(events, &seen) { if case .refused(_, let message) = $0 { message } else { nil } }
    #expect(message == "updates are lost")
    supervisor.wait()
    #expect(supervisor.failure == "trainer 0: updates are lost")
  }

  @Test func `consent is given to the first start alone`() throws {
    var spec = child(.shard, 0, "echo $0; exit 1")
    spec.firstArguments = ["yes"]
    let (supervisor, events) = start([spec])
    var seen: [SupervisorEvent] = []
    for _ in 0..<2 { _ = next(events, &seen) { if case .ended = $0 { true } else { nil } } }
    supervisor.stop()
    supervisor.wait()
    let lines = String(decoding: try Files.read(spec.log), as: UTF8.self).split(separator: "\n")
    #expect(lines.first == "yes" && lines.dropFirst().first == "/bin/sh")
  }

  @Test func `a killed process is started again, and its restarts are counted`() throws {
    let (supervisor, events) = start([child(.shard, 0, "exec sleep 100")])
    var seen: [SupervisorEvent] = []
    var delays: [Duration] = []
    for _ in 0..<3 {
      let pid = try #require(next(events, &seen) { if case .started(_, let pid) = $0 { pid } else { nil } })
      #expect(kill(pid, SIGKILL) == 0)
      delays.append(
        try #require(
          next(events, &seen) {
            if case .ended(_, .signal(SIGKILL), let delay) = $0 { delay } else { nil }
          }))
    }
    #expect(delays == [.milliseconds(10), .milliseconds(20), .milliseconds(40)])
    let last = try #require(next(events, &seen) { if case .started(_, let pid) = $0 { pid } else { nil } })
    supervisor.stop()
    supervisor.wait()
    #expect(supervisor.children.map(\.restarts) == [3])
    #expect(kill(last, 0) == -1 && errno == ESRCH)
  }

  @Test func `roles are stopped in order, and nothing is left`() throws {
    let line = "trap 'echo end; exit 0' TERM; while :; do sleep 0.02; done"
    let (supervisor, events) = start([
      child(.shard, 0, line), child(.shard, 1, line), child(.sync, 0, line), child(.replica, 0, line),
      child(.trainer, 0, line), child(.joiner, 0, line),
    ])
    var seen: [SupervisorEvent] = []
    var pids: [Int32] = []
    for _ in 0..<6 {
      pids.append(try #require(next(events, &seen) { if case .started(_, let pid) = $0 { pid } else { nil } }))
    }
    supervisor.stop()
    supervisor.wait()
    var order: [String] = []
    seen += events.takeAll()
    for event in seen {
      switch event {
      case .stopping(let instance): order.append("stop \(instance.role)")
      case .ended(let instance, let ending, let delay):
        order.append("end \(instance.role)")
        #expect(delay == nil && (ending == .exit(0) || ending == .signal(SIGTERM)))
      default: break
      }
    }
    #expect(
      order == [
        "stop joiner", "end joiner", "stop trainer", "end trainer", "stop sync", "end sync", "stop replica",
        "end replica", "stop shard", "stop shard", "end shard", "end shard",
      ])
    #expect(pids.allSatisfy { kill($0, 0) == -1 })
  }

  @Test func `a process that does not stop in time is killed with what it started`() throws {
    let (supervisor, events) = start(
      [child(.replica, 0, "trap '' TERM; echo ready >&2; sleep 100 & wait; sleep 100")], grace: .milliseconds(50))
    var seen: [SupervisorEvent] = []
    let pid = try #require(next(events, &seen) { if case .started(_, let pid) = $0 { pid } else { nil } })
    let log = "\(scratch.path)/replica-0/log.jsonl"
    let end = Clocks.monotonic() + 60_000_000_000
    while try Files.read(log).isEmpty, Clocks.monotonic() < end { sched_yield() }
    supervisor.stop()
    supervisor.wait()
    seen += events.takeAll()
    #expect(seen.contains(.killed(RoleInstance(.replica))))
    #expect(seen.contains(.ended(RoleInstance(.replica), .signal(SIGKILL), restartIn: nil)))
    // The group is gone, or what is left of it are zombies that nobody has reaped yet.
    #expect(kill(-pid, SIGKILL) == -1 || kill(pid, 0) == -1)
  }

  @Test func `a wrong configuration is not tried again but stops the cluster with its message`() throws {
    let (supervisor, events) = start([
      child(.shard, 0, "exec sleep 100"),
      child(.trainer, 0, #"echo '{"level":"error","message":"cluster.yaml:3: shards.count is 0"}' >&2; exit 2"#),
    ])
    supervisor.wait()
    #expect(supervisor.failure == "trainer 0: cluster.yaml:3: shards.count is 0")
    let all = events.takeAll()
    #expect(all.count { if case .started(RoleInstance(.trainer), _) = $0 { true } else { false } } == 1)
    #expect(all.last == .finished)
  }

  @Test func `a program that is not there is tried again and said to be missing`() throws {
    var spec = child(.sync, 0, "")
    spec.executable = "/nowhere/guira"
    let (supervisor, events) = start([spec])
    var seen: [SupervisorEvent] = []
    let reason = next(events, &seen) { event -> String? in
      if case .ended(_, .notStarted(let reason), .some) = event { reason } else { nil }
    }
    #expect(reason == "cannot start /nowhere/guira: No such file or directory")
    supervisor.stop()
    supervisor.wait()
  }

  @Test func `a role's process group is its own and its input is empty`() throws {
    let (supervisor, events) = start([
      child(.joiner, 0, "cat; echo group $(ps -o pgid= -p $$) $$ $GUIRA_SUPERVISOR; exec sleep 100")
    ])
    var seen: [SupervisorEvent] = []
    let pid = try #require(next(events, &seen) { if case .started(_, let pid) = $0 { pid } else { nil } })
    #expect(getpgid(pid) == pid)
    supervisor.stop()
    supervisor.wait()
  }
}

@Suite("Ends of a process") struct ProcessEndTests {
  @Test func `a signal arrives as mail and does not end the process`() async {
    await #expect(processExitsWith: .exitCode(7)) {
      let mailbox = Signals.mailbox()
      kill(getpid(), SIGTERM)
      exit(mailbox.waitAll(timeout: .seconds(60)) == [SIGTERM] ? 7 : 1)
    }
  }

  @Test func `a role whose supervisor is gone is told so at its start`() async {
    await #expect(processExitsWith: .exitCode(7)) {
      setenv("GUIRA_SUPERVISOR", "1000000000", 1)
      exit(ParentWatch.isSupervised && !ParentWatch.begin() ? 7 : 1)
    }
  }

  @Test func `a role with its supervisor, or without any, goes on`() async {
    await #expect(processExitsWith: .exitCode(7)) {
      unsetenv("GUIRA_SUPERVISOR")
      guard ParentWatch.begin() else { exit(1) }
      setenv("GUIRA_SUPERVISOR", "\(getppid())", 1)
      exit(ParentWatch.begin() ? 7 : 2)
    }
  }
}
