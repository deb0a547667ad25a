// The report as a page of text.

extension Report {
  /// The report for people: what was learned, how fast, how fresh, and whether all of it arrived.
  public var summary: String {
    var lines: [String] = []
    lines += labelLines
    lines += qualityLines("Prequential (scored by the trainer just before training)", prequential)
    if !served.isEmpty { lines += qualityLines("Served (scored by a replica at the impression)", served) }
    lines += ["", "Speed and freshness"]
    lines.append(
      "  \(grouped(Int(throughput.impressionsPerSecond.rounded()))) impressions/s, "
        + "\(grouped(Int(throughput.examplesPerSecond.rounded()))) examples/s")
    if let freshness {
      lines.append(
        "  action → servable on every replica: p50 \(fixed(freshness.p50, 2)) s, p95 \(fixed(freshness.p95, 2)) s, "
          + "p99 \(fixed(freshness.p99, 2)) s, max \(fixed(freshness.max, 2)) s")
    }
    if predictions.asked > 0 {
      lines.append(
        "  predictions: \(grouped(predictions.asked)) asked, \(grouped(predictions.answered)) answered, "
          + "\(grouped(predictions.defaultRowsOnly)) of them from default rows only")
    }
    lines.append(
      "  versions: \(grouped(versions.count)) with \(grouped(versions.rows)) rows, "
        + "\(grouped(versions.tombstones)) tombstones, \(Cluster.bytes(versions.bytes))")
    lines += updateLines + tableLines
    let replicas = "\(digest.replicas.count) replica\(digest.replicas.count == 1 ? "" : "s")"
    lines += ["", digest.equal ? "Replicas equal shards (\(replicas))." : "REPLICAS DIFFER FROM SHARDS (\(replicas))."]
    return lines.joined(separator: "\n") + "\n"
  }

  private var labelLines: [String] {
    let rows = labels.sorted { $0.key < $1.key }.map { task, counts in
      let share = counts.emitted > 0 ? Double(counts.positive) / Double(counts.emitted) * 100 : nil
      return ["  \(task)", grouped(counts.emitted), grouped(counts.positive), "\(fixed(share, 1)) %"]
    }
    return ["Labels (\(grouped(examples)) examples)"] + columns([["  task", "labels", "positive", ""]] + rows)
  }

  private func qualityLines(_ title: String, _ quality: [String: TaskQuality]) -> [String] {
    let head = ["  task", "AUC", "NE", "log-loss", "calibration", "last 20 %: AUC", "NE", "count"]
    let rows = quality.sorted { $0.key < $1.key }.map { task, quality in
      [
        "  \(task)", fixed(quality.all.auc, 4), fixed(quality.all.ne, 4), fixed(quality.all.logLoss, 4),
        fixed(quality.all.calibration, 3), fixed(quality.last20.auc, 4), fixed(quality.last20.ne, 4),
        grouped(quality.last20.count),
      ]
    }
    return ["", title] + columns([head] + rows)
  }

  private var updateLines: [String] {
    let rows = updates.enumerated().map { shard, update in
      ["  shard \(shard)"]
        + [update.appliedExamples, update.repeated, update.refused, update.missing].map { grouped($0) }
    }
    return ["", "Updates"] + columns([["  ", "examples", "repeated", "refused", "missing"]] + rows)
  }

  private var tableLines: [String] {
    let rows = tables.sorted { $0.key < $1.key }.map { name, table in
      ["  \(name)"] + [table.rows, table.admitted, table.refused, table.expired].map { grouped($0) }
        + [Cluster.bytes(table.bytes)]
    }
    return ["", "Tables"] + columns([["  ", "rows", "admitted", "refused", "expired", "memory"]] + rows)
  }
}
