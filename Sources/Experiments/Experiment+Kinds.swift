// The experiments themselves: which runs are made and what is compared.

internal import Base
internal import Cluster
internal import Layers

extension Experiment {
  /// How good the served predictions are, task by task.
  ///
  /// - Parameter importance: whether each feature's share in them is looked for, by exchanging its values between the
  ///   impressions of the last fifth.
  public func quality(importance: Bool = false) throws -> ExperimentReport {
    try timed {
      let features = importance ? Array(recording.schema.features.indices) : []
      let groups = try groups()
      let runs = try runs([()]) { _, configuration, progress in
        var options = RunOptions(times: configuredTimes)
        options.permuted = features
        options.permutedFrom = recording.startOfLastFifth
        options.seed = configuration.cluster.seed
        let run = try DataTimeRun(recording, configuration, options)
        return try run.run(progress: progress)
      }[0]
      var tables = settings.configuration.models.enumerated().map { index, model in
        qualityTable(model.name, runs.map { $0.served[index] }, groups)
      }
      if importance { tables.append(importanceTable(runs)) }
      var described = described
      described["sync"] = words(milliseconds: configuredTimes.sparse ?? 0)
      described["dense"] = words(milliseconds: configuredTimes.dense ?? 0)
      described["publications"] = "\(runs[0].publications)"
      described["examples"] = "\(runs[0].examples)"
      return ExperimentReport(
        name: "quality", settings: described, tables: tables, seconds: 0, plot: daily(runs.map { $0.served[0] }))
    }
  }

  private func qualityTable(
    _ model: String, _ runs: [ServedScores], _ groups: [UInt64]?
  ) -> ExperimentReport.Table {
    let columns =
      ["AUC", "NE", "log-loss", "calibration"] + (groups == nil ? [] : ["GAUC"]) + [
        "AUC of all", "NE of all", "labels",
      ]
    var table = ExperimentReport.Table(
      title: "\(model): served, last 20 % of impressions", subject: "task", columns: columns, rows: [])
    for (task, name) in runs[0].tasks.enumerated() {
      let last = runs.map { $0.metrics(task: task, over: lastFifth) }
      let all = runs.map { $0.metrics(task: task, over: 0..<recording.impressions) }
      var row = ExperimentReport.Row(name: name, values: [:])
      row.values["AUC"] = ExperimentReport.Figure(last.map(\.auc))
      row.values["NE"] = ExperimentReport.Figure(last.map(\.ne))
      row.values["log-loss"] = ExperimentReport.Figure(last.map(\.logLoss))
      row.values["calibration"] = ExperimentReport.Figure(last.map(\.calibration))
      if let groups {
        row.values["GAUC"] = ExperimentReport.Figure(
          runs.map { $0.groupedAUC(task: task, over: lastFifth, groups: groups) })
      }
      row.values["AUC of all"] = ExperimentReport.Figure(all.map(\.auc))
      row.values["NE of all"] = ExperimentReport.Figure(all.map(\.ne))
      row.values["labels"] = ExperimentReport.Figure(last.map { Double($0.count) })
      table.rows.append(row)
    }
    return table
  }

  /// By how much AUC falls when a feature's values are those of other impressions; the most important first.
  private func importanceTable(_ runs: [RunResult]) -> ExperimentReport.Table {
    let rows = recording.schema.features.enumerated().map { place, feature in
      var row = ExperimentReport.Row(name: feature.name, values: [:])
      for (task, name) in tasks.enumerated() {
        let losses = runs.map { run -> Double? in
          var exchanged = run.permuted[place]
          exchanged.labels = run.served[0].labels
          guard let with = run.served[0].metrics(task: task, over: lastFifth).auc,
            let without = exchanged.metrics(task: task, over: lastFifth).auc
          else { return nil }
          return with - without
        }
        row.values[name] = ExperimentReport.Figure(losses)
      }
      return row
    }
    let first = tasks[0]
    return ExperimentReport.Table(
      title: "AUC lost when a feature's values are exchanged between impressions", subject: "feature", columns: tasks,
      rows: rows.sorted { ($0.values[first]?.mean ?? 0) > ($1.values[first]?.mean ?? 0) })
  }

  /// The AUC of each day of data time.
  private func daily(_ runs: [ServedScores]) -> Plot {
    var days: [Range<Int>] = []
    for index in 0..<recording.impressions {
      let day = recording.times[index] / 86_400_000
      if let last = days.last, recording.times[last.lowerBound] / 86_400_000 == day {
        days[days.count - 1] = last.lowerBound..<index + 1
      } else {
        days.append(index..<index + 1)
      }
    }
    return Plot(
      title: "Served AUC by day", across: "day of data time", up: "AUC", labels: days.indices.map { "\($0 + 1)" },
      series: runs[0].tasks.enumerated().map { task, name in
        Plot.Series(
          name: name,
          values: days.map { day in ExperimentReport.Figure(runs.map { $0.metrics(task: task, over: day).auc })?.mean })
      })
  }

