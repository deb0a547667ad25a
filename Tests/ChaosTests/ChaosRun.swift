// The driver: starts the cluster's processes, makes faults until there were enough, lets everything come to rest, and
// compares. One thread, which also must be the one that starts processes: the kernel ends them with it.
//
// Deaths come in two ways. `kill -9` from outside hits at a random moment. A shard or trainer that is started (again) is
// mostly also told a moment at which to kill itself (`FaultPoint`), the one that has been hit least.

import Base
import Cluster
import Foundation
import Glibc
import Logging

/// One run of faults.
final class ChaosRun {
  let options: ChaosOptions
  let root: String
  let configuration: ClusterConfiguration
  let plan: ClusterPlan
  let endpoints: Endpoints
  let reader: ShardReader
  let feed: ExampleFeed
  var random: SeededRandom
  var report = ChaosReport()
  var deck: [Fault] = []
  var oldOwner: OldOwner?
  /// Processes that are stopped for a while.
  var paused: [(child: Child, until: Int64)] = []
  /// Where each trainer keeps its files: an old owner that sleeps still holds its directory.
  var homes: [String]
  private(set) var children: [RoleInstance: Child] = [:]
  private var due: [RoleInstance: Int64] = [:]
  private var armed: [FaultPoint: Int] = [:]
  private var hits: [FaultPoint: Int] = [:]
  private var isArming = true
  private var proxy: Proxy
  private let began = Clocks.monotonic()
  private var configurationPath: String { "\(root)/cluster.yaml" }

  /// Moments of shards with the passages to choose from.
  static let shardPoints: [(point: FaultPoint, passages: ClosedRange<Int>)] = [
    (.pushHalf, 1...400), (.pushApplied, 1...400), (.blockHalf, 1...20), (.blockWaiting, 1...6), (.blockTorn, 1...12),
    (.blockWritten, 1...6), (.blockSyncing, 1...6), (.blockSynced, 1...6), (.acknowledgeHalf, 1...6),
    (.claimTaken, 1...2),
    (.checkpointHalf, 1...8), (.checkpointSyncing, 1...4), (.checkpointWritten, 1...2), (.checkpointRenamed, 1...2),
    (.checkpointUnnamed, 1...2), (.checkpointPublished, 1...2), (.checkpointUnlisted, 1...2),
    (.checkpointPruned, 1...2), (.segmentUnnamed, 1...1),
  ]

  init(_ options: ChaosOptions, root: String, httpPort: Int, events: String) throws {
    self.options = options
    self.root = root
    random = SeededRandom(seed: options.seed)
    try Files.makeDirectory(root)
    configuration = try ClusterConfiguration(
      text: options.configuration(httpPort: httpPort), file: "\(root)/cluster.yaml")
    try Files.replace("\(root)/cluster.yaml", with: Array(configuration.text.utf8), durable: false)
    plan = try ClusterPlan(configuration)
    let paths = StatePaths(root)
    try paths.makeSocketDirectory()
    let endpoints = Endpoints(configuration, socketDirectory: paths.socketDirectory)
    self.endpoints = endpoints
    homes = Array(repeating: root, count: ChaosOptions.trainers)
    for directory in ["\(root)/logs", "\(root)/links", "\(root)/streams", "\(root)/other"] {
      try Files.makeDirectory(directory)
    }
    symlink("\(root)/streams", "\(root)/other/streams")
    proxy = try Proxy(
      (0..<ChaosOptions.trainers * ChaosOptions.shards).map { link in
        Proxy.Link(
          path: "\(root)/links/\(link)",
          target: String(endpoints.shard(link % ChaosOptions.shards).dropFirst("ipc://".count)))
      }, seed: options.seed)
    reader = try ShardReader(plan, endpoints)
    feed = try ExampleFeed(events: events, root: root, configuration: configuration)
    report.seed = options.seed
    report.command = options.command
    report.events = options.events ?? "synthetic"
    report.faultsWanted = options.faults
  }

