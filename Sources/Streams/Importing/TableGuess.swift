// What a look at the first rows of a file says about it: delimiter, header, what each column holds, which are time, labels
// and features. Guesses are for people to check: `guira init` writes them down with reasons.

internal import Base

/// One column as its first values show it.
public struct GuessedColumn: Equatable, Sendable {
  /// What the values are.
  public enum Content: Equatable, Sendable {
    /// Nothing in any row.
    case empty
    /// 0 and 1, or false and true.
    case flag
    /// Whole numbers.
    case integers
    /// Numbers, some with a fraction.
    case numbers
    /// Texts.
    case texts
    /// Lists of ids, with what separates them.
    case lists(separator: String)
    /// Times.
    case times(TimeNotation)
  }

  /// The column's name.
  public var name: String
  /// What it holds.
  public var content: Content
  /// Distinct values among the rows looked at; counted up to 10,000.
  public var distinct: Int
  /// The first values that are not empty, up to three.
  public var examples: [String]
  /// The least number; 0 for texts.
  public var least: Double
  /// The greatest number; 0 for texts.
  public var greatest: Double
  /// The most ids in a list.
  public var longest: Int
}

/// A file that was looked at.
public struct TableGuess: Equatable, Sendable {
  /// The file.
  public var path: String
  /// How its rows are written.
  public var format: RowFormat
  /// Its columns, in order.
  public var columns: [GuessedColumn]
  /// How many rows were looked at.
  public var rows: Int
  /// How many of them could not be read.
  public var damaged: Int

  /// The most rows that are looked at.
  public static let rowLimit = 20_000

  /// Looks at the first rows of a file.
  /// - Throws: `notATable` when no rows can be made out.
  public init(path: String) throws(StreamError) {
    self.path = path
    let sample = try Self.lines(path)
    guard let first = sample.first else { throw .notATable(path: path, problem: "it has no lines") }
    format = RowFormat()
    columns = []
    rows = 0
    damaged = 0
    if first.utf8.first == 0x7B {
      format.kind = .jsonl
      try look(wants: Self.keys(sample))
    } else {
      try guessDelimiter(sample)
      format.header = Self.isHeader(first.components(separatedBy: Array(format.separator.utf8)), sample, format)
      try look(wants: nil)
    }
    guard rows > damaged else { throw .notATable(path: path, problem: "none of its first \(rows) rows can be read") }
  }

  /// The first lines that hold something.
  private static func lines(_ path: String) throws(StreamError) -> [String] {
    do throws(FileError) {
      var reader = try LineReader(path: path, limit: RowFormat.rowByteLimit)
      var lines: [String] = []
      while lines.count < 200, case let outcome = try reader.advance(), outcome != .end {
        if outcome == .line, !reader.isBlank { lines.append(CSVReader.text(reader.line)) }
      }
      return lines
    } catch {
      throw .file(error)
    }
  }

  /// The keys of the first objects, in the order in which they come, those of inner objects as `a.b`.
  private static func keys(_ lines: [String]) -> [String] {
    var json = JSONText(limit: RowFormat.rowByteLimit)
    var keys: [String] = []
    func walk(_ json: borrowing JSONText, _ object: Int, _ prefix: String, _ depth: Int) {
      var next = object + 1
      for _ in 0..<json[object].count {
        let name = prefix + json.string(of: json[next])
        if json[next + 1].kind == .object, depth < 4 {
          walk(json, next + 1, name + ".", depth + 1)
        } else if json[next + 1].kind != .object, !keys.contains(name), keys.count < 1000 {
          keys.append(name)
        }
        next = json[next + 1].end
      }
    }
    for line in lines {
      let bytes = Array(line.utf8)
      guard (try? unsafe json.parse(bytes.span.bytes)) != nil, json[0].kind == .object else { continue }
      walk(json, 0, "", 0)
    }
    return keys
  }

  /// The delimiter that cuts most lines into equally many fields, the most fields when several do.
  private mutating func guessDelimiter(_ lines: [String]) throws(StreamError) {
    var best: (delimiter: String, fields: Int, share: Double)?
    for delimiter in ["\t", "::", ",", ";", "|"] {
      let counts = lines.map { $0.components(separatedBy: Array(delimiter.utf8)).count }
      let usual = Dictionary(counts.map { ($0, 1) }, uniquingKeysWith: +).max {
        ($0.value, $0.key) < ($1.value, $1.key)
      }
      guard let usual, usual.key > 1 else { continue }
      let share = Double(usual.value) / Double(counts.count)
      guard share >= 0.5 else { continue }
      if best.map({ (share >= 0.9 ? 1 : 0, usual.key) > ($0.share >= 0.9 ? 1 : 0, $0.fields) }) ?? true {
        best = (delimiter, usual.key, share)
      }
    }
    guard let best else {
      throw .notATable(
        path: path, problem: "its lines are neither JSON nor cut into columns by a comma, tab, semicolon, | or ::")
    }
    switch best.delimiter {
    case "\t": format.kind = .tsv
    case "::":
      format.kind = .delimited
      format.delimiter = "::"
    case ",": format.kind = .csv
    default:
      format.kind = .csv
      format.delimiter = best.delimiter
    }
  }

