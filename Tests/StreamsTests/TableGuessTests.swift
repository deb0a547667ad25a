import Base
import Testing

@testable import Streams

@Suite("A look at a table") struct TableGuessTests {
  private func guess(_ text: String) throws -> TableGuess {
    let directory = try TemporaryDirectory()
    try directory.write("rows.txt", text)
    return try TableGuess(path: directory.path + "/rows.txt")
  }

  @Test func `a CSV with a header gives time, label and features of every kind`() throws {
    var rows = ["event_time,user_id,item,price,age,tags,clicked,note"]
    for row in 0..<40 {
      rows.append(
        "2024-05-01 10:00:\(10 + row),\(row % 7),\"item, \(row % 5)\",\(Double(row) * 100 + 0.5),\(20 + row),a|b|c,"
          + "\(row % 3 == 0 ? 1 : 0),")
    }
    let found = try guess(rows.joined(separator: "\n"))
    #expect(found.format == RowFormat())
    #expect(found.rows == 40 && found.damaged == 0)
    let guessed = try found.mapping()
    let mapping = guessed.mapping
    #expect(mapping.time == ImportedTime(column: "event_time", unit: .iso8601))
    #expect(mapping.tasks == [ImportedTask("clicked", column: "clicked")])
    #expect(mapping.features.map(\.name) == ["user_id", "item", "price", "age", "tags"])
    #expect(mapping.features.map(\.kind) == [.id, .id, .dense(width: 1), .id, .ids(limit: 8)])
    #expect(mapping.features[2].log1p)
    #expect(mapping.features[4].split == "|")
    #expect(guessed.unused.map(\.name) == ["note"])
  }

  @Test func `files without a header, with other delimiters and of JSON are understood`() throws {
    let movies = try guess("1::1193::5::978300760\n1::661::3::978302109\n2::914::4::978301968\n")
    #expect(movies.format == RowFormat(.delimited, delimiter: "::", columns: ["c1", "c2", "c3", "c4"]))
    let semicolons = try guess("id;when;like\n1;1700000000;0\n2;1700000001;1\n")
    #expect(semicolons.format.delimiter == ";" && semicolons.format.header)
    #expect(try semicolons.mapping(time: nil).mapping.tasks.map(\.name) == ["like"])
    let json = try guess(
      #"{"user":{"id":3},"tags":[1,2],"ts":1700000000000,"click":false}"# + "\n"
        + #"{"user":{"id":4},"tags":[],"ts":1700000000001,"click":true,"extra":"x"}"#)
    #expect(json.format.kind == .jsonl)
    #expect(json.columns.map(\.name) == ["user.id", "tags", "ts", "click", "extra"])
    let mapping = try json.mapping().mapping
    #expect(mapping.time == ImportedTime(column: "ts", unit: .milliseconds))
    #expect(mapping.tasks == [ImportedTask("click", column: "click")])
    #expect(mapping.features.map(\.name) == ["user_id", "tags", "extra"])
    #expect(mapping.features[1].kind == .ids(limit: 8))
  }

  @Test func `a rating becomes a like from four fifths of its scale on`() throws {
    let found = try guess("user,item,rating\n1,2,5\n1,3,1\n2,2,4\n")
    #expect(try found.mapping().mapping.tasks == [ImportedTask("like", column: "rating", .atLeast(4))])
    #expect(try found.mapping(labels: ["item"]).mapping.tasks.map(\.name) == ["item"])
  }

  @Test func `what cannot be guessed is said`() throws {
    func problem(_ text: String, labels: [String] = [], time: String? = nil) -> String {
      do { return "\(try guess(text).mapping(labels: labels, time: time).mapping.tasks.count) tasks" } catch {
        return "\(error)".split(separator: "rows.txt: ").last.map(String.init) ?? ""
      }
    }
    #expect(problem("") == "it has no lines")
    #expect(
      problem("one\ntwo\n")
        == "its lines are neither JSON nor cut into columns by a comma, tab, semicolon, | or ::")
    #expect(
      problem("user,item\n1,2\n3,4\n")
        == "no column looks like a label (0 and 1, or a rating); name it with --label. It has user, item")
    #expect(problem("user,item\n1,2\n3,4\n", labels: ["hit"]) == "it has no column 'hit'; it has user, item")
    #expect(
      problem("user,item\n1,2\n3,4\n", labels: ["item"], time: "user").hasPrefix("column 'user' is no time (1, 3)"))
  }
}
