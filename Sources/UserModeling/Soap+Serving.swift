// Which versions are read by whom: answers for downstream models hold what is served to all of them, but for the users who
// are answered with the newest first. What is served moves on the thread that follows sync, and is written down before
// anybody reads it.

public import Base
internal import Synchronization

/// The downstream models that will read an answer.
public struct Audience: Sendable, Equatable {
  /// The places of those that wait for versions to be seen.
  let places: [Int]

  /// No model in particular: answered with the newest.
  public static let anyone = Audience(places: [])
}

/// What one answer may hold.
struct ReadLimits {
  let served: ServedVersions
  /// By user whether the newest is read all the same.
  let isEarly: [Bool]

  /// The entries that the user at a place is answered from.
  func readable(_ entries: [EmbeddingEntry], _ user: Int) -> [EmbeddingEntry] {
    isEarly[user] ? entries : entries.filter { served.covers($0.version, madeAt: $0.madeAt) }
  }
}

extension Soap {
  static func seenVersions(
    _ options: SoapOptions, file: ServedFile?, now: Milliseconds
  ) throws(SoapError) -> SeenVersions? {
    guard let seen = options.seen else { return nil }
    let made = SeenVersions(seen, served: try file?.read() ?? [:], parts: options.part.count, now: now)
    try file?.write(made.served)
    return made
  }

  /// The audience of some models by their names.
  public func audience(_ models: [String]) throws(SoapError) -> Audience {
    guard !models.isEmpty else { return .anyone }
    var places: Set<Int> = []
    for model in models {
      guard let place = downstream[model] else {
        throw .unknownDownstream(model: model, known: options.downstream)
      }
      if place >= 0 { places.insert(place) }
    }
    return Audience(places: Array(places))
  }

  /// What an answer for an audience may hold; nil for anything.
  func limits(of audience: Audience, _ users: [UInt64]) -> ReadLimits? {
    guard !audience.places.isEmpty else { return nil }
    return seen.withLock { seen in
      seen.map { seen in
        ReadLimits(served: seen.served(toAll: audience.places), isEarly: users.map(seen.isEarly))
      }
    }
  }

  private struct Answer: Hashable {
    var version: UInt64
    var eventTime: Milliseconds
  }

  /// Counts the answers that hold what is not served to all of the audience yet.
  func count(
    _ vectors: [UserVector], for audience: Audience, beyond served: ServedVersions, inputs: [Milliseconds]?,
    now: Milliseconds
  ) {
    var counts: [Answer: UInt64] = [:]
    for (index, vector) in vectors.enumerated() where vector.source != .default {
      let madeAt = now.earlier(by: vector.age)
      guard madeAt >= served.current.from, vector.version > served.current.version else { continue }
      counts[Answer(version: vector.version, eventTime: inputs?[index] ?? now), default: 0] += 1
    }
    guard !counts.isEmpty else { return }
    seen.withLock { seen in
      for (answer, count) in counts {
        seen?.answered(audience.places, version: answer.version, eventTime: answer.eventTime, count: count)
      }
    }
  }

  /// Says that a version is about to be served here; it may be the first of another store.
  public func versionComes(_ version: UInt64, of store: UInt64) {
    // What could not be written is tried again.
    let isUnwritten = state.withLock { !$0.servingProblem.isEmpty }
    let changed = seen.withLock { seen -> [String: ServedVersions]? in
      guard var after = seen else { return nil }
      let before = after.served
      after.comes(version, of: store, at: now)
      seen = after
      return after.served == before && !isUnwritten ? nil : after.served
    }
    guard let changed else { return }
    write(changed)
    keepServed()
  }

  /// Says how far a downstream model has been trained with what is served here; serves it what it has seen.
  public func modelProgressed(consumer: UInt64, examples: UInt64, watermark: Milliseconds) {
    let after = seen.withLock { seen -> SeenVersions? in
      seen?.progressed(consumer, examples: examples, watermark: watermark)
      guard var after = seen else { return nil }
      let news = after.seen()
      for (place, version) in news { after.serve(version, to: place) }
      return news.isEmpty ? nil : after
    }
    guard let after, write(after.served) else { return }
    // Answers may have been counted meanwhile: only what is served moves.
    seen.withLock { seen in for (place, version) in seen?.seen() ?? [] { seen?.serve(version, to: place) } }
    keepServed()
  }

  private func keepServed() { store.keep(seen.withLock { $0?.states ?? [] }) }

  /// Writes down what is served; false when it could not be done.
  @discardableResult
  private func write(_ served: [String: ServedVersions]) -> Bool {
    do throws(SoapError) {
      try servedFile?.write(served)
      state.withLock { $0.servingProblem = "" }
      return true
    } catch {
      state.withLock { $0.servingProblem = "\(error)" }
      return false
    }
  }
}
