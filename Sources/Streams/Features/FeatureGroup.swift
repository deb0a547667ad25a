// The numbers and lists of all keys of one group: "by user_id" is a group, one user its key. Memory is bounded: the key
// that was longest without an event gives its place to a new one. Which one goes depends on the events alone, so that
// training, serving and a restart keep the same keys.

public import Base
internal import Glibc

/// One event in a list of the last ones.
public struct Occurrence: Equatable, Sendable, BitwiseCopyable {
  /// The id it had in the feature that is listed.
  public var id: UInt64
  /// When it was.
  public var time: Milliseconds
}

/// Numbers that fade and lists, by key.
struct FeatureGroup: Sendable {
  /// Per number the event time in which it halves; infinite for a plain count.
  let halfLives: [Double]
  /// Per list the most it holds.
  let listLimits: [Int]
  /// The most keys.
  let limit: Int
  /// Keys that gave way to others.
  private(set) var evicted: UInt64 = 0

  private var places: [UInt64: Int32] = [:]
  private var keys: [UInt64] = []
  /// Per place: the event time its numbers are of.
  private var stamps: [Milliseconds] = []
  private var numbers: [Double] = []
  private var lists: [[Occurrence]] = []
  /// Per place the neighbours in the order of their last event; -1 at the ends.
  private var newer: [Int32] = []
  private var older: [Int32] = []
  private var newest: Int32 = -1
  private var oldest: Int32 = -1

  init(halfLives: [Double], listLimits: [Int], limit: Int) {
    self.halfLives = halfLives
    self.listLimits = listLimits
    self.limit = limit
  }

  /// What a key takes at most; an estimate from above of what the arrays and the dictionary take.
  static func bytesPerKey(numbers: Int, listLimits: [Int]) -> Int {
    96 + 8 * numbers + listLimits.reduce(0) { $0 + 48 + 2 * 16 * $1 }
  }

  var count: Int { keys.count }

  func place(of key: UInt64) -> Int? { places[key].map { Int($0) } }

  /// A number of a place, faded to `time`.
  func number(_ number: Int, at place: Int, time: Milliseconds) -> Double {
    faded(numbers[place * halfLives.count + number], number, from: stamps[place], to: time)
  }

  /// A list of a place, oldest first.
  func list(_ list: Int, at place: Int) -> [Occurrence] { lists[place * listLimits.count + list] }

  private func faded(_ value: Double, _ number: Int, from stamp: Milliseconds, to time: Milliseconds) -> Double {
    guard halfLives[number].isFinite, value != 0, time > stamp else { return value }
    return value * exp2(-(Double(time) - Double(stamp)) / halfLives[number])
  }

  // MARK: - Events

  /// The place of a key that an event of `time` touches; its numbers are then of that time.
  mutating func touch(_ key: UInt64, at time: Milliseconds) -> Int {
    let place: Int
    if let known = places[key] {
      place = Int(known)
      unlink(place)
    } else {
      place = makePlace(for: key, at: time)
    }
    link(place)
    for number in halfLives.indices {
      let at = place * halfLives.count + number
      numbers[at] = faded(numbers[at], number, from: stamps[place], to: time)
    }
    stamps[place] = max(stamps[place], time)
    return place
  }

  mutating func add(to number: Int, at place: Int) { numbers[place * halfLives.count + number] += 1 }

  mutating func append(_ occurrence: Occurrence, to list: Int, at place: Int) {
    let at = place * listLimits.count + list
    if lists[at].count >= listLimits[list] { lists[at].removeFirst() }
    lists[at].append(occurrence)
  }

  private mutating func makePlace(for key: UInt64, at time: Milliseconds) -> Int {
    let place: Int
    if keys.count < limit {
      place = keys.count
      keys.append(key)
      stamps.append(time)
      numbers.append(contentsOf: repeatElement(0, count: halfLives.count))
      lists.append(contentsOf: repeatElement([], count: listLimits.count))
      newer.append(-1)
      older.append(-1)
    } else {
      place = Int(oldest)
      unlink(place)
      places[keys[place]] = nil
      evicted += 1
      keys[place] = key
      stamps[place] = time
      for number in halfLives.indices { numbers[place * halfLives.count + number] = 0 }
      for list in listLimits.indices { lists[place * listLimits.count + list].removeAll(keepingCapacity: true) }
    }
    places[key] = Int32(place)
    return place
  }

  private mutating func link(_ place: Int) {
    newer[place] = -1
    older[place] = newest
    if newest >= 0 { newer[Int(newest)] = Int32(place) }
    newest = Int32(place)
    if oldest < 0 { oldest = Int32(place) }
  }

  private mutating func unlink(_ place: Int) {
    let (before, after) = (older[place], newer[place])
    if before >= 0 { newer[Int(before)] = after } else { oldest = after }
    if after >= 0 { older[Int(after)] = before } else { newest = before }
  }

  // MARK: - Bytes

  /// Appends all keys, the longest unused first.
  func encode(into writer: inout ByteWriter) {
    writer.append(evicted)
    writer.append(UInt32(keys.count))
    var next = oldest
    while next >= 0 {
      let place = Int(next)
      writer.append(keys[place])
      writer.append(stamps[place])
      writer.append(array: Array(numbers[(place * halfLives.count)..<((place + 1) * halfLives.count)]))
      for list in listLimits.indices {
        let occurrences = lists[place * listLimits.count + list]
        writer.append(UInt32(occurrences.count))
        for occurrence in occurrences {
          writer.append(occurrence.id)
          writer.append(occurrence.time)
        }
      }
      next = newer[place]
    }
  }

  /// Reads what a group with `storedNumbers` numbers and `storedLists` lists wrote.
  ///
  /// - Parameters:
  ///   - numberPlaces: per stored number its place among ours, or nil when it is gone.
  ///   - listPlaces: the same for lists.
  mutating func decode(
    _ reader: inout ByteReader, numberPlaces: [Int?], listPlaces: [Int?]
  ) throws(DecodeError) {
    evicted = try reader.read()
    for _ in 0..<(try reader.count("keys of a stream feature", limit: .max)) {
      let key = try reader.read(UInt64.self)
      let stamp = try reader.read(Milliseconds.self)
      guard places[key] == nil else {
        throw .invalid(field: "key of a stream feature", value: "\(key)", expected: "every key once")
      }
      let place = touch(key, at: stamp)
      stamps[place] = stamp
      for number in numberPlaces {
        let value = try reader.read(Double.self)
        guard value.isFinite, value >= 0 else {
          throw .invalid(field: "count of a stream feature", value: "\(value)", expected: "a number from 0")
        }
        if let number { numbers[place * halfLives.count + number] = value }
      }
      for list in listPlaces {
        for _ in 0..<(try reader.count("last ids", limit: EventSchema.streamListLimit)) {
          let occurrence = Occurrence(id: try reader.read(), time: try reader.read())
          if let list { append(occurrence, to: list, at: place) }
        }
      }
    }
  }
}
