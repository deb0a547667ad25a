// What a run of faults between sync and its replicas is made of.

import Cluster
import Foundation

/// One run, from the environment (docs/chaos.md).
struct SyncChaosOptions {
  /// Faults to make before the cluster may come to rest.
  var faults = 20
  /// Everything the driver draws comes from it.
  var seed: UInt64 = 7
  /// Where the JSON report goes; nil for nowhere.
  var report: String?
  /// The command under test.
  let command = ChaosOptions().command

  init(environment: [String: String] = ProcessInfo.processInfo.environment) {
    if let text = environment["GUIRA_SYNC_FAULTS"].flatMap({ Int($0) }) { faults = max(1, text) }
    if let text = environment["GUIRA_CHAOS_SEED"].flatMap({ UInt64($0) }) { seed = text }
    report = environment["GUIRA_SYNC_CHAOS_REPORT"]
  }

  static let shards = 2
  static let replicas = 3
  static let dimension = 4
  /// A replica that hears nothing for so long must say that it is not ready.
  static let staleSeconds = 6.0
  /// The share of messages that are harmed on every link, in both directions.
  static let harmedShare = 0.1

  /// The last replica shows each version at once, the others row by row.
  static func configuration(httpPort: Int, isConsistent: Bool) -> String {
    """
    cluster: {name: syncchaos}
    features: [{name: user_id}, {name: item_id}]
    tasks: [{name: click, closing: [view_end]}]
    models:
      - {name: counts, kind: counting, dimension: \(dimension), features: [user_id, item_id]}
    tables:
      defaults: {timeToLive: never}
      overrides: {item_id: {timeToLive: 60s}}
    shards: {count: \(shards), epoch: 200ms}
    sync: {sparseEvery: 1s, denseEvery: 1s}
    replicas: {count: \(replicas), port: \(httpPort), staleAfter: \(Int(staleSeconds))s,
      visibility: \(isConsistent ? "consistent" : "relaxed")}

    """
  }
}
