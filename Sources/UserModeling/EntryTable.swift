// The embedded store's memory: users to their last entries, in stripes with a lock each, so that readers and the writer
// meet only on a user's own stripe and only for as long as it takes to look one up. What is too old leaves by and by: a
// sweep looks at some users of each stripe at a time, round and round.

internal import Base
internal import CKernels
internal import Synchronization

/// Entries by user; any thread may call it.
final class EntryTable: Sendable {
  /// An entry as it is kept.
  private struct Kept: Sendable {
    enum Numbers: Sendable {
      case full([Float])
      case half([UInt16])
    }

    var version: UInt64
    var eventTime: Milliseconds
    var madeAt: Milliseconds
    var shape: EmbeddingShape
    var hadRow: Bool
    var numbers: Numbers

    init(_ entry: EmbeddingEntry, half: Bool) {
      version = entry.version
      eventTime = entry.eventTime
      madeAt = entry.madeAt
      shape = entry.shape
      hadRow = entry.hadRow
      numbers = half ? .half(halves(of: entry.values)) : .full(entry.values)
    }

    var entry: EmbeddingEntry {
      let values: [Float]
      switch numbers {
      case .full(let numbers): values = numbers
      case .half(let bits): values = floats(of: bits)
      }
      return EmbeddingEntry(
        version: version, eventTime: eventTime, madeAt: madeAt, shape: shape, values: values, hadRow: hadRow)
    }

    var byteCount: Int {
      switch numbers {
      case .full(let numbers): 96 + numbers.count * 4
      case .half(let bits): 96 + bits.count * 2
      }
    }
  }

  private struct User: Sendable {
    /// Newest event time first.
    var entries: [Kept] = []
    /// Where the user is in the sweep's round.
    var place: Int

    var byteCount: Int { entries.reduce(0) { $0 + $1.byteCount } }
  }

  private struct Stripe: Sendable {
    var users: [UInt64: User] = [:]
    var bytes = 0
    /// All users, in the order of the sweep.
    var round: [UInt64] = []
    var next = 0

    /// Gives a user these entries; without any the user goes.
    mutating func set(_ user: UInt64, _ entries: [Kept]) {
      guard var record = users[user] else {
        guard !entries.isEmpty else { return }
        let made = User(entries: entries, place: round.count)
        round.append(user)
        users[user] = made
        bytes += made.byteCount
        return
      }
      bytes -= record.byteCount
      guard !entries.isEmpty else {
        users[user] = nil
        let last = round.removeLast()
        if last != user {
          round[record.place] = last
          users[last]?.place = record.place
        }
        return
      }
      record.entries = entries
      bytes += record.byteCount
      users[user] = record
    }

    /// Looks at the next `count` users; gives how many entries were older than `oldest` and went.
    mutating func sweep(_ count: Int, before oldest: Milliseconds) -> Int {
      var gone = 0
      for _ in 0..<min(count, round.count) where !round.isEmpty {
        if next >= round.count { next = 0 }
        let user = round[next]
        let entries = users[user]?.entries ?? []
        let living = entries.filter { $0.madeAt >= oldest }
        if living.count < entries.count {
          gone += entries.count - living.count
          set(user, living)
        }
        // Another user took the place of one who went.
        if !living.isEmpty { next += 1 }
      }
      return gone
    }
  }

  private final class LockedStripe: Sendable {
    let state = Mutex(Stripe())
  }

  private static let stripeCount = 64
  private let stripes = (0..<stripeCount).map { _ in LockedStripe() }
  private let options: FeatureStoreOptions
  private let clock: @Sendable () -> Milliseconds
  private let served = Mutex<[ServedVersions]>([])

  init(_ options: FeatureStoreOptions, clock: @escaping @Sendable () -> Milliseconds) {
    self.options = options
    self.clock = clock
  }

  /// What was made before this is too old.
  private var oldest: Milliseconds { options.timeToLive.map { clock().earlier(by: $0.milliseconds) } ?? .min }

  private func stripe(of user: UInt64) -> LockedStripe {
    stripes[Int(truncatingIfNeeded: Hashing.mix(user) >> 58) % Self.stripeCount]
  }

