// The reader of protobuf events against SwiftProtobuf: what it takes, what it refuses and why must be what follows from
// the message as the library decodes it. The rules are written down here a second time, on the library's types.

import Base
import SwiftProtobuf
import Testing

@testable import Streams

@Suite("Protobuf events against SwiftProtobuf") struct ProtobufDifferenceTests {
  private static let schema = EventSchema(
    features: [
      FeatureSpec(name: "user"), FeatureSpec(name: "tags", kind: .ids(limit: 3)),
      FeatureSpec(name: "größe", kind: .dense(width: 2)), FeatureSpec(name: "age", kind: .dense(width: 1)),
    ], tasks: [TaskSpec(name: "click"), TaskSpec(name: "like")])

  /// An event's bytes, or why it is refused with its JSON.
  private enum Outcome: Equatable {
    case taken([UInt8])
    case refused(line: Int, String, text: [UInt8])
  }

  private func found(_ body: [UInt8]) -> [Outcome]? {
    var parser = ProtobufEventParser(schema: Self.schema)
    return try? parser.parse(body).map { result in
      switch result {
      case .success(let event): .taken(bytes(event))
      case .failure(let refusal): .refused(line: refusal.fault.line, "\(refusal.fault.reason)", text: refusal.text)
      }
    }
  }

  private func bytes(_ event: Event) -> [UInt8] {
    var writer = ByteWriter()
    event.encode(into: &writer)
    return writer.finish().array
  }

  private func expected(_ body: [UInt8]) -> [Outcome]? {
    guard let batch = try? Guira_V1_EventBatch(serializedBytes: body) else { return nil }
    return batch.events.enumerated().map { place, message in
      do throws(EventFault.Reason) {
        return .taken(bytes(try event(message)))
      } catch {
        let text: [UInt8] = (try? message.jsonUTF8Bytes()) ?? []
        return .refused(line: place + 1, "\(error)", text: text)
      }
    }
  }

  @Test func `random messages give the same events and refusals`() throws {
    var random = SeededRandom(seed: 11)
    var (taken, refused) = (0, 0)
    for _ in 0..<500 {
      let body: [UInt8] = try batch(&random).serializedBytes()
      let outcomes = try #require(expected(body))
      #expect(found(body) == outcomes)
      for outcome in outcomes { if case .taken = outcome { taken += 1 } else { refused += 1 } }
    }
    #expect(taken > 200 && refused > 200)
  }

  @Test func `mutated messages give the same events and refusals, or none`() throws {
    var random = SeededRandom(seed: 12)
    var (read, malformed) = (0, 0)
    for _ in 0..<4000 {
      var body: [UInt8] = try batch(&random).serializedBytes()
      for _ in 0..<Int.random(in: 1...3, using: &random) { mutate(&body, &random) }
      let outcomes = expected(body)
      #expect(found(body) == outcomes, "\(body)")
      if outcomes == nil { malformed += 1 } else { read += 1 }
    }
    #expect(read > 200 && malformed > 1000)
  }

  @Test func `what protobuf allows and encoders do not write gives the same events`() throws {
    let time: [UInt8] = [0x18, 0x80, 0xD0, 0x95, 0xFF, 0xBC, 0x31]
    let tags: [UInt8] = [0x0A, 4] + Array("tags".utf8)
    func shown(_ parts: [UInt8]...) -> [UInt8] { field(0x0A, field(0x0A, parts.flatMap { $0 })) }
    func feature(_ parts: [UInt8]...) -> [UInt8] { field(0x22, parts.flatMap { $0 }) }
    let bodies: [[UInt8]] = [
      shown([0x08, 1], time, feature(tags, [0x10, 7, 0x10, 8])),  // numbers one by one
      shown([0x08, 1], time, feature(tags, [0x10, 7, 0x12, 2, 8, 9])),  // and mixed
      shown([0x08, 1], time, feature([0x12, 1, 5], tags)),  // the name last
      shown([0x08, 1, 0x08, 2], time),  // the id twice: the last counts
      shown([0x08, 1], field(0x12, Array("a".utf8)), time),  // first a number, then a text
      shown([0x08, 1], time, time),  // the time twice
      shown(time, [0x08, 0x81, 0x80, 0x00]),  // a longer number than needed
      shown([0x08, 1], time, [0x30, 1, 0x3A, 2, 1, 2]),  // unknown fields
      shown([0x08, 1], time, [0x33, 0x08, 1, 0x34]),  // an unknown group
      shown([0x88, 0x00, 1], time),  // a tag of two bytes
      shown([0x08, 1], time, [0x09, 1, 2, 3, 4, 5, 6, 7, 8]),  // a known field in another form
      field(0x0A, field(0x0A, [0x08, 1]) + field(0x0A, time)),  // a message in two pieces
      field(0x0A, field(0x12, [0x08, 1]) + field(0x0A, [0x08, 1] + time)),  // first an action, then an impression
      field(0x0A, []) + field(0x12, []) + [0x10, 1],  // an empty event, unknown fields of the batch
      field(0x0A, field(0x12, [0x08] + [UInt8](repeating: 0xFF, count: 9) + [0x7F])),  // more bits than a number has
      [],
    ]
    for body in bodies {
      let outcomes = try #require(expected(body), "\(body)")
      #expect(found(body) == outcomes, "\(body)")
    }
    let deep = (0..<200).reduce([]) { inner, _ in [0x33] + inner + [0x34] as [UInt8] }
    for body in [
      shown(deep), [0x0B], [0x0E, 1], [0x02, 1], shown([0x08, 1], field(0x12, [0xC0, 0x80])),
      shown(field(0x12, [0xED, 0xA0, 0x80])), shown(feature(field(0x0A, [0xFF]))), shown(feature([0x22, 3, 0, 0, 0])),
      field(0x0A, [0x0A, 5, 0x08]), shown([0x08] + [UInt8](repeating: 0xFF, count: 10) + [1]),
    ] as [[UInt8]] {
      #expect(expected(body) == nil && found(body) == nil, "\(body)")
    }
  }

