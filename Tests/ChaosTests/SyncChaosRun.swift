// The driver of faults between sync and replicas: shards, sync and three replicas are processes of the real command, and
// every replica reaches sync through a proxy that harms a tenth of the messages both ways. Sync and replicas are killed,
// stopped, stalled and cut off besides. One thread, which is also the one that starts processes: the kernel ends them with it.

import Base
import Cluster
import Embeddings
import Foundation
import Glibc
import Wire

/// What the driver does beside harming messages.
enum SyncFault: String, CaseIterable {
  case killSync = "sync killed"
  case killReplica = "replica killed"
  case pause = "sync or replica paused"
  case stall = "connections stalled"
  case cut = "connections cut"
  case cutOff = "replica cut off until it is stale"

  static let deck: [SyncFault] = [.killSync, .killSync, .killReplica, .killReplica, .pause, .stall, .cut, .cutOff]
}

/// What a run found.
struct SyncChaosReport: Codable {
  var seed: UInt64 = 0
  var faults: [String: Int] = [:]
  var restarts = 0
  /// Answers about ids that were gone.
  var questions = 0
  var forgotten = 0
  var versions: UInt64 = 0
  /// Cut off replicas that said so.
  var toldStale = 0
  /// How the replicas ended up.
  var differences: [String] = []
  var rows = 0
  /// What no process may do.
  var wrong: [String] = []
  var seconds = 0.0
  var restSeconds = 0.0

  var total: Int { faults.values.reduce(0, +) }

  var json: String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    return (try? encoder.encode(self)).map { String(decoding: $0, as: UTF8.self) } ?? "{}"
  }
}

/// One run.
final class SyncChaosRun {
  private struct CutOff {
    var replica: Int
    var since: Int64
  }

  private let options: SyncChaosOptions
  private let root: String
  private let plan: ClusterPlan
  private let proxy: Proxy
  private let feed: RowFeed
  private let watch: ReplicaWatch
  private let shards: [AskerBox]
  private let sync: AskerBox
  private var random: SeededRandom
  private var children: [RoleInstance: Child] = [:]
  private var due: [RoleInstance: Int64] = [:]
  private var paused: [(child: Child, until: Int64)] = []
  private var cutOff: CutOff?
  private var deck: [SyncFault] = []
  private var made: [String: Int] = [:]
  private(set) var report = SyncChaosReport()
  private let began = Clocks.monotonic()
  private static let second: Int64 = 1_000_000_000

  init(_ options: SyncChaosOptions, root: String, httpPort: Int) throws {
    self.options = options
    self.root = root
    random = SeededRandom(seed: options.seed)
    for directory in ["", "/logs", "/links"] { try Files.makeDirectory(root + directory) }
    for isConsistent in [true, false] {
      let text = SyncChaosOptions.configuration(httpPort: httpPort, isConsistent: isConsistent)
      try Files.replace(Self.configuration(root, isConsistent), with: Array(text.utf8), durable: false)
    }
    let configuration = try ClusterConfiguration(file: Self.configuration(root, false))
    plan = try ClusterPlan(configuration)
    let paths = StatePaths(root)
    try paths.makeSocketDirectory()
    let endpoints = Endpoints(configuration, socketDirectory: paths.socketDirectory)
    let target = String(endpoints.sync.dropFirst("ipc://".count))
    proxy = try Proxy(
      (0..<SyncChaosOptions.replicas).map { Proxy.Link(path: "\(root)/links/\($0)", target: target) },
      seed: options.seed)
    let context = LinkContext()
    shards = try (0..<SyncChaosOptions.shards).map { try AskerBox(endpoints.shard($0), context) }
    sync = try AskerBox(endpoints.sync, context)
    feed = try RowFeed(plan, shards, seed: options.seed)
    watch = ReplicaWatch(
      plan, try (0..<SyncChaosOptions.replicas).map { try AskerBox(endpoints.replica($0), context) },
      versions: "\(paths.directory(RoleInstance(.sync)))/versions", seed: options.seed)
    report.seed = options.seed
  }

  private static func configuration(_ root: String, _ isConsistent: Bool) -> String {
    "\(root)/\(isConsistent ? "consistent" : "relaxed").yaml"
  }

  private var replicas: Range<Int> { 0..<SyncChaosOptions.replicas }