  /// Makes all faults and compares.
  func run() throws -> ChaosReport {
    for instance in configuration.instances where instance.role != .joiner { try start(instance) }
    var nextFault = Clocks.monotonic() + 1_000_000_000
    var nextCompaction = nextFault
    while report.totalFaults < options.faults || oldOwner != nil {
      let now = Clocks.monotonic()
      if now >= nextCompaction {
        // So that blocks are deleted too.
        reader.compact(Int.random(in: 0..<ChaosOptions.shards, using: &random))
        nextCompaction = now + 1_000_000_000
      }
      guard seconds < 60 + 10 * Double(options.faults) else { throw ChaosError("the faults take too long") }
      try turn(now)
      // Examples last as long as faults do, and some are kept for an old owner that wakes up.
      let share = Double(report.totalFaults + 2) / Double(options.faults + 2)
      try feed.send(upTo: max(feed.sent + (oldOwner == nil ? 0 : 2), Int(Double(options.impressions) * share)))
      if now >= nextFault, report.totalFaults < options.faults {
        try inject(now)
        nextFault = now + Int64.random(in: 150...900, using: &random) * 1_000_000
      }
      usleep(10_000)
    }
    report.seconds = seconds
    report.examplesUnderFaults = reader.applied / (ChaosOptions.shards * plan.models.count)
    isArming = false
    try settle()
    report.served = try compare()
    report.replica = try waitForReplica()
    try recoverAll()
    report.recovered = try compare()
    finishReport()
    return report
  }

  /// Ends every process of this run; call it whatever happened.
  func end() {
    oldOwner?.old.end()
    for child in children.values { child.end() }
    children = [:]
    report.messagesLost = proxy.stop()
  }

  var seconds: Double { Double(Clocks.monotonic() - began) / 1e9 }

  // MARK: Processes

  /// Starts a process, mostly with a moment to die at.
  func start(_ instance: RoleInstance) throws {
    var environment: [String: String] = [:]
    if instance.role == .trainer {
      environment["GUIRA_SHARDS"] = (0..<ChaosOptions.shards)
        .map { "ipc://\(root)/links/\(instance.index * ChaosOptions.shards + $0)" }.joined(separator: ",")
    }
    children[instance] = try Child(
      instance, command: options.command, configuration: configurationPath,
      state: instance.role == .trainer ? homes[instance.index] : root, log: "\(root)/logs/\(instance.directoryName)",
      environment: environment, fault: fault(for: instance))
    due[instance] = nil
  }

  private func fault(for instance: RoleInstance) -> String? {
    guard isArming, random.uniform() < 0.75 else { return nil }
    if instance.role == .trainer {
      return random.uniform() < 0.3 ? "send.half:\(Int.random(in: 1...600, using: &random))" : nil
    }
    guard instance.role == .shard else { return nil }
    // The moment hit least; among equals any.
    let fewest = Self.shardPoints.map { hits[$0.point, default: 0] * 2 + armed[$0.point, default: 0] }.min() ?? 0
    let open = Self.shardPoints.filter { hits[$0.point, default: 0] * 2 + armed[$0.point, default: 0] == fewest }
    guard let choice = open.randomElement(using: &random) else { return nil }
    armed[choice.point, default: 0] += 1
    // Claims come when a trainer starts.
    if choice.point == .claimTaken { deck.append(.killTrainer) }
    return "\(choice.point.rawValue):\(Int.random(in: choice.passages, using: &random))"
  }

  /// Notes who died, starts again who is due, and moves the old owner's story on.
  func turn(_ now: Int64) throws {
    for (instance, child) in children where !child.isRunning {
      children[instance] = nil
      due[instance] = now + Int64.random(in: 0...300, using: &random) * 1_000_000
      noteEnding(of: child)
    }
    for (instance, time) in due.sorted(by: { $0.key < $1.key }) where time <= now {
      try start(instance)
      report.restarts += 1
    }
    for pause in paused where pause.until <= now { pause.child.signal(SIGCONT) }
    paused.removeAll { $0.until <= now }
    try continueOldOwner(now)
  }

