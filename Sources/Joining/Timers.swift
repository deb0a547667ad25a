// Which impression has a label due next: a radix heap (Ahuja, Mehlhorn, Orlin, Tarjan 1990), a priority queue for keys
// that never fall below the last one taken. An entry is appended once and moves to nearer buckets a few times,
// sequentially; nothing is ever removed from the middle: entries that no longer hold are skipped by whoever takes them.

internal import Base

/// Due times of slots, earliest first.
struct Timers {
  /// One appointment; it holds while the slot still has this serial and this due time.
  struct Entry: BitwiseCopyable {
    var due: Milliseconds
    var slot: UInt32
    var serial: UInt32
  }

  /// Bucket b > 0 holds keys whose highest bit that differs from `last` is bit b − 1; bucket 0 holds `last` itself.
  private var buckets: [[Entry]] = Array(repeating: [], count: 65)
  private var earliest: [Milliseconds] = Array(repeating: .max, count: 65)
  /// Which buckets b > 0 hold something: bit b − 1.
  private var occupied: UInt64 = 0
  /// Entries on their way to nearer buckets; empty but for its memory.
  private var moving: [Entry] = []
  /// A larger one gives its memory back.
  private static let keptEntries = 4096
  private var last: Milliseconds = .min
  /// How many entries there are, those that no longer hold included.
  private(set) var count = 0
  /// The earliest key, `.max` when there is none.
  ///
  /// A due time before the last one taken counts as that one.
  private(set) var next: Milliseconds = .max

  mutating func add(_ entry: Entry) {
    place(entry)
    count += 1
    next = min(next, max(entry.due, last))
  }

  private mutating func place(_ entry: Entry) {
    let key = max(entry.due, last)
    let bucket = 64 - UInt64(bitPattern: key ^ last).leadingZeroBitCount
    buckets[bucket].append(entry)
    if key < earliest[bucket] { earliest[bucket] = key }
    if bucket > 0 { occupied |= 1 << UInt64(bucket - 1) }
  }

  /// Moves all entries with the earliest key into `taken` (emptied first).
  mutating func takeEarliest(into taken: inout [Entry]) {
    taken.removeAll(keepingCapacity: true)
    if buckets[0].isEmpty {
      guard occupied != 0 else { return }
      let bucket = occupied.trailingZeroBitCount + 1
      last = earliest[bucket]
      swap(&moving, &buckets[bucket])
      earliest[bucket] = .max
      occupied &= occupied - 1
      for entry in moving { place(entry) }
      moving.removeAll(keepingCapacity: moving.capacity <= Self.keptEntries)
    }
    swap(&taken, &buckets[0])
    count -= taken.count
    earliest[0] = .max
    next = occupied == 0 ? .max : earliest[occupied.trailingZeroBitCount + 1]
  }

  /// Drops entries that no longer hold, to give their memory back.
  mutating func removeAll(where isGone: (Entry) -> Bool) {
    count = 0
    next = .max
    for bucket in buckets.indices where !buckets[bucket].isEmpty {
      buckets[bucket] = buckets[bucket].filter { !isGone($0) }
      count += buckets[bucket].count
      earliest[bucket] = buckets[bucket].reduce(.max) { min($0, max($1.due, last)) }
      if bucket > 0, buckets[bucket].isEmpty { occupied &= ~(1 << UInt64(bucket - 1)) }
      next = min(next, earliest[bucket])
    }
  }
}
