// What must hold once the cluster is quiet: every number on the shards is what the applied examples add up to, every
// example was applied once on every shard, and the replicas hold the shards' weights bit for bit.

internal import Base
internal import Embeddings
internal import Sharding
internal import Syncing
internal import Wire

/// What a table of one shard should hold, worked out from what was applied.
private struct ExpectedShard {
  var rows: [[UInt64: [Float]]] = Array(repeating: [:], count: 2)
  var waiting: [UInt64: UInt32] = [:]
  var dense = [Float](repeating: 0, count: Workload.width)

  init(_ shard: SimulatedShard, _ workload: Workload, _ map: ClusterMap) {
    for entry in shard.log {
      switch entry.change {
      case .push(let partition, let from, let to):
        let range = workload.count(partition, upTo: from)..<workload.count(partition, upTo: to)
        push(BatchChanges(workload.partitions[partition][range])) { map.shard(of: $0) == shard.index }
      case .forget(let table, let ids):
        guard table < 2 else { continue }
        for id in ids {
          rows[table][id] = nil
          if table == 1 { waiting[id] = nil }
        }
      }
    }
  }

  private mutating func push(_ changes: BatchChanges, _ isOwn: (UInt64) -> Bool) {
    for column in dense.indices { dense[column] += changes.dense[column] }
    for table in 0..<2 {
      for id in changes.order[table] where isOwn(id) {
        guard let change = changes.rows[table][id] else { continue }
        if table == 1, rows[1][id] == nil {
          // The push that admits at a sighting beyond the first makes the row and drops its gradient.
          let sightings = (waiting[id] ?? 0) + change.sightings
          waiting[id] = sightings < Workload.threshold ? sightings : nil
          if sightings >= Workload.threshold { rows[1][id] = [Float](repeating: 0, count: Workload.width) }
          continue
        }
        let row = rows[table][id] ?? [Float](repeating: 0, count: Workload.width)
        rows[table][id] = zip(row, change.adds).map { $0 + $1 }
      }
    }
  }
}

/// The weights a shard holds, as it answers them.
private struct HeldShard {
  var rows: [[UInt64: [Float]]] = []
  var tensors: [Int: [Float]] = [:]

  init(_ shard: SimulatedShard, _ map: ClusterMap) throws {
    for table in Workload.tableNames.indices {
      var held: [UInt64: [Float]] = [:]
      var cursor: UInt64 = 0
      while let answer = shard.ask(ScanRequest(table: table, rows: 1000, cursor: cursor).encoded(request: 1)) {
        _ = try MessageHeader(decoding: &answer.reader)
        var reply = try ScanReply(decoding: &answer.reader)
        if reply.section.remaining > 0 {
          let section = try CutSection(&reply.section)
          for (place, id) in section.ids.array.enumerated() {
            let weights = section.weights(place)
            held[id] = weights.indices.map { weights[$0] }
          }
        }
        cursor = reply.cursor
        if reply.isLast { break }
      }
      rows.append(held)
    }
    let pull = PullRequest.encoded(
      request: 1, mapNumber: map.number, eventTime: .min, wantsDense: true, sections: [])
    guard let answer = shard.ask(pull) else { return }
    _ = try MessageHeader(decoding: &answer.reader)
    for tensor in try PullReply(decoding: &answer.reader).tensors { tensors[tensor.tensor] = tensor.values.array }
  }
}

extension Cluster {
  /// Whether trainers and shards have nothing left to do.
  var isTrained: Bool {
    agenda.isEmpty && available == options.records && shards.allSatisfy { $0.isUp && $0.core.isQuiet }
      && sync.isUp
      && (0..<options.trainers).allSatisfy { place in
        trainers.contains { $0.process.place == place && $0.process.isDone }
      }
      && shards.allSatisfy { shard in
        (0..<options.partitions).allSatisfy { shard.appliedPosition($0) == workload.end($0) }
      }
  }

  /// Whether sync and all replicas have nothing left to do either.
  var isSynced: Bool {
    let status = sync.core.status(now: now)
    return !status.isBehind && status.cursors == shards.map { $0.core.status().durableEpoch }
      && status.replicas.count == options.replicas
      && status.replicas.allSatisfy { $0.version == status.newest }
      && replicas.allSatisfy { $0.map { $0.process.target.number == status.newest } ?? false }
  }

