// What goes wrong: crashes, cuts, slow disks, processes that stand still and wake up later. Which, when and whom is drawn
// from the seed.

internal import Base
internal import Wire

extension Cluster {
  /// Draws the faults of a run: all of them strike while examples arrive, and all are over soon after.
  func scheduleFaults() {
    guard options.faults > 0 else { return }
    network.trouble = [0, 0.003, 0.01][Int.random(in: 0...2, using: &random)]
    let span = options.recordEvery.nanoseconds * Int64(options.records)
    for _ in 0..<options.faults {
      // A little beyond the last example: what is applied but not yet durable then must not be lost either.
      let at = Int64.random(in: 50_000_000...max(60_000_000, span + 60_000_000), using: &random)
      let draw = Int.random(in: 0..<100, using: &random)
      later(.nanoseconds(at)) { [unowned self] in strike(draw) }
    }
    later(.nanoseconds(span + 500_000_000)) { [unowned self] in network.trouble = 0 }
  }

  private func pause(_ range: ClosedRange<Int64>) -> Duration {
    .milliseconds(Int64.random(in: range, using: &random))
  }

  private func strike(_ draw: Int) {
    note(draw)
    switch draw {
    case 0..<24:
      let index = Int.random(in: shards.indices, using: &random)
      crashShard(index)
      later(pause(5...250)) { [unowned self] in shards[index].restart(now: now) }
    case 24..<36: crashTrainer(Int.random(in: 0..<options.trainers, using: &random), restartAfter: pause(5...200))
    case 36..<44: freezeTrainer(Int.random(in: 0..<options.trainers, using: &random), wakeAfter: pause(20...400))
    case 44..<50: race(Int.random(in: 0..<options.trainers, using: &random))
    case 50..<62:
      let open = network.links.filter { !$0.isClosed }
      network.cut(open[Int.random(in: open.indices, using: &random)], at: now)
    case 62..<72: restartSync(losesStore: false, after: pause(5...300))
    case 72..<76: restartSync(losesStore: true, after: pause(5...300))
    case 76..<84:
      let index = Int.random(in: 0..<options.replicas, using: &random)
      stopReplica(index)
      later(pause(5...900)) { [unowned self] in if replicas[index] == nil { startReplica(index) } }
    case 84..<91:
      shards[Int.random(in: shards.indices, using: &random)].stalledUntil = now + pause(50...400).nanoseconds
    default: forget()
    }
  }

  private func note(_ draw: Int) {
    let kind =
      switch draw {
      case 0..<24: "shard killed"
      case 24..<36: "trainer killed"
      case 36..<44: "trainer frozen, woken after its successor took over"
      case 44..<50: "two trainers claim at once"
      case 50..<62: "connection cut"
      case 62..<72: "sync killed"
      case 72..<76: "sync killed and its store lost"
      case 76..<84: "replica killed"
      case 84..<91: "disk stalled"
      default: "ids forgotten"
      }
    struck[kind, default: 0] += 1
  }

  func crashTrainer(_ place: Int, restartAfter pause: Duration) {
    for running in trainers where running.process.place == place { stopTrainer(running.process.number) }
    later(pause) { [unowned self] in
      if !trainers.contains(where: { $0.process.place == place }) { startTrainer(place) }
    }
  }

  /// A trainer stands still, its successor takes over, then the old one wakes up and goes on as if nothing had been.
  func freezeTrainer(_ place: Int, wakeAfter pause: Duration) {
    guard let old = trainers.first(where: { $0.process.place == place }), !old.process.isFrozen else { return }
    old.process.isFrozen = true
    for link in old.links { link.isFrozen = true }
    startTrainer(place)
    later(pause) { [unowned self] in
      _ = self
      old.process.isFrozen = false
      for link in old.links { link.isFrozen = false }
    }
  }

  /// Two trainers of one place start at the same moment.
  func race(_ place: Int) {
    for running in trainers where running.process.place == place { stopTrainer(running.process.number) }
    startTrainer(place)
    startTrainer(place)
  }

  func restartSync(losesStore: Bool, after pause: Duration) {
    crashSync()
    later(pause) { [unowned self] in sync.restart(losesStore: losesStore) }
  }

  /// Erases a few ids of a table on all shards.
  func forget() {
    let table = Int.random(in: 0..<Workload.tableNames.count, using: &random)
    let all = workload.partitions[0].flatMap { $0.sightings.filter { $0.table == table }.map(\.id) }
    let ids = (0..<4).map { _ in all[Int.random(in: all.indices, using: &random)] }
    for shard in shards {
      let own = Set(ids).filter { map.shard(of: $0) == shard.index }.sorted()
      let request = IDsRequest(table: Workload.tableNames[table], ids: own)
      _ = shard.receive(request.encoded(.forget, request: 1), from: PeerID([1]), now: now)
    }
  }
}
