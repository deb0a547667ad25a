// The tables of the users experiment: what vectors are worth, how many there are, what they matter, how much they move.

internal import Cluster
internal import Streams
internal import UserModeling

extension Experiment {
  /// AUC and NE of every way, and how much better than the first one, with the standard error of the difference.
  func gains(
    _ trial: DownstreamTrial, _ results: [JudgedWay], title: String = "downstream, frozen after 80 %, last 20 %"
  ) -> ExperimentReport.Table {
    let tasks = trial.data.tasks
    var table = ExperimentReport.Table(
      title: title, subject: "user vector",
      columns: tasks.flatMap { ["\($0) AUC", "\($0) gain", "\($0) error", "\($0) NE gain %"] }, rows: [])
    let judged = trial.judged
    for (name, result) in results {
      var row = ExperimentReport.Row(name: name, values: [:])
      for (task, label) in tasks.enumerated() {
        let metrics = trial.metrics(result.predictions, task, judged)
        row.values["\(label) AUC"] = ExperimentReport.Figure([metrics.auc])
        guard name != results[0].name else { continue }
        let base = trial.metrics(results[0].result.predictions, task, judged)
        func column(_ values: [Float]) -> [Float] { (0..<judged.count).map { values[$0 * tasks.count + task] } }
        if let auc = metrics.auc, let without = base.auc {
          row.values["\(label) gain"] = ExperimentReport.Figure([auc - without])
        }
        row.values["\(label) error"] = ExperimentReport.Figure([
          PairedBootstrap.standardError(
            column(results[0].result.predictions), column(result.predictions),
            labels: judged.map { trial.data.labels[$0 * tasks.count + task] }, seed: trial.seed)
        ])
        if let ne = metrics.ne, let without = base.ne {
          row.values["\(label) NE gain %"] = ExperimentReport.Figure([100 * (without - ne) / without])
        }
      }
      table.rows.append(row)
    }
    return table
  }

  func coverage(_ made: UserVectors, _ ways: [VectorWay], count: Int) -> ExperimentReport.Table {
    ExperimentReport.Table(
      title: "coverage: impressions after 60 % with an embedding of their user", subject: "user vector",
      columns: ["share"],
      rows: zip(ways, made.defaults).map { way, defaults in
        ExperimentReport.Row(
          name: way.name,
          values: ExperimentReport.Figure([1 - Double(defaults) / Double(count)]).map { ["share": $0] } ?? [:])
      })
  }

  /// The AUC lost when a feature's values are exchanged, and the rank of each feature by it; for `async`.
  func importance(
    _ trial: DownstreamTrial, _ results: [JudgedWay]
  ) -> ExperimentReport.Table {
    let names = trial.data.names + ["user vector"]
    let tasks = trial.data.tasks
    var table = ExperimentReport.Table(
      title: "what a downstream model loses when a feature's values are exchanged, async", subject: "feature",
      columns: tasks.flatMap { ["\($0) AUC", "\($0) rank"] },
      rows: names.map { ExperimentReport.Row(name: $0, values: [:]) })
    for (task, label) in tasks.enumerated() {
      let losses = results[3].result.importance[task]
      for (place, loss) in losses.enumerated() {
        table.rows[place].values["\(label) AUC"] = ExperimentReport.Figure([loss])
        table.rows[place].values["\(label) rank"] = ExperimentReport.Figure([
          Double(1 + losses.count { $0 > loss })
        ])
      }
    }
    return table
  }

  func shifts(_ made: UserVectors) -> ExperimentReport.Table {
    ExperimentReport.Table(
      title: "shift between daily versions on the same inputs", subject: "pooling",
      columns: ["mean cosine", "L2 ratio", "days"],
      rows: made.shifts.enumerated().map { place, shifts in
        let shift = made.shift(pooling: place + 1)
        var row = ExperimentReport.Row(name: "\(place + 1)", values: [:])
        row.values["mean cosine"] = ExperimentReport.Figure([shift?.cosine])
        row.values["L2 ratio"] = ExperimentReport.Figure([shift?.ratio])
        row.values["days"] = ExperimentReport.Figure([Double(shifts.count)])
        return row
      })
  }

  /// What each way of keeping vectors steady is worth, and how far daily versions move the tower's output and what is served.
  func stabilisation(
    _ trial: DownstreamTrial, _ results: [JudgedWay], _ moves: [UserVectors.Moves]
  ) -> ExperimentReport.Table {
    var table = gains(trial, results, title: "keeping vectors steady, async, last 20 %")
    table.subject = "tactic"
    table.columns += ["tower cosine", "tower L2 ratio", "served cosine", "served L2 ratio"]
    for (place, moves) in moves.enumerated() {
      for (what, shift) in [("tower", moves.tower), ("served", moves.served)] {
        table.rows[place].values["\(what) cosine"] = ExperimentReport.Figure([shift?.cosine])
        table.rows[place].values["\(what) L2 ratio"] = ExperimentReport.Figure([shift?.ratio])
      }
    }
    return table
  }
}
