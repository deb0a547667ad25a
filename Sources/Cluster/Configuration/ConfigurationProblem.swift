// What can be wrong with a configuration, in words that name the file, the line, the key and the way out. All problems of
// a file are found in one go: reading never stops at the first.

/// One thing that is wrong in a configuration.
public struct ConfigurationProblem: Equatable, Sendable, CustomStringConvertible {
  /// Where it was said: `cluster.yaml:12`, or the `--set` argument.
  public var place: String
  /// The key, from the top: `shards.count`, `features.user_id.kind`.
  ///
  /// Empty when the whole file is meant.
  public var path: String
  /// What is wrong, as a predicate of the key: "is 0".
  public var fault: String
  /// What to do: "use at least 1".
  public var advice: String

  /// "cluster.yaml:12: shards.count is 0; use at least 1".
  public var description: String {
    let subject = path.isEmpty ? "" : "\(path) "
    return "\(place): \(subject)\(fault)\(advice.isEmpty ? "" : "; \(advice)")"
  }
}

/// A configuration that cannot be used, with everything that is wrong with it.
public struct ConfigurationError: Error, Equatable, Sendable, CustomStringConvertible {
  /// All problems, in the order of the file.
  public let problems: [ConfigurationProblem]

  /// An error from its problems; there is at least one.
  public init(_ problems: [ConfigurationProblem]) {
    precondition(!problems.isEmpty, "a configuration error without a problem")
    self.problems = problems
  }

  /// The problems one a line, and how many there are when it is more than one.
  public var description: String {
    let lines = problems.map(\.description).joined(separator: "\n")
    return problems.count == 1 ? lines : "\(lines)\n\(problems.count) problems; nothing was started"
  }

  /// What a process exits with when its configuration is wrong.
  ///
  /// The supervisor does not restart after it.
  public static let exitCode: Int32 = 2
}

/// The word of `known` nearest to `word`, when it is near enough to be a slip.
func nearest(to word: String, among known: [String]) -> String? {
  let limit = max(1, word.count / 3 + 1)
  let ranked = known.map { candidate in
    let distance = editDistance(word.lowercased(), candidate.lowercased())
    return (word: candidate, distance: distance, rank: distance * 2 + (candidate.first == word.first ? 0 : 1))
  }
  guard let best = ranked.min(by: { $0.rank < $1.rank }), best.distance <= limit else { return nil }
  return best.word
}

/// Insertions, deletions, replacements and swaps of neighbours that turn one word into the other.
private func editDistance(_ left: String, _ right: String) -> Int {
  let a = Array(left.prefix(64))
  let b = Array(right.prefix(64))
  if a.isEmpty || b.isEmpty { return max(a.count, b.count) }
  var twoBack: [Int] = []
  var previous = Array(0...b.count)
  for i in 1...a.count {
    var row = [i] + Array(repeating: 0, count: b.count)
    for j in 1...b.count {
      let replaced = previous[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)
      row[j] = min(previous[j] + 1, row[j - 1] + 1, replaced)
      if i > 1, j > 1, a[i - 1] == b[j - 2], a[i - 2] == b[j - 1] { row[j] = min(row[j], twoBack[j - 2] + 1) }
    }
    twoBack = previous
    previous = row
  }
  return previous[b.count]
}
