import Base
import SwiftProtobuf
import Testing

@testable import Streams

@Suite("Events as protobuf") struct ProtobufTests {
  private static let schema = EventSchema(
    features: [
      FeatureSpec(name: "user_id"), FeatureSpec(name: "tags", kind: .ids(limit: 3)), FeatureSpec(name: "title"),
      FeatureSpec(name: "age", kind: .dense(width: 1)),
    ], tasks: [TaskSpec(name: "is_click"), TaskSpec(name: "is_like")])

  private func feature(
    _ name: String, _ ids: [UInt64] = [], texts: [String] = [], numbers: [Float] = []
  ) -> Guira_V1_Feature {
    .with {
      $0.name = name
      $0.ids = ids
      $0.texts = texts
      $0.numbers = numbers
    }
  }

  private func impression(
    _ features: [Guira_V1_Feature], time: Int64 = 1_700_000_000_000,
    _ change: (inout Guira_V1_Impression) -> Void = { _ in }
  ) -> Guira_V1_Event {
    var impression = Guira_V1_Impression()
    impression.text = "abc"
    impression.time = time
    impression.features = features
    change(&impression)
    return .with { $0.impression = impression }
  }

  private func stored(_ event: Event) -> [UInt8] {
    var writer = ByteWriter()
    event.encode(into: &writer)
    return writer.finish().array
  }

  private func read(_ events: [Guira_V1_Event]) throws -> [Result<Event, ProtobufRefusal>] {
    let batch = Guira_V1_EventBatch.with { $0.events = events }
    var parser = ProtobufEventParser(schema: Self.schema)
    return try parser.parse(try batch.serializedBytes())
  }

  @Test func `an event is the same event as its JSON line`() throws {
    let lines = [
      #"{"type":"impression","id":"abc","time":1700000000000,"features":{"user_id":123,"tags":[1,2,"new"],"title":"text","age":[0.5]},"prediction":{"is_like":0.25}}"#,
      #"{"type":"impression","id":"abc","time":1700000000000,"features":{"title":"text"}}"#,
      #"{"type":"action","impression":17,"action":"is_click","time":1700000004200}"#,
    ]
    var json = EventParser(schema: Self.schema)
    let wanted = try lines.map { line in
      let bytes = Array(line.utf8)
      return try json.parse(bytes.span.bytes, line: 1)
    }
    let action = Guira_V1_Action.with {
      $0.number = 17
      $0.name = "is_click"
      $0.time = 1_700_000_004_200
    }
    let found = try read([
      impression([
        feature("age", numbers: [0.5]), feature("title", texts: ["text"]), feature("user_id", [123]),
        feature("tags", [1, 2], texts: ["new"]),
      ]) { $0.predictions = [.with { ($0.task, $0.probability) = ("is_like", 0.25) }] },
      impression([feature("title", texts: ["text"])]), .with { $0.action = action },
    ]).map { try $0.get() }
    #expect(found.count == 3)
    for (event, want) in zip(found, wanted) {
      // NaN is not equal to itself: what is stored is compared.
      #expect(stored(event) == stored(want))
    }
  }

  @Test func `wrong events are refused alone, with their number and reason`() throws {
    let results = try read([
      impression([feature("usr", [1])]), impression([feature("user_id", [1, 2])]), impression([], time: 1_700_000_000),
      impression([feature("age", numbers: [.infinity])]), impression([feature("age", [3])]), Guira_V1_Event(),
      impression([]) { $0.id = nil }, impression([feature("title", texts: ["a"]), feature("title", texts: ["a"])]),
      impression([feature("tags", [1])]), .with { $0.action = .with { $0.number = 1 } },
      impression([]) { $0.predictions = [.with { ($0.task, $0.probability) = ("is_click", 1.5) }] },
    ])
    let codes = results.map { result in
      switch result {
      case .success: "taken"
      case .failure(let refusal): "\(refusal.fault.line) \(refusal.fault.reason.code)"
      }
    }
    #expect(
      codes == [
        "1 unknown_feature", "2 too_many_ids", "3 absurd_time", "4 wrong_type", "5 wrong_type", "6 missing_field",
        "7 missing_field", "8 unknown_field", "taken", "10 wrong_type", "11 wrong_type",
      ])
  }

  @Test func `a refused event can be read as JSON`() throws {
    guard case .failure(let refusal) = try read([impression([feature("usr", [1])])])[0] else {
      Issue.record("it was taken")
      return
    }
    let text = String(decoding: refusal.text, as: UTF8.self)
    #expect(text.contains("abc") && text.contains("usr"), "\(text)")
  }

  @Test func `events are counted without decoding them`() throws {
    let three = Guira_V1_EventBatch.with { $0.events = (0..<3).map { _ in impression([feature("user_id", [1])]) } }
    let bytes: [UInt8] = try three.serializedBytes()
    #expect(ProtobufEventParser.count(bytes, limit: 10) == 3)
    #expect(ProtobufEventParser.count(bytes, limit: 1) == 2)
    // Two bytes an event; fields of other numbers do not count, and what is malformed ends the count.
    #expect(ProtobufEventParser.count((0..<1000).flatMap { _ in [0x0A, 0] as [UInt8] }, limit: 5000) == 1000)
    #expect(ProtobufEventParser.count([0x12, 0, 0x08, 0x80, 1, 0x0A, 0, 0x0D, 1, 2, 3, 4, 0x0A, 0], limit: 9) == 2)
    #expect(ProtobufEventParser.count([0x0A, 0, 0x0A, 0xFF], limit: 9) == 1)
    #expect(ProtobufEventParser.count([UInt8](repeating: 0xFF, count: 40), limit: 9) == 0)
  }

  @Test func `bytes that are no batch are refused whole, and none trap`() throws {
    var parser = ProtobufEventParser(schema: Self.schema)
    let whole: [UInt8] = try Guira_V1_EventBatch.with { batch in
      batch.events = [impression([feature("tags", [1, 2], texts: ["x"]), feature("age", numbers: [1])])]
    }.serializedBytes()
    #expect(throws: ProtobufFault.self) { _ = try parser.parse([0xFF, 0xFF]) }
    var random = SeededRandom(seed: 4)
    for _ in 0..<2000 {
      var bytes = whole
      for _ in 0..<3 { bytes[Int(random.next() % UInt64(bytes.count))] = UInt8(truncatingIfNeeded: random.next()) }
      _ = try? parser.parse(bytes)
    }
  }
}
