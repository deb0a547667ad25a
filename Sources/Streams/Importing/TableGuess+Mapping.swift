// From what the columns hold to a mapping: which column is the time, which are labels, which are features and of what kind.

internal import Base

/// A mapping that was guessed, and why each column became what it is.
public struct GuessedMapping: Equatable, Sendable {
  /// The mapping.
  public var mapping: ImportMapping
  /// By column: what was made of it, in words.
  public var reasons: [String: String]
  /// The columns that are no feature, with why.
  public var unused: [(name: String, why: String)]

  /// Equal when all parts are.
  public static func == (left: Self, right: Self) -> Bool {
    left.mapping == right.mapping && left.reasons == right.reasons
      && left.unused.elementsEqual(right.unused) { $0 == $1 }
  }
}

extension TableGuess {
  private static let labelWords = ["label", "click", "like", "target", "convert", "conversion", "buy", "purchase", "y"]
  private static let ratingWords = ["rating", "score", "stars"]

  /// A mapping for the file.
  /// - Parameters:
  ///   - labels: the columns with labels; guessed when empty.
  ///   - time: the column with the time; guessed when nil.
  /// - Throws: `notATable` when a column is not there or no label can be guessed.
  public func mapping(labels: [String] = [], time: String? = nil) throws(StreamError) -> GuessedMapping {
    for name in labels + [time].compactMap({ $0 }) where !columns.contains(where: { $0.name == name }) {
      throw .notATable(path: path, problem: "it has no column '\(name)'; it has \(names)")
    }
    var guess = GuessedMapping(mapping: ImportMapping(), reasons: [:], unused: [])
    let file = path.split(separator: "/").last.map(String.init) ?? path
    guess.mapping.origin = file
    guess.mapping.files = [file]
    guess.mapping.format = format
    try findTime(time, &guess)
    let found = labels.isEmpty ? guessedLabels : columns.filter { labels.contains($0.name) }
    guard !found.isEmpty else {
      throw .notATable(
        path: path,
        problem: "no column looks like a label (0 and 1, or a rating); name it with --label. It has \(names)")
    }
    for column in found { addTask(column, &guess) }
    for column in columns where column.name != guess.mapping.time.column && !found.contains(column) {
      addFeature(column, &guess)
    }
    guard !guess.mapping.features.isEmpty else {
      throw .notATable(path: path, problem: "no column is left to be a feature; it has \(names)")
    }
    return guess
  }

  private var names: String { columns.prefix(40).map(\.name).joined(separator: ", ") }

  private func findTime(_ name: String?, _ guess: inout GuessedMapping) throws(StreamError) {
    let times = columns.filter { if case .times = $0.content { true } else { false } }
    let chosen = name.flatMap { name in columns.first { $0.name == name } } ?? times.first
    guard let chosen else { return }
    guard case .times(let unit) = chosen.content else {
      throw .notATable(
        path: path,
        problem:
          "column '\(chosen.name)' is no time (\(chosen.examples.joined(separator: ", "))): seconds, milliseconds "
          + "or microseconds since 1970, or 2024-05-01T12:00:00Z")
    }
    guess.mapping.time = ImportedTime(column: chosen.name, unit: unit)
    guess.reasons[chosen.name] = "\(unit.words), such as \(chosen.examples.first ?? "")"
    for other in times where other.name != chosen.name { guess.unused.append((other.name, "another time")) }
  }

  private var guessedLabels: [GuessedColumn] {
    let flags = columns.filter { $0.content == .flag && $0.distinct == 2 }
    let named = flags.filter { column in
      let name = column.name.lowercased()
      return Self.labelWords.contains { name == $0 || $0.count > 1 && name.contains($0) }
    }
    if !named.isEmpty { return named }
    let ratings = columns.filter { column in
      let name = column.name.lowercased()
      return Self.ratingWords.contains(where: name.contains) && column.greatest > column.least
    }
    if let rating = ratings.first { return [rating] }
    // Without a name that tells: the only column of 0 and 1, or the first one, as in Criteo.
    if let first = flags.first, flags.count == 1 || first == columns.first { return [first] }
    return []
  }

