import Base
import Glibc
import Testing

@testable import Streams

/// A directory of its own that goes when the test ends.
final class TemporaryDirectory {
  let path: String

  init() throws {
    path = "/tmp/guira-streams-\(UInt64.random(in: 0 ... .max))"
    try Files.makeDirectory(path)
  }

  deinit { remove(path) }

  private func remove(_ path: String) {
    if let names = try? Files.names(in: path) {
      for name in names { remove("\(path)/\(name)") }
      rmdir(path)
    } else {
      unlink(path)
    }
  }

  func write(_ name: String, _ text: String) throws {
    try Files.replace("\(path)/\(name)", with: Array(text.utf8), durable: false)
  }

  func read(_ name: String) throws -> String {
    String(decoding: try Files.read("\(path)/\(name)"), as: UTF8.self)
  }
}

@Suite("CSV reader") struct CSVReaderTests {
  /// Records as lists of fields; a fault as its text with the line.
  private func read(_ content: [UInt8], limit: Int = 1 << 16) throws -> [[String]] {
    let directory = try TemporaryDirectory()
    try Files.replace("\(directory.path)/a.csv", with: content, durable: false)
    var reader = try CSVReader(path: "\(directory.path)/a.csv", recordByteLimit: limit)
    var records: [[String]] = []
    while true {
      switch try reader.next() {
      case .end: return records
      case .record: records.append((0..<reader.count).map { reader.text($0) })
      case .fault(let fault): records.append(["line \(reader.line): \(fault)", CSVReader.text(reader.raw)])
      }
    }
  }

  @Test(arguments: [
    ("a,b\nc,d\n", [["a", "b"], ["c", "d"]]), ("a,b\r\nc,d", [["a", "b"], ["c", "d"]]),
    ("\u{FEFF}a,\n\n\r\n,b\n", [["a", ""], ["", "b"]]),
    ("\"a,1\",\"say \"\"x\"\"\"\r\n\"two\nlines\",\"\"\n", [["a,1", "say \"x\""], ["two\nlines", ""]]),
    ("\"a\r\nb\",c\r\n", [["a\r\nb", "c"]]), ("", []), ("\n\n", []), ("a", [["a"]]), (",", [["", ""]]),
  ])
  func `fields are read as RFC 4180 has them`(text: String, records: [[String]]) throws {
    #expect(try read(Array(text.utf8)) == records)
  }

  @Test func `a damaged record is refused alone`() throws {
    let text = "a\nb\"c,d\n\"e\"f,g\nh,i\n"
    let stray = "has a quote in the middle; quote the whole field and double the quote"
    #expect(
      try read(Array(text.utf8)) == [
        ["a"], ["line 2: field 1 \(stray)", "b\"c,d"], ["line 3: field 1 \(stray)", "\"e\"f,g"], ["h", "i"],
      ])
  }

  @Test func `an unclosed quote gives up its line only`() throws {
    let text = "a,b\nc,\"d\ne,f\ng,h\n"
    #expect(
      try read(Array(text.utf8)) == [
        ["a", "b"], ["line 2: the quote of field 2 is not closed within 65536 bytes", "c,\"d"], ["e", "f"], ["g", "h"],
      ])
    #expect(try read(Array(text.utf8), limit: 10).count == 4)
    #expect(try read(Array("abc,def\nx\n".utf8), limit: 5)[0][0] == "line 1: the record has more than 5 bytes")
  }

  @Test func `records cross the edges of the window`() throws {
    let directory = try TemporaryDirectory()
    var text = ""
    for number in 0..<60_000 { text += "\(number),\"\(number * 7)\"\n" }
    try directory.write("a.csv", text)
    var reader = try CSVReader(path: "\(directory.path)/a.csv")
    var number: Int64 = 0
    while try reader.next() == .record {
      guard reader.optionalInteger(0) == number, reader.optionalInteger(1) == number * 7 else { break }
      number += 1
      guard reader.line == Int(number) else { break }
    }
    #expect(number == 60_000)
  }

  @Test func `no bytes trap`() throws {
    var random = SeededRandom(seed: 3)
    let alphabet = Array("a,\"\n\r1".utf8) + [0, 0xFF]
    for _ in 0..<60 {
      let bytes = (0..<200).map { _ in alphabet.randomElement(using: &random)! }
      _ = try read(bytes, limit: 40)
    }
  }

  @Test func `lines are counted, and oversized ones skipped`() throws {
    let directory = try TemporaryDirectory()
    let long = String(repeating: "x", count: 600_000)
    try directory.write("a", "one\r\n\n\(long)\ntwelve bytes\nlast")
    var lines = try LineReader(path: "\(directory.path)/a", limit: 10)
    var seen: [String] = []
    while true {
      let outcome = try lines.advance()
      if outcome == .end { break }
      seen.append("\(lines.number) \(outcome) \(CSVReader.text(lines.line))")
    }
    #expect(
      seen == [
        "1 line one", "2 line ", "3 oversized(bytes: 600000) ", "4 oversized(bytes: 12) ", "5 line last",
      ])
  }
}
