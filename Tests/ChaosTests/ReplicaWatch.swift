// What is asked of replicas while faults go on, and what may not be answered. The versions on the disk of sync say since
// when an id is gone.

import Base
import Cluster
import Embeddings
import Foundation
import Serving
import Syncing
import Wire

/// Reads the versions that sync has stored, as they come.
struct VersionWatch {
  private let directory: String
  private let tables: [String]
  private var store = ""
  private(set) var newest: UInt64 = 1
  /// By table: ids that never come back, with the version that holds their tombstone.
  private(set) var gone: [[UInt64: UInt64]]
  /// When each version was made.
  private(set) var created: [UInt64: Milliseconds] = [:]
  /// What sync must not do.
  private(set) var problem: String?

  init(directory: String, tables: [String]) {
    self.directory = directory
    self.tables = tables
    gone = tables.map { _ in [:] }
  }

  mutating func poll() throws {
    guard let bytes = try? Files.read("\(directory)/store"), !bytes.isEmpty else { return }
    let now = String(decoding: bytes, as: UTF8.self)
    if store.isEmpty { store = now }
    if store != now { problem = "sync began a new store at version \(newest), although its files were whole" }
    while let bytes = try? Files.read("\(directory)/\(newest + 1).version") {
      let content = try VersionContent(decoding: ByteReader(Blob(bytes)))
      newest += 1
      created[newest] = content.created
      for change in content.tables {
        guard let table = tables.firstIndex(of: change.table) else { continue }
        for id in change.tombstones where RowFeed.isGoneForGood(id, table: table) { gone[table][id] = newest }
      }
    }
  }
}

/// Asks replicas; belongs to one thread.
final class ReplicaWatch {
  private let plan: ClusterPlan
  private let replicas: [AskerBox]
  private let httpPort: Int
  private var random: SeededRandom
  private(set) var versions: VersionWatch
  /// Ids asked for that were gone, and how often no replica had them.
  private(set) var questions = 0
  private(set) var wrong: [String] = []

  init(_ plan: ClusterPlan, _ replicas: [AskerBox], versions: String, seed: UInt64) {
    self.plan = plan
    self.replicas = replicas
    httpPort = plan.configuration.replicas.port
    random = SeededRandom(seed: seed)
    self.versions = VersionWatch(directory: versions, tables: plan.tables.map(\.name))
  }

  func poll() throws {
    try versions.poll()
    if let problem = versions.problem { note(problem) }
  }

  func note(_ text: String) {
    if wrong.count < 20, !wrong.contains(text) { wrong.append(text) }
  }

  /// Whether a replica says that it is ready; nil when it does not answer.
  func isReady(_ replica: Int) -> Bool? {
    let place = PredictionClientOptions.Replica(port: httpPort + replica)
    switch try? ReplicaRequest.get("/readyz", from: place, timeout: .milliseconds(500)).status {
    case 200: return true
    case 503: return false
    default: return nil
    }
  }

  /// A replica's answer, or nil: it may have just died, or have no base yet.
  func rows(_ replica: Int, table: Int, ids: [UInt64], timeout: Duration = .milliseconds(500)) -> RowsReply? {
    let name = plan.tables[table].name
    guard
      var reader = try? replicas[replica].asker.ask(
        timeout: timeout, { RowsRequest.encoded(table: name, ids: ids, request: $0) })
    else { return nil }
    return try? RowsReply(decoding: &reader)
  }

  /// Asks one replica for ids that are gone, and judges the answer by the versions on the disk.
  func check(_ replica: Int) throws {
    try poll()
    let askedAt = Clocks.wall()
    let isReady = isReady(replica)
    for table in plan.tables.indices {
      let known = versions.gone[table]
      // The newest are the ones that a replica may still have.
      let recent = known.filter { $0.value + 5 >= versions.newest }.keys.sorted().prefix(500)
      let ids = Array(recent) + (0..<min(known.count, 100)).compactMap { _ in known.keys.randomElement(using: &random) }
      guard !ids.isEmpty, let reply = rows(replica, table: table, ids: ids) else { continue }
      try poll()
      for (place, id) in ids.enumerated() {
        guard let since = versions.gone[table][id], reply.version >= since else { continue }
        questions += 1
        if reply.found[place] == 1 {
          note("replica \(replica) at version \(reply.version) has id \(id) of table \(table), gone since \(since)")
        }
      }
      guard isReady == true, let made = versions.created[reply.version] else { continue }
      if askedAt - made > Milliseconds(1000 * (SyncChaosOptions.staleSeconds + 1)) {
        note("replica \(replica) is ready with version \(reply.version), made \(askedAt - made) ms before")
      }
    }
  }

  /// Why a replica does not hold what the shards hold; nil when every row and tensor is equal to the bit.
  func difference(_ replica: Int, rows held: [[UInt64: [Float]]], ids: [Set<UInt64>], digest: DigestReply) -> String? {
    guard let own = try? replicas[replica].asker.digest(halfPrecision: false, timeout: .seconds(5)) else {
      return "replica \(replica) does not answer"
    }
    guard own == digest else { return "replica \(replica) has another digest than the shards" }
    for table in plan.tables.indices {
      let all = ids[table].sorted()
      for begin in stride(from: 0, to: all.count, by: RowsRequest.idLimit) {
        let some = Array(all[begin..<min(all.count, begin + RowsRequest.idLimit)])
        guard let reply = rows(replica, table: table, ids: some, timeout: .seconds(5)) else {
          return "replica \(replica) does not answer"
        }
        for (place, id) in some.enumerated() {
          let weights = (0..<reply.width).map { reply.weights[place * reply.width + $0].bitPattern }
          let row = held[table][id]
          guard (reply.found[place] == 1) == (row != nil), row == nil || weights == row?.map(\.bitPattern) else {
            return "replica \(replica) has another row of id \(id) in table \(table) than the shards"
          }
        }
      }
    }
    return nil
  }
}