  /// Makes all faults, lets everything come to rest, and compares.
  func run() throws -> SyncChaosReport {
    for shard in 0..<SyncChaosOptions.shards { try start(RoleInstance(.shard, shard)) }
    try start(RoleInstance(.sync))
    for replica in replicas { try start(RoleInstance(.replica, replica)) }
    try feed.claim()
    // A base that no version follows yet does not survive sync; it would begin a new store.
    try until("every replica is ready for the first time, and a version follows the base", within: 60) {
      watch.versions.newest > 1 && replicas.allSatisfy { watch.isReady($0) == true }
    }
    for link in replicas { proxy.send(.harm(link, share: SyncChaosOptions.harmedShare, until: .max)) }
    let begin = Clocks.monotonic()
    var nextFault = begin
    while total < options.faults || cutOff != nil {
      guard Clocks.monotonic() - begin < Int64(300 + 10 * options.faults) * Self.second else {
        throw ChaosError("the faults take too long")
      }
      let now = Clocks.monotonic()
      try turn(now)
      if now >= nextFault, total < options.faults {
        inject(now)
        nextFault = now + Int64.random(in: 300...2_500, using: &random) * 1_000_000
      }
    }
    report.faults = proxy.harmed.merging(made) { $0 + $1 }
    report.seconds = Double(Clocks.monotonic() - began) / 1e9
    try rest()
    report.questions = watch.questions
    report.forgotten = feed.forgotten
    report.versions = watch.versions.newest
    report.wrong += watch.wrong
    return report
  }

  private var total: Int { proxy.harmed.values.reduce(0, +) + made.values.reduce(0, +) }

  /// Ends every process of this run; call it whatever happened.
  func end() {
    for child in children.values { child.end() }
    children = [:]
    _ = proxy.stop()
  }

  /// Starts again what has ended, and lets go on what was paused for long enough.
  private func revive(_ now: Int64) throws {
    for (instance, child) in children where !child.isRunning {
      children[instance] = nil
      due[instance] = now + Int64.random(in: 0...300, using: &random) * 1_000_000
      if !child.isCondemned { report.wrong.append("\(instance) ended with \(child.ending): \(child.lastWords)") }
    }
    for (instance, time) in due.sorted(by: { $0.key < $1.key }) where time <= now {
      try start(instance)
      report.restarts += 1
    }
    for pause in paused where pause.until <= now { pause.child.signal(SIGCONT) }
    paused.removeAll { $0.until <= now }
  }

  /// A twentieth of a second of training, and questions to one replica.
  private func turn(_ now: Int64) throws {
    try revive(now)
    try feed.push()
    if Int.random(in: 0..<10, using: &random) == 0 { try feed.forget() }
    let replica = Int.random(in: replicas, using: &random)
    if isRunning(replica) { try watch.check(replica) }
    watchCutOff(Clocks.monotonic())
    usleep(50_000)
  }

  private func isRunning(_ replica: Int) -> Bool {
    guard let child = children[RoleInstance(.replica, replica)] else { return false }
    return child.isRunning && !paused.contains { $0.child === child }
  }

  private func start(_ instance: RoleInstance) throws {
    let isConsistent = instance == RoleInstance(.replica, SyncChaosOptions.replicas - 1)
    children[instance] = try Child(
      instance, command: options.command, configuration: Self.configuration(root, isConsistent), state: root,
      log: "\(root)/logs/\(instance.directoryName)",
      environment: instance.role == .replica ? ["GUIRA_SYNC": "ipc://\(root)/links/\(instance.index)"] : [:], fault: nil
    )
    due[instance] = nil
  }

  // MARK: Faults

