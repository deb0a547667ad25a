// The promises of DESIGN 3.1 to 3.5 one by one, each on a cluster whose network is perfect but for the one thing that goes
// wrong.

import Base
import Testing
import Wire

@testable import Simulation

@Suite("Scenarios") struct ScenarioTests {
  /// A small cluster, run until it has trained on something.
  private func cluster(
    shards: Int = 2, trainers: Int = 1, partitions: Int = 2, replicas: Int = 1, records: Int = 150
  ) -> Simulation {
    var options = SimulationOptions()
    options.shards = shards
    options.trainers = trainers
    options.partitions = partitions
    options.replicas = replicas
    options.records = records
    options.faults = 0
    var simulation = Simulation(seed: 7, options: options)
    simulation.step(until: 200_000_000) { _ in false }
    return simulation
  }

  private func expectExact(_ simulation: inout Simulation) {
    simulation.finish()
    #expect(simulation.violations == [])
  }

  @Test func `the same seed gives the same run`() {
    func run(_ seed: UInt64) -> String {
      var simulation = Simulation(seed: seed)
      simulation.run()
      return simulation.summary
    }
    #expect(run(5) == run(5))
    #expect(run(5) != run(6))
  }

  @Test func `a lost update does not go unseen`() {
    var simulation = cluster()
    simulation.finish()
    let cluster = simulation.cluster
    // One more example than was in the stream, pushed by somebody who owns the chain.
    let chain = Workload.chain(0)
    let end = cluster.workload.end(0)
    let ownership = cluster.trainers[0].process.client.ownership
    let stamp = Stamp(
      chain: chain, ownership: ownership, previousEnd: end, end: Position(high: end.high, low: end.low + 1),
      exampleCount: 1, eventTime: 0, watermark: 0)
    var writer = ByteWriter()
    PushRequest.begin(
      request: 1, stamp: stamp, mapNumber: cluster.map.number, sections: 0, tensors: 0, arrivals: [], into: &writer)
    _ = cluster.shards[0].ask(writer.finish())
    cluster.judge()
    #expect(simulation.violations.contains { $0.contains("counts 151 examples") })
  }

