// The event time of a table: watermarks move it, pushes cannot push it ahead by more than the allowed skew. Rows keep
// whole seconds, which is what a time-to-live of at least a second needs.

internal import Base

/// Turns event times into the table's idea of now.
struct TableClock {
  let timeToLive: Milliseconds?
  private let allowedSkew: Milliseconds
  /// Up to which event time all is in, once somebody said so.
  private(set) var watermark: Milliseconds?
  /// One unit of the stamps that counts before admission carry, in seconds.
  let stampSeconds: Int64

  init(_ options: TableOptions) {
    timeToLive = options.timeToLive?.milliseconds
    allowedSkew = options.allowedSkew.milliseconds
    stampSeconds = max(1, (timeToLive ?? 0) / 1000 / 1024)
  }

  mutating func advance(to time: Milliseconds) {
    watermark = max(watermark ?? .min, time)
  }

  /// Now, for a request of this event time: not before the watermark, not further ahead than the skew.
  func now(_ eventTime: Milliseconds) -> Milliseconds {
    guard let watermark else { return max(0, eventTime) }
    let limit = watermark.addingReportingOverflow(allowedSkew)
    return max(0, watermark, min(eventTime, limit.overflow ? .max : limit.partialValue))
  }

  /// The event time a row keeps: the request's own, not further ahead than the skew.
  func seconds(_ eventTime: Milliseconds) -> UInt32 {
    let limit = (watermark ?? .max).addingReportingOverflow(watermark == nil ? 0 : allowedSkew)
    let time = max(0, min(eventTime, limit.overflow ? .max : limit.partialValue))
    return UInt32(clamping: time / 1000 + (time % 1000 == 0 ? 0 : 1))
  }

  /// A row last seen before this second is gone; 0 when rows stay for ever.
  func oldest(at now: Milliseconds) -> UInt32 {
    guard let timeToLive, now > timeToLive else { return 0 }
    return UInt32(clamping: (now - timeToLive + 999) / 1000)
  }

  /// The 15-bit stamp of a count.
  func stamp(_ seconds: UInt32) -> UInt32 {
    timeToLive == nil ? 0 : UInt32(Int64(seconds) / stampSeconds & 0x7FFF)
  }

  /// True when a count with this stamp is past its time-to-live.
  ///
  /// Stamps wrap after at least 32 times to live, which is long after the sweep has come by.
  func isPast(stamp: UInt32, at now: Milliseconds) -> Bool {
    guard let timeToLive else { return false }
    let age = (now / 1000 / stampSeconds - Int64(stamp)) & 0x7FFF
    return age < 0x4000 && (age - 1) * stampSeconds * 1000 > timeToLive
  }

  /// The ageing period of a sketch that `now` lies in.
  static func generation(_ now: Milliseconds, ageing: Milliseconds?) -> UInt16 {
    guard let ageing else { return 0 }
    return UInt16(truncatingIfNeeded: now / ageing)
  }
}