  /// Makes the next fault of the deck, unless that is not possible now.
  private func inject(_ now: Int64) {
    if deck.isEmpty { deck = SyncFault.deck.shuffled(using: &random) }
    let fault = deck.removeLast()
    // What happens to a replica that is cut off would show nothing.
    let victims = replicas.filter { $0 != cutOff?.replica }
    let victim = victims.randomElement(using: &random) ?? 0
    let child = children[
      fault == .killSync || (fault == .pause && Bool.random(using: &random))
        ? RoleInstance(.sync) : RoleInstance(.replica, victim)]
    switch fault {
    case .killSync, .killReplica:
      guard let child, child.isRunning else { return }
      child.kill()
    case .pause:
      guard let child, child.isRunning else { return }
      child.signal(SIGSTOP)
      paused.append((child, now + Int64.random(in: 200...3_000, using: &random) * 1_000_000))
    case .stall: proxy.send(.stall(victim, until: now + Int64.random(in: 200...3_000, using: &random) * 1_000_000))
    case .cut: proxy.send(.cut(victim, until: now + Int64.random(in: 0...600, using: &random) * 1_000_000))
    case .cutOff:
      guard cutOff == nil else { return }
      proxy.send(.cut(victim, until: .max))
      cutOff = CutOff(replica: victim, since: now)
    }
    made[fault.rawValue, default: 0] += 1
  }

  /// A replica that sync cannot reach must say so, once it has been cut off for long enough.
  private func watchCutOff(_ now: Int64) {
    guard let story = cutOff, now - story.since > Int64((SyncChaosOptions.staleSeconds + 1.5) * 1e9) else { return }
    switch isRunning(story.replica) ? watch.isReady(story.replica) : nil {
    case false?: report.toldStale += 1
    case true?: watch.note("replica \(story.replica) is ready although cut off for longer than it may be stale")
    case nil:
      guard now - story.since > 60 * Self.second else { return }
      watch.note("replica \(story.replica) was cut off and did not answer within a minute")
    }
    proxy.send(.cut(story.replica, until: now))
    cutOff = nil
  }

  // MARK: Rest

  /// The network heals; training goes on until every replica has caught up, and ends; then all must be equal.
  private func rest() throws {
    let start = Clocks.monotonic()
    for link in replicas { proxy.send(.harm(link, share: 0, until: 0)) }
    for pause in paused { pause.child.signal(SIGCONT) }
    paused = []
    try until("every replica is ready again", within: 90) { replicas.allSatisfy { watch.isReady($0) == true } }
    try feed.forget()
    try until("shards and sync are at rest", within: 60, trains: false) {
      for shard in shards { guard try shard.asker.shardStatus()?.isQuiet == true else { return false } }
      return true
    }
    try? until("replicas equal the shards", within: 60, trains: false) {
      _ = try? sync.asker.ask(timeout: .seconds(1)) { PublishRequest(dense: true).encoded(request: $0) }
      // Read again each time: rows of the last pushes may still expire on the shards.
      let held = try rowsOfShards()
      report.rows = held.reduce(0) { $0 + $1.count }
      var digest = DigestReply()
      for shard in shards { digest.merge(try shard.asker.digest(halfPrecision: false)) }
      report.differences = replicas.compactMap {
        watch.difference($0, rows: held, ids: feed.ids, digest: digest)
      }
      return report.differences.isEmpty
    }
    for replica in replicas { try watch.check(replica) }
    report.restSeconds = Double(Clocks.monotonic() - start) / 1e9
  }

  private func until(_ what: String, within seconds: Int64, trains: Bool = true, _ isDone: () throws -> Bool) throws {
    let deadline = Clocks.monotonic() + seconds * Self.second
    while try !isDone() {
      guard Clocks.monotonic() < deadline else { throw ChaosError("not within \(seconds) s: \(what)") }
      if trains {
        try turn(Clocks.monotonic())
      } else {
        try revive(Clocks.monotonic())
        usleep(50_000)
      }
    }
  }

  private func rowsOfShards() throws -> [[UInt64: [Float]]] {
    var rows = plan.tables.map { _ in [UInt64: [Float]]() }
    for table in plan.tables.indices {
      for shard in shards {
        var cursor: UInt64 = 0
        while true {
          var reader = try shard.asker.ask(timeout: .seconds(30)) {
            ScanRequest(table: table, rows: 4096, cursor: cursor).encoded(request: $0)
          }
          var reply = try ScanReply(decoding: &reader)
          while reply.section.remaining > 0 {
            let section = try CutSection(&reply.section, weightCount: SyncChaosOptions.dimension)
            for index in 0..<section.ids.count {
              let weights = section.weights(index)
              rows[table][section.ids[index]] = weights.indices.map { weights[$0] }
            }
          }
          if reply.isLast { break }
          cursor = reply.cursor
        }
      }
    }
    return rows
  }
}
