// The fields of one protobuf event, read from where they lie in the body. Only the form that every encoder writes is
// read: known fields, each as often as events.proto lets it occur, with tags of one byte. Whatever else protobuf allows,
// and all that it forbids, makes `read` false; the parser has SwiftProtobuf read such a body. Memory is kept from event
// to event. Belongs to the thread that parses.

internal import Base

/// The names a schema knows, looked up by their bytes.
struct WireNames: Sendable {
  let features: NameTable
  let tasks: NameTable
}

/// One event as it lies in a body.
struct EventFields: Sendable {
  enum Kind { case none, impression, action }

  /// A name: one that the schema has, by its number, or any other text, by where it lies.
  enum Name {
    case known(Int)
    case other(Range<Int>)
  }

  /// A feature's name, and where its values are in `ids`, `texts` and `numbers`.
  struct Feature {
    var name = Name.other(0..<0)
    var ids: Range<Int>
    var texts: Range<Int>
    var numbers: Range<Int>
  }

  private(set) var kind = Kind.none
  /// An impression's id, or the one an action names; the text as a range of the body.
  private(set) var number: UInt64?
  private(set) var text: Range<Int>?
  private(set) var time: Milliseconds = 0
  private(set) var actionName = 0..<0
  private(set) var features: [Feature] = []
  private(set) var predictions: [(task: Name, probability: Float)] = []
  private(set) var ids: [UInt64] = []
  private(set) var texts: [Range<Int>] = []
  private(set) var numbers: [Float] = []

  /// Reads the message `Event` that lies at `range` of a body; false when it is not in the usual form.
  mutating func read(_ body: Span<UInt8>, _ range: Range<Int>, _ names: WireNames) -> Bool {
    clear()
    guard !range.isEmpty else { return true }
    var cursor = WireCursor(at: range.lowerBound + 1, end: range.upperBound)
    guard let content = cursor.length(body), content.upperBound == range.upperBound else { return false }
    switch body[range.lowerBound] {
    case WireTag.bytes(1):
      kind = .impression
      return readImpression(body, content, names)
    case WireTag.bytes(2):
      kind = .action
      return readAction(body, content)
    default: return false
    }
  }

  private mutating func clear() {
    kind = .none
    number = nil
    text = nil
    time = 0
    actionName = 0..<0
    features.removeAll(keepingCapacity: true)
    predictions.removeAll(keepingCapacity: true)
    ids.removeAll(keepingCapacity: true)
    texts.removeAll(keepingCapacity: true)
    numbers.removeAll(keepingCapacity: true)
  }

  private mutating func readImpression(_ body: Span<UInt8>, _ range: Range<Int>, _ names: WireNames) -> Bool {
    var cursor = WireCursor(range)
    var hasTime = false
    while let tag = cursor.tag(body) {
      switch tag {
      case WireTag.varint(1): guard readNumber(body, &cursor) else { return false }
      case WireTag.bytes(2): guard readText(body, &cursor) else { return false }
      case WireTag.varint(3):
        guard !hasTime, let word = cursor.varint(body) else { return false }
        time = Milliseconds(bitPattern: word)
        hasTime = true
      case WireTag.bytes(4):
        guard let part = cursor.length(body), readFeature(body, part, names.features) else { return false }
      case WireTag.bytes(5):
        guard let part = cursor.length(body), readPrediction(body, part, names.tasks) else { return false }
      default: return false
      }
    }
    return true
  }

  private mutating func readAction(_ body: Span<UInt8>, _ range: Range<Int>) -> Bool {
    var cursor = WireCursor(range)
    var hasName = false
    var hasTime = false
    while let tag = cursor.tag(body) {
      switch tag {
      case WireTag.varint(1): guard readNumber(body, &cursor) else { return false }
      case WireTag.bytes(2): guard readText(body, &cursor) else { return false }
      case WireTag.bytes(3):
        guard !hasName, let name = cursor.text(body) else { return false }
        actionName = name
        hasName = true
      case WireTag.varint(4):
        guard !hasTime, let word = cursor.varint(body) else { return false }
        time = Milliseconds(bitPattern: word)
        hasTime = true
      default: return false
      }
    }
    return true
  }

  private mutating func readNumber(_ body: Span<UInt8>, _ cursor: inout WireCursor) -> Bool {
    guard number == nil, text == nil, let word = cursor.varint(body) else { return false }
    number = word
    return true
  }

  private mutating func readText(_ body: Span<UInt8>, _ cursor: inout WireCursor) -> Bool {
    guard number == nil, text == nil, let range = cursor.text(body) else { return false }
    text = range
    return true
  }

