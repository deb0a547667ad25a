// A whole cluster of real processes for a benchmark, with this process as its trainer: shards, sync and replicas are what
// `guira up` would start. The kernel ends them when the thread that started them ends; `deinit` ends them before.

internal import Base
internal import Cluster
internal import Foundation
internal import Glibc
internal import Syncing
internal import Wire

/// One shard, sync and replicas, which publish when they are told to.
final class BenchCluster {
  private let directory: String
  private let plan: ClusterPlan
  private var processes: [RoleInstance: Process] = [:]
  private let shard: AskerBox
  private let sync: AskerBox
  private let replicas: Int
  private var pushes: UInt64 = 0
  private var random: SeededRandom
  private let chain: ChainKey
  private let ownership = Ownership(generation: 1, owner: 1)

  private final class AskerBox {
    var asker: Asker
    init(_ endpoint: String, _ context: LinkContext) throws { asker = try Asker(endpoint: endpoint, context: context) }
  }

  /// Starts a cluster of one table and waits until every replica serves.
  init(dimension: Int, precision: Precision, replicas: Int = 2, seed: UInt64, executable: String) throws {
    directory = "/tmp/guira-bench-\(getpid())-\(UInt32.random(in: 0 ... .max))"
    self.replicas = replicas
    random = SeededRandom(seed: seed)
    try Files.makeDirectory(directory)
    // Versions are made when they are asked for, so the intervals are as long as they may be.
    let text = """
      cluster: {name: bench}
      features: [{name: id}]
      tasks: [{name: click, closing: []}]
      models: [{name: rows, kind: counting, dimension: \(dimension), features: [id]}]
      tables: {defaults: {timeToLive: never}}
      shards: {count: 1, epoch: 200ms, blockBytes: 8GiB, checkpointEvery: 30d}
      sync: {sparseEvery: 1d, denseEvery: 1d, precision: \(precision.rawValue)}
      replicas: {count: \(replicas), port: \(try BenchProcess.freePort()), staleAfter: 7d}

      """
    let file = "\(directory)/cluster.yaml"
    try Files.replace(file, with: Array(text.utf8), durable: false)
    let configuration = try ClusterConfiguration(file: file)
    plan = try ClusterPlan(configuration)
    let paths = StatePaths(directory)
    try paths.makeSocketDirectory()
    let endpoints = Endpoints(configuration, socketDirectory: paths.socketDirectory)
    let context = LinkContext()
    shard = try AskerBox(endpoints.shard(0), context)
    sync = try AskerBox(endpoints.sync, context)
    chain = ChainKey(consumer: "rows", stream: "examples", partition: 0)
    let roles = [RoleInstance(.shard), RoleInstance(.sync)] + (0..<replicas).map { RoleInstance(.replica, $0) }
    for instance in roles {
      let process = Process()
      process.executableURL = URL(filePath: executable)
      process.arguments = [
        instance.role.rawValue, "--config", file, "--state", directory, "--index", "\(instance.index)", "--log",
        "error",
      ]
      process.environment = ProcessInfo.processInfo.environment.merging(["GUIRA_SUPERVISOR": "\(getpid())"]) { $1 }
      process.standardInput = FileHandle.nullDevice
      process.standardOutput = FileHandle.nullDevice
      try process.run()
      processes[instance] = process
    }
    let (chain, ownership) = (chain, ownership)
    _ = try shard.asker.ask(timeout: .seconds(30)) { Claim(chain: chain, ownership: ownership).encoded(request: $0) }
    try waitUntilServed(timeout: 30)
  }

  deinit {
    for process in processes.values where process.isRunning { kill(process.processIdentifier, SIGKILL) }
    for process in processes.values { process.waitUntilExit() }
    try? Files.remove(directory)
  }

