// Rows of a file, however it is written: CSV, delimited text, JSON Lines. A reader gives the values of the columns that are
// wanted; a damaged row is a fault of its own and the next one is read on. Belongs to one thread.

internal import Base

/// Values of one row, one after the other in one buffer.
struct RowCells {
  private var bytes: [UInt8] = []
  private var ends: [Int] = []

  var count: Int { ends.count }

  /// Between the elements of a JSON list in a cell.
  static let listMark: UInt8 = 0x1F

  /// Keeps the first `count` cells.
  mutating func truncate(to count: Int) {
    bytes.removeLast(bytes.count - (count == 0 ? 0 : ends[count - 1]))
    ends.removeLast(ends.count - count)
  }

  mutating func append(_ span: RawSpan) {
    unsafe span.withUnsafeBytes { unsafe bytes.append(contentsOf: $0) }
    ends.append(bytes.count)
  }

  mutating func append(_ text: [UInt8]) {
    bytes.append(contentsOf: text)
    ends.append(bytes.count)
  }

  /// The bytes of cell `index`.
  subscript(index: Int) -> ArraySlice<UInt8> { bytes[(index == 0 ? 0 : ends[index - 1])..<ends[index]] }

  func text(_ index: Int) -> String { String(decoding: self[index], as: UTF8.self) }
}

/// What a reader came upon.
enum RowOutcome {
  case row
  case fault(RowFault)
  case end
}

/// Reads the rows of one file.
protocol RowReader: AnyObject {
  /// The columns of the file; those that are wanted when rows name them one by one.
  var names: [String] { get }
  /// Appends the wanted values of the next row.
  func next(into cells: inout RowCells) throws(StreamError) -> RowOutcome
  /// The line on which the newest row begins, from 1.
  var line: Int { get }
  /// The newest row as it is in the file.
  var text: String { get }
  /// Bytes of the file that were read.
  var consumed: Int { get }
}

extension RowFormat {
  /// The most bytes a row may have.
  static let rowByteLimit = 1 << 20

  /// Opens a file of rows.
  /// - Parameter wants: the columns whose values `next` gives, in this order; nil for all that the file has.
  /// - Throws: `missingColumns` when the file has not all of them.
  func open(_ path: String, wants: [String]?) throws(StreamError) -> any RowReader {
    switch kind {
    case .csv: try CSVRows(path, self, wants: wants)
    case .tsv, .delimited: try DelimitedRows(path, self, wants: wants)
    case .jsonl: try JSONRows(path, wants: wants ?? [])
    }
  }

  /// The columns' names: the first row's, those given, or numbers.
  func names(first row: [String]) -> [String] {
    if header { return row }
    return columns.isEmpty ? row.indices.map { "c\($0 + 1)" } : columns
  }
}

/// Where wanted columns are among those of a file.
private func positions(of wants: [String]?, in names: [String], file: String) throws(StreamError) -> [Int] {
  guard let wants else { return Array(names.indices) }
  let missing = wants.filter { !names.contains($0) }
  guard missing.isEmpty else { throw .missingColumns(file: file, missing: missing, found: names) }
  return wants.map { names.firstIndex(of: $0) ?? 0 }
}

/// Runs work on files; what it throws becomes a `StreamError`.
private func onFiles<Result: ~Copyable>(_ body: () throws(FileError) -> Result) throws(StreamError) -> Result {
  do { return try body() } catch { throw .file(error) }
}

/// Rows of CSV.
private final class CSVRows: RowReader {
  let names: [String]
  private var reader: CSVReader
  private let wanted: [Int]
  /// Whether the reader's newest record is a row that was not given yet.
  private var isAhead: Bool

  init(_ path: String, _ format: RowFormat, wants: [String]?) throws(StreamError) {
    let delimiter = format.separator.utf8.first ?? 0x2C
    var reader = try onFiles { () throws(FileError) in
      try CSVReader(path: path, recordByteLimit: RowFormat.rowByteLimit, delimiter: delimiter)
    }
    var outcome = CSVReader.Outcome.end
    do throws(FileError) { outcome = try reader.next() } catch { throw .file(error) }
    let first = outcome == .record ? (0..<reader.count).map { reader.text($0) } : []
    let names = format.names(first: first)
    wanted = try positions(of: wants, in: names, file: path)
    self.names = names
    isAhead = !format.header && outcome == .record
    self.reader = reader
  }

