// The embedded store's memory: users to their last entries, in stripes with a lock each, so that readers and the writer
// meet only on a user's own stripe and only for as long as it takes to look one up.

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
    var numbers: Numbers

    init(_ entry: EmbeddingEntry, half: Bool) {
      version = entry.version
      eventTime = entry.eventTime
      madeAt = entry.madeAt
      shape = entry.shape
      numbers = half ? .half(halves(of: entry.values)) : .full(entry.values)
    }

    var entry: EmbeddingEntry {
      let values: [Float]
      switch numbers {
      case .full(let numbers): values = numbers
      case .half(let bits): values = floats(of: bits)
      }
      return EmbeddingEntry(version: version, eventTime: eventTime, madeAt: madeAt, shape: shape, values: values)
    }

    var byteCount: Int {
      switch numbers {
      case .full(let numbers): 96 + numbers.count * 4
      case .half(let bits): 96 + bits.count * 2
      }
    }
  }

  private struct Stripe: Sendable {
    var users: [UInt64: [Kept]] = [:]
    var bytes = 0
  }

  private final class LockedStripe: Sendable {
    let state = Mutex(Stripe())
  }

  private static let stripeCount = 64
  private let stripes = (0..<stripeCount).map { _ in LockedStripe() }
  private let options: FeatureStoreOptions

  init(_ options: FeatureStoreOptions) { self.options = options }

  private func stripe(of user: UInt64) -> LockedStripe {
    stripes[Int(truncatingIfNeeded: Hashing.mix(user) >> 58) % Self.stripeCount]
  }

  /// Newest event time first.
  func entries(of user: UInt64, asOf: Milliseconds?) -> [EmbeddingEntry] {
    let kept = stripe(of: user).state.withLock { $0.users[user] ?? [] }
    return kept.lazy.filter { asOf == nil || $0.eventTime <= asOf ?? .max }.map(\.entry)
  }

  /// One of the same event time and shape is replaced; the oldest beyond the limit goes.
  func put(_ entry: EmbeddingEntry, of user: UInt64) {
    let kept = Kept(entry, half: options.halfPrecision)
    stripe(of: user).state.withLock { stripe in
      var entries = stripe.users[user] ?? []
      stripe.bytes -= entries.reduce(0) { $0 + $1.byteCount }
      entries.removeAll { $0.shape == kept.shape && $0.eventTime == kept.eventTime }
      let place = entries.firstIndex { $0.eventTime <= kept.eventTime } ?? entries.count
      entries.insert(kept, at: place)
      let alike = entries.indices.filter { entries[$0].shape == kept.shape }
      if alike.count > options.entriesPerUser { entries.remove(at: alike[alike.count - 1]) }
      stripe.bytes += entries.reduce(0) { $0 + $1.byteCount }
      stripe.users[user] = entries
    }
  }

  func remove(_ user: UInt64) {
    stripe(of: user).state.withLock { stripe in
      stripe.bytes -= (stripe.users.removeValue(forKey: user) ?? []).reduce(0) { $0 + $1.byteCount }
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

  /// Calls `body` with every user's entries, oldest first, a stripe at a time and outside its lock.
  func forEach<Failure: Error>(_ body: (UInt64, [EmbeddingEntry]) throws(Failure) -> Void) throws(Failure) {
    for stripe in stripes {
      let users = stripe.state.withLock { $0.users }
      for (user, kept) in users { try body(user, kept.reversed().map(\.entry)) }
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
