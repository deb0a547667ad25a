// What a compiler does not check: the habits of the tree. Reads the sources through #filePath, so it needs no settings.

import Foundation
import Testing

@Suite("Tidy") struct TidyTests {
  /// Files above the limit, with the lines they may have.
  ///
  /// Entries only ever shrink or go.
  static let ratchet: [String: Int] = [
    // Numbers made with PyTorch, one list a case.
    "Tests/LayersTests/Golden.swift": 447,
    // Made from events.proto by protoc-gen-swift.
    "Sources/Streams/Protobuf/events.pb.swift": 510,
  ]
  static let lineLimit = 400

  static let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent()

  /// Paths below the root of files with one of these endings, without what is built.
  private func files(_ extensions: Set<String>, under folders: [String]) -> [String] {
    folders.flatMap { folder -> [String] in
      let base = Self.root.appending(path: folder)
      guard let names = FileManager.default.enumerator(atPath: base.path) else { return [] }
      return names.compactMap { $0 as? String }
        .filter { extensions.contains(URL(filePath: $0).pathExtension) && !$0.contains(".build") }
        .map { "\(folder)/\($0)" }
    }.sorted()
  }

  private func text(_ path: String) throws -> String {
    try String(contentsOf: Self.root.appending(path: path), encoding: .utf8)
  }

  private var swiftFiles: [String] { files(["swift"], under: ["Sources", "Tests"]) }

  private var pages: [String] {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: Self.root.path)) ?? []
    return names.filter { $0.hasSuffix(".md") }.sorted() + files(["md"], under: ["docs"])
  }

  @Test func `sources are found at all`() { #expect(swiftFiles.count > 20) }

  @Test func `no source holds a banned word`() throws {
    let everywhere = ["FIX" + "ME", "X" + "XX", "nonisolated(" + "unsafe)"]
    let inSources = ["TO" + "DO", "try" + "!", "fatal" + "Error(", "as" + "! "]
    for path in swiftFiles + files(["c", "h", "cpp"], under: ["Sources"]) {
      let banned = path.hasPrefix("Sources") ? everywhere + inSources : everywhere
      for (number, line) in try text(path).split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
        // "guira-XXXXXX" is a template of mkdtemp, not a note to oneself.
        let line = line.replacing(String(repeating: "X", count: 6), with: "")
        for word in banned where line.contains(word) {
          Issue.record("\(path):\(number + 1): '\(word)' is not used here")
        }
      }
    }
  }

  @Test func `files stay short`() throws {
    for path in swiftFiles {
      let count = try text(path).split(separator: "\n", omittingEmptySubsequences: false).count - 1
      let limit = Self.ratchet[path] ?? Self.lineLimit
      #expect(count <= limit, "\(path) has \(count) lines; one concern a file, at most \(limit)")
    }
    for (path, limit) in Self.ratchet {
      let count = (try? text(path).split(separator: "\n", omittingEmptySubsequences: false).count - 1) ?? 0
      #expect(count > Self.lineLimit, "\(path) has \(count) lines: take it off the ratchet, which says \(limit)")
    }
  }

  @Test func `every source file begins with what it is for`() throws {
    for path in files(["swift"], under: ["Sources"]) {
      #expect(try text(path).hasPrefix("// "), "\(path) does not begin with a comment")
    }
  }

  @Test func `unchecked sendability says why`() throws {
    for path in swiftFiles where path.hasPrefix("Sources") {
      let lines = try text(path).split(separator: "\n", omittingEmptySubsequences: false)
      for (number, line) in lines.enumerated() where line.contains("@unchecked") {
        let before = lines[max(0, number - 8)..<number]
        #expect(
          before.contains { $0.contains("unchecked because") },
          "\(path):\(number + 1): say 'unchecked because …' in the comment before it")
      }
    }
  }

  @Test func `every page has one title`() throws {
    for path in pages {
      var isCode = false
      var titles = 0
      for line in try text(path).split(separator: "\n", omittingEmptySubsequences: false) {
        if line.hasPrefix("```") { isCode.toggle() }
        if !isCode && line.hasPrefix("# ") { titles += 1 }
      }
      #expect(titles == 1, "\(path) has \(titles) titles")
    }
  }

  @Test func `links between pages lead somewhere`() throws {
    for path in pages {
      let folder = Self.root.appending(path: path).deletingLastPathComponent()
      for match in try text(path).matches(of: /\]\(([^)\s]+)\)/) {
        let target = String(match.output.1.prefix { $0 != "#" })
        if target.isEmpty || target.contains("://") || target.hasPrefix("mailto:") { continue }
        let file = folder.appending(path: target.removingPercentEncoding ?? target).standardizedFileURL
        #expect(FileManager.default.fileExists(atPath: file.path), "\(path) links to \(target), which is not there")
      }
    }
  }

  @Test func `the architecture page names every module`() throws {
    guard let page = try? text("docs/ARCHITECTURE.md") else { return }
    let sources = Self.root.appending(path: "Sources").path
    for module in try FileManager.default.contentsOfDirectory(atPath: sources).sorted() where !module.hasPrefix(".") {
      #expect(page.contains("`\(module)`"), "docs/ARCHITECTURE.md does not mention `\(module)`")
    }
  }
}