  @Test func `a name in another composition of its characters is the same name`() throws {
    var impression = Guira_V1_Impression()
    (impression.number, impression.time) = (1, 1_700_000_000_000)
    impression.features = [.with { ($0.name, $0.numbers) = ("gro\u{308}ße", [1, 2]) }]
    let body: [UInt8] = try Guira_V1_EventBatch.with { $0.events = [.with { $0.impression = impression }] }
      .serializedBytes()
    let outcomes = try #require(found(body))
    #expect(outcomes == expected(body))
    guard case .taken? = outcomes.first else {
      Issue.record("\(outcomes)")
      return
    }
  }

  // MARK: - Messages

  private func field(_ tag: UInt8, _ content: [UInt8]) -> [UInt8] {
    precondition(content.count < 16_384)
    let count = content.count
    return [tag] + (count < 128 ? [UInt8(count)] : [UInt8(count & 127 | 128), UInt8(count >> 7)]) + content
  }

  private func batch(_ random: inout SeededRandom) -> Guira_V1_EventBatch {
    var batch = Guira_V1_EventBatch()
    for _ in 0..<Int.random(in: 1...4, using: &random) { batch.events.append(event(&random)) }
    return batch
  }

  private func event(_ random: inout SeededRandom) -> Guira_V1_Event {
    let isWrong = random.uniform() < 0.3
    let time: Int64 =
      isWrong ? [0, -1, 1_700_000_000, 1_700_000_000_000, .max].randomElement(using: &random)! : 1_700_000_000_000
    let texts = ["", "a", "größer als acht", String(repeating: "lang", count: 40), "\u{0}"]
    var event = Guira_V1_Event()
    if random.uniform() < 0.4 {
      var action = Guira_V1_Action()
      if random.uniform() < 0.5 {
        action.number = random.next()
      } else {
        action.text = texts.randomElement(using: &random)!
      }
      if isWrong, random.uniform() < 0.3 { action.impression = nil }
      action.name = isWrong ? ["", String(repeating: "x", count: 257)].randomElement(using: &random)! : "click"
      action.time = time
      event.action = action
    } else if !isWrong || random.uniform() < 0.9 {
      var impression = Guira_V1_Impression()
      if random.uniform() < 0.5 { impression.number = random.next() >> UInt64.random(in: 0...63, using: &random) }
      if random.uniform() < 0.5 { impression.text = texts.randomElement(using: &random)! }
      impression.time = time
      for _ in 0..<Int.random(in: 0...4, using: &random) {
        let names = isWrong ? ["user", "tags", "größe", "age", "usr", ""] : ["user", "tags", "größe", "age"]
        let name = names.randomElement(using: &random)!
        guard isWrong || !impression.features.contains(where: { $0.name == name }) else { continue }
        impression.features.append(feature(name, isWrong, &random))
      }
      for task in ["like", "click", "buy"] where random.uniform() < (task == "buy" ? isWrong ? 0.2 : 0 : 0.5) {
        let probability: Float = isWrong ? [0.5, -0.1, .nan, 2].randomElement(using: &random)! : 0.25
        impression.predictions.append(.with { ($0.task, $0.probability) = (task, probability) })
      }
      event.impression = impression
    }
    return event
  }

  private func feature(_ name: String, _ isWrong: Bool, _ random: inout SeededRandom) -> Guira_V1_Feature {
    var feature = Guira_V1_Feature()
    feature.name = name
    let isDense = name == "größe" || name == "age"
    if isDense != (isWrong && random.uniform() < 0.2) {
      let width = isWrong ? Int.random(in: 0...3, using: &random) : name == "age" ? 1 : 2
      feature.numbers = (0..<width).map { _ in isWrong && random.uniform() < 0.1 ? .infinity : Float(random.uniform()) }
    } else {
      let limit = isWrong ? 3 : name == "user" ? 1 : 3
      feature.ids = (0..<Int.random(in: 0...limit, using: &random)).map { _ in random.next() }
      if feature.ids.count < limit { feature.texts = [["neu", "é", "abcdefghij"].randomElement(using: &random)!] }
    }
    return feature
  }

