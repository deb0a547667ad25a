// Protobuf → events (events.proto). The usual form is read where it lies (EventFields.swift); what is unusual or wrong,
// SwiftProtobuf reads or refuses. Each event is checked against the schema and its feature block built. An event is taken
// whole or refused whole, with a typed reason. One parser per thread.

public import Base
internal import SwiftProtobuf

/// Why a body is no batch of events at all.
public struct ProtobufFault: Error, Equatable, Sendable, CustomStringConvertible {
  /// What is wrong, in the decoder's words.
  public let description: String
}

/// An event of a body that was refused.
public struct ProtobufRefusal: Error, Equatable, Sendable {
  /// Its number, from 1, and the reason.
  public var fault: EventFault
  /// The event as JSON, as protobuf writes it; empty when there is none.
  public var text: [UInt8]
}

/// Turns protobuf batches into events of one schema.
public struct ProtobufEventParser: Sendable {
  /// A body above it leaves no memory behind.
  private static let keptBodyBytes = 1 << 20

  private let schema: EventSchema
  private let number: UInt32
  /// By `String`, which also takes another composition of the same characters.
  private let indices: [String: Int]
  private let tasks: [String: Int]
  private let names: WireNames
  private let seeds: [UInt64]
  private let kinds: [FeatureKind]
  /// Whether events carry the feature; the others are computed from the stream.
  private let isGiven: [Bool]
  private var times = EventParser.Options().times
  private var fields = EventFields()
  /// Per feature of the schema, where it is among an impression's; nil where it is not.
  private var found: [Int?]

  /// A parser for a schema.
  public init(schema: EventSchema) {
    self.schema = schema
    number = schema.number
    indices = Dictionary(zip(schema.features.map(\.name), 0...), uniquingKeysWith: { first, _ in first })
    tasks = Dictionary(zip(schema.tasks.map(\.name), 0...), uniquingKeysWith: { first, _ in first })
    names = WireNames(features: NameTable(schema.features.map(\.name)), tasks: NameTable(schema.tasks.map(\.name)))
    seeds = schema.features.map { Hashing.xxh3($0.name) }
    kinds = schema.features.map(\.kind)
    isGiven = schema.features.map { $0.stream == nil }
    found = Array(repeating: nil, count: schema.features.count)
  }

  /// The latest event time that is believed.
  public var latestTime: Milliseconds {
    get { times.upperBound }
    set { times = times.lowerBound...max(times.lowerBound, newValue) }
  }

  /// The events of a body, an `EventBatch`, each with its number from 1 where it is refused.
  ///
  /// - Throws: `ProtobufFault` when the body is no such message; nothing of it counts then.
  public mutating func parse(_ body: [UInt8]) throws(ProtobufFault) -> [Result<Event, ProtobufRefusal>] {
    defer { if body.count > Self.keptBodyBytes { fields = EventFields() } }
    if let events = read(body) { return events }
    // What is written in an unusual way comes out in the usual one.
    let usual: [UInt8]
    do {
      var options = BinaryDecodingOptions()
      options.discardUnknownFields = true
      usual = try Guira_V1_EventBatch(serializedBytes: body, options: options).serializedBytes()
    } catch {
      throw ProtobufFault(description: "the body is no EventBatch: \(error)")
    }
    guard let events = read(usual) else { throw ProtobufFault(description: "the body is no EventBatch") }
    return events
  }

  /// The events of a body in the usual form; nil when it has another, or is none.
  private mutating func read(_ body: [UInt8]) -> [Result<Event, ProtobufRefusal>]? {
    let bytes = body.span
    var cursor = WireCursor(0..<bytes.count)
    var events: [Result<Event, ProtobufRefusal>] = []
    var refused: [(index: Int, message: Range<Int>)] = []
    while let tag = cursor.tag(bytes) {
      guard tag == WireTag.bytes(1), let message = cursor.length(bytes), fields.read(bytes, message, names) else {
        return nil
      }
      do throws(EventFault.Reason) {
        events.append(.success(try event(bytes)))
      } catch {
        refused.append((events.count, message))
        events.append(.failure(ProtobufRefusal(fault: EventFault(line: events.count + 1, reason: error), text: [])))
      }
    }
    for (index, message) in refused {
      guard case .failure(var refusal) = events[index] else { continue }
      refusal.text = (try? Guira_V1_Event(serializedBytes: Array(body[message])).jsonUTF8Bytes()) ?? []
      events[index] = .failure(refusal)
    }
    return events
  }

