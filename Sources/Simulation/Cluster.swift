// The whole cluster on one thread: who is there, what time it is, whose turn it is. Faults are in Faults.swift, what must
// hold at the end in Verdict.swift.

internal import Base
internal import Sharding
internal import Syncing
internal import Wire

/// A simulated cluster in the middle of its run.
final class Cluster {
  /// How far apart turns of the roles are.
  static let turn: Int64 = 2_000_000

  /// A trainer's or replica's process with its connections.
  struct Running<Process> {
    let process: Process
    let links: [Link]
  }

  let seed: UInt64
  let options: SimulationOptions
  let workload: Workload
  let map: ClusterMap
  var now: Int64 = 0
  var network: Network
  var shards: [SimulatedShard]
  var sync: SimulatedSync
  var syncLinks: [Link] = []
  var trainers: [Running<SimulatedTrainer>] = []
  var replicas: [Running<SimulatedReplica>?] = []
  var random: SeededRandom
  /// What happens later, in order of time.
  var agenda: [(at: Int64, what: () -> Void)] = []
  /// Up to where each partition's stream may have dropped its records.
  var safe: [Position]
  /// The journals were replaced: a trainer that stops because of it is right.
  var expectsIdentityChange = false
  var fencedOwners = 0
  var stoppedOwners = 0
  private var processes = 0
  /// How often each kind of fault struck.
  var struck: [String: Int] = [:]
  /// What was compared at the end.
  var compared = Simulation.Compared()
  private(set) var violations: [String] = []

  init(seed: UInt64, options: SimulationOptions) {
    self.seed = seed
    self.options = options
    workload = Workload(seed: seed, options: options)
    map = ClusterMap(shardCount: options.shards)
    random = SeededRandom(seed: Hashing.mix(seed ^ 0x6775_6972))
    network = Network(seed: seed)
    safe = Array(repeating: .start, count: options.partitions)
    let work = workload
    shards = (0..<options.shards).map {
      SimulatedShard(work.shardOptions($0, of: options), partitions: options.partitions, seed: seed)
    }
    var syncOptions = SyncOptions(shardCount: options.shards, replicaCount: options.replicas)
    syncOptions.sparseEvery = .milliseconds(90)
    syncOptions.denseEvery = .milliseconds(700)
    syncOptions.halfPrecision = options.halfPrecision
    syncOptions.scanRows = 16
    syncOptions.rebaseBytes = 60_000
    syncOptions.retryAfter = .milliseconds(150)
    sync = SimulatedSync(syncOptions, seed: seed)
    syncLinks = (0..<options.shards).map { network.connect(.sync, to: .shard($0)) }
    for place in 0..<options.trainers { startTrainer(place) }
    for index in 0..<options.replicas {
      replicas.append(nil)
      startReplica(index)
    }
  }

  // MARK: Processes

  /// Partitions of one trainer's place.
  func partitions(of place: Int) -> [Int] { (0..<options.partitions).filter { $0 % options.trainers == place } }

  @discardableResult func startTrainer(_ place: Int) -> SimulatedTrainer {
    processes += 1
    let node = Node.trainer(processes)
    let process = SimulatedTrainer(
      number: processes, place: place, partitions: partitions(of: place), workload: workload, map: map,
      owner: random.next(), batchSize: Int.random(in: 5...24, using: &random))
    let links = (0..<options.shards).map { network.connect(node, to: .shard($0)) }
    trainers.append(Running(process: process, links: links))
    return process
  }

  func stopTrainer(_ number: Int) {
    guard let index = trainers.firstIndex(where: { $0.process.number == number }) else { return }
    let stopped = trainers.remove(at: index)
    report(stopped.process.violations)
    for link in stopped.links { network.close(link, at: now) }
  }

  func startReplica(_ index: Int) {
    processes += 1
    let process = SimulatedReplica(index: index, incarnation: UInt64(processes))
    replicas[index] = Running(process: process, links: [network.connect(.replica(processes), to: .sync)])
  }

  func stopReplica(_ index: Int) {
    guard let running = replicas[index] else { return }
    report(running.process.target.violations)
    replicas[index] = nil
    for link in running.links { network.close(link, at: now) }
  }

  func crashShard(_ index: Int, keeping kept: Int? = nil) {
    shards[index].crash(keeping: kept)
    for link in network.openLinks(of: .shard(index)) { network.cut(link, at: now, losesAll: true) }
  }

  func crashSync() {
    sync.crash()
    for link in network.openLinks(of: .sync) { network.cut(link, at: now, losesAll: link.server == .sync) }
  }