  /// Whether the first row names columns: texts that differ from each other, above rows that hold numbers, or words like
  /// those that name columns.
  private static func isHeader(_ first: [String], _ lines: [String], _ format: RowFormat) -> Bool {
    let names = first.map { $0.filter { $0 != "\"" } }
    guard Set(names).count == names.count, names.allSatisfy({ !$0.isEmpty && Double($0) == nil }) else { return false }
    let second = lines.dropFirst().first?.components(separatedBy: Array(format.separator.utf8)) ?? []
    if second.contains(where: { Double($0) != nil }) { return true }
    return names.allSatisfy { name in
      name.utf8.count <= 40 && name.unicodeScalars.allSatisfy { $0 == "_" || $0 == "." || $0.properties.isAlphabetic }
    }
  }

  private mutating func look(wants: [String]?) throws(StreamError) {
    let reader = try format.open(path, wants: wants)
    if !format.header { format.columns = reader.names }
    var columns = reader.names.map { ColumnLook(name: $0) }
    var cells = RowCells()
    reading: while rows < Self.rowLimit {
      cells.truncate(to: 0)
      switch try reader.next(into: &cells) {
      case .end: break reading
      case .fault: damaged += 1
      case .row:
        for index in columns.indices { columns[index].see(cells.text(index)) }
      }
      rows += 1
    }
    self.columns = columns.map { $0.guess(rows: rows - damaged) }
  }
}

/// What was seen of a column.
private struct ColumnLook {
  let name: String
  private var seen = 0
  private var integers = 0
  private var numbers = 0
  private var flags = 0
  private var times: [TimeNotation: Int] = [:]
  private var lists: [String: Int] = [:]
  private var longest: [String: Int] = [:]
  private var distinct: Set<String> = []
  private var examples: [String] = []
  private var least = Double.infinity
  private var greatest = -Double.infinity

  init(name: String) { self.name = name }

  mutating func see(_ text: String) {
    guard !text.isEmpty else { return }
    seen += 1
    if distinct.count < 10_000 { distinct.insert(text) }
    if examples.count < 3, !examples.contains(text) { examples.append(text) }
    if ["0", "1", "true", "false", "True", "False"].contains(text) { flags += 1 }
    if let number = Double(text), number.isFinite {
      numbers += 1
      if Int64(text) != nil || UInt64(text) != nil { integers += 1 }
      least = min(least, number)
      greatest = max(greatest, number)
      return
    }
    for notation in [TimeNotation.iso8601, .monthDayYear] where notation.milliseconds(text) != nil {
      times[notation, default: 0] += 1
    }
    for separator in [String(decoding: [RowCells.listMark], as: UTF8.self), "|", ";", ",", " "] {
      let parts = text.components(separatedBy: Array(separator.utf8))
      // A text with spaces is a sentence, unless its parts are as short as ids; so is one with a space behind its commas.
      guard parts.count > 1,
        parts.allSatisfy({ !$0.isEmpty && $0.utf8.count <= 24 && $0.first != " " && $0.last != " " })
      else { continue }
      lists[separator, default: 0] += 1
      longest[separator] = max(longest[separator] ?? 0, parts.count)
    }
  }

  func guess(rows: Int) -> GuessedColumn {
    var column = GuessedColumn(
      name: name, content: .texts, distinct: distinct.count, examples: examples, least: numbers > 0 ? least : 0,
      greatest: numbers > 0 ? greatest : 0, longest: 1)
    let most = seen - seen / 100
    if seen == 0 {
      column.content = .empty
    } else if flags == seen {
      column.content = .flag
    } else if let time = TimeNotation.allCases.first(where: { times[$0, default: 0] >= most }) {
      column.content = .times(time)
    } else if let notation = epochNotation {
      column.content = .times(notation)
    } else if integers == seen {
      column.content = .integers
    } else if numbers >= most {
      column.content = .numbers
    } else if let list = lists.filter({ $0.key != " " || isIDs }).max(by: { $0.value < $1.value }),
      list.value * 3 >= seen
    {
      column.content = .lists(separator: list.key)
      column.longest = longest[list.key] ?? 1
    }
    return column
  }

  /// Whether values parted by spaces look like ids: each part with a digit.
  private var isIDs: Bool {
    examples.allSatisfy { $0.split(separator: " ").allSatisfy { $0.contains(where: \.isNumber) } }
  }

  /// The unit of numbers that are times by their name and size.
  private var epochNotation: TimeNotation? {
    let words = name.lowercased()
    guard numbers >= seen - seen / 100,
      ["time", "date", "stamp", "ts"].contains(where: words.contains) || words == "at"
    else {
      return nil
    }
    // 1990 to 2100.
    let years = 631_152_000.0...4_102_444_800
    for (scale, notation) in [(1.0, TimeNotation.seconds), (1e3, .milliseconds), (1e6, .microseconds)]
    where years.contains(least / scale) && years.contains(greatest / scale) {
      return notation
    }
    return nil
  }
}
