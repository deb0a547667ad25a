// The faults that come from outside the processes.

import Base
import Cluster
import Foundation
import Glibc

/// What the driver can do to a cluster.
enum Fault: String, CaseIterable {
  case killShard = "shard killed"
  case killTrainer = "trainer killed"
  case killSeveral = "several killed at once"
  case killFollower = "sync or replica killed"
  case pause = "shard paused"
  case cut = "connections cut"
  case stall = "connections stalled"
  case lose = "messages lost"
  case oldOwner = "old owner woken after its successor took over"

  /// A deck that is shuffled, dealt, and shuffled again, so that a short run has every kind.
  static let deck: [Fault] = [
    .killShard, .killShard, .killTrainer, .killTrainer, .killSeveral, .killFollower, .pause, .cut, .cut, .stall,
    .lose, .lose, .oldOwner,
  ]
}

/// A trainer that was stopped in the middle of its work and does not know that it has a successor.
struct OldOwner {
  let instance: RoleInstance
  let old: Child
  let stoppedAt: Int64
  var wokenAt: Int64?
}

extension ChaosRun {
  private static let second: Int64 = 1_000_000_000

  /// Makes the next fault of the deck, or another one when that is not possible now.
  func inject(_ now: Int64) throws {
    if deck.isEmpty { deck = Fault.deck.shuffled(using: &random) }
    let fault = deck.removeLast()
    guard try make(fault, now) else { return }
    report.faults[fault.rawValue, default: 0] += 1
  }

  private func make(_ fault: Fault, _ now: Int64) throws -> Bool {
    switch fault {
    case .killShard: return kill(anyShard())
    case .killTrainer: return kill(anyTrainer())
    case .killSeveral:
      let all =
        (0..<ChaosOptions.shards).map { RoleInstance(.shard, $0) }
        + (0..<ChaosOptions.trainers).map { RoleInstance(.trainer, $0) }.filter { mayKill($0) }
      let victims = all.shuffled(using: &random).prefix(Int.random(in: 2...all.count, using: &random))
      return victims.map { kill($0) }.contains(true)
    case .killFollower: return kill(RoleInstance(Bool.random(using: &random) ? .sync : .replica))
    case .pause:
      guard let child = children[anyShard()], child.isRunning else { return false }
      child.signal(SIGSTOP)
      paused.append((child, now + Int64.random(in: 200...3_000, using: &random) * 1_000_000))
    case .cut:
      let until = now + Int64.random(in: 0...600, using: &random) * 1_000_000
      for link in links() { order(.cut(link, until: until)) }
    case .stall:
      // Some longer than the time after which a trainer asks again.
      let until = now + Int64.random(in: 200...3_000, using: &random) * 1_000_000
      for link in links() { order(.stall(link, until: until)) }
    case .lose:
      let until = now + Int64.random(in: 200...1_000, using: &random) * 1_000_000
      let share = [0.02, 0.2, 0.7].randomElement(using: &random) ?? 0.2
      for link in links() { order(.lose(link, share: share, until: until)) }
    case .oldOwner: return try stopOwner(now)
    }
    return true
  }

  private func anyShard() -> RoleInstance {
    RoleInstance(.shard, Int.random(in: 0..<ChaosOptions.shards, using: &random))
  }

  private func anyTrainer() -> RoleInstance {
    let instance = RoleInstance(.trainer, Int.random(in: 0..<ChaosOptions.trainers, using: &random))
    return mayKill(instance) ? instance : RoleInstance(.trainer, 1 - instance.index)
  }

  /// The successor of a sleeping owner must live to take over.
  private func mayKill(_ instance: RoleInstance) -> Bool { oldOwner?.instance != instance }

  /// One link, or all of a trainer, or all to a shard.
  private func links() -> [Int] {
    let (trainer, shard) = (
      Int.random(in: 0..<ChaosOptions.trainers, using: &random), Int.random(in: 0..<ChaosOptions.shards, using: &random)
    )
    let all = 0..<ChaosOptions.trainers * ChaosOptions.shards
    switch Int.random(in: 0..<3, using: &random) {
    case 0: return [trainer * ChaosOptions.shards + shard]
    case 1: return all.filter { $0 / ChaosOptions.shards == trainer }
    default: return all.filter { $0 % ChaosOptions.shards == shard }
    }
  }

  // MARK: The old owner

  /// Stops a trainer where it stands and starts its successor, which keeps its files elsewhere.
  private func stopOwner(_ now: Int64) throws -> Bool {
    let instance = anyTrainer()
    guard oldOwner == nil, let child = children[instance], child.isRunning, child.fault == nil,
      hasTrained(child, examples: 1), let old = release(instance)
    else {
      deck.insert(.oldOwner, at: 0)
      return false
    }
    old.signal(SIGSTOP)
    homes[instance.index] = homes[instance.index] == root ? "\(root)/other" : root
    try? FileManager.default.removeItem(atPath: statusPath(instance, in: homes[instance.index]))
    try start(instance)
    oldOwner = OldOwner(instance: instance, old: old, stoppedAt: now)
    return true
  }

  private func statusPath(_ instance: RoleInstance, in state: String) -> String { StatePaths(state).status(instance) }

  private func hasTrained(_ child: Child, examples: Double) -> Bool {
    guard let bytes = try? Files.read(statusPath(child.instance, in: child.state)),
      let status = try? JSONDecoder().decode(RoleStatus.self, from: Data(bytes))
    else { return false }
    return status.counters[StatusKey.examples] ?? 0 >= examples
  }

  /// Wakes the old owner once its successor has pushed, and sees to it that it stops by itself.
  func continueOldOwner(_ now: Int64) throws {
    guard let story = oldOwner else { return }
    if let wokenAt = story.wokenAt {
      if !story.old.isRunning {
        oldOwner = nil
        if story.old.ending == "code 0" { report.endings.append("the old owner ended as if nothing were wrong") }
      } else if now - wokenAt > 60 * Self.second {
        report.endings.append("the old owner still runs a minute after it woke: \(story.old.lastWords)")
        story.old.end()
        oldOwner = nil
      }
      return
    }
    let successor = children[story.instance]
    let tookOver = successor.map { $0.isRunning && hasTrained($0, examples: 1) } ?? false
    // A successor that dies at a moment of its own is followed by another; in the end one takes over.
    guard tookOver || now - story.stoppedAt > 60 * Self.second else { return }
    if !tookOver { report.endings.append("no successor of \(story.instance) took over within a minute") }
    story.old.signal(SIGCONT)
    oldOwner?.wokenAt = now
  }
}
