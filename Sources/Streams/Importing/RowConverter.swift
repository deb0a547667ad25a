// One row → its impressions and actions as JSON, by a mapping. A row is taken whole or refused whole with a reason.

internal import Base
internal import Glibc

/// The events of one impression, and when it was shown.
struct ImportedEvents: ~Copyable {
  var time: Milliseconds = 0
  /// The impression's line.
  var impression = ByteWriter()
  /// The lines of its actions, each with its line end.
  var actions = ByteWriter()
  /// Bit i: task i is positive.
  var labels: UInt64 = 0
}

/// Where the values of a mapping's columns are among a row's cells, and what becomes of them.
struct RowConverter: ~Copyable {
  private struct Feature {
    let key: String
    let cells: [Int]
    let kind: FeatureKind
    let split: [UInt8]
    let log1p: Bool
    let scale: Double
  }

  private struct Task {
    let cell: Int
    let rule: ImportedTask.Rule
    let text: [UInt8]
    let number: Double?
  }

  /// The columns of the rows' file that are needed, in the order of the first cells.
  let wanted: [String]
  private let mapping: ImportMapping
  private let features: [Feature]
  private let tasks: [Task]
  private let timeCell: Int?
  private let idCell: Int?
  private let candidatesCell: Int?
  private let tableCells: [Int]
  private var tables: [LookupTable] = []
  private let times = EventParser.Options().times
  private var cells = RowCells()
  private var events = ImportedEvents()

  init(_ mapping: ImportMapping) {
    self.mapping = mapping
    let added = mapping.tables.flatMap(\.adds)
    let made = mapping.candidates.map { [$0.item, $0.label] } ?? []
    var wanted: [String] = []
    func want(_ name: String) {
      if !wanted.contains(name), !added.contains(name), !made.contains(name) { wanted.append(name) }
    }
    if let column = mapping.time.column { want(column) }
    if let id = mapping.id { want(id) }
    if let candidates = mapping.candidates { want(candidates.column) }
    for feature in mapping.features { feature.columns.forEach(want) }
    for task in mapping.tasks { want(task.column) }
    for table in mapping.tables { want(table.on ?? table.key) }
    // A row's cells: its own columns, the candidate and its label, then what the tables add.
    let names = wanted + made + added
    func cell(_ name: String) -> Int { names.firstIndex(of: name) ?? 0 }
    self.wanted = wanted
    timeCell = mapping.time.column.map(cell)
    idCell = mapping.id.map(cell)
    candidatesCell = mapping.candidates.map { cell($0.column) }
    tableCells = mapping.tables.map { cell($0.on ?? $0.key) }
    features = mapping.features.map { feature in
      var key = ByteWriter()
      key.append(quoted: feature.name)
      return Feature(
        key: String(decoding: key.finish().array, as: UTF8.self) + ":", cells: feature.columns.map(cell),
        kind: feature.kind, split: Array((feature.split ?? "").utf8), log1p: feature.log1p, scale: feature.scale)
    }
    tasks = mapping.tasks.map { task in
      var text = ""
      if case .equals(let value) = task.rule { text = value }
      return Task(cell: cell(task.column), rule: task.rule, text: Array(text.utf8), number: Double(text))
    }
  }

  /// Reads the tables that rows are completed from.
  mutating func readTables(in directory: String) throws(StreamError) {
    tables = try mapping.tables.map { table throws(StreamError) in try LookupTable(table, in: directory) }
  }

  /// Goes to the next row of a file and gives its events, one call of `emit` for each impression.
  /// - Parameters:
  ///   - number: what the row is called; a row with candidates counts on from it, one for each.
  ///   - order: how many rows were taken before, for rows without a time.
  mutating func next(
    _ reader: any RowReader, number: inout UInt64, order: Int, emit: (inout ImportedEvents) throws(StreamError) -> Void
  ) throws(StreamError) -> RowOutcome {
    cells.truncate(to: 0)
    let outcome = try reader.next(into: &cells)
    guard case .row = outcome else {
      if case .fault = outcome { number += 1 }
      return outcome
    }
    var made: [(item: [UInt8], label: [UInt8])] = []
    do throws(RowFault) {
      events.time = try time(order)
      made = try candidates()
      if mapping.candidates == nil {
        number += 1
        complete()
        try render(id: number, suffix: nil)
      }
    } catch {
      number += 1
      return .fault(error)
    }
    if mapping.candidates == nil {
      try emit(&events)
      return .row
    }
    // All of a row's candidates are checked before the first is given.
    for isReal in [false, true] {
      for (index, candidate) in made.enumerated() {
        cells.truncate(to: wanted.count)
        cells.append(candidate.item)
        cells.append(candidate.label)
        complete()
        do throws(RowFault) { try render(id: number + UInt64(index) + 1, suffix: index + 1) } catch {
          number += 1
          return .fault(error)
        }
        if isReal { try emit(&events) }
      }
    }
    number += UInt64(max(1, made.count))
    return .row
  }

