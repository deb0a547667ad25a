// What the users experiment stands on: downstream models that learn, and errors of paired differences.

import Base
import Cluster
import Foundation
import Streams
import Testing

@testable import Experiments

@Suite("Users experiment") struct UsersTests {
  /// Impressions whose label follows from a hidden number of the user, which only the vector tells.
  private func data(_ count: Int) -> (data: DownstreamData, vectors: [Float]) {
    var random = SeededRandom(seed: 5)
    var data = DownstreamData(columns: [[]], idCounts: [4], labels: [], tasks: ["click"])
    var vectors: [Float] = []
    for _ in 0..<count {
      let taste = random.uniform()
      data.columns[0].append(Int32.random(in: 0..<4, using: &random))
      data.labels.append(random.uniform() < taste ? 1 : 0)
      vectors += [Float(taste) * 100 + 7, 1]
    }
    return (data, vectors)
  }

  @Test func `a vector that knows the user is worth its AUC, and ranks first`() throws {
    let (data, vectors) = data(3000)
    let trial = DownstreamTrial(data: data, training: 0..<2000, judged: 2000..<3000, seed: 1)
    let (none, with) = (try trial.run(vectors: [], width: 0), try trial.run(vectors: vectors, width: 2))
    let before = try #require(trial.metrics(none.predictions, 0, trial.judged).auc)
    let after = try #require(trial.metrics(with.predictions, 0, trial.judged).auc)
    #expect(abs(before - 0.5) < 0.06)
    #expect(after > 0.78)
    #expect(with.importance[0][1] > 0.2 && abs(with.importance[0][0]) < 0.05)
    let error = try #require(
      PairedBootstrap.standardError(
        none.predictions, with.predictions, labels: Array(data.labels[2000...]), seed: 1))
    #expect(error > 0.005 && error < 0.05)
  }

  @Test func `every way of serving has its figures, and every user a vector in real time`() throws {
    let configuration = try ClusterConfiguration(
      text: """
        cluster: {name: test, seed: 7}
        features: [{name: user_id}, {name: item_id}, {name: category}]
        tasks: [{name: click, closing: [view_end]}, {name: like, closing: [view_end]}]
        models:
          - name: users
            kind: sum
            dimension: 4
            hidden: [8]
            users: {features: [user_id], embeddings: 2, embeddingDimension: 4, userTokens: [], mixTokens: [4]}
            tasks: [click]
            flushAfter: 1h
        soap: {model: users}
        """, file: "test")
    let schema = configuration.eventSchema
    var random = SeededRandom(seed: 5)
    var events: [Event] = []
    // Five minutes apart: the last 40 % are more than a day.
    for number in 0..<1000 as Range<UInt64> {
      // Some users come first when platforms are compared.
      let (user, item) = (random.next() % (number < 700 ? 20 : 25), random.next() % 30)
      let time = 1_000_000_000_000 + Int64(number) * 300_000
      let features = FeatureBlock(schema: schema, values: [.ids([user]), .ids([item]), .ids([item % 5])])
      events.append(.impression(Impression(id: ImpressionID(number), time: time, features: features)))
      for name in ["click", "like"] where random.uniform() < (user % 2 == 0 ? 0.7 : 0.2) {
        events.append(.action(Action(impression: ImpressionID(number), name: name, time: time + 1000)))
      }
      events.append(.action(Action(impression: ImpressionID(number), name: "view_end", time: time + 2000)))
    }
    var settings = ExperimentSettings(configuration)
    settings.seeds = 2
    var options = UserExperimentOptions(downstream: ["click", "like"])
    options.interval = 6 * 3_600_000
    (options.regularizations, options.distillations) = ([100], [0.5])
    let report = try Experiment(settings, Recording(events: events, schema: schema)).users(options)

    #expect(report.settings["seeds"] == "7 8")
    let (gains, coverage, importance, shifts) = (report.tables[0], report.tables[1], report.tables[2], report.tables[3])
    let ways = [
      "frozen", "offline, daily", "async", "real-time", "async, pooling 2", "async, pooling 1", "real-time, pooling 1",
      "async, on request",
    ]
    #expect(gains.rows.map(\.name) == ["no vector"] + ways)
    for row in gains.rows.dropFirst() { #expect(Set(row.values.keys) == Set(gains.columns), "\(row.name)") }
    // Two seeds: two upstream models.
    let frozen = try #require(gains.rows[1].values["click AUC"])
    #expect(frozen.min < frozen.max)
    // A version that changes a user's row moves what async answers.
    let aucs = gains.rows.map { $0.values["click AUC"]?.mean }
    #expect(aucs[3] != aucs[8])
    let shares = coverage.rows.map { $0.values["share"]?.mean ?? -1 }
    #expect(coverage.rows.map(\.name) == ways)
    #expect(shares[3] == 1 && shares.allSatisfy { (0...1).contains($0) } && shares[0] < shares[2])
    #expect(importance.rows.map(\.name) == ["item_id", "category", "user vector"])
    #expect(importance.rows.allSatisfy { Set($0.values.keys) == Set(importance.columns) })
    #expect(shifts.rows.count == 3 && shifts.rows.allSatisfy { Set($0.values.keys) == Set(shifts.columns) })
    // Versions hold what was trained since the one before, so vectors move.
    let moved = try #require(shifts.rows[0].values["L2 ratio"]?.mean)
    #expect(moved > 0.01)

    let steadied = report.tables[4]
    #expect(
      steadied.rows.map(\.name) == [
        "no vector", "pooling 1", "pooling 2", "pooling 3", "regularization 100", "distillation 0.5",
      ])
    for row in steadied.rows.dropFirst() { #expect(Set(row.values.keys) == Set(steadied.columns), "\(row.name)") }
    #expect(steadied.rows[1].values["tower L2 ratio"]?.mean == moved)
    #expect(steadied.rows[3].values["click AUC"] == gains.rows[3].values["click AUC"])
    let held = try #require(steadied.rows[4].values["tower L2 ratio"]?.mean)
    #expect(held < moved / 2, "\(held) with regularization, \(moved) without")
  }

  @Test func `downstream models read what a table says of users`() throws {
    let path = FileManager.default.temporaryDirectory.appending(path: "users-\(UUID().uuidString).csv").path
    defer { try? FileManager.default.removeItem(atPath: path) }
    try "age,user_id,kind\n30,7,a\n\"30\",8,\"b,c\"\nx,nobody,a\n40,7,z\n"
      .write(toFile: path, atomically: true, encoding: .utf8)
    let table = try UserTable(path: path, key: "user_id")
    #expect(table.names == ["age", "kind"] && table.idCounts == [2, 3])
    let (seven, eight) = (table.place(of: 7), table.place(of: 8))
    #expect(table.place(of: 9) == 0 && table.place(of: nil) == 0)
    #expect(table.columns[0][seven] == table.columns[0][eight] && table.columns[1][seven] != table.columns[1][eight])
    #expect(table.columns[0][0] != table.columns[0][seven])
    #expect(throws: StreamError.self) { try UserTable(path: path, key: "user") }
  }

  @Test func `the same scores have no difference and no error`() throws {
    let scores: [Float] = [0.1, 0.4, 0.4, 0.9]
    let labels: [Float] = [0, 1, 0, 1]
    #expect(PairedBootstrap.standardError(scores, scores, labels: labels, seed: 1) == 0)
    #expect(PairedBootstrap.standardError(scores, scores, labels: [1, 1, 1, .nan], seed: 1) == nil)
    #expect(PairedBootstrap.auc([0, 1, 2, 3], scores, labels, [1, 1, 1, 1]) == 0.875)
    #expect(PairedBootstrap.auc([0, 1, 2, 3], scores, labels, [1, 0, 1, 1]) == 1)
  }
}
