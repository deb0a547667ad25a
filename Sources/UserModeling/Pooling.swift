// The read path's arithmetic: from a user's stored entries to the vector that models read. No I/O and no clock.

public import Base

/// How entries become one vector.
///
/// The paper serves "the average pooling of the two newest cached embeddings and the current one"; how many entries that
/// is when the current one is not ready, or when fewer are wanted, is our reading: the newest `entries` of them, and
/// without a current one at most two.
public struct EmbeddingPooling: Sendable, Equatable {
  /// How many entries are averaged, 1 to 3; default 3.
  public var entries = 3
  /// Every number of the answer for a user without entries; default 0.
  public var defaultValue: Float = 0
  /// How long after it was made an entry counts, by the wall clock; nil for ever.
  public var timeToLive: Duration?

  /// The defaults.
  public init() {}

  /// The vector of a user.
  ///
  /// - Parameters:
  ///   - stored: the user's entries, newest first, of any shapes.
  ///   - isCurrent: whether the newest of them is of the newest version and the newest inputs.
  ///   - shape: what the asking model reads; entries of other shapes do not count.
  ///   - now: the wall clock.
  public func vector(
    of stored: [EmbeddingEntry], isCurrent: Bool, shape: EmbeddingShape, now: Milliseconds
  ) -> UserVector {
    let pooled = Array(living(stored, shape: shape, now: now).prefix(min(entries, isCurrent ? 3 : 2)))
    guard let newest = pooled.first else {
      return UserVector(
        values: [Float](repeating: defaultValue, count: shape.width), source: .default, pooled: 0, version: 0,
        eventTime: 0, age: 0)
    }
    var values = newest.values
    if pooled.count > 1 {
      for entry in pooled.dropFirst() { Arithmetic.add(entry.values, to: &values) }
      Arithmetic.scale(&values, by: 1 / Float(pooled.count))
    }
    return UserVector(
      values: values, source: isCurrent && newest == stored.first ? .current : .stored, pooled: pooled.count,
      version: newest.version, eventTime: newest.eventTime, age: newest.age(at: now))
  }
}

extension EmbeddingPooling {
  /// The entries that count.
  private func living(
    _ stored: [EmbeddingEntry], shape: EmbeddingShape, now: Milliseconds
  ) -> some Sequence<EmbeddingEntry> {
    let oldest = timeToLive.map { now.earlier(by: $0.milliseconds) } ?? .min
    return stored.lazy.filter { $0.shape == shape && $0.madeAt >= oldest }
  }

  /// Whether any entry counts.
  func hasLiving(_ stored: [EmbeddingEntry], shape: EmbeddingShape, now: Milliseconds) -> Bool {
    living(stored, shape: shape, now: now).contains { _ in true }
  }
}

extension EmbeddingEntry {
  /// How long ago it was made; what another process stored may say anything.
  fileprivate func age(at now: Milliseconds) -> Milliseconds {
    guard madeAt < now else { return 0 }
    let (age, overflow) = now.subtractingReportingOverflow(madeAt)
    return overflow ? .max : age
  }
}

/// Loops over floats: free of state, so that they vectorize.
enum Arithmetic {
  /// sums += values.
  static func add(_ values: [Float], to sums: inout [Float]) {
    let source = values.span
    var target = sums.mutableSpan
    for index in target.indices { target[index] += source[index] }
  }

  /// values *= factor.
  static func scale(_ values: inout [Float], by factor: Float) {
    var target = values.mutableSpan
    for index in target.indices { target[index] *= factor }
  }
}
