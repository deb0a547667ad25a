// What every role does around its work: its directory, log, status file, and the wish to stop.

internal import Base
internal import Foundation
public import Logging
internal import Synchronization
internal import Wire

/// One role of a cluster in this process.
public struct RoleProcess: Sendable {
  /// Which.
  public let instance: RoleInstance
  /// What all roles are told.
  public let plan: ClusterPlan
  /// Where files are.
  public let paths: StatePaths
  /// Where sockets are.
  public let endpoints: Endpoints
  /// The role's log.
  public let logger: Logger
  /// Whether a shard starts although its files are damaged, with what is left.
  let acceptLoss: Bool
  /// A trainer's score records stay, whatever the configuration says.
  let keepsAllScores: Bool
  /// Its key and those of the others; nil when the cluster does without.
  let security: LinkSecurity?
  /// What all sockets of this process share.
  let context: LinkContext

  /// Prepares a role and makes its directory.
  public init(
    _ instance: RoleInstance, configuration: ClusterConfiguration, paths: StatePaths, logger: Logger,
    acceptLoss: Bool = false, keepsAllScores: Bool = false
  ) throws {
    self.instance = instance
    self.acceptLoss = acceptLoss
    self.keepsAllScores = keepsAllScores
    plan = try ClusterPlan(configuration)
    self.paths = paths
    try paths.makeSocketDirectory()
    endpoints = Endpoints(configuration, socketDirectory: paths.socketDirectory)
    self.logger = logger
    security = try ClusterKeys(configuration, paths).security(of: instance)
    context = LinkContext(security)
  }

  /// Another role in the process of `host`.
  init(_ instance: RoleInstance, in host: RoleProcess) {
    self.instance = instance
    plan = host.plan
    paths = host.paths
    endpoints = host.endpoints
    logger = JSONLogHandler.logger(instance, level: host.logger.logLevel)
    acceptLoss = host.acceptLoss
    keepsAllScores = host.keepsAllScores
    security = host.security
    context = host.context
  }

  /// Where this role's own files are.
  public var directory: String { paths.directory(instance) }

  /// Where this process finds sync: where it serves, unless `GUIRA_SYNC` names another endpoint, such as a proxy's.
  var syncEndpoint: String { ProcessInfo.processInfo.environment["GUIRA_SYNC"] ?? endpoints.sync }

  /// Where this process finds the shards: where they serve, unless `GUIRA_SHARDS` names other endpoints, one per shard
  /// and separated by commas, such as those of a proxy (docs/chaos.md).
  func shardEndpoints() throws(StateError) -> [String] {
    let usual = plan.configuration.shards.count.indices.map { shard in
      (instance.role == .trainer ? endpoints.inProcess(shard: shard) : nil) ?? endpoints.shard(shard)
    }
    guard let text = ProcessInfo.processInfo.environment["GUIRA_SHARDS"] else { return usual }
    let given = text.split(separator: ",").map(String.init)
    guard given.count == usual.count else {
      throw StateError("GUIRA_SHARDS names \(given.count) endpoints; name \(usual.count), one per shard, or unset it")
    }
    return given
  }

  /// Runs the role until it is asked to stop.
  /// - Throws: what ends it; the supervisor starts it again.
  public func run() throws {
    try paths.checkFinished()
    let directory = try RoleDirectory(instance, in: paths)
    defer { _ = directory.path }
    logger.info("starts", metadata: ["shards": "\(plan.configuration.shards.count)"])
    let board = StatusBoard(instance, paths: paths)
    board.post(RoleStatus(instance, state: .starting))
    do {
      switch instance.role {
      case .shard where plan.isOneProcess:
        throw StateError("with cluster.transport inproc the shards run in the trainer's process: start `guira trainer`")
      case .shard: try runShard(board)
      case .trainer: try runTrainer(board)
      case .ingest: try runIngest(board)
      case .joiner: try runJoiner(board)
      case .sync: try runSync(board)
      case .replica: try runReplica(board)
      case .soap: try runSoap(board)
      case .player, .supervisor:
        throw StateError("'\(instance.role.rawValue)' is part of `guira up`, not a process of its own")
      }
    } catch {
      board.post(RoleStatus(instance, state: .failed, message: "\(error)"))
      logger.error("ends with an error", metadata: ["error": "\(error)"])
      throw error
    }
    logger.info("stopped in order")
  }
}

/// The role's status file; its threads may all post.
final class StatusBoard: Sendable {
  private let writer: Mutex<StatusWriter>
  private let rates = Mutex<[String: (value: Double, at: Int64, rate: Double)]>([:])

  init(_ instance: RoleInstance, paths: StatePaths) { writer = Mutex(StatusWriter(instance, in: paths)) }

  func post(_ status: RoleStatus) { writer.withLock { _ = $0.update(status) } }

  /// Per second since the last call about a second ago.
  func rate(_ name: String, _ value: Double) -> Double {
    rates.withLock { rates in
      let now = Clocks.monotonic()
      guard let last = rates[name] else {
        rates[name] = (value, now, 0)
        return 0
      }
      let seconds = Double(now - last.at) / 1e9
      guard seconds >= 0.9 else { return last.rate }
      let rate = max(0, value - last.value) / seconds
      rates[name] = (value, now, rate)
      return rate
    }
  }
}

extension Int {
  /// `0 ..< self`.
  var indices: Range<Int> { 0..<self }
}