  private func addTask(_ column: GuessedColumn, _ guess: inout GuessedMapping) {
    var name = Self.name(column.name)
    if name.hasPrefix("is_"), name.utf8.count > 3 { name = String(name.dropFirst(3)) }
    if guess.mapping.tasks.contains(where: { $0.name == name }) || name == ImportMapping.viewEnd { name += "_label" }
    switch column.content {
    case .flag:
      let isWord = column.examples.first.map { Double($0) == nil } ?? false
      let positive = isWord ? (column.examples.contains("True") ? "True" : "true") : "1"
      guess.mapping.tasks.append(ImportedTask(name, column: column.name, .equals(positive)))
      guess.reasons[column.name] = "holds \(column.examples.sorted().joined(separator: " and "))"
    case .integers, .numbers:
      let least = (column.greatest * 0.8 * 2).rounded() / 2
      let isRating = Self.ratingWords.contains(where: column.name.lowercased().contains)
      guess.mapping.tasks.append(ImportedTask(isRating ? "like" : name, column: column.name, .atLeast(least)))
      guess.reasons[column.name] = "numbers from \(Self.plain(column.least)) to \(Self.plain(column.greatest))"
    default:
      let positive = column.examples.first ?? "1"
      guess.mapping.tasks.append(ImportedTask(name, column: column.name, .equals(positive)))
      guess.reasons[column.name] = "texts such as \(column.examples.joined(separator: ", ")); which one is positive?"
    }
  }

  private func addFeature(_ column: GuessedColumn, _ guess: inout GuessedMapping) {
    let name = Self.name(column.name)
    let words = column.name.lowercased()
    let isID = words == "id" || words.hasSuffix("id") || words.hasSuffix("_key") || words.hasSuffix("code")
    if guess.mapping.features.contains(where: { $0.name == name }) {
      return guess.unused.append((column.name, "its name becomes '\(name)', which is taken"))
    }
    let seen = rows - damaged
    let isRowNumber = column.content == .integers && column.distinct == min(seen, 10_000) && seen > 20
    switch column.content {
    case .empty: guess.unused.append((column.name, "empty in the first \(seen) rows"))
    case .times: if !guess.unused.contains(where: { $0.name == column.name }) { return }
    case _ where isRowNumber && (words == "id" || words.contains("impression") || words.contains("row")):
      guess.unused.append((column.name, "a number of its own in every row"))
    case .lists(let separator):
      let isJSON = separator.utf8.first == RowCells.listMark
      var feature = ImportedFeature(name, column: column.name)
      feature.kind = .ids(limit: min(1000, max(8, column.longest * 2)))
      feature.split = isJSON ? nil : separator
      guess.mapping.features.append(feature)
      guess.reasons[column.name] = "lists of up to \(column.longest) ids"
    case .numbers:
      let isWide = abs(column.greatest) > 100 || abs(column.least) > 100
      guess.mapping.features.append(ImportedFeature(name, numbers: [column.name], log1p: isWide))
      guess.reasons[column.name] = "numbers from \(Self.plain(column.least)) to \(Self.plain(column.greatest))"
    case .integers where !isID && column.greatest - column.least > 1000:
      guess.mapping.features.append(ImportedFeature(name, numbers: [column.name], log1p: true))
      guess.reasons[column.name] =
        "whole numbers from \(Self.plain(column.least)) to \(Self.plain(column.greatest)); 'kind: id' if they are names"
    case .integers, .flag, .texts:
      guess.mapping.features.append(ImportedFeature(name, column: column.name))
      let count = column.distinct >= 10_000 ? "10,000 or more" : "\(column.distinct)"
      guess.reasons[column.name] = "\(count) values, such as \(column.examples.prefix(2).joined(separator: ", "))"
    }
  }

  private static func plain(_ number: Double) -> String {
    number == number.rounded() && abs(number) < 1e15 ? "\(Int64(number))" : "\(number)"
  }

  /// A column's name as the configuration writes names.
  static func name(_ column: String) -> String {
    var name = ""
    for scalar in column.unicodeScalars {
      let isWord = scalar.isASCII && (scalar.properties.isAlphabetic || scalar.properties.numericType != nil)
      name.unicodeScalars.append(isWord || scalar == "-" ? scalar : "_")
    }
    if name.unicodeScalars.first.map({ !$0.properties.isAlphabetic && $0 != "_" }) ?? true { name = "_" + name }
    return String(name.prefix(64))
  }
}
