// A trainer in the simulation: the real `ShardClient` with the pipeline of `TrainerCore` around it, but gradients that
// count. Batches end where some shard stood at the claim.

internal import Base
internal import Sharding
internal import Wire

/// One trainer's process.
final class SimulatedTrainer {
  private struct Partition {
    let number: Int
    let chain: ChainKey
    var boundaries: Set<Int> = []
    /// Records read.
    var read = 0
    var batchStart = 0
    var startedAt: Int64 = 0
  }

  private struct Pulled {
    var ticket: UInt64
    var partition: Int
    var range: Range<Int>
    var changes: BatchChanges
    /// When its arithmetic will have ended, which messages come beside.
    var endsAt: Int64 = 0
  }

  let number: Int
  /// Which of the trainers' places it fills.
  let place: Int
  let partitions: [Int]
  private(set) var client: ShardClient
  private let workload: Workload
  private let map: ClusterMap
  private let batchSize: Int
  private var states: [Partition]
  private var pulling: [Pulled] = []
  private var computing: [Pulled] = []
  private(set) var isSeeking = true
  /// The shards' promises to it have been noted.
  var isKnown = false
  /// The process stands still: it neither reads nor writes.
  var isFrozen = false
  private(set) var pushes = 0
  private var nextEarlyClose: Int64 = 0
  var violations: [String] = []

  init(
    number: Int, place: Int, partitions: [Int], workload: Workload, map: ClusterMap, owner: UInt64, batchSize: Int
  ) {
    self.number = number
    self.place = place
    self.partitions = partitions
    self.workload = workload
    self.map = map
    self.batchSize = batchSize
    states = partitions.map { Partition(number: $0, chain: Workload.chain($0)) }
    client = ShardClient(
      shardCount: map.shardCount, chains: partitions.map { Workload.chain($0) }, owner: owner,
      retryAfter: .milliseconds(150), heartbeatEvery: .milliseconds(60))
  }

  var isReady: Bool { client.isReady }

  /// Whether all there is has been read and everything sent is durable.
  var isDone: Bool {
    !isSeeking && pulling.isEmpty && computing.isEmpty && client.keptBytes == 0
      && states.allSatisfy { $0.batchStart == workload.partitions[$0.number].count }
  }

  func receive(_ message: Blob, from shard: Int, now: Int64) { client.receive(message, from: shard, now: now) }

  /// Reads what has arrived, pulls, pushes; gives what must be sent.
  func work(
    now: Int64, available: Int, owners: [ChainKey: Ownership], safe: inout [Position]
  ) -> [(shard: Int, message: Blob)] {
    client.tick(now: now)
    if client.isReady, client.failure == nil {
      if isSeeking { seek(owners: owners, safe: safe) }
      for index in states.indices { form(index, now: now, available: available) }
      train(now: now)
      for state in states {
        safe[state.number] = max(safe[state.number], client.durablePosition(of: state.chain))
      }
    }
    if isBackedUp, now >= nextEarlyClose {
      nextEarlyClose = now + 100_000_000
      client.askForEarlyClose()
    }
    return client.takeOutgoing()
  }

  private var isBackedUp: Bool { client.keptBytes > 60_000 || client.batchesAhead > 16 }

  private func seek(owners: [ChainKey: Ownership], safe: [Position]) {
    isSeeking = false
    for index in states.indices {
      let number = states[index].number
      let positions = client.claimedPositions(of: states[index].chain)
      let start = positions.min() ?? .start
      // One that stood still between its claim and now may find its records gone: it is fenced already.
      if start < safe[number], client.ownership >= owners[states[index].chain] ?? .none {
        violations.append(
          "trainer \(self.number) must read partition \(number) from \(start), its records up to \(safe[number]) were "
            + "released")
      }
      states[index].read = workload.count(number, upTo: start)
      states[index].batchStart = states[index].read
      states[index].boundaries = Set(positions.map { workload.count(number, upTo: $0) })
    }
  }

