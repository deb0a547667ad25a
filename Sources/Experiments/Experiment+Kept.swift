// How much of what fresh embeddings are worth each way of serving keeps. Real-time waits for the embedding of this very request,
// frozen never works one out again: the gain of the one over the other is what freshness can be worth at most.

extension Experiment {
  /// What each way gains over `frozen`, with the standard error of the difference, and which share that is of what `real-time`
  /// gains.
  ///
  /// Shares are left out where real-time's gain is not twice its standard error: they would be noise.
  func kept(_ trial: DownstreamTrial, _ ways: [JudgedWay]) -> ExperimentReport.Table {
    let title = "what it gains over frozen, and the share of real-time's gain it keeps"
    let isFrozen = { (way: JudgedWay) in way.name == VectorWay.frozen }
    var table = gains(trial, ways.filter(isFrozen) + ways.dropFirst().filter { !isFrozen($0) }, title: title)
    let realtime = table.rows.first { $0.name == VectorWay.realtime }?.values ?? [:]
    for task in trial.data.tasks {
      table.columns.append("\(task) kept %")
      guard let whole = realtime["\(task) gain"]?.mean, let error = realtime["\(task) error"]?.mean, whole > 2 * error
      else { continue }
      for row in table.rows.indices {
        guard let own = table.rows[row].values["\(task) gain"]?.mean else { continue }
        table.rows[row].values["\(task) kept %"] = ExperimentReport.Figure([100 * own / whole])
      }
    }
    return table
  }
}
