// Two clocks that are never mixed: event times are UTC milliseconds (`Milliseconds`), durations are monotonic.

internal import Glibc

/// A point in time: milliseconds since 1970-01-01 UTC.
///
/// Event times and arrival times are given in it.
public typealias Milliseconds = Int64

extension Milliseconds {
  /// This time plus a non-negative duration, saturating: absurd event times must not trap.
  public func later(by duration: Int64) -> Milliseconds {
    let (sum, overflow) = addingReportingOverflow(duration)
    return overflow ? .max : sum
  }

  /// This time minus a non-negative duration, saturating.
  public func earlier(by duration: Int64) -> Milliseconds {
    let (difference, overflow) = subtractingReportingOverflow(duration)
    return overflow ? .min : difference
  }
}

/// The clocks of this machine.
public enum Clocks {
  /// Wall-clock time now, UTC milliseconds.
  public static func wall() -> Milliseconds {
    var time = timespec()
    unsafe clock_gettime(CLOCK_REALTIME, &time)
    return Int64(time.tv_sec) * 1000 + Int64(time.tv_nsec) / 1_000_000
  }

  /// Monotonic nanoseconds, for durations and deadlines.
  public static func monotonic() -> Int64 {
    var time = timespec()
    unsafe clock_gettime(CLOCK_MONOTONIC, &time)
    return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
  }

  /// Nanoseconds of processor time this thread has used.
  public static func threadCPU() -> Int64 {
    var time = timespec()
    unsafe clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
    return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
  }
}

extension Duration {
  /// The duration in whole nanoseconds; saturates at the ends of Int64.
  public var nanoseconds: Int64 {
    let (seconds, attoseconds) = components
    let (product, overflow) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
    return overflow ? (seconds < 0 ? .min : .max) : product + attoseconds / 1_000_000_000
  }

  /// The duration in whole milliseconds.
  public var milliseconds: Int64 { nanoseconds / 1_000_000 }

  /// The duration in seconds.
  public var inSeconds: Double { Double(nanoseconds) / 1e9 }
}

/// A monotonic time before all others that can still be subtracted from them.
public let longAgo: Int64 = .min / 4
