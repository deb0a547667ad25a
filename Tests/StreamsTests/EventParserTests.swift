import Base
import Streams
import Testing

@Suite("Event parser") struct EventParserTests {
  static let schema = EventSchema(
    features: [
      FeatureSpec(name: "user_id"), FeatureSpec(name: "tags", kind: .ids(limit: 3)), FeatureSpec(name: "title"),
      FeatureSpec(name: "age", kind: .dense(width: 1)), FeatureSpec(name: "box", kind: .dense(width: 2)),
    ], tasks: [TaskSpec(name: "is_click"), TaskSpec(name: "is_like")])

  private func parse(_ line: String, line number: Int = 1) throws -> Event {
    var parser = EventParser(schema: Self.schema)
    return try parser.parse(Array(line.utf8).span.bytes, line: number)
  }

  private func values(_ features: String) throws -> [FeatureValue] {
    let event = try parse(#"{"type":"impression","id":1,"time":1700000000000,"features":\#(features)}"#)
    guard case .impression(let impression) = event else { return [] }
    return try impression.features.values(of: Self.schema)
  }

  private func problem(_ line: String) -> String {
    do {
      _ = try parse(line, line: 7)
      return "accepted"
    } catch {
      return "\(error)"
    }
  }

  @Test func `an impression is read with its features in schema order`() throws {
    let line = """
      {"prediction":{"is_like":0.25}, "features":{"box":[1,-2.5],"age":0.5,"title":"text","tags":[1,"two"],\
      "user_id":123},"time":1700000000000,"id":"abc","type":"impression"}
      """
    let values: [FeatureValue] = [
      .ids([123]), .ids([1, Hashing.id(of: "two", feature: "tags")]), .ids([Hashing.id(of: "text", feature: "title")]),
      .numbers([0.5]), .numbers([1, -2.5]),
    ]
    guard case .impression(let impression) = try parse(line) else { return #expect(Bool(false), "no impression") }
    #expect(impression.id == ImpressionID("abc"))
    #expect(impression.time == 1_700_000_000_000)
    #expect(impression.features == FeatureBlock(schema: Self.schema, values: values))
    #expect(impression.predictions.count == 2)
    #expect(impression.predictions[0].isNaN)
    #expect(impression.predictions[1] == 0.25)
  }

  @Test func `actions and watermarks are read`() throws {
    #expect(
      try parse(#"{"type":"action","impression":18446744073709551615,"action":"is_click","time":1700000000001}"#)
        == .action(Action(impression: ImpressionID(.max), name: "is_click", time: 1_700_000_000_001)))
    #expect(try parse(#" {"time":1700000000002,"type":"watermark"} "#) == .watermark(time: 1_700_000_000_002))
  }

  @Test func `every 64-bit integer is an id, a negative one by its two's complement`() throws {
    for (text, id) in [("0", 0), ("18446744073709551615", UInt64.max), ("-1", .max), ("-9223372036854775808", 1 << 63)]
    {
      #expect(try values(#"{"user_id":\#(text)}"#)[0] == .ids([id]))
    }
  }

  @Test func `absent and null features are empty, dense ones zero`() throws {
    let empty: [FeatureValue] = [.ids([]), .ids([]), .ids([]), .numbers([0]), .numbers([0, 0])]
    #expect(try values("{}") == empty)
    #expect(try values("null") == empty)
    #expect(try values(#"{"user_id":null,"tags":null,"age":null,"box":null}"#) == empty)
    #expect(try values(#"{"tags":[],"title":""}"#)[2] == .ids([Hashing.id(of: "", feature: "title")]))
  }

  @Test func `escapes are undone before a text is hashed`() throws {
    #expect(try values(#"{"title":"a\u00e9\n\ud83d\ude00"}"#)[2] == .ids([Hashing.id(of: "aé\n😀", feature: "title")]))
  }

  @Test(arguments: [
    ("", "line 7: not a JSON object: Empty: no JSON found"),
    ("[1]", "line 7: not a JSON object: the line is a list"),
    (
      #"{"type":"impression""#,
      "line 7: not a JSON object: The JSON document has an improper structure: missing or "
        + "superfluous commas, braces, missing keys, etc."
    ),
    (#"{"time":1700000000000}"#, "line 7: the event has no 'type'"),
    (
      #"{"type":"view","time":1700000000000}"#, "line 7: type is 'view'; expected 'impression', 'action' or 'watermark'"
    ),
    (#"{"type":3}"#, "line 7: 'type' is an integer; expected a text"),
    (#"{"type":"impression","time":1700000000000}"#, "line 7: the impression has no 'id'"),
    (#"{"type":"impression","id":1}"#, "line 7: the impression has no 'time'"),
    (#"{"type":"impression","id":1.5,"time":1}"#, "line 7: 'id' is a fraction; expected an integer or a text"),
    (
      #"{"type":"impression","id":1,"time":1700000000}"#,
      "line 7: time is 1700000000; expected UTC milliseconds in 631152000000...4102444800000; this looks like seconds"
    ),
    (
      #"{"type":"impression","id":1,"time":-5}"#,
      "line 7: time is -5; expected UTC milliseconds in 631152000000...4102444800000"
    ),
    (
      #"{"type":"watermark","time":9223372036854775807}"#,
      "line 7: time is 9223372036854775807; expected UTC milliseconds in 631152000000...4102444800000"
    ),
    (
      #"{"type":"impression","id":1,"time":"now"}"#,
      "line 7: 'time' is a text; expected an integer, UTC milliseconds"
    ),
    (
      #"{"type":"impression","id":1,"time":1700000000000,"features":{"usr":1}}"#,
      "line 7: unknown feature 'usr'; the schema has user_id, tags, title, age, box"
    ),
    (
      #"{"type":"impression","id":1,"time":1700000000000,"features":{"user_id":1.5}}"#,
      "line 7: 'user_id' is a fraction; expected an integer or a text"
    ),
    (
      #"{"type":"impression","id":1,"time":1700000000000,"features":{"user_id":[1]}}"#,
      "line 7: 'user_id' is a list; expected an integer or a text"
    ),
    (
      #"{"type":"impression","id":1,"time":1700000000000,"features":{"tags":7}}"#,
      "line 7: 'tags' is an integer; expected a list of integers or texts"
    ),
    (
      #"{"type":"impression","id":1,"time":1700000000000,"features":{"tags":[1,true]}}"#,
      "line 7: 'tags[1]' is a boolean; expected an integer or a text"
    ),
    (
      #"{"type":"impression","id":1,"time":1700000000000,"features":{"tags":[1,2,3,4]}}"#,
      "line 7: feature 'tags' has 4 ids; the limit is 3"
    ),
    (
      #"{"type":"impression","id":1,"time":1700000000000,"features":{"box":[1]}}"#,
      "line 7: feature 'box' has 1 numbers; expected 2"
    ),
    (
      #"{"type":"impression","id":1,"time":1700000000000,"features":{"box":[1,1e300]}}"#,
      "line 7: feature 'box' has a number outside the range of float32"
    ),
    (
      #"{"type":"impression","id":1,"time":1700000000000,"features":{"user_id":1,"user_id":2}}"#,
      "line 7: 'user_id' is there twice"
    ),
    (
      #"{"type":"impression","id":1,"time":1700000000000,"features":[]}"#,
      "line 7: 'features' is a list; expected an object"
    ),
    (
      #"{"type":"impression","id":1,"time":1700000000000,"prediction":{"buy":0.5}}"#,
      "line 7: unknown task 'buy' in the prediction; the schema has is_click, is_like"
    ),
    (
      #"{"type":"impression","id":1,"time":1700000000000,"prediction":{"is_like":1.5}}"#,
      "line 7: the prediction of 'is_like' is 1.5; expected 0...1"
    ),
    (#"{"type":"impression","id":1,"id":2}"#, "line 7: 'id' is there twice"),
    (
      #"{"type":"impression","id":1,"time":1700000000000,"prediction":{"is_like":0.5,"is_like":null}}"#,
      "line 7: 'is_like' is there twice"
    ),
    (
      #"{"type":"impression","id":1,"time":1700000000000,"user":3}"#,
      "line 7: an event has no field 'user'; has type, id, time, features, prediction, impression, action"
    ),
    (#"{"type":"action","impression":1,"time":1700000000000}"#, "line 7: the action has no 'action'"),
    (#"{"type":"action","action":"click","time":1700000000000}"#, "line 7: the action has no 'impression'"),
    (
      #"{"type":"action","impression":1,"action":"","time":1700000000000}"#,
      "line 7: the action's name has 0 bytes; expected 1...256"
    ),
    (
      #"{"type":"action","id":1,"action":"click","time":1700000000000}"#,
      "line 7: an action has no field 'id'; has type, impression, action, time"
    ),
    (#"{"type":"watermark","id":1,"time":1700000000000}"#, "line 7: a watermark has no field 'id'; has type, time"),
    (
      #"{"type":"impression","id":18446744073709551616,"time":1700000000000}"#,
      "line 7: not a JSON object: Problem while parsing a number"
    ),
  ])
  func `a refused line says what was found and what was expected`(line: String, expected: String) {
    #expect(problem(line) == expected)
  }

  @Test func `bytes that are not UTF-8 and lines over the limit are refused`() {
    var options = EventParser.Options()
    options.lineByteLimit = 64
    var parser = EventParser(schema: Self.schema, options: options)
    let broken = Array(#"{"type":""#.utf8) + [0xC3, 0x28] + Array(#""}"#.utf8)
    #expect(throws: EventFault(line: 2, reason: .notUTF8)) { try parser.parse(broken.span.bytes, line: 2) }
    let long = [UInt8](repeating: 0x20, count: 65)
    #expect(throws: EventFault(line: 3, reason: .oversized(bytes: 65, limit: 64))) {
      try parser.parse(long.span.bytes, line: 3)
    }
  }

  @Test func `features that are to be ignored are skipped with all they hold`() throws {
    var options = EventParser.Options()
    options.ignoredFeatures = ["extra"]
    var parser = EventParser(schema: Self.schema, options: options)
    let line = #"{"type":"impression","id":1,"time":1700000000000,"features":{"extra":{"a":[1,{}]},"user_id":4}}"#
    guard case .impression(let impression) = try parser.parse(Array(line.utf8).span.bytes, line: 1) else {
      return #expect(Bool(false), "no impression")
    }
    #expect(try impression.features.values(of: Self.schema)[0] == .ids([4]))
  }

  @Test func `what the encoder writes reads back equal`() throws {
    var random = SeededRandom(seed: 5)
    let encoder = EventEncoder(schema: Self.schema)
    for _ in 0..<200 {
      let tags = (0..<Int.random(in: 0...3, using: &random)).map { _ in random.next() }
      let values: [FeatureValue] = [
        .ids(Bool.random(using: &random) ? [random.next()] : []), .ids(tags), .ids([random.next()]),
        .numbers([Float(random.uniform() - 0.5)]), .numbers([Float(random.uniform() * 1e-30), -3e38]),
      ]
      let event = Event.impression(
        Impression(
          id: ImpressionID(random.next()), time: Int64.random(in: 700_000_000_000...4_000_000_000_000, using: &random),
          features: FeatureBlock(schema: Self.schema, values: values),
          predictions: Bool.random(using: &random) ? [] : [Float(random.uniform()), 1]))
      var writer = ByteWriter()
      try encoder.append(event, to: &writer)
      let text = String(decoding: writer.finish().array, as: UTF8.self)
      #expect(try parse(text) == event, "\(text)")
    }
    let action = Event.action(Action(impression: ImpressionID(3), name: "a\"\\\n\u{1}é", time: 1_700_000_000_000))
    var writer = ByteWriter()
    try encoder.append(action, to: &writer)
    #expect(try parse(String(decoding: writer.finish().array, as: UTF8.self)) == action)
  }

  @Test func `no mutation of a line traps, and an accepted one encodes`() throws {
    let lines = [
      #"{"type":"impression","id":"abc","time":1700000000000,"features":{"user_id":123,"tags":[1,2],"title":"tëxt\n","#
        + #""age":[0.5],"box":[1e3,-2]},"prediction":{"is_click":0.31}}"#,
      #"{"type":"action","impression":12,"action":"is_click","time":1700000000000}"#,
      #"{"type":"watermark","time":1700000000000}"#,
    ].map { Array($0.utf8) }
    let interesting = Array("{}[]\",:\\0-1eE.tfn \u{0}".utf8) + [0xFF, 0x80, 0xC3]
    var random = SeededRandom(seed: 11)
    var parser = EventParser(schema: Self.schema)
    var accepted = 0
    for _ in 0..<20_000 {
      var line = lines.randomElement(using: &random)!
      for _ in 0..<Int.random(in: 1...3, using: &random) where !line.isEmpty {
        let at = Int.random(in: 0..<line.count, using: &random)
        switch Int.random(in: 0..<4, using: &random) {
        case 0: line[at] = interesting.randomElement(using: &random)!
        case 1: line.remove(at: at)
        case 2: line.insert(interesting.randomElement(using: &random)!, at: at)
        default: line.removeSubrange(at..<min(line.count, at + Int.random(in: 1...20, using: &random)))
        }
      }
      guard let event = try? parser.parse(line.span.bytes, line: 1) else { continue }
      accepted += 1
      var writer = ByteWriter()
      event.encode(into: &writer)
      var reader = ByteReader(writer.finish())
      let decoded = try Event(decoding: &reader)
      if case .impression(let impression) = decoded { _ = try impression.features.values(of: Self.schema) }
    }
    #expect(accepted > 100)
  }

  @Test func `deep nesting is refused, not followed`() {
    let deep = String(repeating: "[", count: 100_000)
    #expect(problem(deep).hasPrefix("line 7: not a JSON object: "))
    #expect(problem(deep + String(repeating: "]", count: 100_000)).hasPrefix("line 7: not a JSON object: "))
  }
}
