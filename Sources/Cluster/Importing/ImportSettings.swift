// import.yaml: a mapping as a file. The keys are named once, as those of cluster.yaml are, so that everything that is wrong
// is said at once, with its line.

internal import Base
public import Streams
internal import Yams

extension ImportMapping: Settings {
  mutating func bind(_ section: Section) {
    section.value("origin", &origin, .text(atMost: 200))
    section.values("files", &files, .text(atMost: 256), atMost: 1024)
    format.bind(section)
    section.optional("id", &id, .column)
    section.section("time", &time)
    section.value("delay", &delay, .duration(.zero ... .seconds(90 * 86_400)))
    section.list("features", &features, atMost: EventSchema.featureLimit)
    section.list("tasks", &tasks, atMost: EventSchema.taskLimit)
    var made = candidates ?? ImportedCandidates()
    if !section.binding.isWriting || candidates != nil { section.section("candidates", &made) }
    if section.isGiven("candidates") { candidates = made }
    section.list("tables", &tables, atMost: 64)
    if !section.binding.isWriting { check(section) }
  }

  private func check(_ section: Section) {
    if features.isEmpty { section.report("features", "has no entry", "name at least one: - {name: user_id}") }
    if tasks.isEmpty { section.report("tasks", "has no entry", "name at least one: - {name: click, column: clicked}") }
    for (key, names) in [("features", features.map(\.name)), ("tasks", tasks.map(\.name))] {
      for name in Set(names).sorted() where names.filter({ $0 == name }).count > 1 {
        section.report(key, "has '\(name)' twice", "give each a name of its own")
      }
    }
    if tasks.contains(where: { $0.name == Self.viewEnd }) {
      section.report("tasks", "has '\(Self.viewEnd)'", "choose another name: that action closes every impression")
    }
  }
}

extension RowFormat {
  mutating func bind(_ section: Section) {
    section.value("format", &kind, .word)
    section.optional("delimiter", &delimiter, .delimiter)
    if kind == .jsonl && section.binding.isWriting { return }
    section.value("header", &header, .flag)
    section.values("columns", &columns, .column, atMost: 4096)
    if section.binding.isWriting { return }
    if kind == .delimited && delimiter == nil {
      section.report("delimiter", "is missing", "say what separates values, such as \"::\"")
    }
    if kind == .csv, let delimiter, delimiter.utf8.count != 1 || delimiter == "\"" {
      section.report("delimiter", "is '\(delimiter)'", "use one byte with csv, or 'format: delimited'")
    }
    if kind == .jsonl && delimiter != nil { section.report("delimiter", "is given for jsonl", "remove it") }
    if header && !columns.isEmpty {
      section.report("columns", "are given beside a header", "remove them, or say 'header: false'")
    }
    if Set(columns).count < columns.count { section.report("columns", "has a name twice", "name each column once") }
  }
}

extension ImportedTime: Settings {
  mutating func bind(_ section: Section) {
    section.optional("column", &column, .column)
    if column != nil || !section.binding.isWriting { section.value("unit", &unit, .word) }
    if column == nil || !section.binding.isWriting {
      section.value("start", &start, .moment)
      section.value("perSecond", &perSecond, .positive(upTo: 1e9))
    }
    if section.binding.isWriting { return }
    for key in ["start", "perSecond"] where column != nil && section.isGiven(key) {
      section.report(key, "is given beside a column", "remove one of them")
    }
    if column != nil && !section.isGiven("unit") {
      let units = TimeNotation.allCases.map(\.rawValue).joined(separator: ", ")
      section.report("unit", "is missing", "say how the time is written: \(units)")
    }
  }
}

extension ImportedFeature: Settings {
  private enum Kind: String, CaseIterable { case id, ids, dense }

  mutating func bind(_ section: Section) {
    section.value("name", &name, .name)
    var word = Kind.id
    var limit: Int?
    switch kind {
    case .id: word = .id
    case .ids(let most): (word, limit) = (.ids, most)
    case .dense: word = .dense
    }
    section.value("kind", &word, .word)
    var column = columns.count == 1 ? columns[0] : nil
    section.optional("column", &column, .column)
    if columns.count > 1 || !section.binding.isWriting { section.values("columns", &columns, .column, atMost: 4096) }
    section.optional("split", &split, .delimiter)
    section.optional("limit", &limit, .integer(1...65_535))
    if word == .dense || !section.binding.isWriting {
      section.value("log1p", &log1p, .flag)
      section.value("scale", &scale, .number(-1e30...1e30))
    }
    if section.binding.isWriting { return }
    if let column {
      if !columns.isEmpty { section.report("columns", "are given beside 'column'", "remove one of them") }
      columns = [column]
    }
    if columns.isEmpty { columns = [name] }
    switch word {
    case .id: kind = .id
    case .ids: kind = .ids(limit: limit ?? 32)
    case .dense: kind = .dense(width: columns.count)
    }
    if name.isEmpty && !section.isGiven("name") { section.report("name", "is missing", "name the feature") }
    if word == .id && columns.count > 1 {
      section.report("columns", "has \(columns.count) entries", "use one, or 'kind: ids' or 'kind: dense'")
    }
    for key in ["split", "limit"] where word != .ids && section.isGiven(key) {
      section.report(key, "is given for kind \(word.rawValue)", "remove it, or use 'kind: ids'")
    }
    for key in ["log1p", "scale"] where word != .dense && section.isGiven(key) {
      section.report(key, "is given for kind \(word.rawValue)", "remove it, or use 'kind: dense'")
    }
  }
}