  /// Newest event time first.
  func entries(of user: UInt64, asOf: Milliseconds?) -> [EmbeddingEntry] {
    let kept = stripe(of: user).state.withLock { $0.users[user]?.entries ?? [] }
    return kept.lazy.filter { asOf == nil || $0.eventTime <= asOf ?? .max }.map(\.entry)
  }

  /// Keeps entries of these states of what is served beyond the limit.
  func keep(_ served: [ServedVersions]) { self.served.withLock { $0 = served } }

  /// One of the same event time and shape is replaced; the oldest beyond the limit go, and one that is too old already
  /// does not come in.
  func put(_ entry: EmbeddingEntry, of user: UInt64) {
    guard entry.madeAt >= oldest else { return }
    let kept = Kept(entry, half: options.halfPrecision)
    let served = served.withLock { $0 }
    stripe(of: user).state.withLock { stripe in
      var entries = stripe.users[user]?.entries ?? []
      entries.removeAll { $0.shape == kept.shape && $0.eventTime == kept.eventTime }
      let place = entries.firstIndex { $0.eventTime <= kept.eventTime } ?? entries.count
      entries.insert(kept, at: place)
      let alike = entries.indices.filter { entries[$0].shape == kept.shape }
      if alike.count > options.entriesPerUser {
        let surplus = ServedVersions.surplus(
          alike.map { (entries[$0].version, entries[$0].madeAt) }, limit: options.entriesPerUser, served: served)
        for place in surplus.reversed() { entries.remove(at: alike[place]) }
      }
      stripe.set(user, entries)
    }
  }

  func remove(_ user: UInt64) { stripe(of: user).state.withLock { $0.set(user, []) } }

  func contains(_ user: UInt64) -> Bool { stripe(of: user).state.withLock { $0.users[user] != nil } }

  /// Lets go of entries that are too old, of some users in each stripe; gives how many went.
  func sweep(usersPerStripe count: Int = 1024) -> Int {
    guard options.timeToLive != nil else { return 0 }
    let oldest = oldest
    return stripes.reduce(0) { gone, stripe in gone + stripe.state.withLock { $0.sweep(count, before: oldest) } }
  }

  /// Users of whom an entry was made with a row of theirs, a stripe at a time.
  func learnedUsers(_ body: ([UInt64]) -> Void) {
    for stripe in stripes {
      let users = stripe.state.withLock { $0.users }
      body(users.filter { $0.value.entries.contains(where: \.hadRow) }.map(\.key))
    }
  }

  var extent: FeatureStoreExtent {
    var extent = FeatureStoreExtent()
    for stripe in stripes {
      let (users, bytes) = stripe.state.withLock { ($0.users.count, $0.bytes) }
      extent.users += users
      extent.bytes += bytes
    }
    return extent
  }

  /// Calls `body` with every user's entries that are not too old, oldest first, a stripe at a time and outside its lock.
  func forEach<Failure: Error>(_ body: (UInt64, [EmbeddingEntry]) throws(Failure) -> Void) throws(Failure) {
    let oldest = oldest
    for stripe in stripes {
      let users = stripe.state.withLock { $0.users }
      for (user, kept) in users {
        try body(user, kept.entries.reversed().filter { $0.madeAt >= oldest }.map(\.entry))
      }
    }
  }
}

private func halves(of values: [Float]) -> [UInt16] {
  var bits = [UInt16](repeating: 0, count: values.count)
  unsafe values.withUnsafeBufferPointer { from in
    unsafe bits.withUnsafeMutableBufferPointer { to in
      guard let from = from.baseAddress, let to = to.baseAddress else { return }
      unsafe guira_to_half(from, values.count, to)
    }
  }
  return bits
}

private func floats(of bits: [UInt16]) -> [Float] {
  var values = [Float](repeating: 0, count: bits.count)
  unsafe bits.withUnsafeBufferPointer { from in
    unsafe values.withUnsafeMutableBufferPointer { to in
      guard let from = from.baseAddress, let to = to.baseAddress else { return }
      unsafe guira_from_half(from, bits.count, to)
    }
  }
  return values
}