  private mutating func readFeature(_ body: Span<UInt8>, _ range: Range<Int>, _ names: NameTable) -> Bool {
    var feature = Feature(
      ids: ids.count..<ids.count, texts: texts.count..<texts.count, numbers: numbers.count..<numbers.count)
    var cursor = WireCursor(range)
    var hasName = false
    while let tag = cursor.tag(body) {
      switch tag {
      case WireTag.bytes(1):
        // Features mostly come in the order of the schema.
        guard !hasName, let name = cursor.name(body, of: names, expecting: features.count) else { return false }
        feature.name = name
        hasName = true
      case WireTag.bytes(2):
        guard let part = cursor.length(body) else { return false }
        var packed = WireCursor(part)
        while !packed.isAtEnd {
          guard let id = packed.varint(body) else { return false }
          ids.append(id)
        }
      case WireTag.varint(2):
        guard let id = cursor.varint(body) else { return false }
        ids.append(id)
      case WireTag.bytes(3):
        guard let text = cursor.text(body) else { return false }
        texts.append(text)
      case WireTag.bytes(4):
        guard let part = cursor.length(body), part.count % 4 == 0 else { return false }
        var packed = WireCursor(part)
        while let number = packed.float(body) { numbers.append(number) }
      case WireTag.word(4):
        guard let number = cursor.float(body) else { return false }
        numbers.append(number)
      default: return false
      }
    }
    feature.ids = feature.ids.lowerBound..<ids.count
    feature.texts = feature.texts.lowerBound..<texts.count
    feature.numbers = feature.numbers.lowerBound..<numbers.count
    features.append(feature)
    return true
  }

  private mutating func readPrediction(_ body: Span<UInt8>, _ range: Range<Int>, _ names: NameTable) -> Bool {
    var task: Name?
    var probability: Float?
    var cursor = WireCursor(range)
    while let tag = cursor.tag(body) {
      switch tag {
      case WireTag.bytes(1):
        guard task == nil, let name = cursor.name(body, of: names, expecting: predictions.count) else { return false }
        task = name
      case WireTag.word(2):
        guard probability == nil, let number = cursor.float(body) else { return false }
        probability = number
      default: return false
      }
    }
    predictions.append((task ?? .other(0..<0), probability ?? 0))
    return true
  }
}

/// Tags of one byte: a field's number and how its value is written.
enum WireTag {
  static func varint(_ field: UInt8) -> UInt8 { field << 3 }
  static func bytes(_ field: UInt8) -> UInt8 { field << 3 | 2 }
  static func word(_ field: UInt8) -> UInt8 { field << 3 | 5 }
}

/// A place in a body, and where its message ends.
///
/// Every read gives nil when it would go beyond that.
struct WireCursor {
  private(set) var at: Int
  let end: Int

  init(at: Int, end: Int) {
    self.at = at
    self.end = end
  }

  init(_ range: Range<Int>) { self.init(at: range.lowerBound, end: range.upperBound) }

  var isAtEnd: Bool { at >= end }

  mutating func tag(_ body: Span<UInt8>) -> UInt8? {
    guard at < end else { return nil }
    defer { at += 1 }
    return body[at]
  }

  mutating func varint(_ body: Span<UInt8>) -> UInt64? {
    guard at < end else { return nil }
    var byte = body[at]
    at += 1
    guard byte >= 0x80 else { return UInt64(byte) }
    var value = UInt64(byte & 0x7F)
    for shift in stride(from: 7 as UInt64, through: 63, by: 7) {
      guard at < end else { return nil }
      byte = body[at]
      at += 1
      value |= UInt64(byte & 0x7F) << shift
      guard byte >= 0x80 else { return value }
    }
    return nil
  }

  /// Four bytes, as a float.
  mutating func float(_ body: Span<UInt8>) -> Float? {
    guard end - at >= 4 else { return nil }
    defer { at += 4 }
    return Float(bitPattern: unsafe body.bytes.unsafeLoadUnaligned(fromByteOffset: at, as: UInt32.self))
  }

  /// A length and so many bytes; where those lie.
  mutating func length(_ body: Span<UInt8>) -> Range<Int>? {
    guard let count = varint(body), count <= UInt64(end - at) else { return nil }
    defer { at += Int(count) }
    return at..<at + Int(count)
  }

  /// A length and so many bytes of UTF-8.
  mutating func text(_ body: Span<UInt8>) -> Range<Int>? {
    guard let range = length(body), body.extracting(range).isUTF8 else { return nil }
    return range
  }

  /// A text that is probably one of the schema's names; those are UTF-8.
  mutating func name(_ body: Span<UInt8>, of names: NameTable, expecting: Int) -> EventFields.Name? {
    guard let range = length(body) else { return nil }
    let name = body.extracting(range)
    if let known = names.index(of: unsafe name.bytes, expecting: expecting) { return .known(known) }
    return name.isUTF8 ? .other(range) : nil
  }
}
