// The events of `guira up --events PATH`: a dataset directory, a dataset in its own form (imported first), or a lone file
// of JSON Lines. Lines that do not read are counted and skipped. Belongs to one thread.

internal import Base

/// Events from a path, in the order they lie there.
public struct EventInput: ~Copyable {
  /// What is known of the events; nil for a lone file.
  public let dataset: Dataset?
  /// The report of the import, when opening had to import.
  public let imported: ImportReport?
  /// How far a record may lie behind a later one: what the player keeps its watermarks back by.
  public let latenessMilliseconds: Int64
  /// How many lines were refused so far.
  public private(set) var faultCount = 0
  /// The first refused lines, up to 100.
  public private(set) var faults: [EventFault] = []
  /// How many lines were refused for what, by `EventFault.Reason.code`.
  public private(set) var faultsByCode: [String: Int] = [:]
  /// How many refused lines found no room where they are set aside.
  public private(set) var notSetAside = 0
  private var rejected: RejectedEvents?
  private var lines: LineReader
  private var parser: EventParser

  /// The lateness assumed of a lone file, about which nothing is known: one minute.
  public static let unknownLateness: Int64 = 60_000

  /// Opens the events at `path` for a cluster of `schema`.
  /// - Parameters:
  ///   - directory: where a dataset in its original form is imported to, once; the cluster's state directory.
  ///   - mapping: how the rows of a table become events; nil when the path holds events or a dataset that is known.
  ///   - progress: called while importing with the share done, 0…1.
  /// - Throws: `StreamError` when there are no events or they do not fit the schema; nothing is written then.
  public static func open(
    path: String, schema: EventSchema, importInto directory: String, mapping: ImportMapping? = nil,
    options: EventParser.Options = .init(), progress: (Double) -> Void = { _ in }
  ) throws(StreamError) -> EventInput {
    guard Files.exists(path) else { throw .noDataset(path: path) }
    let names = try? Files.names(in: path)
    if names?.contains(Dataset.manifestName) == true {
      return try EventInput(directory: path, schema: schema, imported: nil, options: options)
    }
    guard let importer = try KnownDatasets.importer(of: path, mapping: mapping) else {
      guard names == nil, isEvents(path) else { throw .notADataset(path: path, found: names ?? [path]) }
      return try EventInput(events: path, schema: schema, dataset: nil, imported: nil, options: options)
    }
    let problems = importer.shape.misfits(schema)
    guard problems.isEmpty else { throw .misfit(path: path, problems: problems) }
    // Another layout or other files make another import; an older one is left where it is.
    let files = try importer.sources().map { "\($0.name) \($0.bytes) \($0.changed)" }
    let text = ([importer.layout] + files).joined(separator: "\n")
    let output = "\(directory)/imported-\(String(Hashing.xxh3(text), radix: 16))"
    var report: ImportReport?
    if !Files.exists("\(output)/\(Dataset.manifestName)") {
      report = try importer.run(into: output, progress: progress)
    }
    return try EventInput(directory: output, schema: schema, imported: report, options: options)
  }

  /// Whether a lone file is one of events by its name.
  public static func isEvents(_ path: String) -> Bool {
    path.hasSuffix(".jsonl") || path.hasSuffix(".json") || path.hasSuffix(".ndjson")
  }

  private init(
    directory: String, schema: EventSchema, imported: ImportReport?, options: EventParser.Options
  ) throws(StreamError) {
    let dataset = try Dataset(directory: directory)
    let problems = dataset.misfits(schema)
    guard problems.isEmpty else { throw .misfit(path: directory, problems: problems) }
    var options = options
    let used = schema.givenFeatures.map(\.name)
    options.ignoredFeatures.formUnion(Set(dataset.schema.features.map(\.name)).subtracting(used))
    try self.init(
      events: "\(directory)/\(Dataset.eventsName)", schema: schema, dataset: dataset, imported: imported,
      options: options)
  }

  private init(
    events path: String, schema: EventSchema, dataset: Dataset?, imported: ImportReport?, options: EventParser.Options
  ) throws(StreamError) {
    do throws(FileError) {
      lines = try LineReader(path: path, limit: options.lineByteLimit)
    } catch {
      throw .file(error)
    }
    self.dataset = dataset
    rejected = nil
    self.imported = imported
    latenessMilliseconds = dataset?.latenessMilliseconds ?? Self.unknownLateness
    parser = EventParser(schema: schema, options: options)
  }

  /// The next event; nil at the end of the file.
  public mutating func next() throws(StreamError) -> Event? {
    while true {
      let outcome: LineReader.Outcome
      do throws(FileError) { outcome = try lines.advance() } catch { throw .file(error) }
      switch outcome {
      case .end: return nil
      case .oversized(let bytes):
        note(
          EventFault(line: lines.number, reason: .oversized(bytes: bytes, limit: parser.options.lineByteLimit)),
          lines.oversizedHead)
      case .line:
        if lines.isBlank { continue }
        do throws(EventFault) {
          return try parser.parse(lines.line, line: lines.number)
        } catch {
          note(error, unsafe lines.line.withUnsafeBytes { unsafe Array($0.prefix(RejectedEvent.textLimit)) })
        }
      }
    }
  }

  /// The share of the file that was read, 0…1.
  public var fraction: Double {
    lines.buffer.fileBytes == 0 ? 1 : Double(lines.buffer.consumed) / Double(lines.buffer.fileBytes)
  }

  /// Has lines that are refused from now on set aside in a file, which begins anew and has at most `limit` bytes.
  public mutating func setAside(in path: String, limit: Int) throws(StreamError) {
    do throws(FileError) {
      rejected = try RejectedEvents(path: path, limit: limit, isNew: true)
    } catch {
      throw .file(error)
    }
  }

  private mutating func note(_ fault: EventFault, _ text: [UInt8]) {
    notSetAside += rejected?.append([RejectedEvent(fault, text: text)], arrival: Clocks.wall()) ?? 0
    faultCount += 1
    faultsByCode[fault.reason.code, default: 0] += 1
    if faults.count < 100 { faults.append(fault) }
  }
}

extension Dataset {
  /// What an import of KuaiRand will give, before it is made.
  static let kuairandShape = Dataset(
    origin: "KuaiRand, field set B", schema: .kuairand, actions: EventSchema.kuairand.tasks.map(\.name) + ["view_end"],
    latenessMilliseconds: 0, impressions: 0, firstTime: 0, lastTime: 0)
}

extension LineReader {
  /// Whether the newest line holds nothing but spaces and tabs.
  var isBlank: Bool {
    let line = line
    for index in 0..<line.byteCount where line[index] != 0x20 && line[index] != 0x09 { return false }
    return true
  }
}
