// Protobuf → events (events.proto). SwiftProtobuf reads the message; this file checks each event against the schema and
// builds the feature block. An event is taken whole or refused whole, with a typed reason. One parser per thread.

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
  private let schema: EventSchema
  private let number: UInt32
  private let indices: [String: Int]
  private let seeds: [UInt64]
  private let tasks: [String: Int]
  private var times = EventParser.Options().times
  /// Per feature of the schema, where it is among an impression's; nil where it is not.
  private var found: [Int?]

  /// A parser for a schema.
  public init(schema: EventSchema) {
    self.schema = schema
    number = schema.number
    indices = Dictionary(zip(schema.features.map(\.name), 0...), uniquingKeysWith: { first, _ in first })
    seeds = schema.features.map { Hashing.xxh3($0.name) }
    tasks = Dictionary(zip(schema.tasks.map(\.name), 0...), uniquingKeysWith: { first, _ in first })
    found = Array(repeating: nil, count: schema.features.count)
  }

  /// The latest event time that is believed.
  public var latestTime: Milliseconds {
    get { times.upperBound }
    set { times = times.lowerBound...max(times.lowerBound, newValue) }
  }

  /// Reads the events of a body, an `EventBatch`.
  /// - Parameter each: called with each event, or with why it is refused; `line` is its number, from 1.
  /// - Throws: `ProtobufFault` when the body is no such message; nothing was read then.
  public mutating func parse(
    _ body: [UInt8], each: (Result<Event, ProtobufRefusal>) -> Void
  ) throws(ProtobufFault) {
    let batch: Guira_V1_EventBatch
    do {
      batch = try Guira_V1_EventBatch(serializedBytes: body)
    } catch {
      throw ProtobufFault(description: "the body is no EventBatch: \(error)")
    }
    for (index, message) in batch.events.enumerated() {
      do throws(EventFault.Reason) {
        each(.success(try event(message)))
      } catch {
        let text = try? message.jsonUTF8Bytes() as [UInt8]
        each(.failure(ProtobufRefusal(fault: EventFault(line: index + 1, reason: error), text: text ?? [])))
      }
    }
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

  private mutating func event(_ message: Guira_V1_Event) throws(EventFault.Reason) -> Event {
    switch message.kind {
    case .impression(let impression):
      let id: ImpressionID
      switch impression.id {
      case .number(let number): id = ImpressionID(number)
      case .text(let text): id = ImpressionID(text)
      case nil: throw .missing(field: "id", of: "the impression")
      }
      try check(impression.time, of: "the impression")
      return .impression(
        Impression(
          id: id, time: impression.time, features: try features(impression.features),
          predictions: try predictions(impression.predictions)))
    case .action(let action):
      let id: ImpressionID
      switch action.impression {
      case .number(let number): id = ImpressionID(number)
      case .text(let text): id = ImpressionID(text)
      case nil: throw .missing(field: "impression", of: "the action")
      }
      guard (1...EventParser.actionNameLimit).contains(action.name.utf8.count) else {
        throw .badActionName(bytes: action.name.utf8.count, limit: EventParser.actionNameLimit)
      }
      try check(action.time, of: "the action")
      return .action(Action(impression: id, name: action.name, time: action.time))
    case nil: throw .missing(field: "impression' or 'action", of: "the event")
    }
  }

  private func check(_ time: Milliseconds, of event: String) throws(EventFault.Reason) {
    guard time != 0 else { throw .missing(field: "time", of: event) }
    guard times.contains(time) else { throw .absurdTime(time, allowed: times) }
  }

  private mutating func features(_ given: [Guira_V1_Feature]) throws(EventFault.Reason) -> FeatureBlock {
    for index in found.indices { found[index] = nil }
    for (place, feature) in given.enumerated() {
      // Features mostly come in the order of the schema.
      let isExpected = place < schema.features.count && schema.features[place].name == feature.name
      guard let index = isExpected ? place : indices[feature.name], schema.features[index].stream == nil else {
        throw .unknownFeature(feature.name, known: schema.givenFeatures.map(\.name))
      }
      guard found[index] == nil else { throw .repeated(field: feature.name) }
      found[index] = place
    }
    var bytes: [UInt8] = []
    bytes.reserveCapacity(6 + schema.features.count * 10)
    bytes.append(word: number)
    bytes.append(word: UInt16(schema.features.count))
    for (index, spec) in schema.features.enumerated() {
      try append(found[index].map { given[$0] }, as: spec, seed: seeds[index], to: &bytes)
    }
    guard bytes.count <= EventSchema.featureBytesLimit else {
      throw .featuresTooLarge(bytes: bytes.count, limit: EventSchema.featureBytesLimit)
    }
    return FeatureBlock(bytes: bytes)
  }

  private func append(
    _ feature: Guira_V1_Feature?, as spec: FeatureSpec, seed: UInt64, to bytes: inout [UInt8]
  ) throws(EventFault.Reason) {
    let ids = feature.map { $0.ids.count + $0.texts.count } ?? 0
    let numbers = feature?.numbers ?? []
    if case .dense(let width) = spec.kind {
      guard ids == 0 else { throw .wrongType(field: spec.name, found: "ids", expected: "\(width) numbers") }
      guard numbers.isEmpty || numbers.count == width else {
        throw .wrongWidth(feature: spec.name, count: numbers.count, width: width)
      }
      guard numbers.allSatisfy(\.isFinite) else { throw .notFinite(feature: spec.name) }
      bytes.append(word: UInt16(width))
      for place in 0..<width { bytes.append(word: numbers.isEmpty ? 0 : numbers[place].bitPattern) }
      return
    }
    guard numbers.isEmpty else { throw .wrongType(field: spec.name, found: "numbers", expected: "ids or texts") }
    let limit = if case .ids(let limit) = spec.kind { min(limit, Int(UInt16.max)) } else { 1 }
    guard ids <= limit else { throw .tooManyIDs(feature: spec.name, count: ids, limit: limit) }
    bytes.append(word: UInt16(ids))
    for id in feature?.ids ?? [] { bytes.append(word: id) }
    for text in feature?.texts ?? [] { bytes.append(word: Hashing.xxh3(text, seed: seed)) }
  }

  private func predictions(_ given: [Guira_V1_Prediction]) throws(EventFault.Reason) -> [Float] {
    guard !given.isEmpty else { return [] }
    var values = [Float](repeating: .nan, count: schema.tasks.count)
    for prediction in given {
      guard let task = tasks[prediction.task] else {
        throw .unknownTask(prediction.task, known: schema.tasks.map(\.name))
      }
      guard (0...1).contains(prediction.probability) else {
        throw .notAProbability(task: prediction.task, value: Double(prediction.probability))
      }
      guard values[task].isNaN else { throw .repeated(field: prediction.task) }
      values[task] = prediction.probability
    }
    return values
  }
}

extension [UInt8] {
  /// Appends an integer, little-endian.
  mutating func append<Word: FixedWidthInteger>(word: Word) {
    unsafe Swift.withUnsafeBytes(of: word.littleEndian) { unsafe append(contentsOf: $0) }
  }
}