  private func noteEnding(of child: Child) {
    if child.isCondemned { return }
    let point = child.fault.flatMap { FaultPoint(rawValue: String($0.prefix { $0 != ":" })) }
    if child.instance.role == .trainer, !child.wasKilled, child.lastWords.contains("owns the partition now") {
      // The claim of a dead owner may arrive late and win: then the living one stops and claims again.
      report.fencedTrainers += 1
      return
    }
    guard child.wasKilled, let point else {
      report.endings.append("\(child.instance) ended with \(child.ending): \(child.lastWords)")
      return
    }
    hits[point, default: 0] += 1
    report.processesKilled += 1
    report.faults["\(child.instance.role.rawValue) dies at a named moment", default: 0] += 1
  }

  /// Kills a process from outside.
  func kill(_ instance: RoleInstance) -> Bool {
    guard let child = children[instance], child.isRunning else { return false }
    child.kill()
    report.processesKilled += 1
    return true
  }

  /// A trainer's process leaves the driver's care: it sleeps.
  func release(_ instance: RoleInstance) -> Child? { children.removeValue(forKey: instance) }

  func order(_ order: Proxy.Order) { proxy.send(order) }

  // MARK: Rest

  /// Waits until the shards hold all examples; faults are over.
  private func settle() throws {
    let start = Clocks.monotonic()
    try feed.send(upTo: options.impressions)
    var problem: String?
    repeat {
      try turn(Clocks.monotonic())
      guard Clocks.monotonic() - start < 300_000_000_000 else {
        throw ChaosError("no rest after the faults: \(problem ?? ""); \(whoRuns)")
      }
      usleep(100_000)
      problem = reader.whatIsMissing(ends: feed.ends)
    } while problem != nil
    report.restSeconds = Double(Clocks.monotonic() - start) / 1e9
    report.examples = feed.sent
  }

  private var whoRuns: String {
    children.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value.isRunning ? "runs" : "ended")" }
      .joined(separator: ", ")
  }

  private func compare() throws -> Comparison {
    try reader.compare(with: Tally(root: root, plan: plan))
  }

  private func waitForReplica() throws -> String {
    let deadline = Clocks.monotonic() + 60_000_000_000
    var problem = reader.whatTheReplicaLacks()
    while problem != nil, Clocks.monotonic() < deadline {
      try turn(Clocks.monotonic())
      usleep(100_000)
      problem = reader.whatTheReplicaLacks()
    }
    return problem ?? "equal"
  }

  /// Kills all shards once more, after which only their disks know anything.
  private func recoverAll() throws {
    for index in 0..<ChaosOptions.shards { children[RoleInstance(.shard, index)]?.end() }
    for index in 0..<ChaosOptions.shards { try start(RoleInstance(.shard, index)) }
    let deadline = Clocks.monotonic() + 60_000_000_000
    while let problem = reader.whatIsMissing(ends: feed.ends) {
      guard Clocks.monotonic() < deadline else { throw ChaosError("after a last restart \(problem)") }
      try turn(Clocks.monotonic())
      usleep(50_000)
    }
  }

  private func finishReport() {
    var left = report.processesKilled
    for point in FaultPoint.allCases {
      let kills = hits[point, default: 0]
      left -= kills
      report.phases.append(
        ChaosReport.Phase(name: ChaosReport.phase(of: point), moment: point.rawValue, kills: kills))
    }
    report.phases.append(ChaosReport.Phase(name: "any", moment: "a random moment", kills: left))
  }
}

/// Why a run could not be judged.
struct ChaosError: Error, CustomStringConvertible {
  let description: String
  init(_ description: String) { self.description = description }
}
