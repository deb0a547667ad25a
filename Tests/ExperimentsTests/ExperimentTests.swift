// Experiments on made-up traffic, and on KuaiRand where it is: GUIRA_KUAIRAND names its directory.

import Base
import Cluster
import Foundation
import Layers
import Streams
import Testing

@testable import Experiments

/// Made-up traffic and a cluster that fits it.
private struct Traffic {
  static let configuration = """
    cluster: {name: test, seed: 7}
    features: [{name: user_id}, {name: item_id}, {name: category}, {name: hour}]
    tasks: [{name: click}, {name: like}]
    models: [{name: main, kind: KIND, dimension: 4, hidden: [8], batchSize: 32, flushAfter: 1s}]
    shards: {count: 2}
    streams: {examples: {partitions: 2}}
    sync: {sparseEvery: 10s, denseEvery: 10s}
    """

  static func configuration(_ kind: String = "fm", trainers: Int = 1) throws -> ClusterConfiguration {
    try ClusterConfiguration(
      text: configuration.replacingOccurrences(of: "KIND", with: kind), file: "test",
      overrides: ["trainers.count=\(trainers)"])
  }

  /// Twenty users with a taste each, a hundred items, an impression a second; most views end some seconds later.
  static func recording(_ impressions: Int = 3000) throws -> Recording {
    let schema = try configuration().eventSchema
    var random = SeededRandom(seed: 3)
    var events: [Event] = []
    for number in 0..<impressions {
      let (user, item) = (random.next() % 20, random.next() % 100)
      let time = 1_000_000_000_000 + Int64(number) * 1000
      let features = FeatureBlock(
        schema: schema, values: [.ids([user]), .ids([item]), .ids([item % 5]), .ids([UInt64(number / 600)])])
      let id = ImpressionID(UInt64(number))
      events.append(.impression(Impression(id: id, time: time, features: features)))
      let isLiked = (item % 3 == 0) != (user % 2 == 0)
      let delay = 500 + Int64(random.next() % 9000)
      if isLiked != (random.next() % 10 == 0) {
        events.append(.action(Action(impression: id, name: "click", time: time + delay)))
        if number % 3 == 0 { events.append(.action(Action(impression: id, name: "like", time: time + delay))) }
      }
      events.append(.action(Action(impression: id, name: "view_end", time: time + delay)))
    }
    let order = events.indices.sorted { (events[$0].time, $0) < (events[$1].time, $1) }
    return Recording(events: order.map { events[$0] }, schema: schema)
  }

  static func served(
    _ recording: Recording, _ configuration: ClusterConfiguration, sparse: Int64? = 10_000
  ) throws -> RunResult {
    let options = RunOptions(times: PublicationTimes(sparse: sparse, dense: sparse))
    return try DataTimeRun(recording, configuration, options).run { _ in }
  }
}

@Suite("Experiments") struct ExperimentTests {
  @Test func `every impression is scored and gets its labels, and the model learns`() throws {
    let recording = try Traffic.recording()
    let run = try Traffic.served(recording, Traffic.configuration())
    let served = run.served[0]
    #expect(run.examples == recording.impressions)
    let isFinite = served.predictions.allSatisfy { $0.isFinite }
    #expect(isFinite)
    #expect(served.labels.allSatisfy { $0 == 0 || $0 == 1 })
    let metrics = served.metrics(task: 0, over: recording.startOfLastFifth..<recording.impressions)
    let auc = try #require(metrics.auc)
    #expect(auc > 0.65)
  }

  @Test func `what comes later changes no prediction made before`() throws {
    let recording = try Traffic.recording()
    let whole = try Traffic.served(recording, Traffic.configuration())
    let half = try Traffic.served(recording.first(0.5), Traffic.configuration())
    #expect(half.served[0].predictions == Array(whole.served[0].predictions[..<half.served[0].predictions.count]))
  }

