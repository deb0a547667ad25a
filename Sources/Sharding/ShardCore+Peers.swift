// Who may ask what of a shard. With keys the peer's key says what it is. Without, its word in `hello` counts: that keeps
// mistakes out (a replica that was given a shard's address cannot push), not strangers.

internal import Wire

extension ShardCore {
  /// The refusal of what a peer's role may not ask, counted; nil when it may.
  mutating func refusal(of opcode: Opcode, from peer: PeerID) -> ErrorReply? {
    guard let role = peer.role ?? saidRoles[peer], !opcode.isAllowed(to: role) else { return nil }
    count("forbidden")
    return .forbidden(opcode, to: role)
  }

  /// Remembers what a peer without a key says it is.
  mutating func remember(_ role: PeerRole, of peer: PeerID) {
    guard peer.role == nil else { return }
    if saidRoles.count >= Self.saidRoleLimit { saidRoles = [:] }
    saidRoles[peer] = role
  }
}
