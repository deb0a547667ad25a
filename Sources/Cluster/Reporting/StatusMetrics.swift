// What every process last said as Prometheus metrics, one family for each counter.

internal import Base

/// A cluster's status as Prometheus text.
public enum StatusMetrics {
  /// All counters of all processes, and whether each process runs and works.
  ///
  /// Families are `guira_` and the counter's name in snake case; every sample names its process.
  public static func text(_ status: ClusterStatus) -> String {
    var families: [String: [String]] = [:]
    func add(_ name: String, _ instance: RoleInstance, _ value: Double) {
      let labels = "role=\"\(instance.role.rawValue)\",index=\"\(instance.index)\""
      families[name, default: []].append("\(name){\(labels)} \(value)")
    }
    for entry in status.entries {
      add("guira_up", entry.instance, entry.isAlive ? 1 : 0)
      add("guira_restarts", entry.instance, Double(entry.restarts))
      guard let said = entry.status else { continue }
      add("guira_working", entry.instance, said.state == .ready ? 1 : 0)
      add("guira_status_age_seconds", entry.instance, entry.ageSeconds)
      // Restarts of each process are told with that process.
      for (name, value) in said.counters where value.isFinite && !name.hasPrefix(StatusKey.restartsPrefix) {
        add(family(name), entry.instance, value)
      }
    }
    return families.sorted { $0.key < $1.key }.map { name, samples in
      "# HELP \(name) \(help(name))\n# TYPE \(name) gauge\n" + samples.map { $0 + "\n" }.joined()
    }.joined()
  }

  private static func help(_ name: String) -> String {
    switch name {
    case "guira_up": "Whether the process runs."
    case "guira_restarts": "How often the supervisor started the process again."
    case "guira_working": "Whether the process says that it is ready."
    case "guira_status_age_seconds": "How long ago the process wrote its status."
    default: "A counter of the process's status (docs/OPERATING.md)."
    }
  }

  /// `pushedRows` becomes `guira_pushed_rows`; what a metric's name cannot hold becomes an underscore.
  private static func family(_ counter: String) -> String {
    var name = "guira"
    var isWordStart = true
    for scalar in counter.unicodeScalars {
      let isUpper = ("A"..."Z").contains(scalar)
      guard isUpper || ("a"..."z").contains(scalar) || ("0"..."9").contains(scalar) else {
        isWordStart = true
        continue
      }
      if isUpper || isWordStart { name += "_" }
      name += isUpper ? String(scalar).lowercased() : String(scalar)
      isWordStart = false
    }
    return name
  }
}
