// Which entries a downstream model may read. Numbers of versions begin anew with each store of versions that sync begins, so
// what is served is a number for each numbering, and an entry belongs to the numbering in which it was made. Pure.

internal import Base
internal import Foundation

/// By when an entry was made, the newest version that is served.
public struct ServedVersions: Hashable, Sendable, Codable {
  /// One numbering of versions.
  struct Numbering: Hashable, Sendable, Codable {
    /// Entries made from here on are of it, wall clock.
    var from: Int64
    /// The store that numbers so; 0 for all that came before the first that is known.
    var store: UInt64
    /// The newest version of it that is served.
    var version: UInt64
  }

  /// Ascending by `from`; what was made before the first is not served.
  private(set) var numberings: [Numbering]

  /// More numberings than these are not remembered: entries of older ones are as good as gone.
  static let numberingLimit = 8

  /// How many different states of what is served a feature store keeps entries of.
  private static let stateLimit = 8
  /// How many entries of a user it keeps of each: as many as are pooled without a current one.
  static let keptEntries = 2

  /// The different states among those of some models, the lowest when there are many.
  static func states(_ all: some Sequence<ServedVersions>) -> [ServedVersions] {
    Array(Set(all).sorted { $0.current.version < $1.current.version }.prefix(stateLimit))
  }

  /// What is served at first: whatever was made before `now`, because it was answered to everybody then.
  init(before now: Milliseconds) {
    numberings = [
      Numbering(from: .min, store: 0, version: .max), Numbering(from: now, store: 0, version: 0),
    ]
  }

  /// Whether an entry is of a version that is served.
  func covers(_ version: UInt64, madeAt: Milliseconds) -> Bool {
    guard let numbering = numberings.last(where: { $0.from <= madeAt }) else { return false }
    return version <= numbering.version
  }

  /// The numbering that entries are made in now.
  var current: Numbering { numberings[numberings.count - 1] }

  /// Entries made from `now` on are of another store.
  mutating func begin(store: UInt64, at now: Milliseconds) {
    guard current.store != store else { return }
    if current.store == 0 {
      numberings[numberings.count - 1].store = store
      return
    }
    numberings.append(Numbering(from: max(now, current.from), store: store, version: 0))
    if numberings.count > Self.numberingLimit { numberings.removeFirst() }
  }

  /// Serves a version of the present numbering, and those before it.
  mutating func serve(_ version: UInt64) {
    numberings[numberings.count - 1].version = max(current.version, version)
  }

  /// What is served by both.
  func intersected(with other: ServedVersions) -> ServedVersions {
    var both = self
    if numberings.count == other.numberings.count,
      numberings.indices.allSatisfy({ numberings[$0].from == other.numberings[$0].from })
    {
      for place in numberings.indices {
        both.numberings[place].version = min(numberings[place].version, other.numberings[place].version)
      }
      return both
    }
    both.numberings = []
    for from in Set((numberings + other.numberings).map(\.from)).sorted() {
      guard let one = numberings.last(where: { $0.from <= from }),
        let two = other.numberings.last(where: { $0.from <= from })
      else { continue }
      both.numberings.append(Numbering(from: from, store: one.store, version: min(one.version, two.version)))
    }
    return both
  }

  /// Which of a user's entries, newest first, are too many for these states of what is served.
  ///
  /// Kept are the newest `limit`, and of each state the newest that are served. Of what is not served to all yet, some
  /// must still be there when it is, however often the user is worked out meanwhile: of all ages one, the spans of ages
  /// being twice as long from one to the next. So what a model reads is at most some times older than it takes a version
  /// to be served.
  static func surplus(
    _ entries: [(version: UInt64, madeAt: Milliseconds)], limit: Int, served states: [ServedVersions]
  ) -> [Int] {
    guard entries.count > limit else { return [] }
    var kept = Set(0..<limit)
    let newest = entries.map(\.madeAt).max() ?? 0
    var oldest: [Int: Int] = [:]
    var counts = [Int](repeating: 0, count: states.count)
    for (place, entry) in entries.enumerated() {
      var isServedToAll = true
      for (state, served) in states.enumerated() {
        if !served.covers(entry.version, madeAt: entry.madeAt) {
          isServedToAll = false
        } else if counts[state] < keptEntries {
          counts[state] += 1
          kept.insert(place)
        }
      }
      // The later in the list, the older.
      if !isServedToAll, place >= limit { oldest[span(ofAge: newest, entry.madeAt)] = place }
    }
    kept.formUnion(oldest.values)
    return entries.indices.filter { !kept.contains($0) }
  }

  /// The first span of ages; each one after is twice as long as all before it.
  static let firstSpan: UInt64 = 15_000

  private static func span(ofAge newest: Milliseconds, _ madeAt: Milliseconds) -> Int {
    64 - (UInt64(bitPattern: newest &- madeAt) / firstSpan).leadingZeroBitCount
  }

  /// Whether it can be true: what is read from a file may say anything.
  var isPlausible: Bool {
    !numberings.isEmpty && numberings.count <= Self.numberingLimit
      && zip(numberings, numberings.dropFirst()).allSatisfy { $0.from <= $1.from }
  }
}

/// Where a process keeps what is served, so that it does not go back with a restart.
public struct ServedFile: Sendable {
  private struct Content: Codable {
    var format = 1
    var models: [String: ServedVersions]
  }

  private let path: String
  private let durable: Bool

  /// A file at a path; it need not be there yet.
  public init(_ path: String, durable: Bool = true) {
    self.path = path
    self.durable = durable
  }

  /// What is served to some model, each state once: of these a feature store keeps entries.
  public func states() throws(SoapError) -> [ServedVersions] {
    ServedVersions.states(try read().values)
  }

  /// What is served by model; nothing when there is no file.
  func read() throws(SoapError) -> [String: ServedVersions] {
    guard Files.exists(path) else { return [:] }
    do {
      let content = try JSONDecoder().decode(Content.self, from: Data(try Files.read(path)))
      if content.format == 1, content.models.values.allSatisfy(\.isPlausible) { return content.models }
    } catch let error as FileError {
      throw .servedFile(path: path, problem: "\(error)")
    } catch {}
    throw .servedFile(
      path: path,
      problem:
        "is not what guira soap writes, {\"format\":1,\"models\":{…}}; remove it, and what was made until now counts "
        + "as served")
  }

  /// Replaces the file, whole.
  func write(_ models: [String: ServedVersions]) throws(SoapError) {
    do {
      let encoder = JSONEncoder()
      encoder.outputFormatting = [.sortedKeys]
      try Files.replace(path, with: Array(try encoder.encode(Content(models: models))), durable: durable)
    } catch {
      throw .servedFile(path: path, problem: "\(error)")
    }
  }
}