  /// How many events a body has, up to one more than `limit`, looking at their lengths alone.
  ///
  /// Decoding makes a hundred bytes of two, so a body is counted first. What is malformed ends the count: `parse` tells of it.
  public static func count(_ body: [UInt8], limit: Int) -> Int {
    var reader = ByteReader(Blob(body))
    func varint() throws(DecodeError) -> UInt64 {
      var value: UInt64 = 0
      for shift in stride(from: 0 as UInt64, to: 64, by: 7) {
        let byte = try reader.read(UInt8.self)
        value |= UInt64(byte & 0x7F) << shift
        if byte < 0x80 { return value }
      }
      throw .invalid(field: "varint", value: "more than ten bytes", expected: "at most ten")
    }
    var count = 0
    while reader.remaining > 0, count <= limit {
      do throws(DecodeError) {
        let tag = try varint()
        switch tag & 7 {
        case 0: _ = try varint()
        case 1: _ = try reader.sub(count: 8)
        case 2:
          let length = try varint()
          guard length <= UInt64(reader.remaining) else { return count }
          _ = try reader.sub(count: Int(length))
          if tag >> 3 == 1 { count += 1 }
        case 5: _ = try reader.sub(count: 4)
        default: return count
        }
      } catch { return count }
    }
    return count
  }

  /// The event of `fields`, whose texts lie in `body`.
  private mutating func event(_ body: Span<UInt8>) throws(EventFault.Reason) -> Event {
    switch fields.kind {
    case .impression:
      let id = try identity(body, "id", of: "the impression")
      try checkTime(of: "the impression")
      return .impression(
        Impression(id: id, time: fields.time, features: try features(body), predictions: try predictions(body)))
    case .action:
      let id = try identity(body, "impression", of: "the action")
      let bytes = fields.actionName.count
      guard (1...EventParser.actionNameLimit).contains(bytes) else {
        throw .badActionName(bytes: bytes, limit: EventParser.actionNameLimit)
      }
      try checkTime(of: "the action")
      return .action(Action(impression: id, name: text(body, fields.actionName), time: fields.time))
    case .none: throw .missing(field: "impression' or 'action", of: "the event")
    }
  }

  private func identity(
    _ body: Span<UInt8>, _ field: String, of event: String
  ) throws(EventFault.Reason) -> ImpressionID {
    if let number = fields.number { return ImpressionID(number) }
    guard let text = fields.text else { throw .missing(field: field, of: event) }
    return ImpressionID(utf8: unsafe body.extracting(text).bytes)
  }

  /// A text that was found to be UTF-8.
  private func text(_ body: Span<UInt8>, _ range: Range<Int>) -> String { String(utf8: body.extracting(range)) ?? "" }

  private func checkTime(of event: String) throws(EventFault.Reason) {
    guard fields.time != 0 else { throw .missing(field: "time", of: event) }
    guard times.contains(fields.time) else { throw .absurdTime(fields.time, allowed: times) }
  }

  private mutating func features(_ body: Span<UInt8>) throws(EventFault.Reason) -> FeatureBlock {
    for index in found.indices { found[index] = nil }
    for place in fields.features.indices {
      let index = try feature(fields.features[place].name, body)
      guard found[index] == nil else { throw .repeated(field: featureName(index)) }
      found[index] = place
    }
    var byteCount = 6 + 2 * kinds.count
    for index in kinds.indices { byteCount += try measure(feature: index) }
    guard byteCount <= EventSchema.featureBytesLimit else {
      throw .featuresTooLarge(bytes: byteCount, limit: EventSchema.featureBytesLimit)
    }
    var writer = BlockWriter(byteCount: byteCount)
    writer.append(number)
    writer.append(UInt16(kinds.count))
    for index in kinds.indices { write(feature: index, body, into: &writer) }
    return FeatureBlock(bytes: writer.finish())
  }

