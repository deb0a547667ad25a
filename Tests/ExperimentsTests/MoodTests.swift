// Whether fresh embeddings are worth what they should be where users change by the hour: on synthetic traffic with moods.

import Base
import Cluster
import Foundation
import Streams
import Testing

@testable import Experiments

@Suite("Moods") struct MoodTests {
  @Test func `a user worked out after each action keeps what real-time is worth over frozen`() throws {
    var options = TrafficOptions()
    (options.impressions, options.impressionsPerSecond, options.users) = (6000, 0.1, 25)
    (options.mood, options.moodDrift) = (3, .seconds(6 * 3600))
    let directory = URL.temporaryDirectory.appending(path: "guira-moods-\(UUID().uuidString)").path
    defer { try? FileManager.default.removeItem(atPath: directory) }
    _ = try TrafficGenerator.write(options, into: directory)
    var configuration = try ClusterConfiguration(
      file: #filePath.replacing("Tests/ExperimentsTests/MoodTests.swift", with: "deploy/traffic-users.yaml"))
    configuration.models[0].hidden = [8]
    var users = UserExperimentOptions(downstream: ["click"])
    users.interval = 3_600_000
    let schema = configuration.eventSchema
    var input = try EventInput.open(path: directory, schema: schema, importInto: "\(directory)-imported")
    let recording = try Recording(reading: &input, schema: schema)
    let report = try Experiment(ExperimentSettings(configuration), recording).users(users)
    let kept = try #require(report.tables.last)
    let shares = Dictionary(
      uniqueKeysWithValues: kept.rows.compactMap { row in row.values["click kept %"].map { (row.name, $0.mean) } })
    #expect(shares["real-time"] == 100)
    #expect(Set(shares.keys).isSuperset(of: ["async", "async, on request", "async, on version", "async, on action"]))
    let onAction = try #require(shares["async, on action"])
    #expect(onAction > 80, "\(shares)")
    let both = try #require(shares["async"])
    #expect(both > 80, "\(shares)")
    let daily = try #require(shares["offline, daily"])
    #expect(daily < onAction, "\(shares)")
  }
}