  func next(into cells: inout RowCells) throws(StreamError) -> RowOutcome {
    var outcome = CSVReader.Outcome.record
    if !isAhead {
      do throws(FileError) { outcome = try reader.next() } catch { throw .file(error) }
    }
    isAhead = false
    switch outcome {
    case .end: return .end
    case .fault(let fault): return .fault(.csv(fault))
    case .record:
      guard reader.count == names.count else { return .fault(.fieldCount(reader.count, expected: names.count)) }
      append(wanted, of: reader, to: &cells)
      return .row
    }
  }

  var line: Int { reader.line }
  var text: String { rawText(reader) }
  var consumed: Int { reader.buffer.consumed }
}

/// Appends fields of a reader's newest record.
private func append(_ fields: [Int], of reader: borrowing CSVReader, to cells: inout RowCells) {
  for field in fields { cells.append(reader.field(field)) }
}

/// A reader's newest record as it is in the file.
private func rawText(_ reader: borrowing CSVReader) -> String { CSVReader.text(reader.raw) }

/// A reader's newest line.
private func rawText(_ lines: borrowing LineReader) -> String { CSVReader.text(lines.line) }

/// Rows of text with a delimiter of any length and no quotes.
private final class DelimitedRows: RowReader {
  let names: [String]
  private var lines: LineReader
  private let delimiter: [UInt8]
  private let wanted: [Int]
  private var starts: [Int] = []
  private var isAhead: Bool

  init(_ path: String, _ format: RowFormat, wants: [String]?) throws(StreamError) {
    let delimiter = Array(format.separator.utf8)
    var lines = try onFiles { () throws(FileError) in try LineReader(path: path, limit: RowFormat.rowByteLimit) }
    var outcome = LineReader.Outcome.end
    do throws(FileError) { outcome = try lines.advance() } catch { throw .file(error) }
    let first = outcome == .line ? rawText(lines) : ""
    let names = format.names(first: first.components(separatedBy: delimiter))
    wanted = try positions(of: wants, in: names, file: path)
    self.names = names
    self.delimiter = delimiter
    isAhead = !format.header && outcome != .end
    self.lines = lines
  }

  func next(into cells: inout RowCells) throws(StreamError) -> RowOutcome {
    while true {
      var outcome = LineReader.Outcome.line
      if !isAhead {
        do throws(FileError) { outcome = try lines.advance() } catch { throw .file(error) }
      }
      isAhead = false
      switch outcome {
      case .end: return .end
      case .oversized: return .fault(.csv(.oversized(limit: RowFormat.rowByteLimit)))
      case .line:
        if lines.isBlank { continue }
        starts.removeAll(keepingCapacity: true)
        starts.append(0)
        find(delimiter, of: lines, starts: &starts)
        guard starts.count == names.count else { return .fault(.fieldCount(starts.count, expected: names.count)) }
        append(wanted, of: lines, starts: starts, gap: delimiter.count, to: &cells)
        return .row
      }
    }
  }

  var line: Int { lines.number }
  var text: String { rawText(lines) }
  var consumed: Int { lines.buffer.consumed }
}

/// Finds where the fields of a reader's newest line begin.
private func find(_ delimiter: [UInt8], of lines: borrowing LineReader, starts: inout [Int]) {
  find(delimiter, in: lines.line, starts: &starts)
}

/// Appends fields of a reader's newest line.
private func append(
  _ fields: [Int], of lines: borrowing LineReader, starts: [Int], gap: Int, to cells: inout RowCells
) {
  let line = lines.line
  for field in fields {
    let end = field + 1 < starts.count ? starts[field + 1] - gap : line.byteCount
    cells.append(line.extracting(starts[field]..<end))
  }
}

/// Parses a reader's newest line.
private func parse(_ lines: borrowing LineReader, into json: inout JSONText) throws(JSONFault) {
  try json.parse(lines.line)
}

