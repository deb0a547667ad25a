import Base
import Testing

@testable import Streams

/// docs/events.md against the code.
@Suite("Event document") struct EventDocumentTests {
  static let schema = EventSchema(
    features: [
      FeatureSpec(name: "user_id"), FeatureSpec(name: "tags", kind: .ids(limit: 3)), FeatureSpec(name: "title"),
      FeatureSpec(name: "age", kind: .dense(width: 1)),
    ], tasks: [TaskSpec(name: "is_click"), TaskSpec(name: "is_like")])

  /// The lines of the fence that begins with "```" and `name`.
  private func fence(_ name: String) throws -> [String] {
    let root = #filePath.split(separator: "/", omittingEmptySubsequences: false).dropLast(3).joined(separator: "/")
    let lines = String(decoding: try Files.read(root + "/docs/events.md"), as: UTF8.self)
      .split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
    let begin = try #require(lines.firstIndex(of: "```" + name))
    let end = try #require(lines[(begin + 1)...].firstIndex(of: "```"))
    return Array(lines[(begin + 1)..<end])
  }

  private func events() throws -> [Event] {
    var parser = EventParser(schema: Self.schema)
    return try fence("json events").enumerated().map { number, line in
      try parser.parse(Array(line.utf8).span.bytes, line: number + 1)
    }
  }

  @Test func `the examples are the events they are said to be`() throws {
    let block = FeatureBlock(
      schema: Self.schema,
      values: [
        .ids([123]), .ids([1, 2]), .ids([Hashing.id(of: "text", feature: "title")]), .numbers([0.5]),
      ])
    let events = try events()
    #expect(events.count == 5)
    guard case .impression(let first) = events[0] else { return #expect(Bool(false), "no impression") }
    #expect(first.features == block)
    #expect(first.predictions[0] == 0.31)
    #expect(first.predictions[1].isNaN)
    #expect(
      events[2]
        == .action(Action(impression: ImpressionID("abc"), name: "is_click", time: 1_700_000_004_200)))
    #expect(events[4] == .watermark(time: 1_700_000_010_000))
  }

  @Test func `the refused examples give the documented reasons`() throws {
    var parser = EventParser(schema: Self.schema)
    var reasons: [String] = []
    for (number, line) in try fence("json refused").enumerated() {
      do {
        _ = try parser.parse(Array(line.utf8).span.bytes, line: number + 1)
        reasons.append("accepted")
      } catch {
        reasons.append("\(error)")
      }
    }
    #expect(try fence("text reasons") == reasons)
  }

  @Test func `the hex is what is written, and reads back`() throws {
    let events = try events()
    var dump: [String] = []
    for index in [1, 2, 4] {
      var event = events[index]
      if case .impression(var impression) = event {
        impression.arrival = 1_700_000_000_300
        event = .impression(impression)
      } else if case .action(var action) = event {
        action.arrival = 1_700_000_000_300
        event = .action(action)
      }
      var writer = ByteWriter()
      event.encode(into: &writer)
      let blob = writer.finish()
      var reader = ByteReader(blob)
      #expect(try Event(decoding: &reader) == event)
      if !dump.isEmpty { dump.append("") }
      for begin in stride(from: 0, to: blob.count, by: 16) {
        let line = blob.array[begin..<min(begin + 16, blob.count)]
        dump.append(line.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined(separator: " "))
      }
    }
    #expect(try fence("hex") == dump, "\(dump.joined(separator: "\n"))")
  }

  @Test func `the manifest is what is written, and reads back`() throws {
    let dataset = Dataset(
      origin: "an example",
      schema: EventSchema(
        features: [
          FeatureSpec(name: "user_id"), FeatureSpec(name: "tags", kind: .ids(limit: 3)),
          FeatureSpec(name: "age", kind: .dense(width: 1)),
        ], tasks: [TaskSpec(name: "click", windowMilliseconds: 300_000)]),
      actions: ["click", "view_end"], latenessMilliseconds: 5000, impressions: 10, firstTime: 1_735_689_600_000,
      lastTime: 1_735_689_660_000)
    let text = String(decoding: dataset.json(), as: UTF8.self)
    #expect(try fence("json dataset").joined(separator: "\n") + "\n" == text)
    let directory = try TemporaryDirectory()
    try directory.write(Dataset.manifestName, text)
    #expect(try Dataset(directory: directory.path) == dataset)
  }

  @Test func `every code of a reason is documented`() throws {
    let reasons: [EventFault.Reason] = [
      .notJSON(""), .notUTF8, .oversized(bytes: 1, limit: 1), .missing(field: "", of: ""), .repeated(field: ""),
      .wrongType(field: "", found: "", expected: ""), .unknownType(""), .absurdTime(0, allowed: 0...0),
      .unknownFeature("", known: []), .tooManyIDs(feature: "", count: 1, limit: 1), .unknownTask("", known: []),
    ]
    let root = #filePath.split(separator: "/", omittingEmptySubsequences: false).dropLast(3).joined(separator: "/")
    let document = String(decoding: try Files.read(root + "/docs/events.md"), as: UTF8.self)
    for reason in reasons { #expect(document.contains("| `\(reason.code)` |")) }
  }
}