  private func time(_ order: Int) throws(RowFault) -> Milliseconds {
    guard let timeCell else { return mapping.time.start + Int64(Double(order) * 1000 / mapping.time.perSecond) }
    let text = cells.text(timeCell)
    guard let time = mapping.time.unit.milliseconds(text) else {
      throw .field(mapping.time.column ?? "", value: text, expected: "a time as \(mapping.time.unit.words)")
    }
    guard times.contains(time) else {
      throw .field(
        mapping.time.column ?? "", value: text, expected: "a time of 1990 to 2100, \(mapping.time.unit.words)")
    }
    return time
  }

  private func candidates() throws(RowFault) -> [(item: [UInt8], label: [UInt8])] {
    guard let candidates = mapping.candidates, let candidatesCell else { return [] }
    let cell = Array(cells[candidatesCell])
    let separator = cell.contains(RowCells.listMark) ? [RowCells.listMark] : Array(candidates.split.utf8)
    let mark = Array(candidates.labelAfter.utf8)
    var made: [(item: [UInt8], label: [UInt8])] = []
    for part in String(decoding: cell, as: UTF8.self).components(separatedBy: separator) where !part.isEmpty {
      let pieces = part.components(separatedBy: mark)
      guard pieces.count > 1, let label = pieces.last else {
        throw .field(candidates.column, value: part, expected: "a candidate, '\(candidates.labelAfter)' and its label")
      }
      let item = pieces.dropLast().joined(separator: candidates.labelAfter)
      made.append((Array(item.utf8), Array(label.utf8)))
    }
    return made
  }

  /// Adds what the tables know.
  private mutating func complete() {
    for (table, cell) in zip(tables, tableCells) { table.complete(&cells, key: Array(cells[cell])) }
  }

  private mutating func render(id number: UInt64, suffix: Int?) throws(RowFault) {
    var id = ByteWriter(capacity: 32)
    if let idCell {
      let text = cells.text(idCell)
      guard !text.isEmpty else { throw .field(mapping.id ?? "", value: "", expected: "the name of the impression") }
      if let suffix {
        id.append(quoted: "\(text)/\(suffix)")
      } else {
        Self.append(id: cells[idCell], to: &id)
      }
    } else {
      id.append(decimal: number)
    }
    let name = id.finish().array
    events.impression.clear()
    events.actions.clear()
    events.labels = 0
    events.impression.append(text: "{\"type\":\"impression\",\"id\":")
    events.impression.append(bytes: name)
    events.impression.append(text: ",\"time\":")
    events.impression.append(decimal: events.time)
    events.impression.append(text: ",\"features\":{")
    var isFirst = true
    for feature in features { try render(feature, isFirst: &isFirst) }
    events.impression.append(text: "}}")
    for (index, task) in tasks.enumerated() where try isPositive(task, index) {
      events.labels |= 1 << UInt64(index)
      act(mapping.tasks[index].name, on: name)
    }
    act(ImportMapping.viewEnd, on: name)
  }

  private mutating func act(_ action: String, on id: [UInt8]) {
    events.actions.append(text: "{\"type\":\"action\",\"impression\":")
    events.actions.append(bytes: id)
    events.actions.append(text: ",\"action\":")
    events.actions.append(quoted: action)
    events.actions.append(text: ",\"time\":")
    events.actions.append(decimal: events.time + mapping.delay.milliseconds)
    events.actions.append(text: "}\n")
  }

  private func isPositive(_ task: Task, _ index: Int) throws(RowFault) -> Bool {
    let cell = cells[task.cell]
    switch task.rule {
    case .equals:
      if cell.elementsEqual(task.text) { return true }
      guard let wanted = task.number else { return false }
      return Double(cells.text(task.cell)) == wanted
    case .atLeast(let least):
      guard let number = Double(cells.text(task.cell)), number.isFinite else {
        throw .field(mapping.tasks[index].column, value: cells.text(task.cell), expected: "a number")
      }
      return number >= least
    }
  }

