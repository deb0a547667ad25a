// Which role may ask what: the one table for shards, sync and replicas (docs/security.md shows it too). An opcode that is
// not in it does not compile, so nobody forgets to think about it.

extension PeerRole {
  /// The word for it in the allow-list and in refusals.
  public var name: String {
    switch self {
    case .trainer: "trainer"
    case .sync: "sync"
    case .operator: "operator"
    case .replica: "replica"
    case .shard: "shard"
    case .application: "application"
    case .ingest: "ingest"
    }
  }
}

extension Opcode {
  /// Whether a role may ask for it.
  public func isAllowed(to role: PeerRole) -> Bool {
    switch self {
    case .hello, .ping, .status: true
    case .claim, .push: role == .trainer
    case .pull, .closeEpoch: role == .trainer || role == .sync || role == .operator
    case .scan: role == .sync || role == .operator
    // It lets a shard drop blocks, so reading is not all it does.
    case .blocksSince: role == .sync
    case .forget, .digest, .inspect, .checkpoint, .publish, .versions, .pin, .resume: role == .operator
    // A trainer follows as the teacher of its user models.
    case .follow: role == .replica || role == .trainer
    case .rows, .embed, .events: role == .application || role == .operator
    // Servers send these; nobody asks for them.
    case .durable, .version: false
    }
  }
}

extension ErrorReply {
  /// The refusal of an opcode to a role.
  public static func forbidden(_ opcode: Opcode, to role: PeerRole) -> ErrorReply {
    let allowed = PeerRole.allCases.filter { opcode.isAllowed(to: $0) }.map(\.name)
    let who = allowed.isEmpty ? "nobody may" : "allowed: \(allowed.joined(separator: ", "))"
    return ErrorReply(.forbidden, "role \(role.name) may not ask for '\(opcode)'; \(who)")
  }
}
