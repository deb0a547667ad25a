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
  }

  /// Moves all entries with the earliest key into `taken` (emptied first).
  mutating func takeEarliest(into taken: inout [Entry]) {
    taken.removeAll(keepingCapacity: true)
    if buckets[0].isEmpty {
      guard let bucket = buckets.indices.first(where: { !buckets[$0].isEmpty }) else { return }
      last = earliest[bucket]
      let moving = buckets[bucket]
      buckets[bucket] = []
      earliest[bucket] = .max
      for entry in moving { place(entry) }
    }
    swap(&taken, &buckets[0])
    count -= taken.count
    next = buckets.indices.first { !buckets[$0].isEmpty }.map { earliest[$0] } ?? .max
    earliest[0] = .max
  }

  /// Drops entries that no longer hold, to give their memory back.
  mutating func removeAll(where isGone: (Entry) -> Bool) {
    count = 0
    next = .max
    for bucket in buckets.indices where !buckets[bucket].isEmpty {
      buckets[bucket] = buckets[bucket].filter { !isGone($0) }
      count += buckets[bucket].count
      earliest[bucket] = buckets[bucket].reduce(.max) { min($0, max($1.due, last)) }
      next = min(next, earliest[bucket])
    }
  }
}
