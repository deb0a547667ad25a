import Base
import Glibc
import Testing

@testable import Streams

@Suite("Event input") struct EventInputTests {
  private func read(_ input: inout EventInput) throws -> [Event] {
    var events: [Event] = []
    while let event = try input.next() { events.append(event) }
    return events
  }

  private func problem(_ path: String, _ schema: EventSchema, into directory: String) -> String {
    do {
      _ = try EventInput.open(path: path, schema: schema, importInto: directory)
      return "opened"
    } catch {
      return "\(error)"
    }
  }

  @Test func `a lone file gives its events, and refused lines are counted by reason`() throws {
    let directory = try TemporaryDirectory()
    try directory.write(
      "a.jsonl",
      """
      {"type":"action","impression":1,"action":"click","time":1700000000000}

      {"type":"action","impression":1}
      nonsense
      {"type":"impression","id":2,"time":1700000000001,"features":{"user":1}}
      {"type":"watermark","time":1700000000002}
      """)
    var input = try EventInput.open(
      path: "\(directory.path)/a.jsonl", schema: .synthetic, importInto: directory.path)
    #expect(try read(&input).count == 2)
    let (faults, codes, lateness, fraction) =
      (input.faults, input.faultsByCode, input.latenessMilliseconds, input.fraction)
    #expect(faults.map(\.line) == [3, 4, 5])
    #expect(codes == ["missing_field": 1, "not_json": 1, "unknown_feature": 1])
    #expect(lateness == 60_000)
    #expect(fraction == 1)
  }

  @Test func `refused lines are set aside with line and reason, up to a limit, and the rest goes on`() throws {
    let directory = try TemporaryDirectory()
    let fine = { (id: Int) in #"{"type":"action","impression":\#(id),"action":"click","time":1700000000000}"# }
    let lines: [[UInt8]] = [
      [0xEF, 0xBB, 0xBF] + Array(fine(1).utf8), Array((fine(2) + "\r").utf8), [], Array(" \t".utf8), [0x0D],
      Array(#"{"type":"action","impression":"\#(String(repeating: "x", count: 3 << 20))"}"#.utf8),
      [0x7B, 0x22, 0xFF, 0x22, 0x7D], [0x1F, 0x8B, 0x08, 0x00],
      Array(
        (#"{"type":"impression","id":1,"time":1700000000000,"features":"# + String(repeating: "[", count: 5000)).utf8),
      Array(#"{"type":"impression","id":1,"time":17000000000000000000000}"#.utf8),
      Array(#"{"type":"impression","id":1,"id":2,"time":1700000000000}"#.utf8), Array(fine(3).utf8),
    ]
    let path = "\(directory.path)/a.jsonl"
    try Files.replace(path, with: Array(lines.joined(separator: [0x0A])))
    let aside = "\(directory.path)/aside.jsonl"
    for limit in [1 << 20, 1000] {
      var input = try EventInput.open(path: path, schema: .synthetic, importInto: directory.path)
      try input.setAside(in: aside, limit: limit)
      #expect(try read(&input).count == 3)
      let (codes, count, left) = (input.faultsByCode, input.faultCount, input.notSetAside)
      #expect(codes == ["oversized": 1, "not_utf8": 2, "not_json": 2, "unknown_field": 1])
      let kept = try Files.read(aside).split(separator: 0x0A).map { String(decoding: $0, as: UTF8.self) }
      #expect(kept.count == count - left)
      #expect((left > 0) == (limit == 1000))
      #expect(try Files.read(aside).count <= limit)
      if left > 0 { continue }
      #expect(kept[0].contains(#""line":6,"code":"oversized""#) && kept[0].utf8.count < 5000)
      #expect(kept[5].contains(#""line":11,"code":"unknown_field","reason":"'id' is there twice","text":"{\"type\":"#))
    }
  }

  @Test func `a dataset must fit the configuration, and all that does not is said at once`() throws {
    let directory = try TemporaryDirectory()
    var options = TrafficOptions()
    options.impressions = 10
    let path = directory.path + "/traffic"
    _ = try TrafficGenerator.write(options, into: path)
    var schema = EventSchema.synthetic
    schema.features.append(FeatureSpec(name: "age", kind: .dense(width: 1)))
    schema.features[0].kind = .ids(limit: 4)
    schema.tasks.append(TaskSpec(name: "buy"))
    #expect(
      problem(path, schema, into: directory.path)
        == "the events of \(path) do not fit the configuration: feature 'user_id' is one id; the configuration wants "
        + "up to 4 ids; feature 'age' is not among its features (user_id, item_id, category, hour); task 'buy' waits "
        + "for buy; its actions are click, like, view_end")
    #expect(problem(path + "x", schema, into: directory.path) == "there is nothing at \(path)x")
    try directory.write("traffic/dataset.json", "{\"format\":1}")
    #expect(problem(path, schema, into: directory.path).hasPrefix("\(path)/dataset.json does not read: "))
  }

  @Test func `features that the cluster does not use are skipped`() throws {
    let directory = try TemporaryDirectory()
    var options = TrafficOptions()
    options.impressions = 50
    let dataset = try TrafficGenerator.write(options, into: directory.path + "/traffic")
    #expect(try Dataset(directory: directory.path + "/traffic") == dataset)
    let schema = EventSchema(features: [FeatureSpec(name: "item_id")], tasks: [TaskSpec(name: "click")])
    var input = try EventInput.open(path: directory.path + "/traffic", schema: schema, importInto: directory.path)
    let events = try read(&input)
    let faults = input.faultCount
    #expect(faults == 0)
    let first = events.lazy.compactMap { if case .impression(let impression) = $0 { impression } else { nil } }.first
    #expect(try first?.features.values(of: schema).count == 1)
  }

  @Test func `KuaiRand's own directory is imported once, and anew when a file changes`() throws {
    let directory = try TemporaryDirectory()
    let state = directory.path + "/state"
    try Files.makeDirectory(state)
    try directory.write("log_standard.csv", KuaiRandTests.plain)
    try directory.write("user_features.csv", KuaiRandTests.users)
    try directory.write("video_features_basic.csv", KuaiRandTests.videos)
    for expected in [true, false] {
      let input = try EventInput.open(path: directory.path, schema: .kuairand, importInto: state)
      let wasImported = input.imported != nil
      #expect(wasImported == expected)
    }
    #expect(problem(directory.path, .synthetic, into: state).contains("feature 'item_id' is not among its features"))
    try directory.write("log_standard.csv", KuaiRandTests.plain + "\n2,8,1650812745000,0,0,0,0,0,0,0,0,0,0\n")
    let input = try EventInput.open(path: directory.path, schema: .kuairand, importInto: state)
    let impressions = input.imported?.impressions
    #expect(impressions == 4)
    #expect(try Files.names(in: state).count == 2)
  }

  @Test func `a directory or file of another kind is said to be no dataset`() throws {
    let directory = try TemporaryDirectory()
    try directory.write("scores.dat", "1::2::3::4")
    let expected =
      "expected dataset.json with events.jsonl, a .jsonl file, or the files of KuaiRand, MovieLens, Criteo or MIND"
    #expect(
      problem(directory.path, .kuairand, into: directory.path)
        == "\(directory.path) holds no events: \(expected); it has scores.dat. For a table of your own "
        + "`guira init \(directory.path)` writes a mapping")
    #expect(problem(directory.path + "/scores.dat", .kuairand, into: directory.path).contains(expected))
  }
}
