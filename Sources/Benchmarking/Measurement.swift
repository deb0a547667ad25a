// What a benchmark says: `guira bench NAME --json` prints one object (DESIGN, section 7), a person gets a table of it.

internal import Foundation

/// One measured number over all repeats.
public struct Measurement: Sendable, Equatable, Encodable {
  /// The middle of all repeats.
  public var median: Double
  /// The smallest.
  public var min: Double
  /// The largest.
  public var max: Double
  /// The unit.
  public var unit: String

  /// A number from its parts.
  public init(median: Double, min: Double, max: Double, unit: String) {
    self.median = median
    self.min = min
    self.max = max
    self.unit = unit
  }

  /// The middle and the ends of some repeats.
  public init(_ values: [Double], _ unit: String) {
    let sorted = values.sorted()
    self.init(
      median: sorted.isEmpty ? 0 : sorted[sorted.count / 2], min: sorted.first ?? 0, max: sorted.last ?? 0, unit: unit)
  }
}

/// One value of a benchmark's settings.
public enum Setting: Sendable, Equatable, Encodable {
  /// A whole number.
  case number(Int)
  /// Any number.
  case decimal(Double)
  /// A word.
  case text(String)

  /// Writes the bare value.
  public func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    switch self {
    case .number(let value): try container.encode(value)
    case .decimal(let value): try container.encode(value)
    case .text(let value): try container.encode(value)
    }
  }
}

/// A finished benchmark.
public struct BenchmarkReport: Sendable, Equatable, Encodable {
  /// Which benchmark.
  public var name: String
  /// The commit the program was built in, as far as git can tell.
  public var commit: String
  /// What it ran with.
  public var settings: [String: Setting]
  /// What came out, by metric.
  public var results: [String: Measurement]

  /// A report from its parts.
  public init(name: String, settings: [String: Setting], results: [String: Measurement]) {
    self.name = name
    self.settings = settings
    self.results = results
    commit = Self.currentCommit()
  }

  /// The report as one JSON object.
  public func json() throws -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    return String(decoding: try encoder.encode(self), as: UTF8.self)
  }

  /// The report as lines for a person.
  public var page: String {
    let width = results.keys.map(\.count).max() ?? 0
    let lines = results.sorted { $0.key < $1.key }.map { name, figure in
      let padding = String(repeating: " ", count: width - name.count)
      let spread = figure.min == figure.max ? "" : " (\(Self.short(figure.min)) to \(Self.short(figure.max)))"
      return "  \(name)\(padding)  \(Self.short(figure.median)) \(figure.unit)\(spread)"
    }
    return "\(name), commit \(commit)\n" + lines.joined(separator: "\n") + "\n"
  }

  private static func short(_ value: Double) -> String {
    switch abs(value) {
    case 1e6...: String(format: "%.2f M", value / 1e6)
    case 100...: String(format: "%.0f", value)
    case 10...: String(format: "%.1f", value)
    default: String(format: "%.3f", value)
    }
  }

  /// Asks git about the directory the program lies in: a build tree is inside its repository.
  private static func currentCommit() -> String {
    let git = Process()
    git.executableURL = URL(filePath: "/usr/bin/env")
    let folder = URL(filePath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent().path
    git.arguments = ["git", "-C", folder, "describe", "--always", "--dirty", "--abbrev=12"]
    let output = Pipe()
    git.standardOutput = output
    git.standardError = FileHandle.nullDevice
    guard (try? git.run()) != nil else { return "unknown" }
    let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    git.waitUntilExit()
    let commit = text.trimmingCharacters(in: .whitespacesAndNewlines)
    return commit.isEmpty ? "unknown" : commit
  }
}
