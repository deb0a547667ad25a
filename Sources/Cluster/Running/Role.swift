// The processes of a cluster, by name.

/// What a process does in the cluster.
public enum Role: String, Codable, CaseIterable, Sendable, Comparable {
  /// Sends a dataset's events; part of `guira up`.
  case player
  /// Takes events over HTTP.
  case ingest
  /// Joins impressions and actions into examples.
  case joiner
  /// Trains models.
  case trainer
  /// Ships versions to replicas.
  case sync
  /// Answers predictions.
  case replica
  /// Keeps user embeddings fresh and answers them.
  case soap
  /// Holds rows and dense tensors.
  case shard
  /// Starts, restarts and stops the others; part of `guira up`.
  case supervisor

  /// Orders roles as they are stopped: those that produce before those that receive.
  public static func < (left: Role, right: Role) -> Bool { left.stopOrder < right.stopOrder }

  private var stopOrder: Int {
    switch self {
    case .player: 0
    case .ingest: 1
    case .joiner: 2
    case .trainer: 3
    case .sync: 4
    case .replica: 5
    case .soap: 6
    case .shard: 7
    case .supervisor: 8
    }
  }
}

/// One process of the cluster: a role and its number.
public struct RoleInstance: Hashable, Codable, Sendable, Comparable, CustomStringConvertible {
  /// What it does.
  public var role: Role
  /// Which of its kind, from 0.
  public var index: Int

  /// A role's instance.
  public init(_ role: Role, _ index: Int = 0) {
    self.role = role
    self.index = index
  }

  /// Orders by role as they are stopped, then by number.
  public static func < (left: Self, right: Self) -> Bool { (left.role, left.index) < (right.role, right.index) }

  /// `shard-0`: the name of its directory.
  public var directoryName: String { "\(role.rawValue)-\(index)" }

  /// `shard 0`, as people say it.
  public var description: String { "\(role.rawValue) \(index)" }
}

extension ClusterConfiguration {
  /// The processes the supervisor starts, in the order of their start: all roles but shards that live in the trainer's.
  public var processes: [RoleInstance] {
    cluster.transport == .inproc ? instances.filter { $0.role != .shard } : instances
  }

  /// How many processes of user modelling there are.
  var soapCount: Int { soap.model == nil ? 0 : soap.count }

  /// The roles, in the order of their start.
  public var instances: [RoleInstance] {
    (0..<shards.count).map { RoleInstance(.shard, $0) } + [RoleInstance(.sync)]
      + (0..<replicas.count).map { RoleInstance(.replica, $0) }
      + (0..<soapCount).map { RoleInstance(.soap, $0) }
      + (0..<trainers.count).map { RoleInstance(.trainer, $0) } + [RoleInstance(.joiner)]
      + (ingest.port == nil ? [] : [RoleInstance(.ingest)])
  }
}