extension ImportedTask: Settings {
  mutating func bind(_ section: Section) {
    section.value("name", &name, .name)
    section.value("column", &column, .column)
    var equals: String?
    var atLeast: Double?
    switch rule {
    case .equals(let text): equals = text
    case .atLeast(let number): atLeast = number
    }
    if !section.binding.isWriting { equals = nil }
    section.optional("equals", &equals, .text(atMost: 256))
    section.optional("atLeast", &atLeast, .number(-1e30...1e30))
    if section.binding.isWriting { return }
    if equals != nil && atLeast != nil { section.report("atLeast", "is given beside 'equals'", "remove one of them") }
    rule = atLeast.map(Rule.atLeast) ?? .equals(equals ?? "1")
    if name.isEmpty && !section.isGiven("name") { section.report("name", "is missing", "name the task") }
    if column.isEmpty && !section.isGiven("column") { column = name }
  }
}

extension ImportedCandidates: Settings {
  mutating func bind(_ section: Section) {
    section.value("column", &column, .column)
    section.value("split", &split, .delimiter)
    section.value("labelAfter", &labelAfter, .delimiter)
    section.value("item", &item, .column)
    section.value("label", &label, .column)
    if !section.binding.isWriting, !section.isGiven("column") {
      section.report("column", "is missing", "name the column that lists what was shown")
    }
  }
}

extension ImportedTable: Settings {
  mutating func bind(_ section: Section) {
    section.value("file", &file, .text(atMost: 256))
    format.bind(section)
    section.value("key", &key, .column)
    section.optional("on", &on, .column)
    section.values("adds", &adds, .column, atMost: 1024)
    section.value("optional", &isOptional, .flag)
    if section.binding.isWriting { return }
    for name in ["file", "key", "adds"] where !section.isGiven(name) {
      section.report(name, "is missing", "a table needs 'file', 'key' and 'adds'")
    }
    if file.contains("/") || file.hasPrefix(".") {
      section.report("file", "is '\(file)'", "give the name of a file beside the rows' own")
    }
  }
}

extension ImportMapping {
  /// The name of the file that `guira init` writes.
  public static let fileName = "import.yaml"

  /// Reads a mapping from a file.
  /// - Throws: `ConfigurationError` with everything that is wrong.
  public init(file: String) throws(ConfigurationError) {
    self = try readSettings(file: file, advice: "give the path of an import.yaml; `guira init FILE` writes one")
  }

  /// Reads a mapping from the text of a file, which problems call `file`.
  public init(text: String, file: String) throws(ConfigurationError) {
    self = try readSettings(text: text, file: file)
  }

  /// The mapping as a file that reads back equal.
  public var text: String {
    let top = Section(Binding(isWriting: true), mapping: nil)
    var copy = self
    copy.bind(top)
    do { return try Yams.serialize(node: Node(top.written), allowUnicode: true) } catch {
      preconditionFailure("a mapping that cannot be written: \(error)")
    }
  }
}

extension Scalar where Value == String {
  /// Any text of some bytes, but for control characters.
  fileprivate static func text(atMost limit: Int) -> Scalar {
    Scalar(
      read: { (text: String) throws(Refusal) -> String in
        guard !text.isEmpty, text.utf8.count <= limit, text.unicodeScalars.allSatisfy({ $0.value >= 32 }) else {
          throw Refusal(fault: "is '\(text.prefix(80))'", advice: "use a text of 1 to \(limit) bytes")
        }
        return text
      }, write: { $0 })
  }

  /// The name of a column.
  fileprivate static var column: Scalar { text(atMost: 256) }

  /// What separates values: a few bytes, none of them a line end.
  fileprivate static var delimiter: Scalar {
    Scalar(
      read: { (text: String) throws(Refusal) -> String in
        guard (1...8).contains(text.utf8.count), !text.utf8.contains(where: { $0 == 10 || $0 == 13 }) else {
          throw Refusal(fault: "is '\(text.prefix(80))'", advice: "use 1 to 8 bytes, such as \";\" or \"\\t\"")
        }
        return text
      }, write: { $0 })
  }
}

extension Scalar where Value == Milliseconds {
  /// A moment, `2024-01-01T00:00:00Z`.
  fileprivate static var moment: Scalar {
    Scalar(
      read: { (text: String) throws(Refusal) -> Milliseconds in
        guard let time = Milliseconds(iso8601: text), EventParser.Options().times.contains(time) else {
          throw Refusal(fault: "is '\(text)'", advice: "use a time of 1990 to 2100 such as 2024-01-01T00:00:00Z")
        }
        return time
      }, write: { $0.iso8601 })
  }
}
