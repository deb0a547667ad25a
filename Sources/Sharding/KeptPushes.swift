// The pushes a client may have to send to one shard again, until they are durable there. They are asked for counts with
// every record and answered many times a second, so nothing here looks at all of them but sending them again.

internal import Base
internal import Wire

/// Pushes in the order of each chain; those of one chain become applied, and then durable, from the front.
struct KeptPushes {
  private struct Push {
    var end: Position
    var message: Blob
    var sentAt: Int64?
    /// Its place among the pushes of all chains.
    var number: UInt64
  }

  private struct Line {
    var pushes: [Push] = []
    /// The first that is not durable; what lies before it holds no message any more.
    var first = 0
    /// The first that is not applied.
    var unapplied = 0
  }

  private static let nothing = Blob([])

  private var lines: [ChainKey: Line] = [:]
  private var nextNumber: UInt64 = 0
  /// How many the shard has not acknowledged as applied.
  private(set) var unapplied = 0

  /// Keeps a push that follows the last one of its chain.
  mutating func append(_ message: Blob, chain: ChainKey, end: Position, sentAt: Int64?) {
    lines[chain, default: Line()].pushes.append(Push(end: end, message: message, sentAt: sentAt, number: nextNumber))
    nextNumber += 1
    unapplied += 1
  }

  /// Notes how far a chain is applied, which after a crash of the shard may be less than before, and lets go of what is
  /// durable.
  ///
  /// - Returns: how many bytes were let go of.
  mutating func note(_ chain: ChainKey, applied: Position, durable: Position) -> Int {
    guard var line = lines.removeValue(forKey: chain) else { return 0 }
    let before = line.pushes.count - line.unapplied
    var released = 0
    while line.first < line.pushes.count, line.pushes[line.first].end <= durable {
      released += line.pushes[line.first].message.count
      line.pushes[line.first].message = Self.nothing
      line.first += 1
    }
    line.unapplied = max(line.unapplied, line.first)
    while line.unapplied > line.first, line.pushes[line.unapplied - 1].end > applied { line.unapplied -= 1 }
    while line.unapplied < line.pushes.count, line.pushes[line.unapplied].end <= applied { line.unapplied += 1 }
    unapplied += line.pushes.count - line.unapplied - before
    // Moved once for each half let go of, so at most once per push.
    if line.first > 32, line.first * 2 > line.pushes.count {
      line.pushes.removeFirst(line.first)
      line.unapplied -= line.first
      line.first = 0
    }
    lines[chain] = line
    return released
  }

  /// When the push that waits longest to be applied was sent; nil when none waits.
  var oldestUnapplied: Int64? {
    lines.values.compactMap { $0.unapplied < $0.pushes.count ? $0.pushes[$0.unapplied].sentAt : nil }.min()
  }

  /// When the push that is applied and waits longest to be durable was sent; nil when none waits.
  var oldestApplied: Int64? {
    lines.values.compactMap { $0.first < $0.unapplied ? $0.pushes[$0.first].sentAt ?? longAgo : nil }.min()
  }

  /// The pushes that are not applied, in the order they were first sent; from now on they count as sent now.
  mutating func sendAgain(now: Int64) -> [Blob] {
    var again: [(number: UInt64, message: Blob)] = []
    for chain in lines.keys {
      guard var line = lines[chain] else { continue }
      for place in line.unapplied..<line.pushes.count {
        line.pushes[place].sentAt = now
        again.append((line.pushes[place].number, line.pushes[place].message))
      }
      lines[chain] = line
    }
    return again.sorted { $0.number < $1.number }.map(\.message)
  }
}
