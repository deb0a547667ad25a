// How rows of a table become events: which file, how it is written, where time, features and labels are. A plain value;
// `Cluster` reads and writes it as import.yaml, `TableImporter` follows it (docs/events.md, "Your own files").

public import Base

/// How the rows of a file are written.
public struct RowFormat: Equatable, Sendable {
  /// What separates values, and whether they may be quoted.
  public enum Kind: String, Equatable, Sendable, CaseIterable {
    /// RFC 4180: commas (or another single byte), values may be in quotes.
    case csv
    /// Tabs, no quotes.
    case tsv
    /// Any delimiter, no quotes.
    case delimited
    /// One JSON object a line; columns are keys, and `a.b` is `b` of the object `a`.
    case jsonl
  }

  /// How rows are written.
  public var kind = Kind.csv
  /// What separates values; nil for the kind's own.
  public var delimiter: String?
  /// Whether the first row names the columns.
  public var header = true
  /// The columns' names when no header does; empty for `c1`, `c2`, ….
  public var columns: [String] = []

  /// CSV with a header.
  public init() {}

  /// Rows without a header.
  public init(_ kind: Kind, delimiter: String? = nil, columns: [String]) {
    self.kind = kind
    self.delimiter = delimiter
    header = false
    self.columns = columns
  }

  /// The delimiter in force.
  public var separator: String { delimiter ?? (kind == .csv ? "," : "\t") }
}

/// How a time is written.
public enum TimeNotation: String, Equatable, Sendable, CaseIterable {
  /// Seconds since 1970, UTC; a fraction is read too.
  case seconds = "s"
  /// Milliseconds since 1970, UTC.
  case milliseconds = "ms"
  /// Microseconds since 1970, UTC.
  case microseconds = "us"
  /// `2024-05-01T12:00:00Z`; a space for the T, fractions and offsets are read, no offset means UTC.
  case iso8601 = "iso8601"
  /// `11/13/2019 8:36:57 AM`, UTC: month, day, year.
  case monthDayYear = "mdy"
}

/// Where event time comes from.
public struct ImportedTime: Equatable, Sendable {
  /// The column; nil when rows are in their order already and have no time.
  public var column: String?
  /// How it is written.
  public var unit = TimeNotation.seconds
  /// Without a column: the time of the first row.
  ///
  /// Default 2024-01-01.
  public var start: Milliseconds = 1_704_067_200_000
  /// Without a column: rows a second of event time.
  public var perSecond = 100.0

  /// File order.
  public init() {}

  /// The time in a column.
  public init(column: String, unit: TimeNotation) {
    self.column = column
    self.unit = unit
  }
}

/// A feature out of columns.
public struct ImportedFeature: Equatable, Sendable {
  /// Its name in events.
  public var name = ""
  /// Where its values are; `ids` and dense features may have several columns.
  public var columns: [String] = []
  /// What it is; a dense feature is as wide as it has columns.
  public var kind = FeatureKind.id
  /// What separates the ids of a list within a column; nil when each column holds one.
  public var split: String?
  /// Dense: whether sign(x) · ln(1 + |x|) is taken.
  public var log1p = false
  /// Dense: what the number is multiplied with, after the logarithm.
  public var scale = 1.0

  /// Without a name yet.
  public init() {}

  /// One id out of the column of its name.
  public init(_ name: String, column: String? = nil) {
    self.name = name
    columns = [column ?? name]
  }

  /// Ids out of one column.
  public init(_ name: String, column: String, split: String, limit: Int) {
    self.name = name
    columns = [column]
    kind = .ids(limit: limit)
    self.split = split
  }

  /// Numbers, one a column.
  public init(_ name: String, numbers columns: [String], log1p: Bool = false, scale: Double = 1) {
    self.name = name
    self.columns = columns
    kind = .dense(width: columns.count)
    self.log1p = log1p
    self.scale = scale
  }
}

/// A label out of a column.
public struct ImportedTask: Equatable, Sendable {
  /// What makes a label positive.
  public enum Rule: Equatable, Sendable {
    /// This text, or the same number.
    case equals(String)
    /// A number of at least this.
    case atLeast(Double)
  }