  @Test(arguments: ["fm", "deepfm"]) func `the same seed gives the same bits`(kind: String) throws {
    let recording = try Traffic.recording(800)
    let first = try Traffic.served(recording, Traffic.configuration(kind)).served[0].predictions
    let second = try Traffic.served(recording, Traffic.configuration(kind)).served[0].predictions
    #expect(first.map(\.bitPattern) == second.map(\.bitPattern))
    var other = try Traffic.configuration(kind)
    other.cluster.seed = 8
    #expect(try Traffic.served(recording, other).served[0].predictions != first)
  }

  @Test func `two trainers learn what one learns`() throws {
    let recording = try Traffic.recording()
    let last = recording.startOfLastFifth..<recording.impressions
    let one = try Traffic.served(recording, Traffic.configuration()).served[0].metrics(task: 0, over: last)
    let two = try Traffic.served(recording, Traffic.configuration(trainers: 2)).served[0].metrics(task: 0, over: last)
    let (alone, together) = (try #require(one.auc), try #require(two.auc))
    #expect(abs(alone - together) < 0.01)
  }

  @Test func `a replica that is never told anything answers from rows that nothing was learnt in`() throws {
    let recording = try Traffic.recording(500)
    let predictions = try Traffic.served(recording, Traffic.configuration(), sparse: nil).served[0].predictions
    #expect(predictions.allSatisfy { abs($0 - 0.5) < 0.01 })
  }

  @Test func `quality says what features are worth`() throws {
    let recording = try Traffic.recording(6000)
    var settings = ExperimentSettings(try Traffic.configuration())
    settings.group = "user_id"
    let report = try Experiment(settings, recording).quality(importance: true)
    let quality = try #require(report.tables.first)
    #expect(quality.rows.map(\.name) == ["click", "like"])
    #expect(quality.rows[0].values["GAUC"] != nil)
    let importance = try #require(report.tables.last)
    let worth = { (name: String) in importance.rows.first { $0.name == name }?.values["click"]?.mean ?? 0 }
    let worths = importance.rows.map { "\($0.name) \($0.values["click"]?.mean ?? 0)" }
    #expect(worth("item_id") > worth("hour") + 0.05, "\(worths)")
    #expect(try report.json().contains("\"name\" : \"quality\""))
    #expect(report.svg.hasPrefix("<svg"))
  }

  @Test func `a replica that is told often serves no worse than one that is told no more`() throws {
    let report = try Experiment(ExperimentSettings(Traffic.configuration()), Traffic.recording())
      .syncInterval([.seconds(1), nil])
    let auc = report.tables[0].rows.map { $0.values["click AUC"]?.mean ?? 0 }
    #expect(report.tables[0].rows.map(\.name) == ["1 s", "never"])
    #expect(auc[0] > auc[1] - 0.03)
    // The plot says what each line costs against the first.
    let click = try #require(report.plot.series.first { $0.name == "click" })
    #expect(click.values == [0, auc[1] - auc[0]] && auc[1] != auc[0])
  }

  @Test func `ids that share slots cost quality, and how many do is said`() throws {
    let report = try Experiment(ExperimentSettings(Traffic.configuration()), Traffic.recording())
      .collisions(slots: [4])
    let auc = report.tables[0].rows.map { $0.values["click AUC"]?.mean ?? 0 }
    #expect(auc[0] > auc[1] + 0.02)
    #expect(report.tables[1].rows[0].values["item_id"]?.mean == 1)
  }

  @Test func `features that share a table share its slots`() throws {
    let recording = try Traffic.recording(200)
    let (hashed, colliding) = try recording.hashed(into: 8, tables: ["user_id", "item_id", "item_id", nil])
    #expect(Set(colliding.keys) == ["user_id", "item_id"])
    var slots: [UInt64: Set<UInt64>] = [:]
    for (before, after) in zip(recording.features, hashed.features) {
      let (old, new) = (try before.values(of: recording.schema), try after.values(of: recording.schema))
      #expect(old[3] == new[3])
      for feature in 1...2 {
        guard case .ids(let id) = old[feature], case .ids(let slot) = new[feature] else { continue }
        slots[id[0], default: []].insert(slot[0])
      }
    }
    // Items 0 to 4 and the five categories are the same ids of one table.
    #expect(slots.count > 50 && slots.allSatisfy { $0.value.count == 1 })
  }

  @Test func `a shard comes back with an old state, and the more is lost the older it is`() throws {
    let report = try Experiment(ExperimentSettings(Traffic.configuration()), Traffic.recording())
      .snapshotLoss(ages: [nil, .zero, .seconds(100_000)])
    let rows = report.tables[0].rows.map { $0.values["click AUC"]?.mean ?? 0 }
    #expect(report.tables[0].rows.map(\.name) == ["no loss", "0", "100000 s"])
    // A checkpoint of that very moment loses nothing but what waited in a batch.
    #expect(abs(rows[0] - rows[1]) < 0.01)
    #expect(rows[0] > rows[2])
  }

  @Test func `users weigh by all their impressions, sampled negatives too`() {
    var served = ServedScores(tasks: ["click"], impressions: 5)
    served.predictions = [0.9, 0.1, 0.2, 0.3, 0.7]
    served.labels = [1, 0, 0, 1, 0]
    served.rates = [0.25]
    let grouped = served.groupedAUC(task: 0, over: 0..<5, groups: [1, 1, 1, 2, 2])
    #expect(abs((grouped ?? 0) - 9.0 / 14) < 1e-6)
  }

  @Test func `sampled negatives are corrected for once, in serving or in the loss`() throws {
    var predictions: [[Float]] = []
    for correction in ["serving", "loss"] {
      var configuration = try ClusterConfiguration(
        text: Traffic.configuration.replacingOccurrences(of: "KIND", with: "fm"), file: "test",
        overrides: ["models.0.correction=\(correction)"])
      configuration.tasks[0].negativeRate = 0.25
      let recording = Recording(events: try Traffic.recording().events, schema: configuration.eventSchema)
      let served = try Traffic.served(recording, configuration).served[0]
      let metrics = served.metrics(task: 0, over: recording.startOfLastFifth..<recording.impressions)
      // Odds that are four times too high or too low would give 1.5 or 0.5.
      let calibration = try #require(metrics.calibration)
      #expect(abs(calibration - 1) < 0.15, "\(correction): \(calibration)")
      predictions.append(served.predictions)
    }
    #expect(predictions[0] != predictions[1])
  }

  @Test func `settings that do not fit say what would`() throws {
    let recording = try Traffic.recording(50)
    var settings = ExperimentSettings(try Traffic.configuration())
    settings.group = "colour"
    let refused = settings
    let error = #expect(throws: ExperimentError.self) { _ = try Experiment(refused, recording) }
    #expect(
      error?.description
        == "'colour' is no feature with one id; group by one of: user_id, item_id, category, hour")
  }
}

