// What "forgotten" means for a shard: the row is erased, and no example from before brings it back. After a restore, or when
// blocks were lost, trainers send again what they had sent before the ids were forgotten; those gradients are left out.

internal import Base
internal import Embeddings
internal import Wire

/// Ids that examples up to a position must not make anew, by chain, table and id.
struct ForgottenAhead {
  private var chains: [ChainKey: Chain] = [:]

  private struct Chain {
    var end = Position.start
    var tables: [Int: [UInt64: Position]] = [:]
  }

  var isEmpty: Bool { chains.isEmpty }

  mutating func add(_ ids: [UInt64], table: Int, until position: Position, of key: ChainKey) {
    var chain = chains[key] ?? Chain()
    chain.end = max(chain.end, position)
    for id in ids { chain.tables[table, default: [:]][id] = max(position, chain.tables[table]?[id] ?? .start) }
    chains[key] = chain
  }

  /// The section without the ids that a push from `begin` on must not touch; nil when it may touch all.
  ///
  /// A batch that holds examples of both sides counts as from before: what was forgotten stays away.
  func filtered(_ section: IDSection, of key: ChainKey, from begin: Position, width: Int) -> FilteredSection? {
    guard let ids = chains[key]?.tables[section.table] else { return nil }
    let isKept = section.ids.array.map { id in ids[id].map { begin >= $0 } ?? true }
    guard isKept.contains(false) else { return nil }
    let (sightings, gradients) = (section.sightings.array, section.gradients.array)
    var kept = FilteredSection()
    for (place, id) in section.ids.array.enumerated() where isKept[place] {
      kept.ids.append(id)
      kept.sightings.append(sightings[place])
      kept.gradients += gradients[place * width..<(place + 1) * width]
    }
    return kept
  }

  /// The chain has come past all that was forgotten.
  mutating func passed(_ position: Position, of key: ChainKey) {
    if let chain = chains[key], position >= chain.end { chains[key] = nil }
  }
}

/// What is left of a push's section.
struct FilteredSection {
  var ids: [UInt64] = []
  var sightings: [UInt32] = []
  var gradients: [Float] = []
}

extension ShardCore {
  /// Erases rows; answered when that is durable.
  mutating func forget(
    _ forget: IDsRequest, request: UInt64, peer: PeerID, actions: inout [ShardAction]
  ) throws -> Blob? {
    guard let index = tableIndex[forget.table] else {
      throw ErrorReply(
        .mismatch, "no table '\(forget.table)'; the tables are \(tables.map(\.shape.name).joined(separator: ", "))")
    }
    let forgotten = ForgottenIDs(
      epoch: openEpoch, table: forget.table, ids: forget.ids,
      chains: chains.values.map { ForgottenIDs.Chain(key: $0.state.chain, applied: $0.state.applied) }
        .sorted { $0.key < $1.key })
    actions.append(.keepForgotten(forgotten.encoded))
    let erased = tables[index].table.forget(forget.ids.span)
    count("forgotten", UInt64(erased))
    isChanged = true
    wantsEarlyClose = true
    awaiting.append(
      Awaiting(peer: peer, request: request, epoch: openEpoch, opcode: .forget, text: "{\"erased\":\(erased)}"))
    return nil
  }

  /// Goes on with a later epoch.
  ///
  /// Readers of blocks rely on numbers without gaps, so the blocks before are no longer to be had.
  private mutating func leaveOut(epochsBefore epoch: UInt64) {
    guard epoch > openEpoch else { return }
    release(upTo: .max)
    openEpoch = epoch
    durableEpoch = epoch - 1
    oldestRetained = epoch
  }

  /// Takes what was forgotten, after a recovery or restore: erases what this state may hold from before, and keeps away
  /// what its chains have yet to pass.
  ///
  /// - Returns: how many rows were erased.
  mutating func recover(_ forgotten: [ForgottenIDs]) -> Int {
    var erased = 0
    let held = durableEpoch
    for entry in forgotten {
      guard let index = tableIndex[entry.table] else { continue }
      if entry.epoch > held {
        erased += tables[index].table.forget(entry.ids.span)
        isChanged = true
        // This epoch's block will hold the erasures, so they are not repeated at the next start.
        leaveOut(epochsBefore: entry.epoch)
      }
      for chain in entry.chains where chain.applied > chains[chain.key]?.state.applied ?? .start {
        ahead.add(entry.ids, table: index, until: chain.applied, of: chain.key)
      }
    }
    count("forgottenAgain", UInt64(erased))
    return erased
  }
}
