// A dataset on disk: `events.jsonl`, and `dataset.json` that says what its events look like, so that a configuration can be
// checked before the first event is read. The manifest is written last: where it is, the events are complete.

public import Base
internal import FoundationEssentials

/// The manifest of a dataset directory.
public struct Dataset: Equatable, Sendable, Codable {
  /// The manifest's file name.
  public static let manifestName = "dataset.json"
  /// The events' file name.
  public static let eventsName = "events.jsonl"
  /// The file of refused input, one JSON object a line.
  public static let rejectedName = "rejected.jsonl"

  /// The manifest's format version.
  public var format = 1
  /// Where the events come from, in words.
  public var origin: String
  /// The features impressions carry and the tasks their actions allow.
  public var schema: EventSchema
  /// The names of all actions that occur.
  public var actions: [String]
  /// How far, in event time, a record may come after a later one without being meant as late; 0 for files in time order.
  public var latenessMilliseconds: Int64
  /// How many impressions there are.
  public var impressions: Int
  /// The event times of the first and the last event.
  public var firstTime: Milliseconds
  /// The event time of the last event.
  public var lastTime: Milliseconds
  /// The source files with size and time of change, to tell whether an import is still of them; empty when generated.
  public var sources: [SourceFile]

  /// A file the dataset was made from.
  public struct SourceFile: Equatable, Sendable, Codable {
    /// The file's name.
    public var name: String
    /// Its size.
    public var bytes: Int
    /// When it was last changed, UTC nanoseconds.
    public var changed: Int64
  }

  /// The manifest as JSON text.
  public func json() -> [UInt8] {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    guard let data = try? encoder.encode(self) else { preconditionFailure("a manifest that does not encode") }
    return Array(data) + [0x0A]
  }

  /// Reads the manifest of a directory.
  public init(directory: String) throws(StreamError) {
    let path = "\(directory)/\(Self.manifestName)"
    let content: [UInt8]
    do { content = try Files.read(path) } catch { throw .file(error) }
    do {
      self = try JSONDecoder().decode(Dataset.self, from: Data(content))
    } catch {
      throw .badManifest(path: path, problem: "\(error)")
    }
    guard format == 1 else { throw .badManifest(path: path, problem: "format is \(format); expected 1") }
  }

  /// A manifest from its parts.
  public init(
    origin: String, schema: EventSchema, actions: [String], latenessMilliseconds: Int64, impressions: Int,
    firstTime: Milliseconds, lastTime: Milliseconds, sources: [SourceFile] = []
  ) {
    self.origin = origin
    self.schema = schema
    self.actions = actions
    self.latenessMilliseconds = latenessMilliseconds
    self.impressions = impressions
    self.firstTime = firstTime
    self.lastTime = lastTime
    self.sources = sources
  }

  /// Why the events cannot feed a cluster of this schema; empty when they can.
  ///
  /// Features the cluster does not use are no problem.
  public func misfits(_ configured: EventSchema) -> [String] {
    var problems: [String] = []
    let known = Dictionary(schema.features.map { ($0.name, $0.kind) }, uniquingKeysWith: { first, _ in first })
    for feature in configured.givenFeatures {
      if feature.isServed, known[feature.name] == nil { continue }
      guard let kind = known[feature.name] else {
        let names = schema.features.map(\.name).joined(separator: ", ")
        problems.append("feature '\(feature.name)' is not among its features (\(names))")
        continue
      }
      if !kind.fits(feature.kind) {
        problems.append("feature '\(feature.name)' is \(kind.words); the configuration wants \(feature.kind.words)")
      }
    }
    for task in configured.tasks where !task.positiveActions.contains(where: actions.contains) {
      problems.append(
        "task '\(task.name)' waits for \(task.positiveActions.joined(separator: ", ")); "
          + "its actions are \(actions.joined(separator: ", "))")
    }
    return problems
  }
}

extension FeatureKind {
  /// The kind in words.
  public var words: String {
    switch self {
    case .id: "one id"
    case .ids(let limit): "up to \(limit) ids"
    case .dense(let width): "\(width) numbers"
    }
  }

  /// Whether values of this kind can be read as `wanted`.
  func fits(_ wanted: FeatureKind) -> Bool {
    switch (self, wanted) {
    case (.id, .id): true
    case (.ids(let most), .ids(let limit)): most <= limit
    case (.dense(let width), .dense(let wanted)): width == wanted
    default: false
    }
  }
}
