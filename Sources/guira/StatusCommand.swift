// `guira status`: what every process last said, and what is wrong in words.

import ArgumentParser
import Cluster
import Foundation

struct Status: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Shows how a cluster is doing, and what is wrong with it.",
    discussion: """
      Examples:
        guira status --watch
        guira status --json | jq -r '.problems[]'
        guira status --metrics > /var/lib/node_exporter/guira.prom
      """)

  @OptionGroup var state: StateOption
  @Flag(help: "Show it again and again, until Ctrl-C.") var watch = false
  @Flag(help: "Print JSON: what every process last said, and the problems.") var json = false
  @Flag(help: "Print metrics in Prometheus's text format, for a textfile collector.") var metrics = false

  func validate() throws {
    if [watch, json, metrics].count(where: { $0 }) > 1 {
      throw ValidationError("--watch, --json and --metrics exclude each other.")
    }
  }

  func run() throws {
    try reporting {
      var screen = StatusScreen()
      while true {
        let status = try ClusterStatus.read(state.paths)
        if json { return write(try status.json()) }
        if metrics { return write(StatusMetrics.text(status)) }
        if !watch { return write(StatusView.page(status, width: 200).joined(separator: "\n") + "\n") }
        screen.show(status)
        Thread.sleep(forTimeInterval: 0.5)
      }
    }
  }
}