  private mutating func render(_ feature: Feature, isFirst: inout Bool) throws(RowFault) {
    func begin(_ writer: inout ByteWriter) {
      if !isFirst { writer.append(text: ",") }
      isFirst = false
      writer.append(utf8: feature.key)
    }
    switch feature.kind {
    case .id:
      let cell = cells[feature.cells[0]]
      guard !cell.isEmpty else { return }
      begin(&events.impression)
      Self.append(id: cell, to: &events.impression)
    case .ids(let limit):
      let values = ids(feature).suffix(limit)
      guard !values.isEmpty else { return }
      begin(&events.impression)
      for (index, value) in values.enumerated() {
        events.impression.append(text: index == 0 ? "[" : ",")
        Self.append(id: value[...], to: &events.impression)
      }
      events.impression.append(text: "]")
    case .dense:
      begin(&events.impression)
      for (index, cell) in feature.cells.enumerated() {
        events.impression.append(text: index == 0 ? "[" : ",")
        events.impression.append(number: try number(cell, feature))
      }
      events.impression.append(text: "]")
    }
  }

  private func ids(_ feature: Feature) -> [[UInt8]] {
    var values: [[UInt8]] = []
    for index in feature.cells {
      let cell = cells[index]
      let isList = cell.contains(RowCells.listMark)
      let separator = isList ? [RowCells.listMark] : feature.split
      guard !separator.isEmpty else {
        if !cell.isEmpty { values.append(Array(cell)) }
        continue
      }
      for part in cells.text(index).components(separatedBy: separator) where !part.isEmpty {
        values.append(Array(part.utf8))
      }
    }
    return values
  }

  private func number(_ cell: Int, _ feature: Feature) throws(RowFault) -> Float {
    let text = cells.text(cell)
    if text.isEmpty { return 0 }
    guard var number = Double(text), number.isFinite else {
      throw .field(mapping.column(ofCell: cell, wanted), value: text, expected: "a number, or nothing")
    }
    if feature.log1p { number = number < 0 ? -Glibc.log1p(-number) : Glibc.log1p(number) }
    let value = Float(number * feature.scale)
    guard value.isFinite else {
      throw .field(mapping.column(ofCell: cell, wanted), value: text, expected: "a number that float32 holds")
    }
    return value
  }

  /// An id as JSON: a whole number as such, any other text in quotes.
  ///
  /// A number is one only in its shortest form, so that `007` and `7` stay two ids; `7.0`, as table tools write it, is 7.
  static func append(id cell: ArraySlice<UInt8>, to writer: inout ByteWriter) {
    var digits = cell
    if let point = cell.firstIndex(of: 0x2E), point < cell.endIndex - 1, cell[(point + 1)...].allSatisfy({ $0 == 0x30 })
    {
      digits = cell[..<point]
    }
    let text = String(decoding: digits, as: UTF8.self)
    if let id = UInt64(text), "\(id)" == text { return writer.append(decimal: id) }
    if let id = Int64(text), "\(id)" == text { return writer.append(decimal: id) }
    writer.append(quoted: String(decoding: cell, as: UTF8.self))
  }
}

extension ImportMapping {
  /// The name of a cell's column, for words.
  fileprivate func column(ofCell cell: Int, _ wanted: [String]) -> String {
    let made = candidates.map { [$0.item, $0.label] } ?? []
    return (wanted + made + tables.flatMap(\.adds))[cell]
  }
}

extension TimeNotation {
  /// The notation in words.
  var words: String {
    switch self {
    case .seconds: "seconds since 1970"
    case .milliseconds: "milliseconds since 1970"
    case .microseconds: "microseconds since 1970"
    case .iso8601: "2024-05-01T12:00:00Z"
    case .monthDayYear: "11/13/2019 8:36:57 AM"
    }
  }
}

/// A table in memory, by its key.
private struct LookupTable {
  private let width: Int
  private var rows: [[UInt8]: [[UInt8]]] = [:]

  init(_ table: ImportedTable, in directory: String) throws(StreamError) {
    width = table.adds.count
    let path = "\(directory)/\(table.file)"
    guard Files.exists(path) else {
      guard table.isOptional else {
        throw .missingFile(pattern: table.file, directory: directory, purpose: "rows are completed from it")
      }
      return
    }
    let reader = try table.format.open(path, wants: [table.key] + table.adds)
    var cells = RowCells()
    while true {
      cells.truncate(to: 0)
      switch try reader.next(into: &cells) {
      case .end: return
      case .fault: continue
      case .row: rows[Array(cells[0])] = (1...width).map { Array(cells[$0]) }
      }
    }
  }

  func complete(_ cells: inout RowCells, key: [UInt8]) {
    let row = rows[key]
    for index in 0..<width { cells.append(row?[index] ?? []) }
  }
}
