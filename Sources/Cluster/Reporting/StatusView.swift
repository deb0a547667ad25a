// The live status: one page, redrawn in place on a terminal, or one line at a time elsewhere.

public import Base
internal import Foundation
internal import Glibc

/// A cluster's status as text.
public enum StatusView {
  /// The page: every process, quality, freshness, and what is wrong.
  /// - Parameter width: columns of the terminal; longer lines are cut.
  public static func page(_ status: ClusterStatus, width: Int = 120) -> [String] {
    let isWell = status.problems.isEmpty
    var lines = ["Guira cluster '\(status.name)' — \(isWell ? "all is well" : "\(status.problems.count) to look at")"]
    let rows = status.entries.map { entry in
      ["  \(entry.instance)", word(entry), entry.status.map { "\($0.pid)" } ?? "", details(entry.status)]
    }
    let widths = (0..<3).map { column in rows.map { $0[column].count }.max() ?? 0 }
    for row in rows {
      let cells = (0..<3).map { row[$0].padding(toLength: widths[$0], withPad: " ", startingAt: 0) }
      lines.append((cells + [row[3]]).joined(separator: "  "))
    }
    let quality = quality(status)
    if !quality.isEmpty {
      lines.append("  quality (prequential)")
      lines += columns(
        [["    task", "AUC", "NE"]] + quality.map { ["    \($0.task)", fixed($0.auc, 4), fixed($0.ne, 4)] })
    }
    lines += status.problems.map { "  ! \($0)" }
    return lines.map { $0.count > width ? String($0.prefix(max(1, width - 1))) + "…" : $0 }
  }

  /// One line: rates, the first task's quality, freshness, versions, and the first problem.
  public static func line(_ status: ClusterStatus) -> String {
    var parts: [String] = []
    let alive = status.entries.count { $0.isAlive }
    parts.append("\(alive)/\(status.entries.count) up")
    let trainers = status.all(.trainer)
    if !trainers.isEmpty {
      let rate = trainers.reduce(0) { $0 + ($1.counters[StatusKey.examplesPerSecond] ?? 0) }
      let total = trainers.reduce(0) { $0 + ($1.counters[StatusKey.examples] ?? 0) }
      parts.append("\(grouped(whole(total))) examples, \(grouped(whole(rate)))/s")
    }
    if let first = quality(status).first {
      parts.append("\(first.task) AUC \(fixed(first.auc, 4)) NE \(fixed(first.ne, 4))")
    }
    let sync = status[RoleInstance(.sync)]
    if let p50 = sync?.counters[StatusKey.freshnessP50] { parts.append("freshness p50 \(fixed(p50, 1)) s") }
    if let version = sync?.counters[StatusKey.version] { parts.append("version \(whole(version))") }
    let rows = status.all(.shard).reduce(0) { $0 + ($1.counters[StatusKey.rows] ?? 0) }
    if rows > 0 { parts.append("\(grouped(whole(rows))) rows") }
    if let problem = status.problems.first { parts.append("! \(problem)") }
    return parts.joined(separator: " · ")
  }

  private static func word(_ entry: ClusterStatus.Entry) -> String {
    guard let status = entry.status else { return "–" }
    if !entry.isAlive { return entry.instance.role == .player ? "done" : "dead" }
    return entry.ageSeconds > ClusterStatus.staleSeconds ? "silent" : status.state.rawValue
  }

