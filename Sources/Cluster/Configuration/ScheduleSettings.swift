// How the step sizes of a model change while it learns.

public import Sharding

/// `models.….schedule`: warm-up and decay of the step sizes of rows and dense tensors.
public struct ScheduleSettings: Sendable, Equatable, Settings {
  /// How step sizes fall after the warm-up.
  public typealias Decay = LearningRateSchedule.Decay

  /// Examples over which step sizes rise from nothing to their full size.
  ///
  /// Default 0: none. AdaGrad and Adam hold their first steps back by themselves.
  public var warmUp = 0
  /// How they fall afterwards.
  ///
  /// Default `none`: a model that follows its users must go on learning.
  public var decay = Decay.none
  /// Examples over which they fall; with `inverseRoot`, those after which they are half.
  ///
  /// Default 1,000,000.
  public var decayOver = 1_000_000
  /// The share of the full size below which they never fall.
  ///
  /// Default 0.
  public var floor = 0.0

  /// The defaults.
  public init() {}

  mutating func bind(_ section: Section) {
    section.value("warmUp", &warmUp, .integer(0...1 << 50))
    section.value("decay", &decay, .word)
    section.value("decayOver", &decayOver, .integer(1...1 << 50))
    section.value("floor", &floor, .number(0...1))
  }

  /// As the shard is told.
  public var options: LearningRateSchedule {
    var options = LearningRateSchedule()
    options.warmUp = UInt64(warmUp)
    options.decay = decay
    options.decayOver = UInt64(decayOver)
    options.floor = Float(floor)
    return options
  }
}
