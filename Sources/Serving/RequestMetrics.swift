// Counts of what a replica has answered, and the Prometheus text that shows them beside what it holds.

package import Base
internal import Synchronization

/// Counters of one server; any thread may add to them.
package final class RequestMetrics: Sendable {
  package struct Totals: Sendable {
    /// Answers by route and status.
    package var answers: [Key: UInt64] = [:]
    /// Microseconds from a prediction request's head to its answer.
    package var latency = Histogram()
    var candidates: UInt64 = 0
    /// Requests in which no id had a row.
    var defaultRowsOnly: UInt64 = 0
    var rowsAsked: UInt64 = 0
    var rowsFound: UInt64 = 0

    var answered: UInt64 { answers.reduce(0) { $0 + ($1.key.status < 400 ? $1.value : 0) } }
    var refused: UInt64 { answers.reduce(0) { $0 + ($1.key.status >= 400 ? $1.value : 0) } }
  }

  package struct Key: Hashable, Sendable {
    package var route: String
    package var status: Int
  }

  private let state = Mutex(Totals())

  package init() {}

  package func totals() -> Totals { state.withLock { $0 } }

  package func answered(route: String, status: Int, nanoseconds: Int64, isPrediction: Bool) {
    state.withLock { totals in
      totals.answers[Key(route: route, status: status), default: 0] += 1
      if isPrediction { totals.latency.record(nanoseconds / 1000) }
    }
  }

  func predicted(candidates: Int, _ prediction: Prediction) {
    state.withLock { totals in
      totals.candidates += UInt64(candidates)
      totals.rowsAsked += UInt64(prediction.rowsAsked)
      totals.rowsFound += UInt64(prediction.rowsFound)
      if prediction.isFromDefaultRowsOnly { totals.defaultRowsOnly += 1 }
    }
  }

  /// The Prometheus text exposition of these counters and of what a store holds.
  ///
  /// Source: prometheus.io/docs/instrumenting/exposition_formats, text format 0.0.4.
  func exposition(_ store: StoreStatistics, isReady: Bool) -> String {
    let totals = totals()
    var text = PrometheusText()
    text.family("guira_replica_requests_total", "counter", "HTTP requests answered, by route and status code.") {
      for (key, count) in totals.answers.sorted(by: { ($0.key.route, $0.key.status) < ($1.key.route, $1.key.status) }) {
        $0.sample("route=\"\(key.route)\",code=\"\(key.status)\"", "\(count)")
      }
    }
    text.histogram(
      "guira_replica_predict_seconds", "Time from a prediction request's head to its answer.", totals.latency,
      unitsPerSecond: 1e6, bounds: [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1])
    text.value("guira_replica_candidates_total", "counter", "Candidates scored.", "\(totals.candidates)")
    text.value(
      "guira_replica_default_rows_only_total", "counter", "Predictions in which no id had a row.",
      "\(totals.defaultRowsOnly)")
    text.value("guira_replica_row_lookups_total", "counter", "Rows looked up.", "\(totals.rowsAsked)")
    text.value("guira_replica_row_hits_total", "counter", "Rows looked up and found.", "\(totals.rowsFound)")
    text.histogram(
      "guira_replica_freshness_seconds", "Time from an event's arrival to being servable here.", store.freshness,
      unitsPerSecond: 1000, bounds: [0.1, 0.25, 0.5, 1, 1.5, 2, 2.5, 3, 5, 10, 30, 60, 90, 300, 900, 3600])
    text.value("guira_replica_ready", "gauge", "1 when predictions may be asked of this replica.", isReady ? "1" : "0")
    if let version = store.version {
      text.value("guira_replica_version", "gauge", "Number of the version that is served.", "\(version.number)")
      text.value(
        "guira_replica_newest_event_timestamp_seconds", "gauge", "Newest event time in the version that is served.",
        "\(Double(version.newestEventTime) / 1000)")
      text.value(
        "guira_replica_staleness_seconds", "gauge", "Now minus the newest event time that is served.",
        "\(Double(version.staleness(at: Clocks.wall())) / 1000)")
    }
    if let age = store.age {
      text.value("guira_replica_version_age_seconds", "gauge", "Time since the last version came.", "\(age.inSeconds)")
    }
    if let lag = store.lag {
      text.value(
        "guira_replica_lag_seconds", "gauge", "Time since sync made the version that is served: alert on this.",
        "\(lag.inSeconds)")
    }
    text.family("guira_replica_rows", "gauge", "Rows held, by table.") {
      for table in store.tables { $0.sample("table=\"\(PrometheusText.escaped(table.name))\"", "\(table.rows)") }
    }
    text.family("guira_replica_table_bytes", "gauge", "Memory held for rows and their index, by table.") {
      for table in store.tables { $0.sample("table=\"\(PrometheusText.escaped(table.name))\"", "\(table.bytes)") }
    }
    return text.text
  }
}

/// Writes metric families.
package struct PrometheusText {
  package private(set) var text = ""
  private var name = ""

  package init() {}

  package mutating func family(
    _ name: String, _ type: String, _ help: String, _ samples: (inout PrometheusText) -> Void
  ) {
    self.name = name
    text += "# HELP \(name) \(help)\n# TYPE \(name) \(type)\n"
    samples(&self)
  }

  package mutating func sample(_ labels: String, _ value: String, suffix: String = "") {
    text += labels.isEmpty ? "\(name)\(suffix) \(value)\n" : "\(name)\(suffix){\(labels)} \(value)\n"
  }

  package mutating func value(_ name: String, _ type: String, _ help: String, _ value: String) {
    family(name, type, help) { $0.sample("", value) }
  }

  package mutating func histogram(
    _ name: String, _ help: String, _ histogram: Histogram, unitsPerSecond: Double, bounds: [Double]
  ) {
    family(name, "histogram", help) {
      for bound in bounds {
        $0.sample("le=\"\(bound)\"", "\(histogram.countUpTo(Int64(bound * unitsPerSecond)))", suffix: "_bucket")
      }
      $0.sample("le=\"+Inf\"", "\(histogram.count)", suffix: "_bucket")
      $0.sample("", "\(histogram.sum / unitsPerSecond)", suffix: "_sum")
      $0.sample("", "\(histogram.count)", suffix: "_count")
    }
  }

  package static func escaped(_ label: String) -> String {
    var escaped = ""
    for character in label {
      switch character {
      case "\\": escaped += "\\\\"
      case "\"": escaped += "\\\""
      case "\n": escaped += "\\n"
      default: escaped.append(character)
      }
    }
    return escaped
  }
}

extension VersionInfo {
  /// How old its newest event is; event times come from outside, so the difference saturates.
  func staleness(at now: Milliseconds) -> Milliseconds {
    let (age, overflow) = now.subtractingReportingOverflow(newestEventTime)
    return overflow ? (newestEventTime < 0 ? .max : .min) : age
  }
}