  private func mutate(_ body: inout [UInt8], _ random: inout SeededRandom) {
    guard !body.isEmpty else { return }
    let place = Int.random(in: body.indices, using: &random)
    switch Int.random(in: 0...4, using: &random) {
    case 0: body[place] ^= 1 << UInt8.random(in: 0...7, using: &random)
    case 1: body[place] = UInt8.random(in: 0...255, using: &random)
    case 2: body.remove(at: place)
    case 3: body.insert([0x00, 0x08, 0x0A, 0x12, 0x30, 0x33, 0x80].randomElement(using: &random)!, at: place)
    default: body.removeLast(min(body.count, Int.random(in: 1...3, using: &random)))
    }
  }

  // MARK: - The rules

  private func event(_ message: Guira_V1_Event) throws(EventFault.Reason) -> Event {
    switch message.kind {
    case .impression(let impression):
      let id: ImpressionID
      switch impression.id {
      case .number(let number): id = ImpressionID(number)
      case .text(let text): id = ImpressionID(text)
      case nil: throw .missing(field: "id", of: "the impression")
      }
      try check(impression.time, of: "the impression")
      let features = try features(impression.features)
      return .impression(
        Impression(
          id: id, time: impression.time, features: features, predictions: try predictions(impression.predictions)))
    case .action(let action):
      let id: ImpressionID
      switch action.impression {
      case .number(let number): id = ImpressionID(number)
      case .text(let text): id = ImpressionID(text)
      case nil: throw .missing(field: "impression", of: "the action")
      }
      guard (1...256).contains(action.name.utf8.count) else {
        throw .badActionName(bytes: action.name.utf8.count, limit: 256)
      }
      try check(action.time, of: "the action")
      return .action(Action(impression: id, name: action.name, time: action.time))
    case nil: throw .missing(field: "impression' or 'action", of: "the event")
    }
  }

  private func check(_ time: Int64, of event: String) throws(EventFault.Reason) {
    let allowed = EventParser.Options().times
    guard time != 0 else { throw .missing(field: "time", of: event) }
    guard allowed.contains(time) else { throw .absurdTime(time, allowed: allowed) }
  }

  private func features(_ given: [Guira_V1_Feature]) throws(EventFault.Reason) -> FeatureBlock {
    let specs = Self.schema.features
    var byName: [String: Guira_V1_Feature] = [:]
    for feature in given {
      guard let spec = specs.first(where: { $0.name == feature.name }) else {
        throw .unknownFeature(feature.name, known: specs.map(\.name))
      }
      guard byName[spec.name] == nil else { throw .repeated(field: spec.name) }
      byName[spec.name] = feature
    }
    var values: [FeatureValue] = []
    for spec in specs {
      let feature = byName[spec.name] ?? Guira_V1_Feature()
      let ids = feature.ids + feature.texts.map { Hashing.id(of: $0, feature: spec.name) }
      if case .dense(let width) = spec.kind {
        guard ids.isEmpty else { throw .wrongType(field: spec.name, found: "ids", expected: "\(width) numbers") }
        guard [0, width].contains(feature.numbers.count) else {
          throw .wrongWidth(feature: spec.name, count: feature.numbers.count, width: width)
        }
        guard feature.numbers.allSatisfy(\.isFinite) else { throw .notFinite(feature: spec.name) }
        values.append(.numbers(feature.numbers.isEmpty ? Array(repeating: 0, count: width) : feature.numbers))
      } else {
        guard feature.numbers.isEmpty else {
          throw .wrongType(field: spec.name, found: "numbers", expected: "ids or texts")
        }
        let limit = if case .ids(let limit) = spec.kind { limit } else { 1 }
        guard ids.count <= limit else { throw .tooManyIDs(feature: spec.name, count: ids.count, limit: limit) }
        values.append(.ids(ids))
      }
    }
    return FeatureBlock(schema: Self.schema, values: values)
  }

  private func predictions(_ given: [Guira_V1_Prediction]) throws(EventFault.Reason) -> [Float] {
    let tasks = Self.schema.tasks.map(\.name)
    var values = [Float](repeating: .nan, count: given.isEmpty ? 0 : tasks.count)
    for prediction in given {
      guard let task = tasks.firstIndex(of: prediction.task) else {
        throw .unknownTask(prediction.task, known: tasks)
      }
      guard (0...1).contains(prediction.probability) else {
        throw .notAProbability(task: tasks[task], value: Double(prediction.probability))
      }
      guard values[task].isNaN else { throw .repeated(field: tasks[task]) }
      values[task] = prediction.probability
    }
    return values
  }
}