  /// Changes rows: every number of each is another one.
  func push(_ ids: [UInt64]) throws {
    let width = plan.models[0].options.dimension
    // A few megabytes at a time, as trainers send.
    let batch = max(1, min(4096, (4 << 20) / (width * 4)))
    for begin in stride(from: 0, to: ids.count, by: batch) {
      let some = Array(ids[begin..<min(ids.count, begin + batch)])
      pushes += 1
      let stamp = Stamp(
        chain: chain, ownership: ownership, previousEnd: Position(low: pushes - 1), end: Position(low: pushes),
        exampleCount: some.count, eventTime: 1, watermark: 1)
      let gradients = (0..<some.count * width).map { _ in Float(random.uniform() - 0.5) }
      _ = try shard.asker.ask(timeout: .seconds(60)) { request in
        var writer = ByteWriter(capacity: 256 + some.count * 12 + gradients.count * 4)
        PushRequest.begin(
          request: request, stamp: stamp, mapNumber: plan.map.number, sections: 1, tensors: 0, arrivals: [],
          into: &writer)
        PushRequest.beginSection(
          table: 0, ids: some, sightings: some.map { _ in 1 }, floats: gradients.count, into: &writer)
        writer.append(array: gradients)
        return writer.finish()
      }
    }
  }

  /// Waits until sync has merged all that was pushed.
  func waitUntilMerged() throws {
    try wait("sync has not merged the rows", timeout: 120) {
      guard let held = try shard.asker.shardStatus(timeout: .seconds(30)), held.isQuiet else { return false }
      return try status().cursors == [held.durableEpoch]
    }
  }

  /// Has what is merged published, and waits until every replica serves it; gives the version.
  @discardableResult func publish() throws -> UInt64 {
    let before = try status().newest
    _ = try sync.asker.ask(timeout: .seconds(60)) { PublishRequest(dense: false).encoded(request: $0) }
    try wait("no version was made", timeout: 120) { try status().newest > before }
    try waitUntilServed(timeout: 120)
    return try status().newest
  }

  /// Returns all replicas to a version, and waits until they serve its state.
  func rollBack(to version: UInt64) throws {
    _ = try sync.asker.ask(timeout: .seconds(120)) { PinRequest(version: version).encoded(request: $0) }
    try waitUntilServed(timeout: 120)
  }

  /// Lets the replicas follow the shards again.
  func resume() throws {
    _ = try sync.asker.ask(timeout: .seconds(120)) { PlainMessage.empty(.resume, request: $0) }
    try waitUntilServed(timeout: 120)
  }

  /// Bytes that sync has published.
  func publishedBytes() throws -> UInt64 { try status().totals.bytes }

  private func status() throws -> SyncStatus {
    var reader = try sync.asker.ask(timeout: .seconds(60)) { PlainMessage.empty(.status, request: $0) }
    guard let status = SyncStatus(json: try PlainMessage.text(decoding: &reader)) else {
      throw BenchmarkError(description: "sync's status cannot be read")
    }
    return status
  }

  private func waitUntilServed(timeout: Int64) throws {
    try wait("the replicas do not serve the newest version", timeout: timeout) {
      let status = try status()
      return status.base > 0 && status.replicas.count == replicas
        && status.replicas.allSatisfy { $0.version == status.newest }
    }
  }

  private func wait(_ problem: String, timeout: Int64, _ isDone: () throws -> Bool) throws {
    let deadline = Clocks.monotonic() + timeout * 1_000_000_000
    while try !isDone() {
      guard processes.values.allSatisfy(\.isRunning), Clocks.monotonic() < deadline else {
        throw BenchmarkError(description: problem)
      }
      usleep(2000)
    }
  }

  /// Seconds of processor time a role has used; of the busiest one, when there are several.
  func processorSeconds(_ role: Role) -> Double {
    let all = processes.filter { $0.key.role == role }.values
    return all.map { Double(BenchProcess.cpuTime(of: $0.processIdentifier)) / 1e9 }.max() ?? 0
  }
}
