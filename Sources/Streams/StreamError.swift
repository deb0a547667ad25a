// What can go wrong with streams and datasets as a whole; one refused line is an `EventFault` and stops nothing.

public import Base
public import Journal

/// Why a stream or a dataset cannot be read or written.
public enum StreamError: Error, Equatable, Sendable, CustomStringConvertible {
  /// A file could not be opened, read or written.
  case file(FileError)
  /// A journal refused.
  case journal(JournalError)
  /// A server cannot be reached, or cannot serve for now: nothing is lost, and the same call may be made again.
  case unavailable(server: String, problem: String)
  /// A server refuses for good.
  case server(stream: String, problem: String)
  /// Another writer has taken the partition over since.
  case fenced(stream: String, generation: UInt64)
  /// The records behind a position are no longer kept; the first that is there begins at `first`.
  case gone(stream: String, wanted: Position, first: Position)
  /// A record of a stream is not what its stream holds.
  case record(Position, DecodeError)
  /// There is nothing at the path.
  case noDataset(path: String)
  /// The path holds neither events nor a dataset that can be imported.
  case notADataset(path: String, found: [String])
  /// A dataset's file is not there.
  case missingFile(pattern: String, directory: String, purpose: String)
  /// A table of a dataset has other columns than expected.
  case missingColumns(file: String, missing: [String], found: [String])
  /// Something is already where a dataset was to be written.
  case outputExists(path: String)
  /// A `dataset.json` that does not read.
  case badManifest(path: String, problem: String)
  /// The dataset's events do not fit the configured features and tasks; all problems.
  case misfit(path: String, problems: [String])
  /// The log of a dataset has no usable record.
  case noRecords(directory: String)
  /// A file that is to be looked at as a table is none, or not enough can be guessed of it.
  case notATable(path: String, problem: String)
  /// Not one row of a table could be made an event.
  case noUsableRows(path: String, rejected: Int, first: ImportReport.Rejection?)

  /// What happened, and what to do.
  public var description: String {
    switch self {
    case .file(let error): error.description
    case .journal(let error): error.description
    case .unavailable(let server, let problem): "\(server) is not there: \(problem)"
    case .server(let stream, let problem): "\(stream): \(problem)"
    case .fenced(let stream, let generation):
      "\(stream) has another writer, of generation \(generation): end this one, or the other"
    case .gone(let stream, let wanted, let first):
      "\(stream) no longer has the records from \(wanted) to \(first); somebody deleted them, or the server lost them"
    case .record(let position, let error): "the record that ends at \(position) cannot be read: \(error)"
    case .noDataset(let path): "there is nothing at \(path)"
    case .notADataset(let path, let found):
      "\(path) holds no events: expected dataset.json with events.jsonl, a .jsonl file, or the files of KuaiRand, "
        + "MovieLens, Criteo or MIND; it has \(Self.list(found, empty: "no files")). For a table of your own "
        + "`guira init \(path)` writes a mapping"
    case .missingFile(let pattern, let directory, let purpose):
      "no \(pattern) in \(directory): \(purpose)"
    case .missingColumns(let file, let missing, let found):
      "\(file) is not of the expected shape: it has no column \(missing.joined(separator: ", ")); "
        + "it has \(Self.list(found, empty: "no columns"))"
    case .outputExists(let path): "\(path) already holds something; nothing was changed. Choose another directory"
    case .badManifest(let path, let problem): "\(path) does not read: \(problem)"
    case .misfit(let path, let problems):
      "the events of \(path) do not fit the configuration: " + problems.joined(separator: "; ")
    case .notATable(let path, let problem): "\(path): \(problem)"
    case .noUsableRows(let path, let rejected, let first):
      "no row of \(path) can be imported"
        + (first.map { "; \(rejected) were refused, the first at line \($0.line): \($0.reason)" } ?? "")
    case .noRecords(let directory): "the log in \(directory) has no record that can be imported"
    }
  }

  /// Whether the same call may succeed a little later, with nothing lost meanwhile.
  public var isForNow: Bool {
    switch self {
    case .unavailable, .journal(.diskFull): true
    default: false
    }
  }

  private static func list(_ names: [String], empty: String) -> String {
    guard !names.isEmpty else { return empty }
    return names.prefix(30).joined(separator: ", ") + (names.count > 30 ? ", …" : "")
  }
}