  /// Why the cluster is not quiet, in words.
  var waitsFor: String {
    if !isTrained {
      let places = trainers.map { running in
        let client = running.process.client
        return "trainer \(running.process.number): \(client.waitsFor ?? "claimed"), \(client.keptBytes) bytes kept"
      }
      let states = shards.map { shard in
        "shard \(shard.index): \((0..<options.partitions).map { "\(shard.appliedPosition($0))" }.joined(separator: " "))"
      }
      return (places + states).joined(separator: "; ")
    }
    let status = sync.core.status(now: now)
    let held = replicas.map { $0.map { "\($0.process.target.number)" } ?? "none" }
    return
      "sync: version \(status.newest), base \(status.base), behind \(status.isBehind), cursors \(status.cursors) of "
      + "\(status.durableEpochs); replicas at \(held.joined(separator: ", "))"
  }

  /// Compares everything with everything.
  func judge() {
    do {
      let held = try shards.map { try HeldShard($0, map) }
      for shard in shards { judge(shard, held[shard.index]) }
      judgeTotals(held)
      for case let running? in replicas { judge(running.process, held) }
    } catch {
      report(["a shard answered what cannot be read: \(error)"])
    }
  }

  private func judge(_ shard: SimulatedShard, _ held: HeldShard) {
    let expected = ExpectedShard(shard, workload, map)
    for table in 0..<2 {
      compare(
        held.rows[table], expected.rows[table], "shard \(shard.index), table '\(Workload.tableNames[table])'", "applied"
      )
    }
    compared.tensors += held.tensors.count
    compared.chains += options.partitions
    for (tensor, values) in held.tensors where values != expected.dense {
      report(["shard \(shard.index): tensor \(tensor) is \(values), applied examples come to \(expected.dense)"])
    }
    for state in shard.core.status().chains where state.examples != UInt64(options.records) {
      report(["shard \(shard.index) counts \(state.examples) examples of partition \(state.partition)"])
    }
    for partition in 0..<options.partitions {
      var at = Position.start
      for entry in shard.log {
        guard case .push(partition, let from, let to) = entry.change else { continue }
        if from != at { report(["shard \(shard.index) applied partition \(partition) from \(from) at \(at)"]) }
        at = to
      }
    }
  }

  /// What does not depend on batches is worked out again from the examples alone.
  private func judgeTotals(_ held: [HeldShard]) {
    var forgotten: Set<UInt64> = []
    for shard in shards {
      for entry in shard.log { if case .forget(0, let ids) = entry.change { forgotten.formUnion(ids) } }
    }
    var totals: [UInt64: [Float]] = [:]
    for sighting in workload.partitions.joined().flatMap(\.sightings) where sighting.table == 0 {
      let row = totals[sighting.id] ?? [Float](repeating: 0, count: Workload.width)
      totals[sighting.id] = zip(row, sighting.adds).map { $0 + $1 }
    }
    for (id, row) in totals.sorted(by: { $0.key < $1.key }) where !forgotten.contains(id) {
      compared.rows += 1
      compared.numbers += row.count
      let own = held[map.shard(of: id)].rows[0][id]
      if own != row { report(["id \(id) has \(own ?? []), all examples come to \(row)"]) }
    }
  }

  private func judge(_ replica: SimulatedReplica, _ held: [HeldShard]) {
    for (table, name) in Workload.tableNames.enumerated() {
      var all: [UInt64: [Float]] = [:]
      for shard in held { all.merge(shard.rows[table]) { $1 } }
      if options.halfPrecision { all = all.mapValues { $0.map { Float(Float16($0)) } } }
      compare(
        replica.target.rows[name] ?? [:], all, "replica \(replica.index), table '\(name)'", "the shards hold")
    }
    for shard in held {
      compared.tensors += shard.tensors.count
      for (tensor, values) in shard.tensors where replica.target.tensors[Workload.tensorNames[tensor]] != values {
        let own = replica.target.tensors[Workload.tensorNames[tensor]] ?? []
        report(["replica \(replica.index): tensor \(Workload.tensorNames[tensor]) is \(own), the shard's is \(values)"])
      }
    }
  }

  private func compare(_ found: [UInt64: [Float]], _ right: [UInt64: [Float]], _ place: String, _ word: String) {
    compared.rows += right.count
    compared.numbers += right.values.reduce(0) { $0 + $1.count }
    for id in Set(found.keys).union(right.keys).sorted() where bits(found[id]) != bits(right[id]) {
      report(["\(place): id \(id) is \(found[id] ?? []), \(word) \(right[id] ?? [])"])
    }
  }

  private func bits(_ row: [Float]?) -> [UInt32]? { row?.map(\.bitPattern) }
}