  /// The numbers of a process that people look for first.
  private static func details(_ status: RoleStatus?) -> String {
    guard let status else { return "" }
    var parts: [String] = []
    func number(_ key: String, _ unit: String) {
      if let value = status.counters[key] { parts.append("\(grouped(whole(value))) \(unit)") }
    }
    func decimal(_ key: String, _ write: (String) -> String) {
      if let value = status.counters[key] { parts.append(write(fixed(value, 1))) }
    }
    number(StatusKey.impressions, "impressions")
    number(StatusKey.impressionsPerSecond, "impressions/s")
    number(StatusKey.examples, "examples")
    number(StatusKey.examplesPerSecond, "examples/s")
    number(StatusKey.rows, "rows")
    if let size = status.counters[StatusKey.bytes] { parts.append(bytes(whole(size))) }
    if let epoch = status.counters[StatusKey.epoch] { parts.append("epoch \(whole(epoch))") }
    if let version = status.counters[StatusKey.version] { parts.append("version \(whole(version))") }
    let taught = StatusKey.teacherVersion(of: "")
    for (key, value) in status.counters.sorted(by: { $0.key < $1.key }) where key.hasPrefix(taught) {
      let model = String(key.dropFirst(taught.count))
      let distance = status.counters[StatusKey.teacherDistance(of: model)]
      parts.append("\(model) taught by version \(whole(value)), distance \(fixed(distance, 4))")
    }
    number(StatusKey.predictionsPerSecond, "predictions/s")
    for (key, version) in status.counters.sorted(by: { $0.key < $1.key })
    where key.hasPrefix(StatusKey.servedVersion("")) {
      let model = String(key.dropFirst(StatusKey.servedVersion("").count))
      let seen = whole(status.counters[StatusKey.seenExamples(model)] ?? 0)
      let needed = whole(status.counters[StatusKey.seenExamplesNeeded] ?? 0)
      parts.append("\(model) is served \(whole(version)), next after \(seen) of \(needed) examples")
    }
    decimal(StatusKey.freshnessP50) { "freshness p50 \($0) s" }
    decimal(StatusKey.freshnessP99) { "p99 \($0) s" }
    return parts.joined(separator: ", ")
  }

  /// Quality by task as the trainers see it; trainers are weighted by their examples.
  private static func quality(_ status: ClusterStatus) -> [(task: String, auc: Double?, ne: Double?)] {
    let trainers = status.all(.trainer)
    let tasks = Set(trainers.flatMap(\.counters.keys).filter { $0.hasPrefix("auc.") }.map { String($0.dropFirst(4)) })
    func mean(_ key: String) -> Double? {
      var sum = 0.0
      var weight = 0.0
      for trainer in trainers {
        guard let value = trainer.counters[key], value.isFinite else { continue }
        let examples = max(1, trainer.counters[StatusKey.examples] ?? 1)
        sum += value * examples
        weight += examples
      }
      return weight > 0 ? sum / weight : nil
    }
    return tasks.sorted().map { ($0, mean(StatusKey.auc($0)), mean(StatusKey.ne($0))) }
  }

  private static func whole(_ value: Double) -> Int { abs(value) < 1e15 ? Int(value.rounded()) : 0 }
}

/// Shows a status again and again; belongs to one thread.
public struct StatusScreen {
  private let isTerminal: Bool
  private var drawnLines = 0
  private var lastLine: Int64?
  /// How often a line is printed where the page cannot be redrawn.
  private static let lineInterval: Int64 = 5_000_000_000

  /// A screen on standard output.
  public init() { isTerminal = isatty(STDOUT_FILENO) == 1 }

  /// Draws the page over the last one, or prints a line every five seconds when standard output is not a terminal.
  public mutating func show(_ status: ClusterStatus, now: Int64 = Clocks.monotonic()) {
    if isTerminal {
      let size = Self.terminalSize()
      let page = StatusView.page(status, width: size.columns).prefix(max(1, size.rows - 1))
      let up = drawnLines > 0 ? "\u{1B}[\(drawnLines)A" : ""
      drawnLines = page.count
      write("\(up)\r\(page.map { "\u{1B}[2K\($0)\n" }.joined())\u{1B}[J")
    } else if lastLine.map({ now - $0 >= Self.lineInterval }) ?? true {
      lastLine = now
      write(StatusView.line(status) + "\n")
    }
  }

  /// Leaves the last page where it is; what is printed next comes below.
  public mutating func finish() { drawnLines = 0 }

  /// Writes to standard output; that nobody reads it any more is no error of the cluster.
  private func write(_ text: String) {
    do throws(FileError) {
      try unsafe Files.write(Array(text.utf8).span.bytes, to: STDOUT_FILENO, path: "standard output")
    } catch {}
  }

  private static func terminalSize() -> (rows: Int, columns: Int) {
    let environment = ProcessInfo.processInfo.environment
    var size = winsize()
    if unsafe ioctl(STDOUT_FILENO, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0 {
      return (Int(size.ws_row), Int(size.ws_col))
    }
    return (environment["LINES"].flatMap { Int($0) } ?? 40, environment["COLUMNS"].flatMap { Int($0) } ?? 120)
  }
}
