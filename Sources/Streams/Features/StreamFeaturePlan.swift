// The specs of a schema's stream features compiled into numbers: which events move which counts and lists of which group,
// and where each feature's value is then read.

internal import Base

/// What to count, and what to read.
struct StreamFeaturePlan: Sendable {
  /// A number of a group: how often events of a kind came, fading or not.
  struct Number: Hashable, Sendable {
    var kind: Int
    /// 0: it does not fade.
    var halfLifeMilliseconds: Int64
  }

  /// A list of a group: the ids in a field of the last events of a kind.
  struct List: Hashable, Sendable {
    var kind: Int
    var field: Int
  }

  /// Counts by the same features.
  struct Group: Sendable {
    /// The fields that make its key.
    var fields: [Int]
    var numbers: [Number] = []
    var lists: [List] = []
    var listLimits: [Int] = []
  }

  /// How a feature's value is read from its group.
  enum Source: Sendable {
    case count(Int)
    /// Places of our events and all events, in the group and in the group of everybody.
    case share(ours: Int, all: Int, everybody: Int, oursOfEverybody: Int, allOfEverybody: Int)
    case last(Int, limit: Int)
  }

  /// One feature that is computed.
  struct Output: Sendable {
    /// Its place in the schema.
    var feature: Int
    var group: Int
    var source: Source
    /// Per doubling or per share; nil: a dense number.
    var buckets: Int?
  }

  /// The events that count, by name; 0 is the impression.
  private(set) var kinds = [StreamFeatureSpec.impression]
  /// The features whose ids are needed, as places in the schema.
  private(set) var fields: [Int] = []
  private(set) var groups: [Group] = []
  private(set) var outputs: [Output] = []
  let kindNumbers: [String: Int]
  let fieldNames: [String]

  init(_ schema: EventSchema) {
    var kindNumbers = [StreamFeatureSpec.impression: 0]
    var fieldNames: [String] = []
    var kinds = kinds
    var groups: [Group] = []
    func kind(_ name: String) -> Int {
      if let known = kindNumbers[name] { return known }
      kindNumbers[name] = kinds.count
      kinds.append(name)
      return kinds.count - 1
    }
    func field(_ name: String) -> Int {
      if let known = fieldNames.firstIndex(of: name) { return known }
      fieldNames.append(name)
      return fieldNames.count - 1
    }
    func group(_ names: [String]) -> Int {
      let fields = names.map(field)
      if let known = groups.firstIndex(where: { $0.fields == fields }) { return known }
      groups.append(Group(fields: fields))
      return groups.count - 1
    }
    func number(_ event: String, _ halfLife: Int64?, in group: Int) -> Int {
      let number = Number(kind: kind(event), halfLifeMilliseconds: halfLife ?? 0)
      if let known = groups[group].numbers.firstIndex(of: number) { return known }
      groups[group].numbers.append(number)
      return groups[group].numbers.count - 1
    }
    func list(_ event: String, _ feature: String, limit: Int, in group: Int) -> Int {
      let list = List(kind: kind(event), field: field(feature))
      if let known = groups[group].lists.firstIndex(of: list) {
        groups[group].listLimits[known] = max(groups[group].listLimits[known], limit)
        return known
      }
      groups[group].lists.append(list)
      groups[group].listLimits.append(limit)
      return groups[group].lists.count - 1
    }
    for (place, feature) in schema.features.enumerated() {
      guard let stream = feature.stream else { continue }
      let own = group(stream.by)
      let source: Source
      switch stream.value {
      case .count: source = .count(number(stream.event, stream.halfLifeMilliseconds, in: own))
      case .share(let over):
        let everybody = group([])
        source = .share(
          ours: number(stream.event, stream.halfLifeMilliseconds, in: own),
          all: number(over, stream.halfLifeMilliseconds, in: own), everybody: everybody,
          oursOfEverybody: number(stream.event, stream.halfLifeMilliseconds, in: everybody),
          allOfEverybody: number(over, stream.halfLifeMilliseconds, in: everybody))
      case .last(let of):
        let limit = if case .ids(let limit) = feature.kind { limit } else { 0 }
        source = .last(list(stream.event, of, limit: limit, in: own), limit: limit)
      }
      outputs.append(
        Output(feature: place, group: own, source: source, buckets: feature.kind == .id ? stream.buckets : nil))
    }
    self.kinds = kinds
    self.groups = groups
    self.kindNumbers = kindNumbers
    self.fieldNames = fieldNames
    fields = fieldNames.compactMap { name in schema.features.firstIndex { $0.name == name } }
  }

