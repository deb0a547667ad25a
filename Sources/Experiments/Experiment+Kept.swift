// How much of what fresh embeddings are worth each way of serving keeps. Real-time waits for the embedding of this very request,
// frozen never works one out again: the gain of the one over the other is what freshness can be worth at most.

internal import Layers

extension Experiment {
  /// What each way gains over `frozen`, with the standard error of the difference, and which share that is of what `real-time`
  /// gains.
  ///
  /// Shares are left out where real-time's gain is not twice its standard error: they would be noise.
  func kept(_ trial: DownstreamTrial, _ results: [JudgedWay]) -> ExperimentReport.Table {
    let tasks = trial.data.tasks
    var table = ExperimentReport.Table(
      title: "what it gains over frozen, and the share of real-time's gain it keeps", subject: "user vector",
      columns: tasks.flatMap { ["\($0) gain", "\($0) error", "\($0) kept %"] }, rows: [])
    guard let frozen = results.first(where: { $0.name == VectorWay.all[0].name }),
      let realtime = results.first(where: { $0.name == VectorWay.realtime })
    else { return table }
    let judged = trial.judged
    func column(_ result: DownstreamResult, _ task: Int) -> [Float] {
      (0..<judged.count).map { result.predictions[$0 * tasks.count + task] }
    }
    func gain(_ result: DownstreamResult, _ task: Int) -> (gain: Double, error: Double)? {
      guard let auc = trial.metrics(result.predictions, task, judged).auc,
        let base = trial.metrics(frozen.result.predictions, task, judged).auc,
        let error = PairedBootstrap.standardError(
          column(frozen.result, task), column(result, task),
          labels: judged.map { trial.data.labels[$0 * tasks.count + task] }, seed: trial.seed)
      else { return nil }
      return (auc - base, error)
    }
    let whole = tasks.indices.map { gain(realtime.result, $0) }
    for (name, result) in results.dropFirst() where name != frozen.name {
      var row = ExperimentReport.Row(name: name, values: [:])
      for (task, label) in tasks.enumerated() {
        guard let own = gain(result, task) else { continue }
        row.values["\(label) gain"] = ExperimentReport.Figure([own.gain])
        row.values["\(label) error"] = ExperimentReport.Figure([own.error])
        if let whole = whole[task], whole.gain > 2 * whole.error {
          row.values["\(label) kept %"] = ExperimentReport.Figure([100 * own.gain / whole.gain])
        }
      }
      table.rows.append(row)
    }
    return table
  }
}
