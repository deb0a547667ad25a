// What comes in: impressions, actions, and watermarks. JSON Lines and protobuf are parsed into these values at the door;
// journals hold their bytes (`encoded`, `Event(decoding:)`), documented in docs/events.md.

public import Base

/// Names one impression; an integer id as it is, a text by its 128-bit XXH3 hash.
public struct ImpressionID: Hashable, Sendable, BitwiseCopyable, Comparable, CustomStringConvertible {
  /// 0 for integers, else the upper half of the hash.
  public let high: UInt64
  /// The integer, or the lower half of the hash.
  public let low: UInt64

  /// An id from its halves.
  public init(high: UInt64, low: UInt64) {
    self.high = high
    self.low = low
  }

  /// An integer id.
  public init(_ number: UInt64) { self.init(high: 0, low: number) }

  /// A text id.
  ///
  /// The top bit of `high` is set, so that no text meets an integer.
  public init(_ text: String) { self.init(hash: Hashing.xxh3Wide(text)) }

  /// A text id, from its UTF-8.
  init(utf8 text: RawSpan) { self.init(hash: Hashing.xxh3Wide(text)) }

  private init(hash: (high: UInt64, low: UInt64)) { self.init(high: hash.high | 1 << 63, low: hash.low) }

  /// One word with all of the id's randomness, for partitioning and sampling.
  public var hash64: UInt64 { Hashing.mix(high ^ Hashing.mix(low)) }

  /// Orders by the halves.
  public static func < (left: Self, right: Self) -> Bool {
    left.high == right.high ? left.low < right.low : left.high < right.high
  }

  /// The integer, or 32 hexadecimal digits.
  public var description: String {
    high == 0 ? "\(low)" : Self.digits(high) + Self.digits(low)
  }

  private static func digits(_ word: UInt64) -> String {
    let text = String(word, radix: 16)
    return String(repeating: "0", count: 16 - text.count) + text
  }
}

/// Something was shown to a user: features frozen at that moment, and the prediction it was shown with.
public struct Impression: Equatable, Sendable {
  /// Its name; actions refer to it.
  public var id: ImpressionID
  /// When it was shown, UTC milliseconds of event time.
  public var time: Milliseconds
  /// When it reached Guira, UTC milliseconds; written at ingest.
  public var arrival: Milliseconds
  /// The features it was scored with.
  public var features: FeatureBlock
  /// The served probability per task of the schema; NaN where nothing was asked.
  ///
  /// Empty when no prediction was made.
  public var predictions: [Float]

  /// An impression from its parts.
  public init(
    id: ImpressionID, time: Milliseconds, arrival: Milliseconds = 0, features: FeatureBlock, predictions: [Float] = []
  ) {
    self.id = id
    self.time = time
    self.arrival = arrival
    self.features = features
    self.predictions = predictions
  }
}

/// Somebody did something about an impression: a click, the end of a view.
public struct Action: Equatable, Sendable {
  /// The impression it belongs to.
  public var impression: ImpressionID
  /// Which action, by the name the configuration uses.
  public var name: String
  /// When it was done, UTC milliseconds of event time.
  public var time: Milliseconds
  /// When it reached Guira, UTC milliseconds; written at ingest.
  public var arrival: Milliseconds

  /// An action from its parts.
  public init(impression: ImpressionID, name: String, time: Milliseconds, arrival: Milliseconds = 0) {
    self.impression = impression
    self.name = name
    self.time = time
    self.arrival = arrival
  }
}

/// One record of an event stream.
public enum Event: Equatable, Sendable {
  /// Something was shown.
  case impression(Impression)
  /// Somebody acted.
  case action(Action)
  /// No further record of this partition is earlier than `time`, but for late ones. Ingest writes it, so that an idle
  /// stream does not hold the join back and a replay sees the same watermarks.
  case watermark(time: Milliseconds)

  /// The most bytes one encoded event may have.
  public static let byteLimit = EventSchema.featureBytesLimit + 1024

  /// Appends the event's bytes.
  public func encode(into writer: inout ByteWriter) {
    switch self {
    case .impression(let impression):
      writer.append(UInt8(1))
      writer.append(impression.id)
      writer.append(impression.time)
      writer.append(impression.arrival)
      writer.append(UInt16(impression.predictions.count))
      writer.append(array: impression.predictions)
      writer.append(UInt32(impression.features.bytes.count))
      writer.append(bytes: impression.features.bytes)
    case .action(let action):
      writer.append(UInt8(2))
      writer.append(action.impression)
      writer.append(action.time)
      writer.append(action.arrival)
      writer.append(string: action.name)
    case .watermark(let time):
      writer.append(UInt8(3))
      writer.append(time)
    }
  }

  /// Reads what `encode` wrote.
  public init(decoding reader: inout ByteReader) throws(DecodeError) {
    let kind = try reader.read(UInt8.self)
    switch kind {
    case 1:
      let id = try reader.read(ImpressionID.self)
      let time = try reader.read(Milliseconds.self)
      let arrival = try reader.read(Milliseconds.self)
      let predictions = try reader.floats(count: Int(reader.read(UInt16.self)), limit: EventSchema.taskLimit)
      let count = try reader.count("feature bytes", limit: EventSchema.featureBytesLimit)
      let features = FeatureBlock(bytes: try reader.view(UInt8.self, count: count).array)
      self = .impression(
        Impression(id: id, time: time, arrival: arrival, features: features, predictions: predictions))
    case 2:
      let id = try reader.read(ImpressionID.self)
      let time = try reader.read(Milliseconds.self)
      let arrival = try reader.read(Milliseconds.self)
      self = .action(Action(impression: id, name: try reader.string(limit: 256), time: time, arrival: arrival))
    case 3:
      self = .watermark(time: try reader.read(Milliseconds.self))
    default:
      throw .invalid(field: "event kind", value: "\(kind)", expected: "1 impression, 2 action or 3 watermark")
    }
  }
}

extension ByteReader {
  /// `count` unaligned floats.
  mutating func floats(count: Int, limit: Int) throws(DecodeError) -> [Float] {
    guard count <= limit else { throw .overLimit(field: "numbers", value: UInt64(count), limit: UInt64(limit)) }
    var values: [Float] = []
    values.reserveCapacity(count)
    for _ in 0..<count { values.append(Float(bitPattern: try read(UInt32.self))) }
    return values
  }
}
