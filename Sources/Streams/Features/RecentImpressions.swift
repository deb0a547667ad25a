// Which ids an impression had, for as long as its actions may count: actions name their impression and nothing else. A
// ring in the order of event time, so that what is over leaves from the front.

internal import Base

/// The keys of impressions that actions may still belong to.
struct RecentImpressions: Sendable {
  /// The features whose ids are kept, one bit each in `present`.
  let width: Int
  /// The most impressions that are kept.
  let limit: Int
  /// Impressions that had to go before their time.
  private(set) var forgotten: UInt64 = 0

  /// One impression.
  struct Entry: BitwiseCopyable, Sendable {
    var id = ImpressionID(0)
    /// When it began to count.
    var counted: Milliseconds = 0
    /// The features it has an id in.
    var present: UInt64 = 0
    /// The events that counted already: each kind counts once for an impression.
    var seen: UInt64 = 0
  }

  private var entries: [Entry] = []
  private var ids: [UInt64] = []
  /// Number of the first entry and of the one behind the last, counted since the beginning.
  private var first = 0
  private var end = 0
  private var numbers: [ImpressionID: Int] = [:]

  init(width: Int, limit: Int) {
    self.width = width
    self.limit = limit
  }

  static func bytesPerEntry(width: Int) -> Int { 2 * (48 + 8 * width) + 48 }

  var count: Int { end - first }

  func place(of id: ImpressionID) -> Int? { numbers[id].map { $0 & (entries.count - 1) } }

  func entry(at place: Int) -> Entry { entries[place] }

  /// The id an entry has in feature `field` of those kept; nil when it has none.
  func id(_ field: Int, at place: Int) -> UInt64? {
    entries[place].present >> UInt64(field) & 1 == 1 ? ids[place * width + field] : nil
  }

  /// Marks an event of the impression as counted; false when it was already.
  mutating func mark(_ kind: Int, at place: Int) -> Bool {
    let bit = UInt64(1) << UInt64(kind)
    guard entries[place].seen & bit == 0 else { return false }
    entries[place].seen |= bit
    return true
  }

  /// Adds an impression that is not known.
  mutating func append(_ entry: Entry, ids new: ArraySlice<UInt64>) {
    precondition(new.count == width, "\(new.count) ids of \(width) features")
    if count == limit {
      removeFirst()
      forgotten += 1
    }
    if count == entries.count { grow() }
    let place = end & (entries.count - 1)
    entries[place] = entry
    for (field, id) in new.enumerated() { ids[place * width + field] = id }
    numbers[entry.id] = end
    end += 1
  }

  /// Forgets what began to count before `time`.
  mutating func forget(before time: Milliseconds) {
    while first < end, entries[first & (entries.count - 1)].counted < time { removeFirst() }
  }

  private mutating func removeFirst() {
    numbers[entries[first & (entries.count - 1)].id] = nil
    first += 1
  }

  private mutating func grow() {
    let capacity = max(16, entries.count * 2)
    var larger = [Entry](repeating: Entry(), count: capacity)
    var largerIDs = [UInt64](repeating: 0, count: capacity * width)
    for number in first..<end {
      let (from, to) = (number & (entries.count - 1), number & (capacity - 1))
      larger[to] = entries[from]
      for field in 0..<width { largerIDs[to * width + field] = ids[from * width + field] }
    }
    entries = larger
    ids = largerIDs
  }

  // MARK: - Bytes

  /// Appends all impressions, the first first.
  func encode(into writer: inout ByteWriter) {
    writer.append(forgotten)
    writer.append(UInt32(count))
    for number in first..<end {
      let place = number & (entries.count - 1)
      writer.append(entries[place].id)
      writer.append(entries[place].counted)
      writer.append(entries[place].present)
      writer.append(entries[place].seen)
      for field in 0..<width { writer.append(ids[place * width + field]) }
    }
  }

  /// Reads what was encoded; bits and ids of features and events go to the places given for them.
  mutating func decode(
    _ reader: inout ByteReader, fieldPlaces: [Int?], kindPlaces: [Int?]
  ) throws(DecodeError) {
    forgotten = try reader.read()
    for _ in 0..<(try reader.count("recent impressions", limit: .max)) {
      var entry = Entry(id: try reader.read(), counted: try reader.read())
      let present = try reader.read(UInt64.self)
      entry.seen = StoredBits.moved(try reader.read(), to: kindPlaces)
      var moved = [UInt64](repeating: 0, count: width)
      for (stored, place) in fieldPlaces.enumerated() {
        let id = try reader.read(UInt64.self)
        guard let place, present >> UInt64(stored) & 1 == 1 else { continue }
        entry.present |= 1 << UInt64(place)
        moved[place] = id
      }
      guard numbers[entry.id] == nil else {
        throw .invalid(field: "recent impression", value: "\(entry.id)", expected: "every id once")
      }
      append(entry, ids: moved[...])
    }
  }
}

/// Bits of a stored word at the places they have today.
enum StoredBits {
  static func moved(_ word: UInt64, to places: [Int?]) -> UInt64 {
    var result: UInt64 = 0
    for (stored, place) in places.prefix(64).enumerated() where word >> UInt64(stored) & 1 == 1 {
      if let place { result |= 1 << UInt64(place) }
    }
    return result
  }
}
