// When the player sends what: event time → monotonic deadline. No clock, no I/O; times come in, deadlines go out.

public import Base

/// How fast events are replayed.
public enum ReplaySpeed: Equatable, Sendable, CustomStringConvertible {
  /// As fast as the cluster takes them.
  case maximum
  /// So many times the speed of event time.
  case factor(Double)
  /// So many impressions a second, evenly, whatever their event times.
  case impressionsPerSecond(Double)

  /// Reads `max`, a factor such as `60`, or a rate such as `1000/s`; nil for anything else.
  public init?(_ text: String) {
    if text == "max" {
      self = .maximum
    } else if text.hasSuffix("/s"), let rate = Double(text.dropLast(2)), rate > 0, rate.isFinite {
      self = .impressionsPerSecond(rate)
    } else if let factor = Double(text), factor > 0, factor.isFinite {
      self = .factor(factor)
    } else {
      return nil
    }
  }

  /// What `init` reads.
  public var description: String {
    switch self {
    case .maximum: "max"
    case .factor(let factor): "\(factor)"
    case .impressionsPerSecond(let rate): "\(rate)/s"
    }
  }
}

/// Gives each event of a replay its deadline.
public struct ReplayPacer: Sendable {
  private let speed: ReplaySpeed
  /// Monotonic nanoseconds that stand for the first event's time.
  private var origin: Int64
  private var firstTime: Milliseconds?
  private var impressions = 0

  /// A pacer whose first event is due at `now`, monotonic nanoseconds.
  public init(speed: ReplaySpeed, now: Int64) {
    self.speed = speed
    origin = now
  }

  /// When the next event of the replay is due, monotonic nanoseconds.
  ///
  /// Call it once per event, in order.
  public mutating func deadline(of event: Event) -> Int64 {
    let time = event.time
    let first = firstTime ?? time
    firstTime = first
    switch speed {
    case .maximum: return origin
    case .factor(let factor): return origin + Self.nanoseconds(Double(time - first) * 1e6 / factor)
    case .impressionsPerSecond(let rate):
      let due = origin + Self.nanoseconds(Double(impressions) * 1e9 / rate)
      if case .impression = event { impressions += 1 }
      return due
    }
  }

  /// The event time that `now` stands for; nil before the first event and at speeds that event time does not set.
  public func eventTime(at now: Int64) -> Milliseconds? {
    guard case .factor(let factor) = speed, let firstTime else { return nil }
    return firstTime + Int64(Double(now - origin) * factor / 1e6)
  }

  /// Moves everything yet to come by `nanoseconds`: after a pause the replay goes on at its speed, without a burst.
  public mutating func delay(by nanoseconds: Int64) { origin += nanoseconds }

  private static func nanoseconds(_ value: Double) -> Int64 { Int64(min(max(value, 0), 1e18)) }
}

extension Event {
  /// The event's own time.
  public var time: Milliseconds {
    switch self {
    case .impression(let impression): impression.time
    case .action(let action): action.time
    case .watermark(let time): time
    }
  }
}
