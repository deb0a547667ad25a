import Base
import Testing

@testable import Cluster

/// Decisions behind a reference: `#expect` cannot call what changes a value.
private final class Decisions {
  private var supervision: Supervision
  init(_ roles: Role...) {
    supervision = Supervision(roles.map { RoleInstance($0) }, options: SupervisionOptions(), now: 0)
  }
  var isDone: Bool { supervision.isDone }
  func stop() { supervision.stop() }
  func actions(now: Int64) -> [Supervision.Action] { supervision.actions(now: now) }
  func started(_ index: Int, pid: Int32, now: Int64) { supervision.started(index, pid: pid, now: now) }
  @discardableResult func ended(_ index: Int, _ ending: ProcessEnding, now: Int64) -> Duration? {
    supervision.ended(index, ending, now: now)
  }
}

@Suite("Supervision") struct SupervisionTests {
  private let second: Int64 = 1_000_000_000

  @Test func `delays double up to ten seconds and begin again after a long life`() throws {
    let supervision = Decisions(.shard)
    var now: Int64 = 0
    var delays: [Duration] = []
    for life in [0, 0, 0, 0, 0, 0, 0, 0, 29, 30] {
      #expect(supervision.actions(now: now) == [.start(0)])
      supervision.started(0, pid: 7, now: now)
      now += Int64(life) * second
      let delay = try #require(supervision.ended(0, .exit(1), now: now))
      delays.append(delay)
      #expect(supervision.actions(now: now + delay.nanoseconds - 1) == [])
      now += delay.nanoseconds
    }
    #expect(
      delays.map(\.milliseconds) == [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000, 100])
  }

  @Test func `while producers stop, those they need are still restarted`() {
    let supervision = Decisions(.shard, .trainer)
    #expect(supervision.actions(now: 0) == [.start(0), .start(1)])
    supervision.started(0, pid: 10, now: 0)
    supervision.started(1, pid: 11, now: 0)
    supervision.stop()
    #expect(supervision.actions(now: 1) == [.terminate(1, pid: 11)])
    #expect(supervision.ended(0, .signal(9), now: 2) == .milliseconds(100))
    #expect(supervision.actions(now: second) == [.start(0)])
    supervision.started(0, pid: 12, now: second)
    #expect(supervision.actions(now: 2 * second) == [])
    #expect(supervision.ended(1, .exit(0), now: 3 * second) == nil)
    #expect(supervision.actions(now: 3 * second) == [.terminate(0, pid: 12)])
    #expect(supervision.actions(now: 17 * second) == [])
    #expect(supervision.actions(now: 18 * second) == [.kill(0, pid: 12)])
    #expect(supervision.actions(now: 19 * second) == [])
    #expect(!supervision.isDone)
    #expect(supervision.ended(0, .signal(9), now: 20 * second) == nil)
    #expect(supervision.isDone)
  }

  @Test func `a process that waits to be started again is not started when all stops`() {
    let supervision = Decisions(.joiner)
    #expect(supervision.actions(now: 0) == [.start(0)])
    supervision.started(0, pid: 10, now: 0)
    supervision.ended(0, .exit(0), now: 1)
    supervision.stop()
    #expect(supervision.actions(now: second) == [])
    #expect(supervision.isDone)
  }
}
