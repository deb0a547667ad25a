// Writes JSON by hand where speed matters: importers, generator, player.

public import Base

extension ByteWriter {
  /// Appends a text as it is.
  package mutating func append(text: StaticString) {
    let bytes = unsafe UnsafeRawBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount)
    unsafe append(raw: bytes.bytes)
  }

  /// Appends the UTF-8 of a text.
  package mutating func append(utf8 text: String) {
    var copy = text
    copy.withUTF8 { unsafe append(raw: UnsafeRawBufferPointer($0).bytes) }
  }

  /// Appends an integer in decimal.
  package mutating func append(decimal number: UInt64) {
    var digits = InlineArray<20, UInt8>(repeating: 0)
    var rest = number
    var at = 20
    repeat {
      at -= 1
      digits[at] = 0x30 + UInt8(truncatingIfNeeded: rest % 10)
      rest /= 10
    } while rest > 0
    unsafe append(raw: digits.span.extracting(at..<20).bytes)
  }

  /// Appends an integer in decimal.
  package mutating func append(decimal number: Int64) {
    if number < 0 { append(UInt8(0x2D)) }
    append(decimal: number.magnitude)
  }

  /// Appends a number; null for one that JSON cannot hold.
  package mutating func append(number: Float) {
    append(utf8: number.isFinite ? "\(number)" : "null")
  }

  /// Appends a text in quotes, escaped.
  package mutating func append(quoted text: String) {
    append(UInt8(0x22))
    for byte in text.utf8 {
      switch byte {
      case 0x22: append(text: "\\\"")
      case 0x5C: append(text: "\\\\")
      case 0x0A: append(text: "\\n")
      case 0x0D: append(text: "\\r")
      case 0x09: append(text: "\\t")
      case 0..<0x20: append(utf8: "\\u00" + (byte < 16 ? "0" : "") + String(byte, radix: 16))
      default: append(byte)
      }
    }
    append(UInt8(0x22))
  }
}

/// Writes events as JSON, for the player's requests and for files.
public struct EventEncoder: Sendable {
  /// The schema of the events.
  public let schema: EventSchema
  private let featureKeys: [String]
  private let taskKeys: [String]

  /// An encoder for events of a schema.
  public init(schema: EventSchema) {
    self.schema = schema
    featureKeys = schema.features.map { Self.key($0.name) }
    taskKeys = schema.tasks.map { Self.key($0.name) }
  }

  private static func key(_ name: String) -> String {
    var writer = ByteWriter()
    writer.append(quoted: name)
    return String(decoding: writer.finish().array, as: UTF8.self) + ":"
  }

  /// Appends an event as one JSON object, without a line end.
  ///
  /// Ids stay integers: a text that was hashed comes out as its hash, which means the same to every reader of the
  /// schema.
  ///
  /// - Throws: `DecodeError` when the features are not of this schema; nothing useful is appended then.
  public func append(_ event: Event, to writer: inout ByteWriter) throws(DecodeError) {
    switch event {
    case .impression(let impression):
      writer.append(text: "{\"type\":\"impression\",\"id\":")
      append(impression.id, to: &writer)
      writer.append(text: ",\"time\":")
      writer.append(decimal: impression.time)
      writer.append(text: ",\"features\":")
      try append(impression.features, to: &writer)
      append(predictions: impression.predictions, to: &writer)
      writer.append(text: "}")
    case .action(let action):
      writer.append(text: "{\"type\":\"action\",\"impression\":")
      append(action.impression, to: &writer)
      writer.append(text: ",\"action\":")
      writer.append(quoted: action.name)
      writer.append(text: ",\"time\":")
      writer.append(decimal: action.time)
      writer.append(text: "}")
    case .watermark(let time):
      writer.append(text: "{\"type\":\"watermark\",\"time\":")
      writer.append(decimal: time)
      writer.append(text: "}")
    }
  }

  /// Appends a feature block as the JSON object that impressions and prediction requests carry.
  ///
  /// Empty features are left out, and those that are computed from the stream: nobody else gives them.
  public func append(_ features: FeatureBlock, to writer: inout ByteWriter) throws(DecodeError) {
    let values = try features.values(of: schema)
    writer.append(text: "{")
    var isFirst = true
    for (index, value) in values.enumerated() where schema.features[index].stream == nil {
      if case .ids(let ids) = value, ids.isEmpty { continue }
      if !isFirst { writer.append(text: ",") }
      isFirst = false
      writer.append(utf8: featureKeys[index])
      switch value {
      case .ids(let ids):
        if case .id = schema.features[index].kind {
          writer.append(decimal: ids[0])
        } else {
          list(ids, to: &writer) { id, writer in writer.append(decimal: id) }
        }
      case .numbers(let numbers):
        list(numbers, to: &writer) { number, writer in writer.append(number: number) }
      }
    }
    writer.append(text: "}")
  }

  private func list<Element>(
    _ elements: [Element], to writer: inout ByteWriter, each: (Element, inout ByteWriter) -> Void
  ) {
    writer.append(text: "[")
    for (index, element) in elements.enumerated() {
      if index > 0 { writer.append(text: ",") }
      each(element, &writer)
    }
    writer.append(text: "]")
  }

  /// Integers as such; a text's hash as 32 digits, for the eye only: read back it names another impression.
  private func append(_ id: ImpressionID, to writer: inout ByteWriter) {
    if id.high == 0 { writer.append(decimal: id.low) } else { writer.append(quoted: id.description) }
  }

  private func append(predictions: [Float], to writer: inout ByteWriter) {
    guard predictions.count == taskKeys.count, predictions.contains(where: { $0.isFinite }) else { return }
    writer.append(text: ",\"prediction\":{")
    var isFirst = true
    for (task, prediction) in predictions.enumerated() where prediction.isFinite {
      if !isFirst { writer.append(text: ",") }
      isFirst = false
      writer.append(utf8: taskKeys[task])
      writer.append(number: prediction)
    }
    writer.append(text: "}")
  }
}
