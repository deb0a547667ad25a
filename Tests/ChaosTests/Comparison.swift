// What the shards hold beside what they must hold: every row, every number, every count of an id without a row, every
// tensor, every chain.

import Base
import Cluster
import Embeddings
import Foundation
import Wire

/// How much was compared, and what differs.
struct Comparison: Codable {
  var rows = 0
  var numbers = 0
  var idsWithoutRow = 0
  var chains = 0
  var differences = 0
  /// The first differences, in words.
  var examples: [String] = []

  mutating func note(_ difference: @autoclosure () -> String) {
    differences += 1
    if examples.count < 20 { examples.append(difference()) }
  }

  /// Compares rows of a table with what is expected of them; takes what it finds out of `left`.
  mutating func compare(_ section: CutSection, of table: TableOptions, left: inout [UInt64: TallyRow]) {
    let isCounted = table.admission == .count(ChaosOptions.threshold)
    for index in 0..<section.ids.count {
      let id = section.ids[index]
      let weights = section.weights(index)
      rows += 1
      guard let row = left.removeValue(forKey: id), !isCounted || row.sightings >= ChaosOptions.threshold else {
        note("table '\(table.name)' has a row of id \(id), which it must not have")
        continue
      }
      for column in row.sums.indices {
        numbers += 1
        if weights[column] != Float(row.sums[column]) {
          note("table '\(table.name)', id \(id), column \(column): \(weights[column]) instead of \(row.sums[column])")
        }
      }
    }
    for index in 0..<section.countedIDs.count {
      let id = section.countedIDs[index]
      let count = Int(section.countedValues[index] & 0xFFFF)
      idsWithoutRow += 1
      let row = left.removeValue(forKey: id)
      if row?.sightings != count {
        note("table '\(table.name)', id \(id) was sighted \(count) times instead of \(row?.sightings ?? 0)")
      }
    }
  }
}

/// Asks the shards; belongs to one thread.
final class ShardReader {
  private final class Box {
    var asker: Asker
    init(_ asker: consuming Asker) { self.asker = asker }
  }

  private let plan: ClusterPlan
  private let shards: [Box]
  private let sync: Box
  private let replica: Box

  init(_ plan: ClusterPlan, _ endpoints: Endpoints) throws {
    self.plan = plan
    let context = LinkContext()
    func box(_ endpoint: String) throws -> Box { Box(try Asker(endpoint: endpoint, context: context)) }
    shards = try (0..<ChaosOptions.shards).map { try box(endpoints.shard($0)) }
    sync = try box(endpoints.sync)
    replica = try box(endpoints.replica(0))
  }

  func status(of shard: Int) -> ShardStatus? { try? shards[shard].asker.shardStatus(timeout: .seconds(1)) }

  /// Examples applied, summed over models and those shards that answer.
  var applied: Int {
    shards.indices.reduce(0) { sum, shard in
      sum + (status(of: shard)?.chains.reduce(0) { $0 + Int($1.examples) } ?? 0)
    }
  }

  /// Asks a shard for a checkpoint after which it deletes all older blocks; does not wait for it.
  func compact(_ shard: Int) {
    _ = try? shards[shard].asker.ask(timeout: .milliseconds(1)) {
      CheckpointRequest(compacts: true).encoded(request: $0)
    }
  }

  /// Why the shards are not at rest behind all examples; nil when they are.
  func whatIsMissing(ends: [UInt64]) -> String? {
    for shard in shards.indices {
      guard let status = status(of: shard) else { return "shard \(shard) does not answer" }
      for model in plan.models {
        let consumer = Hashing.xxh3(model.settings.name)
        for (partition, end) in ends.enumerated() where end > 0 {
          let chain = status.chains.first { $0.consumer == consumer && $0.partition == UInt64(partition) }
          if chain?.applied != end {
            return "shard \(shard) has applied '\(model.settings.name)' up to \(chain?.applied ?? 0) of \(end)"
          }
        }
      }
      if !status.isQuiet { return "shard \(shard) has changes that are not durable" }
    }
    return nil
  }

  /// Compares everything the shards hold.
  func compare(with tally: Tally) throws -> Comparison {
    var comparison = Comparison()
    for (number, table) in plan.tables.enumerated() {
      var left = tally.tables[number]
      for shard in shards.indices {
        var cursor: UInt64 = 0
        while true {
          var reader = try shards[shard].asker.ask(timeout: .seconds(30)) {
            ScanRequest(table: number, rows: 4096, cursor: cursor).encoded(request: $0)
          }
          let reply = try ScanReply(decoding: &reader)
          var section = reply.section
          while section.remaining > 0 {
            comparison.compare(
              try CutSection(&section, weightCount: ChaosOptions.dimension), of: table, left: &left)
          }
          if reply.isLast { break }
          cursor = reply.cursor
        }
      }
      for (id, row) in left { comparison.note("table '\(table.name)' lacks id \(id), sighted \(row.sightings) times") }
    }
    try compareTensors(tally, &comparison)
    try compareChains(tally, &comparison)
    return comparison
  }

  private func compareTensors(_ tally: Tally, _ comparison: inout Comparison) throws {
    var found: [Int: [Float]] = [:]
    for shard in shards.indices {
      var reader = try shards[shard].asker.ask { [plan] request in
        PullRequest.encoded(
          request: request, mapNumber: plan.map.number, eventTime: .min, wantsDense: true, sections: [])
      }
      for tensor in try PullReply(decoding: &reader).tensors { found[tensor.tensor] = tensor.values.array }
    }
    for (index, model) in plan.models.enumerated() {
      let values = found[model.tensorIndex[0]] ?? []
      for (column, sum) in tally.counts[index].enumerated() {
        comparison.numbers += 1
        let value = column < values.count ? values[column] : .nan
        if value != Float(sum) {
          comparison.note("tensor 'counts' of '\(model.settings.name)', column \(column): \(value) instead of \(sum)")
        }
      }
    }
  }

  private func compareChains(_ tally: Tally, _ comparison: inout Comparison) throws {
    for shard in shards.indices {
      let status = try shards[shard].asker.shardStatus()
      for model in plan.models {
        for (partition, examples) in tally.examples.enumerated() where examples > 0 {
          comparison.chains += 1
          let consumer = Hashing.xxh3(model.settings.name)
          let chain = status?.chains.first { $0.consumer == consumer && $0.partition == UInt64(partition) }
          if chain?.examples != UInt64(examples) {
            comparison.note(
              "shard \(shard) counts \(chain?.examples ?? 0) examples of '\(model.settings.name)', partition "
                + "\(partition), instead of \(examples)")
          }
        }
      }
    }
  }

  /// Why the replica does not hold what the shards hold; nil when it does.
  func whatTheReplicaLacks() -> String? {
    _ = try? sync.asker.ask(timeout: .seconds(1)) { PublishRequest(dense: true).encoded(request: $0) }
    do {
      var all = DigestReply()
      for shard in shards { all.merge(try shard.asker.digest(halfPrecision: false)) }
      let served = try replica.asker.digest(halfPrecision: false, timeout: .seconds(2))
      return served == all ? nil : "the replica's digest differs from the shards'"
    } catch {
      return "\(error)"
    }
  }
}
