// How a pending impression lies in the store. Keys, big-endian so that they sort: due time (its sign bit flipped), the id's
// halves, a kind. Kind 0 is the impression, and its value, little-endian: Int64 time, Int64 floor, Position ordinal, UInt64
// mask of done tasks, UInt16 count of predictions, Float32 each, and the feature block. Kind 1 is an action that came later,
// all of it in the key: Int64 time, Int64 arrival, UInt16 number of its name; so a repeat falls upon itself.

internal import Base
internal import Streams

/// A pending impression as it is stored.
struct StoredImpression: Equatable {
  /// The due time it is stored under: never after the time a label of it may leave, for all that was known.
  var due: Milliseconds
  var impression: Impression
  var ordinal: Position
  var floor: Milliseconds
  var done: UInt64
  var actions: [SeenAction] = []

  /// One number that tells this impression under this due time from others: their sum is kept with a checkpoint.
  var digest: UInt64 { Self.digest(impression.id, due: due) }

  static func digest(_ id: ImpressionID, due: Milliseconds) -> UInt64 {
    Hashing.mix(id.hash64 ^ Hashing.mix(UInt64(bitPattern: due)))
  }
}

extension SeenAction: Equatable {
  static func == (left: SeenAction, right: SeenAction) -> Bool {
    left.time == right.time && left.arrival == right.arrival && left.name == right.name
  }
}

/// A key of the store.
struct StoreKey: Equatable, BitwiseCopyable {
  enum Kind: UInt8 { case impression, action }

  static let prefixBytes = 24
  static let impressionBytes = prefixBytes + 1
  static let actionBytes = impressionBytes + 18

  var due: Milliseconds
  var id: ImpressionID

  init(due: Milliseconds, id: ImpressionID) {
    self.due = due
    self.id = id
  }

  /// Before every key of this due time.
  init(beginningOf due: Milliseconds) { self.init(due: due, id: ImpressionID(0)) }

  /// The key at the beginning of `bytes`; nil when they are too few.
  init?(_ bytes: RawSpan) {
    guard bytes.byteCount >= Self.impressionBytes else { return nil }
    due = Self.sortable(unsafe bytes.unsafeLoadUnaligned(fromByteOffset: 0, as: Int64.self).byteSwapped)
    id = ImpressionID(
      high: unsafe bytes.unsafeLoadUnaligned(fromByteOffset: 8, as: UInt64.self).byteSwapped,
      low: unsafe bytes.unsafeLoadUnaligned(fromByteOffset: 16, as: UInt64.self).byteSwapped)
  }

  private static func sortable(_ time: Milliseconds) -> Milliseconds { time ^ .min }

  private func appendPrefix(to writer: inout ByteWriter) {
    writer.append(Self.sortable(due).bigEndian)
    writer.append(id.high.bigEndian)
    writer.append(id.low.bigEndian)
  }

  /// The prefix alone, which stands before all keys of the impression.
  func encode(into writer: inout ByteWriter) {
    writer.clear()
    appendPrefix(to: &writer)
  }

  func encode(_ kind: Kind, into writer: inout ByteWriter) {
    encode(into: &writer)
    writer.append(kind.rawValue)
  }

  func encode(_ action: SeenAction, into writer: inout ByteWriter) {
    encode(.action, into: &writer)
    writer.append(Self.sortable(action.time).bigEndian)
    writer.append(Self.sortable(action.arrival).bigEndian)
    writer.append(action.name.bigEndian)
  }

  /// The action in an action's key; nil when the bytes are none.
  static func action(_ bytes: RawSpan) -> SeenAction? {
    guard bytes.byteCount == actionBytes,
      unsafe bytes.unsafeLoadUnaligned(fromByteOffset: prefixBytes, as: UInt8.self) == Kind.action.rawValue
    else { return nil }
    let from = impressionBytes
    return SeenAction(
      time: sortable(unsafe bytes.unsafeLoadUnaligned(fromByteOffset: from, as: Int64.self).byteSwapped),
      arrival: sortable(unsafe bytes.unsafeLoadUnaligned(fromByteOffset: from + 8, as: Int64.self).byteSwapped),
      next: -1, name: unsafe bytes.unsafeLoadUnaligned(fromByteOffset: from + 16, as: UInt16.self).byteSwapped)
  }

  static func isImpression(_ bytes: RawSpan) -> Bool {
    guard bytes.byteCount == impressionBytes else { return false }
    return unsafe bytes.unsafeLoadUnaligned(fromByteOffset: prefixBytes, as: UInt8.self) == Kind.impression.rawValue
  }
}

extension StoredImpression {
  private static let fixedBytes = 42

  /// The value of the impression's key.
  func encodeValue(into writer: inout ByteWriter) {
    writer.clear()
    writer.append(impression.time)
    writer.append(floor)
    writer.append(ordinal)
    writer.append(done)
    writer.append(UInt16(impression.predictions.count))
    writer.append(array: impression.predictions)
    writer.append(array: impression.features.bytes)
  }

  /// An impression from its key and value, as yet without actions; nil when the value is none.
  init?(_ key: StoreKey, value: RawSpan) {
    guard value.byteCount >= Self.fixedBytes else { return nil }
    let predictions = Int(unsafe value.unsafeLoadUnaligned(fromByteOffset: 40, as: UInt16.self))
    let features = Self.fixedBytes + 4 * predictions
    guard value.byteCount >= features, value.byteCount - features <= EventSchema.featureBytesLimit else { return nil }
    due = key.due
    floor = unsafe value.unsafeLoadUnaligned(fromByteOffset: 8, as: Int64.self)
    ordinal = unsafe value.unsafeLoadUnaligned(fromByteOffset: 16, as: Position.self)
    done = unsafe value.unsafeLoadUnaligned(fromByteOffset: 32, as: UInt64.self)
    impression = Impression(
      id: key.id, time: unsafe value.unsafeLoadUnaligned(fromByteOffset: 0, as: Int64.self),
      features: FeatureBlock(
        bytes: unsafe value.extracting(features..<value.byteCount).withUnsafeBytes { unsafe Array($0) }),
      predictions: (0..<predictions).map {
        Float(
          bitPattern: unsafe value.unsafeLoadUnaligned(fromByteOffset: Self.fixedBytes + 4 * $0, as: UInt32.self))
      })
  }
}