@Suite("Features from the stream in experiments") struct StreamFeatureExperimentTests {
  /// The user's clicks so far in buckets, and the last items clicked, with the rows of items.
  private func configuration() throws -> ClusterConfiguration {
    try ClusterConfiguration(
      text: Traffic.configuration.replacingOccurrences(of: "KIND", with: "fm"), file: "test",
      overrides: [
        "features=[{name: user_id}, {name: item_id}, {name: category}, {name: hour}, "
          + "{name: clicks, stream: {count: click, by: [user_id], buckets: 4}}, "
          + "{name: clicked, kind: ids, limit: 3, table: item_id, combiner: mean, "
          + "stream: {last: click, of: item_id, by: [user_id]}}]",
        "joiner.featureDelay=2s",
      ])
  }

  private func recording(_ configuration: ClusterConfiguration, _ impressions: Int) throws -> Recording {
    let (plain, schema) = (try Traffic.recording(impressions), configuration.eventSchema)
    let events = try plain.events.map { event in
      guard case .impression(var impression) = event else { return event }
      let given = try impression.features.values(of: plain.schema)
      impression.features = FeatureBlock(schema: schema, values: given + [.ids([]), .ids([])])
      return .impression(impression)
    }
    return Recording(events: events, schema: schema)
  }

  @Test func `what is served is what is trained on, and both are what counting the events gives`() throws {
    let configuration = try configuration()
    let recording = try recording(configuration, 1500)
    let cluster = try DataTimeCluster(configuration, recording, times: PublicationTimes(sparse: nil, dense: nil))
    var (served, trained) = ([[FeatureValue]](), [Int: [FeatureValue]]())
    func advance(to time: Milliseconds) throws {
      try cluster.advance(to: time, isPublishing: false, score: {}) { example in
        trained[DataTimeCluster.impression(of: example)] = try? example.features.values(of: recording.schema)
      }
    }
    for event in recording.events {
      try advance(to: event.time)
      switch event {
      case .impression(let impression):
        served.append(try cluster.served(impression).values(of: recording.schema))
        cluster.show(impression)
      case .action(let action): cluster.act(action)
      case .watermark: continue
      }
    }
    try advance(to: (recording.events.last?.time ?? 0) + 3_600_000)
    #expect(trained.count == 1500)
    #expect(trained.sorted { $0.key < $1.key }.map(\.value) == served)
    let filled = ServedFeatures.all(recording, configuration.streamFeatureRules)
    #expect(try filled.map { try $0.values(of: recording.schema) } == served)

    // The same by going through all clicks for every impression.
    var shown: [ImpressionID: Impression] = [:]
    for case .impression(let impression) in recording.events { shown[impression.id] = impression }
    var clicks: [UInt64: [(time: Milliseconds, item: UInt64)]] = [:]
    for case .action(let action) in recording.events where action.name == "click" {
      let values = try shown[action.impression]?.features.values(of: recording.schema) ?? []
      guard case .ids(let user) = values[0], case .ids(let item) = values[1] else { continue }
      clicks[user[0], default: []].append((action.time, item[0]))
    }
    var index = 0
    for case .impression(let impression) in recording.events {
      guard case .ids(let user) = served[index][0] else { continue }
      let known = (clicks[user[0]] ?? []).filter { $0.time + 2000 < impression.time }
      #expect(served[index][4] == .ids([UInt64(log2(1 + Double(known.count)) * 4)]))
      #expect(served[index][5] == .ids(known.suffix(3).reversed().map(\.item)))
      index += 1
    }
    #expect(served.last?[5] != .ids([]))
  }

