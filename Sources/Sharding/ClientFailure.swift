// Why a client stops: each case says which shard, what was found, and what to do.

public import Base

/// Why a client cannot go on; the process that owns it stops and is started anew, or an operator decides.
public enum ClientFailure: Error, Equatable, Sendable, CustomStringConvertible {
  /// Another owner took the partition.
  case fenced(shard: Int, generation: UInt64)
  /// A shard came back behind a position it had acknowledged as durable.
  case lostDurable(shard: Int, acknowledged: Position, found: Position)
  /// A shard's journal was replaced.
  case identityChanged(shard: Int)
  /// The shard's tables, tensors or map are not what this client was configured with.
  case mismatch(shard: Int, String)

  /// Whether acknowledged updates are lost.
  public var isLoss: Bool {
    if case .lostDurable = self { true } else { false }
  }

  /// What happened, and what to do.
  public var description: String {
    switch self {
    case .fenced(let shard, let generation):
      "shard \(shard): generation \(generation) owns the partition now; this owner stops"
    case .lostDurable(let shard, let acknowledged, let found):
      "shard \(shard) had acknowledged position \(acknowledged) as durable and came back at \(found): updates are "
        + "lost; restore its journal or a checkpoint, or start again to accept the loss"
    case .identityChanged(let shard): "shard \(shard) came back with another journal; claim anew"
    case .mismatch(let shard, let problem): "shard \(shard): \(problem)"
    }
  }
}