  private func form(_ index: Int, now: Int64, available: Int) {
    var state = states[index]
    let limit = min(available, workload.partitions[state.number].count)
    while pulling.count + computing.count < 2, !isBackedUp {
      if state.read == state.batchStart { state.startedAt = now }
      while state.read < limit, !isFull(state) { state.read += 1 }
      let isDue = state.read > state.batchStart && now - state.startedAt >= 15_000_000
      guard isFull(state) || isDue else { break }
      sendPull(state, now: now)
      state.batchStart = state.read
    }
    states[index] = state
  }

  private func isFull(_ state: Partition) -> Bool {
    state.read > state.batchStart
      && (state.read - state.batchStart >= batchSize || state.boundaries.contains(state.read))
  }

  private func sendPull(_ state: Partition, now: Int64) {
    let range = state.batchStart..<state.read
    let records = workload.partitions[state.number][range]
    let changes = BatchChanges(records)
    let eventTime = records.last?.eventTime ?? .min
    let ticket = client.pull(now: now) { ticket, shard in
      PullRequest.encoded(
        request: ticket, mapNumber: map.number, eventTime: eventTime, wantsDense: true,
        sections: sections(changes, of: shard).map { ($0.table, $0.ids, $0.sightings) })
    }
    pulling.append(Pulled(ticket: ticket, partition: state.number, range: range, changes: changes))
  }

  private func sections(_ changes: BatchChanges, of shard: Int) -> [(table: Int, ids: [UInt64], sightings: [UInt32])] {
    changes.order.indices.compactMap { table in
      let all = changes.order[table]
      let ids = map.places(of: all)[shard].map { all[Int($0)] }
      guard !ids.isEmpty else { return nil }
      return (table, ids, ids.map { changes.rows[table][$0]?.sightings ?? 0 })
    }
  }

  private func train(now: Int64) {
    while let first = pulling.first, client.takePull(first.ticket) != nil {
      var batch = pulling.removeFirst()
      batch.endsAt = now + Int64(Hashing.mix(first.ticket) % Self.longestArithmetic)
      computing.append(batch)
    }
    while let first = computing.first, first.endsAt <= now {
      computing.removeFirst()
      push(first, now: now)
    }
  }

  /// Nanoseconds; as long as some messages take there and back.
  private static let longestArithmetic: UInt64 = 20_000_000

  private func push(_ batch: Pulled, now: Int64) {
    let records = workload.partitions[batch.partition]
    let last = records[batch.range.upperBound - 1]
    let stamp = Stamp(
      chain: Workload.chain(batch.partition), ownership: client.ownership,
      previousEnd: batch.range.lowerBound == 0 ? .start : records[batch.range.lowerBound - 1].end, end: last.end,
      exampleCount: batch.range.count, eventTime: last.eventTime, watermark: last.eventTime - 200)
    client.push(chain: stamp.chain, end: stamp.end, now: now) { request, shard in
      let sections = sections(batch.changes, of: shard)
      let tensors = Workload.tensorNames.indices.filter { map.shard(ofTensor: Workload.tensorNames[$0]) == shard }
      var writer = ByteWriter()
      PushRequest.begin(
        request: request, stamp: stamp, mapNumber: map.number, sections: sections.count, tensors: tensors.count,
        arrivals: [ArrivalCount(arrival: last.eventTime, count: UInt64(batch.range.count))], into: &writer)
      for section in sections {
        // The rate is 1 and a step takes the gradient away: so the gradient is what must be added, turned round.
        let gradients = section.ids.flatMap { batch.changes.rows[section.table][$0]?.adds.map { -$0 } ?? [] }
        PushRequest.beginSection(
          table: section.table, ids: section.ids, sightings: section.sightings, floats: gradients.count, into: &writer)
        writer.append(array: gradients)
      }
      for tensor in tensors {
        PushRequest.append(tensor: tensor, gradients: batch.changes.dense.map { -$0 }, into: &writer)
      }
      return writer.finish()
    }
    pushes += 1
  }
}
