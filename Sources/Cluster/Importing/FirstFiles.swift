// The files `guira init` writes: import.yaml and cluster.yaml for a file that was looked at, with a comment on every guess.

public import Streams

/// Texts of a first import.yaml and cluster.yaml, for people to check and change.
public struct FirstFiles: Equatable, Sendable {
  /// The text of import.yaml.
  public let mapping: String
  /// The text of cluster.yaml.
  public let cluster: String

  /// The files for a table that was looked at.
  /// - Parameter name: the cluster's name; characters that names may not have are replaced.
  public init(guess: TableGuess, mapping guessed: GuessedMapping, name: String) {
    let reasons = guessed.reasons
    let file = guess.path
    let looked = "\(guess.rows) rows" + (guess.damaged > 0 ? " (\(guess.damaged) could not be read)" : "")
    mapping =
      Self.mappingText(
        guessed.mapping, reasons: reasons, unused: guessed.unused,
        opening: "How the rows of \(file) become events, guessed from the first \(looked).",
        notes: "docs/events.md explains every key. Check names and kinds, then: guira up --events \(file)")
    cluster = Self.clusterText(guessed.mapping, events: file, name: name)
  }

  /// The files for a dataset that is known.
  public init(known mapping: ImportMapping, path: String, name: String) {
    self.mapping = Self.mappingText(
      mapping, reasons: [:], unused: [], opening: "How the rows of \(mapping.origin) become events.",
      notes: "docs/events.md explains every key. `guira up --events \(path)` needs this file only if you change it.")
    cluster = Self.clusterText(mapping, events: path, name: name)
  }

  private static func mappingText(
    _ mapping: ImportMapping, reasons: [String: String], unused: [(name: String, why: String)], opening: String,
    notes: String
  ) -> String {
    var lines = ["# \(opening)", "# \(notes)", ""]
    for line in mapping.text.split(separator: "\n", omittingEmptySubsequences: false).dropLast() {
      let isTop = !line.hasPrefix(" ") && !line.hasPrefix("-")
      if isTop, let comment = comments[String(line.prefix { $0 != ":" })] { lines.append("# \(comment)") }
      lines.append(String(line))
    }
    if mapping.time.column == nil {
      lines.append(
        "# No column is a time: rows are taken in their order, 'perSecond' of them in a second of event time.")
    }
    let why = reasons.sorted { $0.key < $1.key }.map { "#   \(plain($0.key)): \(plain($0.value))" }
    if !why.isEmpty { lines += ["", "# What the columns hold:"] + why }
    let rest = unused.map { "#   \(plain($0.name)): \(plain($0.why))" }
    if !rest.isEmpty { lines += ["", "# Columns that are no feature:"] + rest }
    return lines.joined(separator: "\n") + "\n"
  }

  private static let comments = [
    "format": "csv (quotes allowed), tsv, delimited (any delimiter, no quotes) or jsonl",
    "time": "unit: s, ms, us (since 1970), iso8601 or mdy; without a column: start and perSecond",
    "features": "kind: id (one), ids (a list; with split and limit) or dense (numbers; with log1p and scale)",
    "tasks": "positive where the column equals a text or number, or is atLeast a number",
    "tables": "further files whose columns are added by a key",
    "candidates": "a column that lists all that was shown at once, each with its label",
    "delay": "event time between an impression and its actions",
  ]

  /// Text from a file as part of a comment: one line, not too long.
  private static func plain(_ text: String) -> String {
    let breaks: Set<UInt32> = [0x7F, 0x85, 0x2028, 0x2029]
    let scalars = text.unicodeScalars.map { $0.value < 32 || breaks.contains($0.value) ? " " : $0 }
    let clean = String(String.UnicodeScalarView(scalars))
    return clean.count > 160 ? clean.prefix(157) + "…" : clean
  }

  private static func clusterText(_ mapping: ImportMapping, events: String, name: String) -> String {
    let isDense = mapping.features.contains { if case .dense = $0.kind { true } else { false } }
    let features = mapping.features.map { feature in
      switch feature.kind {
      case .id: "  - {name: \(feature.name)}"
      case .ids(let limit): "  - {name: \(feature.name), kind: ids, limit: \(limit), combiner: mean}"
      case .dense(let width): "  - {name: \(feature.name), kind: dense, width: \(width)}"
      }
    }
    let tasks = mapping.tasks.map { "  - {name: \($0.name), closing: [\(ImportMapping.viewEnd)], window: 15m}" }
    let kind =
      isDense
      ? "    kind: deepfm            # vectors, and hidden layers that see the dense numbers; or fm, dcn, dlrm"
      : "    kind: fm                # a bias and a vector for each id and task; or logistic, deepfm, dcn"
    return """
      # A cluster for the events of \(plain(events)). Keys that are left out have the defaults of deploy/cluster.yaml.
      # Run: guira up cluster.yaml --events \(plain(events)) --speed max

      cluster:
        name: \(TableGuess.configurationName(name))

      features:                   # as import.yaml makes them; each id feature has a table of rows of its own
      \(features.joined(separator: "\n"))

      tasks:                      # each positive at the action of its name; view_end closes the impression
      \(tasks.joined(separator: "\n"))

      models:
        - name: main
      \(kind)
          dimension: 8            # numbers in a vector

      tables:
        defaults:
          admission: always       # {count: 3} gives an id a row at its third sighting
          timeToLive: never       # a file ends; with live traffic 30d, event time a row outlives without being touched

      sync:                       # a replay runs days in minutes; with live traffic 60s and 24h are usual
        sparseEvery: 1s
        denseEvery: 1s

      """
  }
}

extension TableGuess {
  /// A file's name as the name of a cluster.
  static func configurationName(_ file: String) -> String {
    let stem = file.split(separator: ".").first.map(String.init) ?? "guira"
    let name = String(stem.map { $0.isASCII && ($0.isLetter || $0.isNumber) ? $0 : "-" }.prefix(64))
    return name.first?.isLetter == true ? name : "guira-\(name)".prefix(64).description
  }
}
