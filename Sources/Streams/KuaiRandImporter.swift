// KuaiRand's logs → JSON Lines in event-time order (docs/events.md, "KuaiRand"). Rows are held in memory (about 100 bytes
// each), sorted, and written as a merge of impressions and actions. The output directory appears whole or not at all.

public import Base
internal import Glibc

/// What an import did.
public struct ImportReport: Equatable, Sendable, Codable {
  /// Impressions written.
  public var impressions = 0
  /// Actions written, by name.
  public var actions: [String: Int] = [:]
  /// Lines left out because an equal line came before.
  public var duplicates = 0
  /// Lines that could not be read; they are in `rejected.jsonl`.
  public var rejected = 0
  /// The first of those, up to 100.
  public var rejections: [Rejection] = []
  /// Rows per log file, in the order they were numbered.
  public var files: [FileRows] = []
  /// Impressions of users that the user table does not have.
  public var unknownUsers = 0
  /// Impressions of videos that the video table does not have.
  public var unknownVideos = 0
  /// The event time of the first event.
  public var firstTime: Milliseconds = 0
  /// The event time of the last event.
  public var lastTime: Milliseconds = 0
  /// How long it took.
  public var seconds: Double = 0

  /// A line that could not be read.
  public struct Rejection: Equatable, Sendable, Codable {
    /// The file's name.
    public var file: String
    /// The line, from 1 (the header).
    public var line: Int
    /// What is wrong with it.
    public var reason: String
  }

  /// A log file and its rows.
  public struct FileRows: Equatable, Sendable, Codable {
    /// The file's name.
    public var file: String
    /// Its data rows, readable or not.
    public var rows: Int
  }
}

/// Reads a KuaiRand directory: `log_standard*.csv` with the user and video tables beside it.
public struct KuaiRandImporter: DatasetImporter {
  /// The directory with the tables.
  public let directory: String
  let logs: [String]
  let users: String
  let videos: String

  static let logColumns =
    ["user_id", "video_id", "time_ms", "play_time_ms", "tab"] + EventSchema.kuairand.tasks.map(\.name)
  private static let labelNames = EventSchema.kuairand.tasks.map(\.name)

  /// Finds the files and checks that none is missing.
  public init(directory: String) throws(StreamError) {
    guard Files.exists(directory) else { throw .noDataset(path: directory) }
    let names: [String]
    do throws(FileError) { names = try Files.names(in: directory) } catch { throw .file(error) }
    func find(_ prefix: String) -> [String] { names.filter { $0.hasPrefix(prefix) && $0.hasSuffix(".csv") } }
    self.directory = directory
    logs = find("log_standard")
    guard !logs.isEmpty else { throw .notADataset(path: directory, found: names) }
    guard let users = find("user_features").first else {
      throw .missingFile(
        pattern: "user_features*.csv", directory: directory, purpose: "KuaiRand keeps the user table beside the log")
    }
    guard let videos = find("video_features_basic").first else {
      throw .missingFile(
        pattern: "video_features_basic*.csv", directory: directory,
        purpose: "KuaiRand keeps the video table beside the log; authors, tags and durations are read from it")
    }
    self.users = users
    self.videos = videos
  }

  /// What an import will give.
  public var shape: Dataset { .kuairandShape }

  /// The number of the form the events are written in.
  public var layout: String { "layout 1" }

  /// Whether a directory holds KuaiRand's logs.
  static func recognizes(_ names: [String]) -> Bool {
    names.contains { $0.hasPrefix("log_standard") && $0.hasSuffix(".csv") }
  }

  /// The files the import reads, with size and time of change.
  public func sources() throws(StreamError) -> [Dataset.SourceFile] {
    try (logs + [users, videos]).map { name throws(StreamError) in
      try .of("\(directory)/\(name)", name: name)
    }
  }

  /// Imports into `output`, which must not hold anything yet.
  /// - Parameter progress: called now and then with the share done, 0…1.
  public func run(into output: String, progress: (Double) -> Void = { _ in }) throws(StreamError) -> ImportReport {
    let began = Clocks.monotonic()
    let sources = try sources()
    var staging = try DatasetStaging(output: output)
    var report = ImportReport()
    var rejected = try JSONLinesFile(path: "\(staging.directory)/\(Dataset.rejectedName)")
    var loader = KuaiRandLoader(users: try userIDs(), videos: try videoTable())
    let logBytes = sources.prefix(logs.count).reduce(0) { $0 + $1.bytes }
    var doneBytes = 0
    for (name, source) in zip(logs, sources) {
      try loader.load("\(directory)/\(name)", name: name, report: &report, rejected: &rejected) { bytes in
        progress(0.6 * Double(doneBytes + bytes) / Double(max(1, logBytes)))
      }
      doneBytes += source.bytes
    }
    guard !loader.rows.isEmpty else { throw .noRecords(directory: directory) }
    loader.sortAndDropDuplicates(&report)
    var events = try JSONLinesFile(path: "\(staging.directory)/\(Dataset.eventsName)")
    try loader.write(to: &events, report: &report) { progress(0.6 + 0.4 * $0) }
    try events.finish()
    try rejected.finish()
    let dataset = Dataset(
      origin: "KuaiRand, field set B", schema: .kuairand, actions: Self.labelNames + ["view_end"],
      latenessMilliseconds: 0, impressions: report.impressions, firstTime: report.firstTime,
      lastTime: report.lastTime, sources: sources)
    try staging.publish(dataset)
    report.seconds = Double(Clocks.monotonic() - began) / 1e9
    progress(1)
    return report
  }

  private func userIDs() throws(StreamError) -> Set<UInt64> {
    var table = try CSVTable(path: "\(directory)/\(users)", needs: ["user_id"])
    let column = table.header.column("user_id") ?? 0
    var ids: Set<UInt64> = []
    while true {
      switch try table.next() {
      case .end: return ids
      case .fault: continue
      case .record:
        guard column < table.reader.count, let id = table.reader.optionalInteger(column) else { continue }
        ids.insert(UInt64(bitPattern: id))
      }
    }
  }

  private func videoTable() throws(StreamError) -> KuaiRandVideos {
    var table = try CSVTable(
      path: "\(directory)/\(videos)", needs: ["video_id", "author_id", "video_duration", "tag"])
    let columns = ["video_id", "author_id", "video_duration", "tag"].map { table.header.column($0) ?? 0 }
    var videos = KuaiRandVideos()
    while true {
      switch try table.next() {
      case .end: return videos
      case .fault: continue
      case .record:
        guard table.reader.count == table.header.names.count,
          let id = table.reader.optionalInteger(columns[0])
        else { continue }
        videos.byID[UInt64(bitPattern: id)] = KuaiRandVideo(
          author: table.reader.optionalInteger(columns[1]).map(UInt64.init(bitPattern:)),
          tag: videos.tags.number(table.reader.text(columns[3])),
          durationBucket: durationBucket(table.reader.optionalNumber(columns[2])))
      }
    }
  }
}

/// The video table, and the tags that occur.
struct KuaiRandVideos {
  var byID: [UInt64: KuaiRandVideo] = [:]
  var tags = TagTable()
}