  /// The most impressions that are remembered, and the most keys of each group, within some bytes.
  ///
  /// A quarter is for the impressions; of the rest every group gets as many keys.
  func limits(bytes: Int) -> (impressions: Int, keys: Int) {
    let perKey = groups.reduce(0) {
      $0 + FeatureGroup.bytesPerKey(numbers: $1.numbers.count, listLimits: $1.listLimits)
    }
    return (
      max(1, bytes / 4 / RecentImpressions.bytesPerEntry(width: fields.count)), max(1, bytes / 4 * 3 / max(1, perKey))
    )
  }

  /// The key of a group for some ids; nil when one is absent.
  ///
  /// A key of one field is its id, so that no two share a count; of several it is a 64-bit hash.
  func key(of group: Int, _ id: (Int) -> UInt64?) -> UInt64? {
    let fields = groups[group].fields
    guard let first = fields.first else { return 0 }
    guard var key = id(first) else { return nil }
    for field in fields.dropFirst() {
      guard let next = id(field) else { return nil }
      key = Hashing.mix(Hashing.mix(key) ^ next)
    }
    return key
  }
}

extension FeatureBlock {
  /// The first id of some features, or nil where there is none; nil when the block is not of the schema.
  func ids(of fields: [Int], layout: BlockLayout) -> (present: UInt64, ids: [UInt64])? {
    guard let offsets = layout.offsets(of: bytes) else { return nil }
    var present: UInt64 = 0
    var ids = [UInt64](repeating: 0, count: fields.count)
    for (place, field) in fields.enumerated() where layout.count(bytes, at: offsets[field]) > 0 {
      present |= 1 << UInt64(place)
      ids[place] = unsafe bytes.span.bytes.unsafeLoadUnaligned(fromByteOffset: offsets[field] + 2, as: UInt64.self)
    }
    return (present, ids)
  }

  /// The block with other values for some features; nil when it is not of the schema.
  func replacing(_ values: [(feature: Int, value: FeatureValue)], layout: BlockLayout) -> FeatureBlock? {
    guard let offsets = layout.offsets(of: bytes) else { return nil }
    var result: [UInt8] = []
    result.reserveCapacity(bytes.count + values.count * 16)
    var copied = 0
    for (feature, value) in values {
      result.append(contentsOf: bytes[copied..<offsets[feature]])
      copied = offsets[feature + 1]
      switch value {
      case .ids(let ids):
        result.append(word: UInt16(ids.count))
        for id in ids { result.append(word: id) }
      case .numbers(let numbers):
        result.append(word: UInt16(numbers.count))
        for number in numbers { result.append(word: number.bitPattern) }
      }
    }
    result.append(contentsOf: bytes[copied...])
    return FeatureBlock(bytes: result)
  }
}

/// Where the features of a block begin.
struct BlockLayout: Sendable {
  private let number: UInt32
  private let valueBytes: [Int]

  init(_ schema: EventSchema) {
    number = schema.number
    valueBytes = schema.features.map { if case .dense = $0.kind { 4 } else { 8 } }
  }

  /// The offset of each feature's count, and the end; nil when the bytes are no block of the schema.
  func offsets(of bytes: [UInt8]) -> [Int]? {
    guard bytes.count >= 6 else { return nil }
    let found = unsafe bytes.span.bytes.unsafeLoadUnaligned(fromByteOffset: 0, as: UInt32.self)
    let features = unsafe bytes.span.bytes.unsafeLoadUnaligned(fromByteOffset: 4, as: UInt16.self)
    guard found == number, Int(features) == valueBytes.count else { return nil }
    var offsets: [Int] = []
    offsets.reserveCapacity(valueBytes.count + 1)
    var at = 6
    for size in valueBytes {
      guard at + 2 <= bytes.count else { return nil }
      offsets.append(at)
      at += 2 + size * count(bytes, at: at)
    }
    guard at == bytes.count else { return nil }
    offsets.append(at)
    return offsets
  }

  func count(_ bytes: [UInt8], at offset: Int) -> Int {
    Int(unsafe bytes.span.bytes.unsafeLoadUnaligned(fromByteOffset: offset, as: UInt16.self))
  }
}

extension [UInt8] {
  /// Appends an integer, little-endian.
  fileprivate mutating func append<Word: FixedWidthInteger>(word: Word) {
    unsafe Swift.withUnsafeBytes(of: word.littleEndian) { unsafe append(contentsOf: $0) }
  }
}
