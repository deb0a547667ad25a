// How a model's step sizes change while it learns. The shard works the factor out from the examples it has applied, which are
// in every block; so a retry, a restart or another trainer changes nothing about it.

internal import Glibc

/// What the step sizes of a model are multiplied by, after so many examples.
public struct LearningRateSchedule: Sendable, Equatable {
  /// How step sizes fall after the warm-up.
  public enum Decay: String, Sendable, CaseIterable, Codable {
    /// Not at all.
    case none
    /// In a straight line down to the floor.
    case linear
    /// Along half a cosine down to the floor.
    case cosine
    /// With one over the root of the examples, down to the floor.
    case inverseRoot
  }

  /// Examples over which step sizes rise from nothing to their full size; 0 for none.
  public var warmUp: UInt64 = 0
  /// How they fall afterwards.
  public var decay = Decay.none
  /// Examples over which they fall; with `inverseRoot`, those after which they are half.
  public var decayOver: UInt64 = 1_000_000
  /// The share of the full size below which they never fall.
  public var floor: Float = 0

  /// No warm-up and no decay.
  public init() {}

  /// Whether step sizes ever change.
  public var isConstant: Bool { warmUp == 0 && decay == .none }

  /// The factor for a batch that comes after `examples` others.
  public func factor(after examples: UInt64) -> Float {
    if examples < warmUp { return Float(Double(examples + 1) / Double(warmUp)) }
    let share = Double(examples - warmUp) / Double(max(1, decayOver))
    let least = Double(floor)
    return switch decay {
    case .none: 1
    case .linear: Float(least + (1 - least) * max(0, 1 - share))
    case .cosine: Float(least + (1 - least) * 0.5 * (1 + cos(.pi * min(1, share))))
    case .inverseRoot: Float(max(least, 1 / (1 + 3 * share).squareRoot()))
    }
  }
}