  /// Does something at a later time.
  func later(_ delay: Duration, _ what: @escaping () -> Void) {
    let at = now + delay.nanoseconds
    agenda.insert((at, what), at: agenda.firstIndex { $0.at > at } ?? agenda.endIndex)
  }

  func report(_ found: [String]) {
    for violation in found where violations.count < 20 { violations.append("at \(now / 1_000_000) ms: \(violation)") }
  }

  // MARK: Time

  /// How many records of each partition are there by now.
  var available: Int { min(options.records, Int(now / options.recordEvery.nanoseconds)) }

  /// One turn: what arrives until then, what is due, then every role's own work.
  func step() {
    now += Self.turn
    while let first = agenda.first, first.at <= now {
      agenda.removeFirst()
      first.what()
    }
    while let flight = network.next(upTo: now) { deliver(flight) }
    for shard in shards { reply(shard.work(now: now)) }
    for running in trainers where !running.process.isFrozen {
      let owners = shards[0].owners
      send(running.process.work(now: now, available: available, owners: owners, safe: &safe), running)
      settle(running.process)
    }
    perform(sync.tick(now: now))
    for case let running? in replicas {
      if let message = running.process.tick(now: now) { network.send(message, on: running.links[0], now: now) }
    }
    collect()
  }

  private func deliver(_ flight: Flight) {
    let link = flight.link
    if flight.isToServer {
      let peer = link.peer(flight.connection & 0xFFFFF)
      switch link.server {
      case .shard(let index): reply(shards[index].receive(flight.message, from: peer, now: flight.at))
      default: perform(sync.receive(flight.message, from: peer, now: flight.at))
      }
      return
    }
    switch (link.client, link.server) {
    case (.sync, .shard(let shard)): perform(sync.receive(flight.message, fromShard: shard, now: flight.at))
    case (.trainer(let number), .shard(let shard)):
      guard let running = trainers.first(where: { $0.process.number == number }), !link.isFrozen else { return }
      running.process.receive(flight.message, from: shard, now: flight.at)
      settle(running.process)
    case (.replica, _):
      guard let running = replicas.compactMap({ $0 }).first(where: { $0.links[0] === link }) else { return }
      if let answer = running.process.receive(flight.message, now: flight.at) {
        network.send(answer, on: link, now: flight.at)
      }
    default: break
    }
  }

  private func reply(_ sends: [(PeerID, Blob)]) {
    for (peer, message) in sends { network.reply(message, to: peer, now: now) }
  }

  private func send(_ messages: [(shard: Int, message: Blob)], _ running: Running<SimulatedTrainer>) {
    for (shard, message) in messages { network.send(message, on: running.links[shard], now: now) }
  }

  private func perform(_ sends: SimulatedSync.Sends) {
    for (shard, message) in sends.toShards { network.send(message, on: syncLinks[shard], now: now) }
    for (peer, message) in sends.toPeers { network.reply(message, to: peer, now: now) }
  }

  /// Looks at what has become of a trainer: ready, or stopped.
  private func settle(_ trainer: SimulatedTrainer) {
    if trainer.isReady, !trainer.isKnown {
      trainer.isKnown = true
      for number in trainer.partitions {
        let chain = Workload.chain(number)
        for (shard, position) in trainer.client.claimedPositions(of: chain).enumerated() {
          shards[shard].promise(position, of: chain)
          shards[shard].owners[chain] = max(shards[shard].owners[chain] ?? .none, trainer.client.ownership)
        }
      }
    }
    guard let failure = trainer.client.failure else { return }
    stoppedOwners += 1
    switch failure {
    case .fenced: fencedOwners += 1
    case .identityChanged where expectsIdentityChange: break
    default: report(["trainer \(trainer.number) stopped: \(failure)"])
    }
    stopTrainer(trainer.number)
    // A supervisor starts a place anew when nobody fills it.
    let place = trainer.place
    later(.milliseconds(30)) { [unowned self] in
      if !trainers.contains(where: { $0.process.place == place }) { startTrainer(place) }
    }
  }

  private func collect() {
    for shard in shards where !shard.violations.isEmpty {
      report(shard.violations)
      shard.violations = []
    }
    for running in trainers where !running.process.violations.isEmpty {
      report(running.process.violations)
      running.process.violations = []
    }
    for case let running? in replicas where !running.process.target.violations.isEmpty {
      report(running.process.target.violations)
      running.process.target.violations = []
    }
    report(sync.violations)
    sync.violations = []
  }
}
