// What a run of faults is made of: how many, on which data, against which binary, and the cluster's configuration.

import Foundation

/// One run, from the environment (docs/chaos.md).
struct ChaosOptions {
  /// Faults to make before the cluster may come to rest.
  var faults = 20
  /// Everything the driver draws comes from it.
  var seed = UInt64.random(in: 0...999_999)
  /// A dataset that `guira up --events` would take; nil for synthetic traffic.
  var events: String?
  /// Impressions sent while faults happen.
  var impressions: Int
  /// Where the JSON report goes; nil for nowhere.
  var report: String?
  /// The command under test.
  var command: String

  init(environment: [String: String] = ProcessInfo.processInfo.environment) {
    if let text = environment["GUIRA_CHAOS_FAULTS"].flatMap({ Int($0) }) { faults = max(1, text) }
    if let text = environment["GUIRA_CHAOS_SEED"].flatMap({ UInt64($0) }) { seed = text }
    events = environment["GUIRA_CHAOS_EVENTS"].flatMap { $0.isEmpty ? nil : $0 }
    impressions = environment["GUIRA_CHAOS_IMPRESSIONS"].flatMap { Int($0) } ?? 700 * faults
    report = environment["GUIRA_CHAOS_REPORT"]
    let beside = URL(filePath: CommandLine.arguments[0]).deletingLastPathComponent().appending(path: "guira")
      .path(percentEncoded: false)
    let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent().path(percentEncoded: false)
    command =
      environment["GUIRA_CHAOS_COMMAND"]
      ?? (FileManager.default.isExecutableFile(atPath: beside) ? beside : root + ".build/debug/guira")
  }

  static let shards = 3
  static let trainers = 2
  static let partitions = 4
  static let dimension = 4
  /// The feature whose table admits at the third sighting; examples are partitioned by it.
  static let counted = "user_id"
  static let threshold = 3

  /// Two counting models.
  ///
  /// The table that counts sightings belongs to `single`, whose batches hold one example: the push
  /// that admits an id drops its gradient, so what is dropped must not depend on where batches end.
  func configuration(httpPort: Int) -> String {
    let isKuaiRand = events.map { !$0.hasSuffix(".jsonl") && Self.isKuaiRand($0) } ?? false
    let features =
      isKuaiRand
      ? ["user_id", "video_id", "author_id", "tag", "duration_bucket", "tab", "hour"]
      : ["user_id", "item_id", "category", "hour"]
    let task = isKuaiRand ? "{name: is_click, closing: [view_end]}" : "{name: click, closing: [view_end]}"
    return """
      cluster: {name: chaos}
      features: [\(features.map { "{name: \($0)}" }.joined(separator: ", "))]
      tasks: [\(task)]
      models:
        - {name: single, kind: counting, dimension: \(Self.dimension), batchSize: 1, flushAfter: 5ms,
           features: [\(features[0]), \(features[1])]}
        - {name: batched, kind: counting, dimension: \(Self.dimension), batchSize: 64,
           features: [\(features.dropFirst().joined(separator: ", "))]}
      tables:
        defaults: {timeToLive: never}
        overrides: {\(Self.counted): {admission: {count: \(Self.threshold)}}}
      shards: {count: \(Self.shards), epoch: 250ms, checkpointEvery: 1s}
      trainers: {count: \(Self.trainers)}
      streams:
        examples: {partitions: \(Self.partitions)}
      sync: {sparseEvery: 1s, denseEvery: 1s}
      replicas: {count: 1, port: \(httpPort)}

      """
  }

  private static func isKuaiRand(_ path: String) -> Bool {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: path)) ?? []
    if names.contains(where: { $0.hasPrefix("log_standard") }) { return true }
    // An import of it.
    let manifest = names.first { $0.hasSuffix(".json") }.map { "\(path)/\($0)" }
    return manifest.flatMap { try? String(contentsOfFile: $0, encoding: .utf8) }?.contains("video_id") ?? false
  }
}