  /// The feature of a name, if events may carry it.
  private func feature(_ name: EventFields.Name, _ body: Span<UInt8>) throws(EventFault.Reason) -> Int {
    switch name {
    case .known(let index):
      guard isGiven[index] else {
        throw .unknownFeature(featureName(index), known: schema.givenFeatures.map(\.name))
      }
      return index
    case .other(let range):
      let name = text(body, range)
      guard let index = indices[name], isGiven[index] else {
        throw .unknownFeature(name, known: schema.givenFeatures.map(\.name))
      }
      return index
    }
  }

  private func featureName(_ index: Int) -> String { schema.features[index].name }

  /// Checks a feature's values and gives the bytes they take.
  private func measure(feature index: Int) throws(EventFault.Reason) -> Int {
    let feature = found[index].map { fields.features[$0] }
    let ids = feature.map { $0.ids.count + $0.texts.count } ?? 0
    let numbers = feature?.numbers ?? 0..<0
    switch kinds[index] {
    case .dense(let width):
      guard ids == 0 else { throw .wrongType(field: featureName(index), found: "ids", expected: "\(width) numbers") }
      guard numbers.isEmpty || numbers.count == width else {
        throw .wrongWidth(feature: featureName(index), count: numbers.count, width: width)
      }
      for place in numbers {
        guard fields.numbers[place].isFinite else { throw .notFinite(feature: featureName(index)) }
      }
      return 4 * width
    case .id: return 8 * (try count(ids, numbers, of: index, limit: 1))
    case .ids(let limit): return 8 * (try count(ids, numbers, of: index, limit: min(limit, Int(UInt16.max))))
    }
  }

  private func count(
    _ ids: Int, _ numbers: Range<Int>, of index: Int, limit: Int
  ) throws(EventFault.Reason) -> Int {
    guard numbers.isEmpty else {
      throw .wrongType(field: featureName(index), found: "numbers", expected: "ids or texts")
    }
    guard ids <= limit else { throw .tooManyIDs(feature: featureName(index), count: ids, limit: limit) }
    return ids
  }

  private func write(feature index: Int, _ body: Span<UInt8>, into writer: inout BlockWriter) {
    let feature = found[index].map { fields.features[$0] }
    if case .dense(let width) = kinds[index] {
      writer.append(UInt16(width))
      let numbers = feature?.numbers ?? 0..<0
      if numbers.isEmpty { for _ in 0..<width { writer.append(UInt32(0)) } }
      for place in numbers { writer.append(fields.numbers[place].bitPattern) }
      return
    }
    guard let feature else { return writer.append(UInt16(0)) }
    writer.append(UInt16(feature.ids.count + feature.texts.count))
    for place in feature.ids { writer.append(fields.ids[place]) }
    for place in feature.texts {
      writer.append(Hashing.xxh3(unsafe body.extracting(fields.texts[place]).bytes, seed: seeds[index]))
    }
  }

  private func predictions(_ body: Span<UInt8>) throws(EventFault.Reason) -> [Float] {
    guard !fields.predictions.isEmpty else { return [] }
    var values = [Float](repeating: .nan, count: schema.tasks.count)
    for (name, probability) in fields.predictions {
      let task: Int
      switch name {
      case .known(let index): task = index
      case .other(let range):
        let name = text(body, range)
        guard let index = tasks[name] else { throw .unknownTask(name, known: schema.tasks.map(\.name)) }
        task = index
      }
      guard (0...1).contains(probability) else {
        throw .notAProbability(task: schema.tasks[task].name, value: Double(probability))
      }
      guard values[task].isNaN else { throw .repeated(field: schema.tasks[task].name) }
      values[task] = probability
    }
    return values
  }
}