/// Appends the places behind each `delimiter` in `line`.
private func find(_ delimiter: [UInt8], in line: RawSpan, starts: inout [Int]) {
  guard let first = delimiter.first else { return }
  var at = 0
  let last = line.byteCount - delimiter.count
  while at <= last {
    if line[at] == first, delimiter.indices.allSatisfy({ line[at + $0] == delimiter[$0] }) {
      at += delimiter.count
      starts.append(at)
    } else {
      at += 1
    }
  }
}

extension String {
  /// The parts between occurrences of `delimiter`; at least one.
  func components(separatedBy delimiter: [UInt8]) -> [String] {
    let text = Array(utf8)
    var starts = [0]
    unsafe find(delimiter, in: text.span.bytes, starts: &starts)
    return starts.indices.map { index in
      let end = index + 1 < starts.count ? starts[index + 1] - delimiter.count : text.count
      return String(decoding: text[starts[index]..<end], as: UTF8.self)
    }
  }
}

/// Rows of JSON: every row is an object, columns are found by name.
private final class JSONRows: RowReader {
  let names: [String]
  private var lines: LineReader
  private var json = JSONText(limit: RowFormat.rowByteLimit)
  private let paths: [[[UInt8]]]

  init(_ path: String, wants: [String]) throws(StreamError) {
    lines = try onFiles { () throws(FileError) in try LineReader(path: path, limit: RowFormat.rowByteLimit) }
    names = wants
    paths = wants.map { $0.split(separator: ".").map { Array($0.utf8) } }
  }

  func next(into cells: inout RowCells) throws(StreamError) -> RowOutcome {
    while true {
      let outcome: LineReader.Outcome
      do throws(FileError) { outcome = try lines.advance() } catch { throw .file(error) }
      switch outcome {
      case .end: return .end
      case .oversized: return .fault(.csv(.oversized(limit: RowFormat.rowByteLimit)))
      case .line:
        if lines.isBlank { continue }
        do throws(JSONFault) { try parse(lines, into: &json) } catch { return .fault(.json(error)) }
        guard json[0].kind == .object else { return .fault(.json(.malformed("the line is \(json[0].kind.words)"))) }
        let before = cells.count
        do throws(RowFault) {
          for index in paths.indices { cells.append(try value(index)) }
          return .row
        } catch {
          cells.truncate(to: before)
          return .fault(error)
        }
      }
    }
  }

  /// The value of wanted column `index` as text; empty where there is none.
  private func value(_ index: Int) throws(RowFault) -> [UInt8] {
    var at = 0
    for (depth, key) in paths[index].enumerated() {
      guard let member = member(key, of: at) else { return [] }
      at = member
      let isLast = depth == paths[index].count - 1
      guard isLast || json[at].kind == .object else { return [] }
    }
    let token = json[at]
    switch token.kind {
    case .list:
      var text: [UInt8] = []
      for element in 0..<token.count {
        if element > 0 { text.append(RowCells.listMark) }
        text.append(contentsOf: try scalar(json[at + 1 + element], index))
      }
      return text
    default: return try scalar(token, index)
    }
  }

  /// The token of a member's value.
  private func member(_ key: [UInt8], of object: Int) -> Int? {
    var next = object + 1
    for _ in 0..<json[object].count {
      if json.text(json[next], is: key) { return next + 1 }
      next = json[next + 1].end
    }
    return nil
  }

  private func scalar(_ token: JSONToken, _ index: Int) throws(RowFault) -> [UInt8] {
    switch token.kind {
    case .null: []
    case .yes: [0x31]
    case .no: [0x30]
    case .unsigned: Array("\(token.bits)".utf8)
    case .negative: Array("\(Int64(bitPattern: token.bits))".utf8)
    case .double: Array("\(Double(bitPattern: token.bits))".utf8)
    case .text: Array(json.string(of: token).utf8)
    case .list, .object:
      throw .field(names[index], value: token.kind.words, expected: "a text, a number, or a list of those")
    }
  }

  var line: Int { lines.number }
  var text: String { rawText(lines) }
  var consumed: Int { lines.buffer.consumed }
}
