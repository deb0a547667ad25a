// `guira sync`: the role, and what operators ask of it: list, show, rollback, pause, resume.

import ArgumentParser
import Base
import Cluster
import Foundation
import Syncing

struct SyncList: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "list", abstract: "Shows the versions that sync keeps, oldest first.")

  @OptionGroup var state: StateOption
  @Flag(help: "Print them as one JSON list.") var json = false

  func run() throws {
    try reporting {
      let text = try ShardsOption.cluster(state).versions()
      if json { return write(text + "\n") }
      let versions = try JSONDecoder().decode([VersionSummary].self, from: Data(text.utf8))
      write("version  made at               rows  tombstones       bytes  examples\n")
      for version in versions { write(Self.line(version) + "\n") }
    }
  }

  static func line(_ version: VersionSummary) -> String {
    func column(_ value: String, _ width: Int) -> String {
      String(repeating: " ", count: max(1, width - value.count)) + value
    }
    var line = column("\(version.number)", 7) + "  \(time(version.created))"
    line += column(version.rows.map { "\($0)" } ?? "?", 10) + column(version.tombstones.map { "\($0)" } ?? "?", 12)
    line += column("\(version.bytes)", 12) + column("\(version.examples)", 10)
    if version.continues { line += "  goes with the next" }
    if version.isReturn {
      line += "  back to \(version.pinned)"
    } else if version.pinned > 0 {
      line += "  pinned to \(version.pinned)"
    }
    if !version.canReturn { line += "  too old to return to" }
    return line
  }

  static func time(_ time: Milliseconds) -> String {
    Date(timeIntervalSince1970: Double(time) / 1000).ISO8601Format()
  }
}

struct SyncShow: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "show", abstract: "Shows what is in a version.")

  @Argument(help: "The version's number.") var version: UInt64
  @OptionGroup var state: StateOption
  @Flag(help: "Print one JSON object.") var json = false

  func run() throws {
    try reporting {
      let text = try ShardsOption.cluster(state).version(version)
      if json { return write(text + "\n") }
      let details = try JSONDecoder().decode(VersionDetails.self, from: Data(text.utf8))
      write("version \(version), made at \(SyncList.time(details.summary.created)), checksum right\n")
      write("  \(details.summary.bytes) bytes, \(details.summary.examples) examples in it and before\n")
      write("  newest event time \(SyncList.time(details.summary.newestEventTime))\n")
      write("  shards' epochs \(details.epochs.map { "\($0)" }.joined(separator: ", "))\n")
      if let first = details.firstArrival, let last = details.lastArrival {
        write("  \(details.arrivals) actions that arrived \(SyncList.time(first)) to \(SyncList.time(last))\n")
      }
      for table in details.tables {
        write("  table \(table.name): \(table.rows) rows of \(table.weights), \(table.tombstones) tombstones\n")
      }
      for (name, count) in details.tensors.sorted(by: { $0.key < $1.key }) { write("  tensor \(name): \(count)\n") }
      if details.summary.pinned > 0 { write("  replicas are pinned to \(details.summary.pinned)\n") }
    }
  }
}

struct SyncRollback: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "rollback", abstract: "Returns all replicas to an earlier version and keeps them there.",
    discussion: """
      The earlier rows travel as a new version. Ids erased or expired since do not come back. Training goes on; replicas
      follow it again after `guira sync resume`.

      Examples:
        guira sync list
        guira sync rollback --to 812
      """)

  @Option(name: .customLong("to"), help: "The version, one that `guira sync list` shows.") var target: UInt64
  @OptionGroup var state: StateOption

  func run() throws {
    guard target > 0 else { throw ValidationError("--to must be the number of a version.") }
    try reporting {
      let cluster = try ShardsOption.cluster(state)
      let reply = try cluster.pin(to: target)
      try cluster.waitForReplicas(version: reply.version, saying: "serve the state of version \(reply.pinned)")
    }
  }
}

struct SyncPause: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "pause", abstract: "Keeps all replicas at the version they serve.",
    discussion: "Erasures still reach them. Training goes on; replicas follow it again after `guira sync resume`.")

  @OptionGroup var state: StateOption

  func run() throws {
    try reporting {
      let cluster = try ShardsOption.cluster(state)
      let reply = try cluster.pin(to: 0)
      try cluster.waitForReplicas(version: reply.version, saying: "stay at the state of version \(reply.pinned)")
    }
  }
}

struct SyncResume: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "resume", abstract: "Lets replicas follow the shards again after a rollback or a pause.")

  @OptionGroup var state: StateOption

  func run() throws {
    try reporting {
      let cluster = try ShardsOption.cluster(state)
      let reply = try cluster.resume()
      if reply.version == 0 {
        write("a new base is being made: too much changed, or sync was started again, while replicas were pinned\n")
      } else {
        try cluster.waitForReplicas(version: reply.version, saying: "follow the shards again")
      }
    }
  }
}

extension ClusterOperator {
  /// Waits until every replica that sync hears serves a version.
  fileprivate func waitForReplicas(version: UInt64, saying what: String) throws {
    let deadline = Clocks.monotonic() + 60_000_000_000
    while true {
      let status = try syncStatus()
      let behind = status.replicas.filter { $0.version < version }
      if behind.isEmpty {
        return write("version \(version): \(status.replicas.count) replicas \(what)\n")
      }
      guard Clocks.monotonic() < deadline else {
        let names = behind.map { "\($0.index)" }.joined(separator: ", ")
        throw Failure(
          "version \(version) is out, but replicas \(names) do not serve it after a minute; look at their logs")
      }
      usleep(100_000)
    }
  }
}