  @Test func `what comes later changes no prediction with features from the stream`() throws {
    let configuration = try configuration()
    let recording = try recording(configuration, 1500)
    let whole = try Traffic.served(recording, configuration).served[0].predictions
    let half = try Traffic.served(recording.first(0.5), configuration).served[0].predictions
    #expect(half == Array(whole[..<half.count]))
  }
}

@Suite("Experiments on KuaiRand") struct KuaiRandExperimentTests {
  static let directory = ProcessInfo.processInfo.environment["GUIRA_KUAIRAND"]

  @Test(
    .enabled(
      if: directory != nil,
      "SKIPPED: set GUIRA_KUAIRAND to the directory of the KuaiRand slice to run it on the real data"))
  func `fm learns KuaiRand`() throws {
    let configuration = try ClusterConfiguration(
      file: #filePath.replacingOccurrences(
        of: "Tests/ExperimentsTests/ExperimentTests.swift", with: "deploy/kuairand.yaml"),
      overrides: ["sync.sparseEvery=60s", "sync.denseEvery=60s"])
    let temporary = FileManager.default.temporaryDirectory.appending(path: "experiment-\(UUID().uuidString)").path
    defer { try? FileManager.default.removeItem(atPath: temporary) }
    let schema = configuration.eventSchema
    var input = try EventInput.open(path: Self.directory ?? "", schema: schema, importInto: temporary)
    let recording = try Recording(reading: &input, schema: schema).first(0.3)
    let report = try Experiment(ExperimentSettings(configuration), recording).quality()
    let click = try #require(report.tables[0].rows.first { $0.name == "is_click" })
    let auc = try #require(click.values["AUC"]).mean
    // 0.7121 in a release build: the part the settings may be chosen on, so that a test of it gives nothing away.
    #expect(auc > 0.71)
  }
}
