// The hex examples of docs/formats.md and docs/protocol.md, for the tests that compare them with what is written.

import Base

/// Blocks that begin with ```` ```hex NAME ````.
public enum HexExamples {
  /// All of a page below docs/, by name; `sourceFile` is a file two folders below the root.
  public static func documented(in page: String = "formats.md", sourceFile: String) throws -> [String: String] {
    let root = sourceFile.split(separator: "/", omittingEmptySubsequences: false).dropLast(3).joined(separator: "/")
    var document = String(decoding: try Files.read("\(root)/docs/\(page)"), as: UTF8.self)[...]
    var found: [String: String] = [:]
    while let begin = document.firstRange(of: "```hex ") {
      document = document[begin.upperBound...]
      let name = document.prefix { $0 != "\n" }
      document = document.dropFirst(name.count + 1)
      guard let end = document.firstRange(of: "```") else { break }
      found[String(name)] = String(document[..<end.lowerBound])
      document = document[end.upperBound...]
    }
    return found
  }

  /// Lines of an offset and sixteen bytes, as in the document.
  public static func dump(_ bytes: [UInt8]) -> String {
    func hex(_ value: Int, _ digits: Int) -> String {
      let text = String(value, radix: 16)
      return String(repeating: "0", count: max(0, digits - text.count)) + text
    }
    return stride(from: 0, to: bytes.count, by: 16).map { begin in
      let line = bytes[begin..<min(begin + 16, bytes.count)].map { hex(Int($0), 2) }.joined(separator: " ")
      return "\(hex(begin, 4))  \(line)\n"
    }.joined()
  }

  /// The bytes of a dump.
  public static func bytes(_ dump: String) -> [UInt8] {
    dump.split(separator: "\n").flatMap { line in
      line.split(separator: " ").dropFirst().compactMap { UInt8($0, radix: 16) }
    }
  }
}
