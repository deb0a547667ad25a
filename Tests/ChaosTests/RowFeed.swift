// The driver as the trainer of a cluster: it pushes rows and has ids forgotten, and knows which ids never come back.
// Belongs to one thread.

import Base
import Cluster
import Wire

/// Changes rows on the shards, which no fault touches.
final class RowFeed {
  /// The tables by number.
  static let users = 0
  static let items = 1
  /// Users from here on are forgotten once and never come back.
  private static let mortal: UInt64 = 1_000_000
  /// Users from here on are forgotten and come back.
  private static let returning: UInt64 = 2_000_000
  /// Items from here on are pushed once, and expire.
  private static let passing: UInt64 = 5_000_000

  private let plan: ClusterPlan
  private let shards: [AskerBox]
  private let chain: ChainKey
  private let ownership = Ownership(generation: 1, owner: 1)
  private var random: SeededRandom
  private var pushes: UInt64 = 0
  private var nextMortal = mortal
  private var nextPassing = passing
  private var oldestMortal = mortal
  /// Every id that was ever pushed, by table.
  private(set) var ids: [Set<UInt64>] = [[], []]
  private(set) var forgotten = 0

  init(_ plan: ClusterPlan, _ shards: [AskerBox], seed: UInt64) throws {
    self.plan = plan
    self.shards = shards
    chain = ChainKey(consumer: plan.models[0].settings.name, stream: "examples", partition: 0)
    random = SeededRandom(seed: seed)
  }

  /// Whether an id is one that stays away once it is gone.
  static func isGoneForGood(_ id: UInt64, table: Int) -> Bool {
    table == users ? (mortal..<returning).contains(id) : id >= passing
  }

  func claim() throws {
    for shard in shards {
      let (chain, ownership) = (chain, ownership)
      _ = try shard.asker.ask(timeout: .seconds(20)) { Claim(chain: chain, ownership: ownership).encoded(request: $0) }
    }
  }

  /// One batch: rows that stay, rows that will be forgotten, rows that will expire.
  func push() throws {
    pushes += 1
    var users = Set((0..<48).map { _ in UInt64.random(in: 0..<2000, using: &random) })
    for _ in 0..<4 {
      users.insert(nextMortal)
      nextMortal += 1
    }
    if nextMortal > oldestMortal { users.insert(UInt64.random(in: oldestMortal..<nextMortal, using: &random)) }
    users.insert(Self.returning + UInt64.random(in: 0..<50, using: &random))
    var items = Set((0..<4).map { _ in UInt64.random(in: 0..<200, using: &random) })
    for _ in 0..<12 {
      items.insert(nextPassing)
      nextPassing += 1
    }
    try push([users.sorted(), items.sorted()])
    ids[Self.users].formUnion(users)
    ids[Self.items].formUnion(items)
  }

  private func push(_ tables: [[UInt64]]) throws {
    // Two seconds of event time each: an item lasts for thirty pushes.
    let time = Milliseconds(1_700_000_000_000 + 2000 * pushes)
    let stamp = Stamp(
      chain: chain, ownership: ownership, previousEnd: Position(low: pushes - 1), end: Position(low: pushes),
      exampleCount: 1, eventTime: time, watermark: time)
    let tensor = plan.models[0].tensorIndex[0]
    let step = (0..<SyncChaosOptions.dimension).map { _ in Float(Int.random(in: -20...20, using: &random)) }
    for (shard, box) in shards.enumerated() {
      let sections = tables.enumerated().compactMap { table, ids -> (table: Int, ids: [UInt64])? in
        let own = ids.filter { plan.map.shard(of: $0) == shard }
        return own.isEmpty ? nil : (table, own)
      }
      let hasTensor = plan.map.shard(ofTensor: plan.tensors[tensor].tensor.name) == shard
      _ = try box.asker.ask(timeout: .seconds(20)) { request in
        var writer = ByteWriter()
        PushRequest.begin(
          request: request, stamp: stamp, mapNumber: plan.map.number, sections: sections.count,
          tensors: hasTensor ? 1 : 0, arrivals: [ArrivalCount(arrival: Clocks.wall(), count: 1)], into: &writer)
        for section in sections {
          PushRequest.beginSection(
            table: section.table, ids: section.ids, sightings: section.ids.map { _ in 1 },
            floats: section.ids.count * step.count, into: &writer)
          writer.append(array: section.ids.flatMap { _ in step })
        }
        if hasTensor { PushRequest.append(tensor: tensor, gradients: step, into: &writer) }
        return writer.finish()
      }
    }
  }

  /// Has some ids forgotten, of those that come back and of those that do not; on disk when this returns.
  func forget() throws {
    var gone = (0..<3).map { _ in Self.returning + UInt64.random(in: 0..<50, using: &random) }
    while gone.count < 20, oldestMortal + 40 < nextMortal {
      gone.append(oldestMortal)
      oldestMortal += 1
      forgotten += 1
    }
    for (shard, box) in shards.enumerated() {
      let own = gone.filter { plan.map.shard(of: $0) == shard }
      guard !own.isEmpty else { continue }
      let request = IDsRequest(table: plan.tables[Self.users].name, ids: own)
      _ = try box.asker.ask(timeout: .seconds(20)) { request.encoded(.forget, request: $0) }
    }
  }
}

/// Holds an asker, which cannot be copied.
final class AskerBox {
  var asker: Asker
  init(_ endpoint: String, _ context: LinkContext) throws { asker = try Asker(endpoint: endpoint, context: context) }
}
