// Where each role listens. Every process works the addresses out from the configuration and the state directory, so that
// nothing has to be announced.

internal import Base

/// The addresses of a cluster's roles.
public struct Endpoints: Sendable, Equatable {
  private let transport: ClusterSettings.Transport
  private let host: String
  private let peers: String?
  private let basePort: Int
  private let shardCount: Int
  private let trainerCount: Int
  private let replicaCount: Int
  private let soapCount: Int
  private let soapHost: String
  /// Where the ingest takes events over ZeroMQ; nil when it does not.
  public let ingest: String?
  private let soapPort: Int
  private let httpHost: String
  private let httpPort: Int
  /// Where ipc sockets lie; unused with tcp.
  public let socketDirectory: String

  /// The addresses of a cluster.
  /// - Parameter socketDirectory: where ipc sockets lie, `StatePaths.socketDirectory`.
  public init(_ configuration: ClusterConfiguration, socketDirectory: String) {
    transport = configuration.cluster.transport
    host = configuration.cluster.host
    peers = configuration.cluster.peers
    basePort = configuration.cluster.basePort
    shardCount = configuration.shards.count
    trainerCount = configuration.trainers.count
    replicaCount = configuration.replicas.count
    soapCount = configuration.soapCount
    soapHost = configuration.soap.host
    let door = configuration.ingest.host
    ingest = configuration.ingest.zeromqPort.map { "tcp://\(door.contains(":") ? "[\(door)]" : door):\($0)" }
    soapPort = configuration.soap.port
    httpHost = configuration.replicas.host
    httpPort = configuration.replicas.port
    self.socketDirectory = socketDirectory
  }

  /// Where shard `index` listens for pulls and pushes.
  public func shard(_ index: Int) -> String { address(RoleInstance(.shard, index), port: 2 + index) }

  /// Where shard `index` listens for the trainer in its own process; nil when they are processes of their own.
  func inProcess(shard index: Int) -> String? { transport == .inproc ? "inproc://shard-\(index)" : nil }

  /// Where sync listens for replicas.
  public var sync: String { address(RoleInstance(.sync), port: 0) }

  /// Where the joiner listens.
  public var joiner: String { address(RoleInstance(.joiner), port: 1) }

  /// Where trainer `index` listens.
  public func trainer(_ index: Int) -> String { address(RoleInstance(.trainer, index), port: 2 + shardCount + index) }

  /// Where replica `index` answers operators' questions.
  public func replica(_ index: Int) -> String {
    address(RoleInstance(.replica, index), port: 2 + shardCount + trainerCount + index)
  }

  /// Where process `index` of user modelling answers applications.
  public func soap(_ index: Int) -> String {
    address(RoleInstance(.soap, index), port: 2 + shardCount + trainerCount + replicaCount + index)
  }

  /// The address process `index` of user modelling answers HTTP on, `host` and `port`.
  public func http(soap index: Int) -> (host: String, port: Int) {
    (soapHost, peers == nil ? soapPort + index : soapPort)
  }

  /// Which instance serves at each endpoint that messages go to.
  var servers: [String: String] {
    var servers = [sync: RoleInstance(.sync).directoryName]
    for index in 0..<shardCount { servers[shard(index)] = RoleInstance(.shard, index).directoryName }
    for index in 0..<replicaCount { servers[replica(index)] = RoleInstance(.replica, index).directoryName }
    if let ingest { servers[ingest] = RoleInstance(.ingest).directoryName }
    for index in 0..<soapCount { servers[soap(index)] = RoleInstance(.soap, index).directoryName }
    return servers
  }

  /// The address replica `index` answers HTTP on, `host` and `port`.
  public func http(replica index: Int) -> (host: String, port: Int) { (httpHost, port(replica: index)) }

  /// Replicas on one host need a port each.
  private func port(replica index: Int) -> Int { peers == nil ? httpPort + index : httpPort }

  /// The URL a client on this machine asks replica `index` at.
  public func url(replica index: Int) -> String {
    let reachable = httpHost == "0.0.0.0" ? "127.0.0.1" : httpHost == "::" ? "::1" : httpHost
    return "http://\(reachable.contains(":") ? "[\(reachable)]" : reachable):\(port(replica: index))"
  }

  private func address(_ instance: RoleInstance, port: Int) -> String {
    switch transport {
    case .ipc, .inproc: return "ipc://\(socketDirectory)/\(instance.directoryName)"
    case .tcp:
      let name = peers?.replacing("{role}", with: instance.role.rawValue).replacing(
        "{index}", with: "\(instance.index)")
      return "tcp://\(name ?? host):\(basePort + port)"
    }
  }

  /// Where a role listens that others find at `endpoint`: the same, unless roles have names of their own.
  public func listening(_ endpoint: String) -> String {
    guard transport == .tcp, peers != nil, let port = endpoint.split(separator: ":").last else { return endpoint }
    return "tcp://\(host):\(port)"
  }

  /// How many ports a cluster takes from `basePort` on with tcp.
  static func portCount(of configuration: ClusterConfiguration) -> Int {
    2 + configuration.shards.count + configuration.trainers.count + configuration.replicas.count
      + configuration.soapCount
  }

  /// Every TCP port the cluster listens on, and what for.
  public static func ports(
    of configuration: ClusterConfiguration
  ) -> [(host: String, port: Int, use: String, key: String)] {
    var ports = (0..<configuration.replicas.count).map { index in
      (configuration.replicas.host, configuration.replicas.port + index, "HTTP of replica \(index)", "replicas.port")
    }
    ports += (0..<configuration.soapCount).map { index in
      (configuration.soap.host, configuration.soap.port + index, "HTTP of soap \(index)", "soap.port")
    }
    if let port = configuration.ingest.port { ports.append((configuration.ingest.host, port, "ingest", "ingest.port")) }
    if let port = configuration.ingest.zeromqPort {
      ports.append((configuration.ingest.host, port, "ingest over ZeroMQ", "ingest.zeromqPort"))
    }
    if configuration.cluster.transport == .tcp {
      ports += (0..<portCount(of: configuration)).map { offset in
        (configuration.cluster.host, configuration.cluster.basePort + offset, "messages", "cluster.basePort")
      }
    }
    return ports
  }
}
