// Which clients a shard has heard of lately. An idle client pings every second, so one silent for long is gone.

internal import Wire

/// Clients by the time of their last message, at most `limit` of them.
struct LivingClients {
  /// A client silent for this long is forgotten, in nanoseconds.
  static let patience: Int64 = 10_000_000_000
  /// Strangers cannot fill the memory.
  static let limit = 1 << 16

  private var lastHeard: [PeerID: Int64] = [:]

  /// How many there are.
  var count: Int { lastHeard.count }

  /// A client sent something.
  mutating func heard(_ peer: PeerID, at now: Int64) {
    guard lastHeard.count < Self.limit || lastHeard[peer] != nil else { return }
    lastHeard[peer] = now
  }

  /// Forgets who has been silent for long.
  mutating func forget(now: Int64) {
    guard lastHeard.values.contains(where: { now - $0 > Self.patience }) else { return }
    lastHeard = lastHeard.filter { now - $0.value <= Self.patience }
  }
}
