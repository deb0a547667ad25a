import Foundation
import Testing

@testable import Cluster

@Suite("Report") struct ReportTests {
  private var report: Report {
    var report = Report()
    report.labels = ["click": .init(emitted: 1000, positive: 250)]
    report.examples = 1000
    report.prequential = [
      "click": .init(
        all: .init(auc: 0.7, logLoss: 0.5, ne: 0.9, calibration: 1.01, count: 1000),
        last20: .init(auc: 0.75, logLoss: 0.45, ne: 0.85, calibration: 1, count: 200)),
      "like": .init(all: .init(count: 0), last20: .init(count: 0)),
    ]
    report.freshness = .init(p50: 0.5, p95: 1, p99: 1.5, max: 2)
    report.throughput.impressionsPerSecond = 6543.2
    report.updates = [Report.Updates(), Report.Updates()]
    report.updates[1].missing = 3
    report.tables["main.user_id"] = Report.Table()
    report.digest.replicas = ["a", "a"]
    report.digest.equal = true
    report.predictions.asked = 1_234_567
    return report
  }

  @Test func `the JSON has the documented fields and no others`() throws {
    let object = try #require(try JSONSerialization.jsonObject(with: Data(report.json().utf8)) as? [String: Any])
    func keys(_ value: Any?) -> [String] { ((value as? [String: Any])?.keys.sorted()) ?? [] }
    #expect(
      keys(object) == [
        "digest", "examples", "freshness", "labels", "predictions", "prequential", "served", "tables", "throughput",
        "updates", "versions",
      ])
    let click = (object["prequential"] as? [String: Any])?["click"] as? [String: Any]
    #expect(keys(click) == ["auc", "calibration", "count", "last20", "logLoss", "ne"])
    #expect((click?["last20"] as? [String: Any])?["auc"] as? Double == 0.75)
    let like = (object["prequential"] as? [String: Any])?["like"] as? [String: Any]
    #expect(like?["auc"] is NSNull)
    #expect(keys(object["freshness"]) == ["max", "p50", "p95", "p99"])
    #expect(keys(object["versions"]) == ["bytes", "count", "rows", "tombstones"])
    #expect(keys((object["updates"] as? [Any])?[1]) == ["appliedExamples", "missing", "refused", "repeated"])
    #expect(
      keys((object["tables"] as? [String: Any])?["main.user_id"]) == [
        "admitted", "bytes", "expired", "refused", "rows",
      ])
    #expect(keys(object["digest"]) == ["equal", "replicas", "shards"])
    #expect(keys(object["throughput"]) == ["examplesPerSecond", "impressionsPerSecond"])
  }

  @Test func `a report reads back equal`() throws {
    #expect(try Report(json: report.json()) == report)
    #expect(try Report(json: Report().json()) == Report())
  }

  @Test func `the documentation names every field`() throws {
    let path = ConfigurationTests.root.appending(path: "docs/report.md")
    let page = try String(contentsOf: path, encoding: .utf8)
    let object = try JSONSerialization.jsonObject(with: Data(report.json().utf8))
    func names(_ value: Any) -> [String] {
      if let map = value as? [String: Any] {
        return map.flatMap { [$0.key] + names($0.value) }
      }
      return (value as? [Any])?.flatMap { names($0) } ?? []
    }
    for name in Set(names(object)).subtracting(["click", "like", "main.user_id"]) {
      #expect(page.contains(name), "docs/report.md does not mention \(name)")
    }
  }

  @Test func `the summary says what matters`() {
    let summary = report.summary
    #expect(summary.contains("click   1,000       250  25.0 %"))
    #expect(summary.contains("6,543 impressions/s"))
    #expect(summary.contains("p99 1.50 s"))
    #expect(summary.contains("1,234,567 asked"))
    #expect(summary.contains("Replicas equal shards (2 replicas)."))
    var different = report
    different.digest.equal = false
    #expect(different.summary.contains("REPLICAS DIFFER FROM SHARDS"))
  }
}

@Suite("Status view") struct StatusViewTests {
  private func status(_ problems: [String] = []) -> ClusterStatus {
    func entry(_ instance: RoleInstance, _ counters: [String: Double]) -> ClusterStatus.Entry {
      ClusterStatus.Entry(
        status: RoleStatus(instance, state: .ready, counters: counters), instance: instance, isAlive: true,
        ageSeconds: 0, restarts: 0)
    }
    return ClusterStatus(
      name: "guira", time: 0,
      entries: [
        entry(RoleInstance(.shard, 0), [StatusKey.rows: 12_345, StatusKey.epoch: 7]),
        entry(RoleInstance(.shard, 1), [StatusKey.rows: 1]),
        entry(
          RoleInstance(.trainer),
          [
            StatusKey.examples: 50_000, StatusKey.examplesPerSecond: 6000.4, StatusKey.auc("click"): 0.7281,
            StatusKey.ne("click"): 0.8731,
          ]),
        entry(RoleInstance(.sync), [StatusKey.version: 9, StatusKey.freshnessP50: 1.26]),
      ], problems: problems)
  }

  @Test func `the page has a line per process, quality, and what is wrong`() {
    let page = StatusView.page(status(["joiner 0 waits: actions 40 s behind"]))
    #expect(page[0] == "Guira cluster 'guira' — 1 to look at")
    #expect(page[1].hasPrefix("  shard 0    ready") && page[1].hasSuffix("12,345 rows, epoch 7"))
    #expect(page[3].hasSuffix("50,000 examples, 6,000 examples/s"))
    #expect(page.contains("    click  0.7281  0.8731"))
    #expect(page.last == "  ! joiner 0 waits: actions 40 s behind")
    #expect(StatusView.page(status(), width: 20).allSatisfy { $0.count <= 20 })
  }

  @Test func `one line says rates, quality, freshness and rows`() {
    #expect(
      StatusView.line(status())
        == "4/4 up · 50,000 examples, 6,000/s · click AUC 0.7281 NE 0.8731 · freshness p50 1.3 s · version 9 · 12,346 rows"
    )
  }
}