  @Test func `a shard killed between apply and sync gets its updates again`() {
    var simulation = cluster()
    let cluster = simulation.cluster
    #expect(
      simulation.step(until: 2_000_000_000) { $0.shards[0].hasUnsynced && $0.shards[0].appliedPosition(0) > .start })
    let before = cluster.shards[0].appliedPosition(0)
    cluster.crashShard(0, keeping: 0)
    cluster.shards[0].restart(now: cluster.now)
    #expect(cluster.shards[0].appliedPosition(0) < before)
    expectExact(&simulation)
  }

  @Test func `the very last update is not lost either when its shard falls back while nobody pushes`() {
    var simulation = cluster()
    let cluster = simulation.cluster
    let isApplied = simulation.step(until: 5_000_000_000) { cluster in
      (0..<2).allSatisfy { cluster.shards[0].appliedPosition($0) == cluster.workload.end($0) }
        && cluster.shards[0].hasUnsynced && cluster.trainers[0].process.client.batchesAhead == 0
    }
    #expect(isApplied)
    cluster.crashShard(0, keeping: 0)
    cluster.shards[0].restart(now: cluster.now)
    expectExact(&simulation)
  }

  @Test func `a lost acknowledgement is asked for again`() {
    var simulation = cluster()
    let cluster = simulation.cluster
    // What the shard says on this connection is lost, what the trainer said arrives.
    for _ in 0..<5 {
      cluster.network.cut(cluster.trainers[0].links[0], at: cluster.now)
      simulation.step(until: cluster.now + 60_000_000) { _ in false }
    }
    expectExact(&simulation)
    #expect(cluster.trainers[0].process.client.resynchronizations > 0)
  }

  @Test func `messages that come twice, or again much later, change nothing`() {
    var simulation = cluster(records: 300)
    simulation.cluster.network.trouble = 0.04
    simulation.step(until: 2_000_000_000) { _ in false }
    simulation.cluster.network.trouble = 0
    expectExact(&simulation)
    let repeated = simulation.cluster.shards.map { $0.core.status().counters["repeated"] ?? 0 }
    #expect(repeated.reduce(0, +) > 0)
  }

  @Test func `of two trainers that claim the same partitions one trains`() {
    var simulation = cluster()
    let cluster = simulation.cluster
    for _ in 0..<3 {
      cluster.race(0)
      simulation.step(until: cluster.now + 100_000_000) { _ in false }
    }
    expectExact(&simulation)
    #expect(cluster.fencedOwners > 0)
    #expect(cluster.trainers.count == 1)
  }

  @Test func `an old owner that wakes after its successor took over is fenced and changes nothing`() {
    var simulation = cluster()
    let cluster = simulation.cluster
    let old = cluster.trainers[0].process
    cluster.freezeTrainer(0, wakeAfter: .milliseconds(300))
    let isTakenOver = simulation.step(until: 2_000_000_000) {
      $0.trainers.count == 2 && $0.trainers[1].process.pushes > 3
    }
    #expect(isTakenOver)
    expectExact(&simulation)
    guard case .fenced = old.client.failure else {
      Issue.record("the old owner goes on: \(String(describing: old.client.failure))")
      return
    }
  }

  @Test func `a trainer restarted where shards stand at different positions repeats nothing`() {
    var simulation = cluster(shards: 3)
    let cluster = simulation.cluster
    cluster.crashShard(1, keeping: 0)
    simulation.step(until: cluster.now + 100_000_000) { _ in false }
    cluster.crashTrainer(0, restartAfter: .milliseconds(1))
    cluster.shards[1].restart(now: cluster.now)
    let positions = cluster.shards.map { $0.appliedPosition(0) }
    #expect(Set(positions).count > 1)
    expectExact(&simulation)
    for shard in cluster.shards {
      let ends = shard.log.compactMap { entry in
        if case .push(0, _, let end) = entry.change { end } else { nil }
      }
      for position in positions where position > .start {
        #expect(ends.contains(position), "a batch of shard \(shard.index) runs across \(position)")
      }
    }
  }

  @Test func `a shard that comes back in the middle of a base scan makes sync scan anew`() {
    var simulation = cluster()
    let cluster = simulation.cluster
    cluster.restartSync(losesStore: true, after: .milliseconds(1))
    let isScanning = simulation.step(until: 2_000_000_000) { cluster in
      cluster.sync.isUp && cluster.sync.stored.whole.isEmpty
        && cluster.sync.stored.parts.values.contains { $0.count > 2 }
    }
    #expect(isScanning)
    cluster.crashShard(0, keeping: 0)
    cluster.shards[0].restart(now: cluster.now)
    expectExact(&simulation)
  }

  @Test func `a base holds nothing that a crash of its shard undoes`() {
    var simulation = cluster(replicas: 2)
    let cluster = simulation.cluster
    simulation.step(until: 5_000_000_000) { $0.isTrained }
    // An erasure that is not durable yet, and so not acknowledged, is in the rows that a base would be made of.
    cluster.shards[0].stalledUntil = cluster.now + 1_000_000_000
    for _ in 0..<6 { cluster.forget() }
    cluster.restartSync(losesStore: true, after: .milliseconds(1))
    simulation.step(until: cluster.now + 600_000_000) { _ in false }
    cluster.crashShard(0, keeping: 0)
    cluster.shards[0].restart(now: cluster.now)
    expectExact(&simulation)
  }

  @Test func `sync goes on from its store, and its replicas keep what they have`() {
    var simulation = cluster()
    let cluster = simulation.cluster
    simulation.step(until: 2_000_000_000) { $0.sync.published > 2 }
    let (store, stores) = (cluster.sync.heading.store, cluster.sync.stores)
    cluster.restartSync(losesStore: false, after: .milliseconds(100))
    expectExact(&simulation)
    #expect(cluster.sync.heading.store == store)
    #expect(cluster.sync.stores == stores)
    #expect(cluster.replicas[0]?.process.target.bases == 1)
  }

  @Test func `sync that lost its store gives every replica a new base`() {
    var simulation = cluster()
    let cluster = simulation.cluster
    simulation.step(until: 2_000_000_000) { $0.sync.published > 2 && $0.replicas[0]?.process.target.bases == 1 }
    cluster.restartSync(losesStore: true, after: .milliseconds(50))
    expectExact(&simulation)
    #expect(cluster.replicas[0]?.process.target.bases == 2)
  }

  @Test func `a replica that was gone for long takes a base and all that followed`() {
    var simulation = cluster(records: 300)
    let cluster = simulation.cluster
    simulation.step(until: 2_000_000_000) { $0.replicas[0]?.process.target.bases == 1 }
    cluster.stopReplica(0)
    simulation.step(until: 1_400_000_000) { _ in false }
    cluster.startReplica(0)
    expectExact(&simulation)
    #expect(cluster.replicas[0]?.process.target.bases == 1)
  }

  @Test func `a client stops when a shard comes back with another journal`() {
    var simulation = cluster()
    let cluster = simulation.cluster
    cluster.expectsIdentityChange = true
    let client = cluster.trainers[0].process
    cluster.shards[0].loseJournal(records: 4)
    for link in cluster.network.openLinks(of: .shard(0)) { cluster.network.cut(link, at: cluster.now, losesAll: true) }
    cluster.shards[0].restart(now: cluster.now)
    let hasStopped = simulation.step(until: 3_000_000_000) { _ in client.client.failure != nil }
    #expect(hasStopped)
    #expect(client.client.failure == .identityChanged(shard: 0))
    // Its successor claims anew and brings that shard what it lacks; the loss is accepted, so all ends exact.
    cluster.safe = cluster.safe.map { _ in .start }
    expectExact(&simulation)
    #expect(cluster.sync.stores == 2)
  }

  @Test func `a replica takes a base, then serves only what has caught up`() {
    var simulation = cluster(records: 200)
    let cluster = simulation.cluster
    for _ in 0..<4 {
      simulation.step(until: cluster.now + 150_000_000) { _ in false }
      cluster.stopReplica(0)
      cluster.startReplica(0)
    }
    expectExact(&simulation)
  }
}