  /// Its name, and the name of the action.
  public var name = ""
  /// Where the label is.
  public var column = ""
  /// When it is positive.
  public var rule = Rule.equals("1")

  /// Without a name yet.
  public init() {}

  /// A task from its parts.
  public init(_ name: String, column: String, _ rule: Rule = .equals("1")) {
    self.name = name
    self.column = column
    self.rule = rule
  }
}

/// A column that lists everything that was shown at once; each becomes an impression of its own.
public struct ImportedCandidates: Equatable, Sendable {
  /// The column, such as `N1-0 N2-1`.
  public var column = ""
  /// What separates the candidates.
  public var split = " "
  /// What separates a candidate from its label: the last one in its text counts.
  public var labelAfter = "-"
  /// The name under which features find the candidate.
  public var item = "item_id"
  /// The name under which tasks find its label.
  public var label = "label"

  /// Without a column yet.
  public init() {}

  /// Candidates of a column.
  public init(column: String, split: String = " ", labelAfter: String = "-", item: String, label: String) {
    self.column = column
    self.split = split
    self.labelAfter = labelAfter
    self.item = item
    self.label = label
  }
}

/// A second table, held in memory, whose columns are added to rows by a key.
public struct ImportedTable: Equatable, Sendable {
  /// The file, beside the rows' own.
  public var file = ""
  /// How it is written.
  public var format = RowFormat()
  /// Its column with the key.
  public var key = ""
  /// The rows' column with the key; nil when it has the same name.
  public var on: String?
  /// The columns that are added.
  public var adds: [String] = []
  /// Whether the import goes on without the file; the columns are empty then.
  public var isOptional = false

  /// Without a file yet.
  public init() {}

  /// A table from its parts.
  public init(
    file: String, format: RowFormat, key: String, on: String? = nil, adds: [String], isOptional: Bool = false
  ) {
    self.file = file
    self.format = format
    self.key = key
    self.on = on
    self.adds = adds
    self.isOptional = isOptional
  }
}

/// How rows become events.
public struct ImportMapping: Equatable, Sendable {
  /// Where the events come from, in words.
  public var origin = "rows by a mapping"
  /// The files in a directory, in this order.
  ///
  /// `*` stands for any text. A lone file needs none.
  public var files: [String] = []
  /// How rows are written.
  public var format = RowFormat()
  /// The column that names an impression; nil for the row's number.
  public var id: String?
  /// Where event time comes from.
  public var time = ImportedTime()
  /// How long after an impression its actions follow, event time.
  ///
  /// Default none: they come at the impression's own time.
  public var delay = Duration.zero
  /// What impressions carry.
  public var features: [ImportedFeature] = []
  /// What is predicted.
  public var tasks: [ImportedTask] = []
  /// A column whose candidates become impressions of their own; nil when a row is an impression.
  public var candidates: ImportedCandidates?
  /// Tables with further columns.
  public var tables: [ImportedTable] = []

  /// An empty mapping; features and tasks are to be added.
  public init() {}

  /// The action that ends every view; it closes impressions.
  public static let viewEnd = "view_end"

  /// Whether the rows at a path can be meant: those of a directory, or of a file that `files` names.
  public func isAbout(_ path: String) -> Bool {
    guard (try? Files.names(in: path)) == nil else { return true }
    let name = path.split(separator: "/").last.map(String.init) ?? path
    return files.isEmpty || files.contains { TableImporter.matches(name, $0) }
  }

  /// The schema of the events, with everything the mapping does not say at its default.
  public var schema: EventSchema {
    EventSchema(
      features: features.map { FeatureSpec(name: $0.name, kind: $0.kind) }, tasks: tasks.map { TaskSpec(name: $0.name) }
    )
  }

  /// What an import will give, as far as that is known before it.
  var shape: Dataset {
    Dataset(
      origin: origin, schema: schema, actions: tasks.map(\.name) + [Self.viewEnd], latenessMilliseconds: 0,
      impressions: 0, firstTime: 0, lastTime: 0)
  }
}