  /// How quality depends on how often versions are published.
  ///
  /// Up to the last fifth of impressions nothing is scored; there every run publishes what it has learnt, and from there
  /// on at its interval. `nil` stands for never again.
  /// Source: Monolith (arXiv 2209.07663), Table 2.
  public func syncInterval(_ intervals: [Duration?]) throws -> ExperimentReport {
    try timed {
      let scores = try runs(intervals) { interval, configuration, progress in
        let every = interval?.milliseconds
        var options = RunOptions(times: PublicationTimes(sparse: every, dense: every))
        options.scoredFrom = recording.startOfLastFifth
        return try DataTimeRun(recording, configuration, options).run(progress: progress).served[0]
      }
      let names = intervals.map { $0.map { words(milliseconds: $0.milliseconds) } ?? "never" }
      let table = table(
        "Served quality by sync interval, last 20 % of impressions", subject: "sync interval", names: names, scores,
        over: lastFifth)
      return ExperimentReport(
        name: "sync-interval", settings: described, tables: [table], seconds: 0, plot: plot(table))
    }
  }

  /// How quality depends on ids that share rows: tables without collisions beside ids hashed into a number of slots.
  ///
  /// Source: Monolith (arXiv 2209.07663), Figure 7 and Table 1.
  public func collisions(slots: [Int]) throws -> ExperimentReport {
    try timed {
      let tables = settings.configuration.features.map(\.tableName)
      var colliding: [String: [String: Double]] = [:]
      let choices: [Int?] = [nil] + slots
      var (kept, keptSlots): (Recording, Int?) = (recording, nil)
      let scores = try runs(choices) { slots, configuration, progress in
        if slots != keptSlots, let slots {
          let hashed = try recording.hashed(into: slots, tables: tables)
          (kept, keptSlots) = (hashed.recording, slots)
          colliding[Self.name(slots: slots)] = hashed.colliding
        }
        return try DataTimeRun(kept, configuration, RunOptions(times: configuredTimes)).run(progress: progress)
          .served[0]
      }
      let table = table(
        "Served quality by slots, last 20 % of impressions", subject: "slots",
        names: choices.map { Self.name(slots: $0) }, scores, over: lastFifth)
      let names = tables.enumerated().compactMap { place, name in tables[..<place].contains(name) ? nil : name }
      let shares = ExperimentReport.Table(
        title: "Share of ids that do not have their slot for themselves", subject: "slots", columns: names,
        rows: slots.map { slots in
          let shares = colliding[Self.name(slots: slots)] ?? [:]
          return ExperimentReport.Row(
            name: Self.name(slots: slots), values: shares.compactMapValues { ExperimentReport.Figure([$0]) })
        })
      return ExperimentReport(
        name: "collisions", settings: described, tables: [table, shares], seconds: 0, plot: plot(table))
    }
  }

  private static func name(slots: Int?) -> String { slots.map { "\($0)" } ?? "collisionless" }

  /// How quality depends on the age of the state that a lost shard comes back with.
  ///
  /// At the beginning of the last fifth of impressions shard 0 loses its files and comes back from a checkpoint; what it
  /// was given since is not trained on again. Nil stands for no loss, `.zero` for a checkpoint of that moment, and an age
  /// beyond the first impression for an empty shard.
  /// Source: Monolith (arXiv 2209.07663), section 2.2.3: a server may lose a day.
  public func snapshotLoss(ages: [Duration?]) throws -> ExperimentReport {
    try timed {
      let lost = recording.startOfLastFifth
      let scores = try runs(ages) { age, configuration, progress in
        var options = RunOptions(times: configuredTimes)
        options.scoredFrom = lost
        if let age {
          let time = recording.times[lost] - age.milliseconds
          let checkpoint = recording.times.firstIndex { $0 >= time } ?? 0
          options.loss = RunOptions.Loss(shard: 0, checkpointAt: min(checkpoint, lost), lostAt: lost)
        }
        return try DataTimeRun(recording, configuration, options).run(progress: progress).served[0]
      }
      let names = ages.map { $0.map { $0 == .zero ? "0" : words(milliseconds: $0.milliseconds) } ?? "no loss" }
      let first = recording.times[lost]
      let day = lost..<(recording.times.lastIndex { $0 < first + 86_400_000 } ?? lost) + 1
      let table = table(
        "Served quality after a shard of \(settings.configuration.shards.count) came back, last 20 % of impressions",
        subject: "age of its state", names: names, scores, over: lastFifth)
      let firstDay = self.table(
        "The same, first day after the loss", subject: "age of its state", names: names, scores, over: day)
      return ExperimentReport(
        name: "snapshot-loss", settings: described, tables: [table, firstDay], seconds: 0, plot: plot(table))
    }
  }
}
