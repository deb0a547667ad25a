// Which ids get a row, and which lose theirs.

/// When an id is given a row.
public enum AdmissionSettings: Sendable, Equatable {
  /// At its first sighting.
  case always
  /// At its n-th sighting, counted exactly.
  case count(Int)
  /// At about its n-th sighting, counted in a sketch of fixed size that ages.
  case sketch(Int)
  /// With this probability, decided by the id itself.
  case probability(Double)
}

/// `tables`: the policy of all tables, and what is different for some.
public struct TablesSettings: Sendable, Equatable, Settings {
  /// The policy of tables that `overrides` does not name.
  public var defaults = TableSettings()
  /// What is different, by the table's name (the feature's, unless the feature names another); keys left out are as in
  /// `defaults`.
  ///
  /// Default none.
  public var overrides: [String: TableSettings] = [:]

  /// The defaults.
  public init() {}

  /// The policy of a table.
  public func policy(of table: String) -> TableSettings { overrides[table] ?? defaults }

  mutating func bind(_ section: Section) {
    section.section("defaults", &defaults)
    section.map("overrides", &overrides, from: defaults, atMost: 1024)
  }
}

/// The policy of one table.
public struct TableSettings: Sendable, Equatable, Settings {
  /// Which row goes when there are too many.
  public enum Eviction: String, Sendable, CaseIterable, Codable {
    /// The one not used for longest.
    case lru
    /// The one used least.
    case lfu
  }

  /// When an id is given a row.
  ///
  /// Default `always`.
  public var admission = AdmissionSettings.always
  /// How many different ids the sketch has room for, with `admission: {sketch: n}`; six bytes each.
  ///
  /// Default 1,000,000. With more ids waiting than that, some are admitted early.
  public var sketchIds = 1_000_000
  /// How often the sketch halves its counts, event time, with `admission: {sketch: n}`.
  ///
  /// Default 7d: sightings count within about a week. nil: never.
  public var sketchAgeing: Duration? = .seconds(7 * 86_400)
  /// A row untouched for this long is dropped, event time.
  ///
  /// Default 30d: outlives a monthly visitor. nil: never.
  public var timeToLive: Duration? = .seconds(30 * 86_400)
  /// Most rows in the table, over all shards.
  ///
  /// Default nil: no limit.
  public var rowLimit: Int?
  /// Which row goes when `rowLimit` is reached.
  ///
  /// Default `lru`.
  public var eviction = Eviction.lru
  /// Most bytes the table may take on one shard; new ids are refused and counted beyond.
  ///
  /// Default 8GiB.
  public var memoryLimit: Int? = 8 << 30
  /// How far ahead of the watermark a row's event time may be, event time; further ahead counts as this far.
  ///
  /// Default 5m: one bad clock cannot expire a table.
  public var allowedSkew: Duration = .seconds(300)
  /// The number that fills the default row, which ids without a row are answered with.
  ///
  /// Default 0.
  public var defaultWeight = 0.0

  /// The defaults.
  public init() {}

  mutating func bind(_ section: Section) {
    section.variant(
      "admission", &admission, word: { $0 == "always" ? .always : nil }, words: ["always"],
      pairs: [
        ("count", Self.sightings(AdmissionSettings.count)), ("sketch", Self.sightings(AdmissionSettings.sketch)),
        ("probability", Self.probability),
      ],
      write: { admission in
        switch admission {
        case .always: ("always", nil)
        case .count(let n): ("count", "\(n)")
        case .sketch(let n): ("sketch", "\(n)")
        case .probability(let p): ("probability", "\(p)")
        }
      })
    section.value("sketchIds", &sketchIds, .integer(1...1 << 32))
    section.value(
      "sketchAgeing", &sketchAgeing, Scalar.duration(.seconds(1) ... .seconds(3650 * 86_400)).orWord("never"))
    section.value(
      "timeToLive", &timeToLive, Scalar.duration(.seconds(1) ... .seconds(3650 * 86_400)).orWord("never"))
    section.value("rowLimit", &rowLimit, Scalar<Int>.integer(1...1 << 40).orWord("none"))
    section.value("eviction", &eviction, .word)
    section.value("memoryLimit", &memoryLimit, Scalar.size(1 << 20...1 << 44).orWord("none"))
    section.value("allowedSkew", &allowedSkew, .duration(.zero ... .seconds(30 * 86_400)))
    section.value("defaultWeight", &defaultWeight, .number(-1e6...1e6))
  }

  private static func sightings(
    _ make: @escaping (Int) -> AdmissionSettings
  ) -> Scalar<AdmissionSettings> {
    let number = Scalar<Int>.integer(1...65_535)
    return Scalar(
      read: { (text: String) throws(Refusal) -> AdmissionSettings in make(try number.read(text)) }, write: { "\($0)" })
  }

  private static var probability: Scalar<AdmissionSettings> {
    let number = Scalar.positive(upTo: 1)
    return Scalar(
      read: { (text: String) throws(Refusal) -> AdmissionSettings in .probability(try number.read(text)) },
      write: { "\($0)" })
  }
}
