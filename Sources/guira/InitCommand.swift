// `guira init FILE`: looks at somebody's own events and writes the two files that `guira up` needs.

import ArgumentParser
import Base
import Cluster
import Streams

struct Init: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Looks at your events and writes a commented cluster.yaml and import.yaml.",
    discussion: """
      Knows CSV, tab-separated and other delimited text, and JSON Lines; the files of MovieLens, Criteo and MIND by name.
      Guesses the delimiter, the header, and which columns are the time, labels and features. Check both files, then:

        guira init clicks.csv
        guira up cluster.yaml --events clicks.csv --speed max --report report.json
      """)

  @Argument(help: "A file of rows, or the directory of a dataset.") var file: String
  @Option(name: .shortAndLong, help: "The directory to write to.") var output = "."
  @Option(help: "A column with a label; may be repeated. Default: guessed.") var label: [String] = []
  @Option(help: "The column with the time. Default: guessed.") var time: String?

  func run() throws {
    try reporting {
      let paths = ["cluster.yaml", ImportMapping.fileName].map { "\(output)/\($0)" }
      for path in paths where Files.exists(path) {
        throw Failure("\(path) is there already; nothing was written. Choose another directory with --output")
      }
      let name = file.split(separator: "/").last.map(String.init) ?? "guira"
      let files: FirstFiles
      let known = label.isEmpty && time == nil ? try KnownDatasets.importer(of: file) : nil
      if let importer = known as? TableImporter {
        write("\(file) is \(importer.mapping.origin).\n")
        files = FirstFiles(known: importer.mapping, path: file, name: name)
      } else if known != nil {
        throw Failure("\(file) is KuaiRand, which needs no mapping: guira up deploy/kuairand.yaml --events \(file)")
      } else if (try? Files.names(in: file)) != nil {
        throw Failure("\(file) is a directory of no dataset that is known; give one of its files")
      } else {
        let guess = try TableGuess(path: file)
        let mapping = try guess.mapping(labels: label, time: time)
        write(guess.summary(mapping))
        files = FirstFiles(guess: guess, mapping: mapping, name: name)
      }
      try Files.makeDirectory(output)
      try Files.replace(paths[0], with: Array(files.cluster.utf8))
      try Files.replace(paths[1], with: Array(files.mapping.utf8))
      write(
        """
        wrote \(paths[0]) and \(paths[1]); check them, then:
          guira up \(paths[0]) --events \(file) --speed max

        """)
    }
  }
}

extension TableGuess {
  /// The columns, one a line: name, content, examples, and what became of them.
  func summary(_ mapping: GuessedMapping?) -> String {
    var text = "\(path): \(words(format)), \(columns.count) columns, \(rows) rows looked at"
    text += damaged > 0 ? ", \(damaged) damaged\n" : "\n"
    let width = min(30, columns.map(\.name.count).max() ?? 0)
    for column in columns {
      let name = column.name + String(repeating: " ", count: max(0, width - column.name.count))
      text += "  \(name)  \(column.content.words)\(role(of: column.name, mapping)): "
      text += column.examples.map(Self.shown).joined(separator: ", ") + "\n"
    }
    return text
  }

  /// A value of a file as it may be shown: short, and without what a terminal would obey.
  private static func shown(_ example: String) -> String {
    let scalars = example.unicodeScalars.prefix(40).map { scalar -> Unicode.Scalar in
      scalar.value == 0x1F ? "," : scalar.properties.generalCategory == .control ? " " : scalar
    }
    return String(String.UnicodeScalarView(scalars)) + (example.unicodeScalars.count > 40 ? "…" : "")
  }

  private func words(_ format: RowFormat) -> String {
    switch format.kind {
    case .jsonl: "JSON Lines"
    case .tsv: "tab-separated, \(format.header ? "a header" : "no header")"
    case .csv, .delimited: "separated by '\(format.separator)', \(format.header ? "a header" : "no header")"
    }
  }

  private func role(of column: String, _ guessed: GuessedMapping?) -> String {
    guard let mapping = guessed?.mapping else { return "" }
    if mapping.time.column == column { return " → time" }
    if let task = mapping.tasks.first(where: { $0.column == column }) {
      switch task.rule {
      case .equals(let text): return " → task \(task.name), positive at \(text)"
      case .atLeast(let least): return " → task \(task.name), positive from \(least)"
      }
    }
    if let feature = mapping.features.first(where: { $0.columns.contains(column) }) {
      return " → \(feature.kind.words)"
    }
    return " → not used"
  }
}

extension GuessedColumn.Content {
  /// The content in words.
  var words: String {
    switch self {
    case .empty: "empty"
    case .flag: "0 and 1"
    case .integers: "whole numbers"
    case .numbers: "numbers"
    case .texts: "texts"
    case .lists: "lists"
    case .times: "times"
    }
  }
}
