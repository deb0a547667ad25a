// Tables of any kind → a dataset directory, by a mapping. One pass over the rows; memory grows by 24 bytes a row, and not
// at all when rows have no time. The output directory appears whole or not at all.

internal import Base

/// What turns a dataset in its own form into events.
public protocol DatasetImporter: Sendable {
  /// What an import will give, as far as that is known before it.
  var shape: Dataset { get }
  /// A word that changes when the same files would give other events.
  var layout: String { get }
  /// The files the import reads, with size and time of change.
  func sources() throws(StreamError) -> [Dataset.SourceFile]
  /// Imports into `output`, which must not hold anything yet.
  /// - Parameter progress: called now and then with the share done, 0…1.
  func run(into output: String, progress: (Double) -> Void) throws(StreamError) -> ImportReport
}

/// Follows a mapping.
public struct TableImporter: DatasetImporter {
  /// How rows become events.
  public let mapping: ImportMapping
  let directory: String
  let files: [String]

  /// Finds the files and checks that none is missing.
  /// - Parameter path: a directory that holds the mapping's files, or a lone file.
  public init(path: String, mapping: ImportMapping) throws(StreamError) {
    guard Files.exists(path) else { throw .noDataset(path: path) }
    self.mapping = mapping
    guard let names = try? Files.names(in: path) else {
      let parts = path.split(separator: "/", omittingEmptySubsequences: false)
      files = [String(parts.last ?? "")]
      directory = parts.count > 1 ? parts.dropLast().joined(separator: "/") : "."
      return
    }
    directory = path
    var files: [String] = []
    for pattern in mapping.files {
      let found = names.filter { Self.matches($0, pattern) }.sorted()
      guard !found.isEmpty else {
        throw .missingFile(pattern: pattern, directory: path, purpose: "the mapping reads rows from it")
      }
      files += found
    }
    self.files = files
    guard !files.isEmpty else { throw .notADataset(path: path, found: names) }
  }

  /// Whether a name is what a pattern means; `*` stands for any text.
  static func matches(_ name: String, _ pattern: String) -> Bool {
    let parts = pattern.split(separator: "*", omittingEmptySubsequences: false).map { Array($0.utf8) }
    guard parts.count > 1, let first = parts.first, let last = parts.last else { return name == pattern }
    var rest = Array(name.utf8)[...]
    guard rest.starts(with: first), rest.count >= first.count + last.count, rest.suffix(last.count).elementsEqual(last)
    else { return false }
    rest = rest.dropFirst(first.count).dropLast(last.count)
    for part in parts.dropFirst().dropLast() where !part.isEmpty {
      guard let hit = rest.indices.first(where: { rest[$0...].starts(with: part) }) else { return false }
      rest = rest[(hit + part.count)...]
    }
    return true
  }

  /// What an import will give.
  public var shape: Dataset { mapping.shape }

  /// Changes with the mapping and with the version of this code.
  public var layout: String { "rows 1 \(mapping)" }

  /// The files with rows, then those of the mapping's tables that are there.
  public func sources() throws(StreamError) -> [Dataset.SourceFile] {
    let tables = mapping.tables.map(\.file).filter { Files.exists("\(directory)/\($0)") }
    return try (files + tables).map { name throws(StreamError) in try .of("\(directory)/\(name)", name: name) }
  }

  /// Imports into `output`, which must not hold anything yet.
  public func run(into output: String, progress: (Double) -> Void = { _ in }) throws(StreamError) -> ImportReport {
    let began = Clocks.monotonic()
    let sources = try sources()
    var staging = try DatasetStaging(output: output)
    var report = ImportReport()
    var rejected = try JSONLinesFile(path: "\(staging.directory)/\(Dataset.rejectedName)")
    var events = try EventFile(
      path: "\(staging.directory)/\(Dataset.eventsName)", delay: mapping.delay.milliseconds)
    if mapping.time.column == nil {
      try convert(sources, &report, &rejected, progress) { found throws(StreamError) in
        try events.add(time: found.time, impression: found.impression.written, actions: found.actions.written)
      }
    } else {
      var spool = try EventSpool(path: "\(staging.directory)/\(EventSpool.name)")
      try convert(sources, &report, &rejected, { progress(0.7 * $0) }) { found throws(StreamError) in
        try spool.add(time: found.time, impression: found.impression.written, actions: found.actions.written)
      }
      try spool.drain(into: &events) { progress(0.7 + 0.3 * $0) }
    }
    try events.finish()
    try rejected.finish()
    guard let firstTime = events.firstTime else {
      throw .noUsableRows(path: "\(directory)/\(files[0])", rejected: report.rejected, first: report.rejections.first)
    }
    report.firstTime = firstTime
    report.lastTime = events.lastTime
    var dataset = shape
    dataset.impressions = report.impressions
    dataset.firstTime = report.firstTime
    dataset.lastTime = report.lastTime
    dataset.sources = sources
    try staging.publish(dataset)
    report.seconds = Double(Clocks.monotonic() - began) / 1e9
    progress(1)
    return report
  }

  /// Reads all rows of all files.
  private func convert(
    _ sources: [Dataset.SourceFile], _ report: inout ImportReport, _ rejected: inout JSONLinesFile,
    _ progress: (Double) -> Void, emit: (inout ImportedEvents) throws(StreamError) -> Void
  ) throws(StreamError) {
    var converter = RowConverter(mapping)
    try converter.readTables(in: directory)
    var positives = [Int](repeating: 0, count: mapping.tasks.count)
    var impressions = 0
    var number: UInt64 = 0
    var order = 0
    let total = Double(max(1, sources.prefix(files.count).reduce(0) { $0 + $1.bytes }))
    var doneBytes = 0
    for (name, source) in zip(files, sources) {
      let reader = try mapping.format.open("\(directory)/\(name)", wants: converter.wanted)
      var rows = 0
      reading: while true {
        let outcome = try converter.next(reader, number: &number, order: order) { found throws(StreamError) in
          impressions += 1
          for task in positives.indices where found.labels >> UInt64(task) & 1 == 1 { positives[task] += 1 }
          try emit(&found)
        }
        switch outcome {
        case .end: break reading
        case .row:
          order += 1
        case .fault(let fault):
          let rejection = ImportReport.Rejection(file: name, line: reader.line, reason: fault.description)
          report.note(rejection)
          try rejected.setAside(rejection, text: reader.text)
        }
        rows += 1
        if rows % 16_384 == 0 { progress(Double(doneBytes + reader.consumed) / total) }
      }
      doneBytes += source.bytes
      report.files.append(ImportReport.FileRows(file: name, rows: rows))
    }
    report.impressions = impressions
    for (task, count) in zip(mapping.tasks, positives) { report.actions[task.name] = count }
    report.actions[ImportMapping.viewEnd] = impressions
  }
}
