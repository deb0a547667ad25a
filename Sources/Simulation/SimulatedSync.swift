// Sync in the simulation: the real core over a store in memory that survives its crashes, and replicas that keep what the
// real follower hands them in dictionaries.

internal import Base
internal import Embeddings
internal import Sharding
internal import Syncing
internal import Wire

/// What sync has on disk.
struct StoredVersions {
  var store: UInt64 = 0
  var versions: [UInt64: Blob] = [:]
  var parts: [UInt64: [Int: Blob]] = [:]
  var whole: [UInt64: Int] = [:]

  /// What `VersionStore.load` finds.
  func load() -> StoredState? {
    guard let (base, count) = whole.max(by: { $0.key < $1.key }), let newest = versions.keys.max(), newest > base,
      (base + 1...newest).allSatisfy({ versions[$0] != nil }), let blob = versions[newest],
      let content = try? VersionContent(decoding: ByteReader(blob))
    else { return nil }
    return StoredState(store: store, newest: content, base: (base, count))
  }
}

/// The sync role of the simulated cluster.
final class SimulatedSync {
  private let options: SyncOptions
  private(set) var core: SyncCore
  private(set) var stored = StoredVersions()
  private(set) var isUp = true
  private var storeRandom: SeededRandom
  private var crashRandom: SeededRandom
  /// Dies before it has done all of its next actions.
  private var isDying = false
  private(set) var published = 0
  private(set) var stores = 0
  var violations: [String] = []

  init(_ options: SyncOptions, seed: UInt64) {
    self.options = options
    storeRandom = SeededRandom(seed: Hashing.mix(seed ^ 0x7379_6e63))
    crashRandom = SeededRandom(seed: Hashing.mix(seed ^ 0x6372_6173))
    core = Self.makeCore(options, nil, &storeRandom)
  }

  private static func makeCore(_ options: SyncOptions, _ stored: StoredState?, _ random: inout SeededRandom) -> SyncCore
  {
    // The closure cannot borrow the generator: it draws from one of its own.
    let first = random.next()
    var count: UInt64 = 0
    return SyncCore(options, stored: stored) {
      count += 1
      return Hashing.mix(first &+ count) | 1
    }
  }

  var heading: (store: UInt64, newest: UInt64) { core.heading }

  /// The process dies in the middle of whatever it does next.
  func crash() { isDying = true }

  func restart(losesStore: Bool) {
    if losesStore { stored = StoredVersions() }
    isUp = true
    isDying = false
    core = Self.makeCore(options, stored.load(), &storeRandom)
  }

  func publish() { core.publish(dense: true) }

  func receive(_ message: Blob, fromShard shard: Int, now: Int64) -> Sends {
    guard isUp else { return Sends() }
    var actions: [SyncAction] = []
    core.receive(message, fromShard: shard, now: now, into: &actions)
    return perform(actions, now: now)
  }

  func receive(_ message: Blob, from peer: PeerID, now: Int64) -> Sends {
    guard isUp else { return Sends() }
    var actions: [SyncAction] = []
    core.receive(message, from: peer, now: now, into: &actions)
    return perform(actions, now: now)
  }

  func tick(now: Int64) -> Sends {
    guard isUp else { return Sends() }
    var actions: [SyncAction] = []
    core.tick(now: now, wall: now / 1_000_000, into: &actions)
    return perform(actions, now: now)
  }

  struct Sends {
    var toShards: [(Int, Blob)] = []
    var toPeers: [(PeerID, Blob)] = []
  }

  private func perform(_ actions: [SyncAction], now: Int64) -> Sends {
    var sends = Sends()
    var kept = actions.count
    if isDying, !actions.isEmpty {
      kept = Int.random(in: 0..<actions.count, using: &crashRandom)
      isUp = false
    }
    var actions = Array(actions.prefix(kept))
    // What is missing adds to the list.
    var index = 0
    while index < actions.count {
      defer { index += 1 }
      switch actions[index] {
      case .sendShard(let shard, let message): sends.toShards.append((shard, message))
      case .send(let peer, let message): sends.toPeers.append((peer, message))
      case .beginStore(let number):
        stored = StoredVersions()
        stored.store = number
        stores += 1
      case .storeVersion(let number, let blob): store(number, blob)
      case .storeBasePart(let base, let part, let blob):
        if part == 0 {
          stored.parts[base] = [:]
          stored.whole[base] = nil
        }
        stored.parts[base, default: [:]][part] = blob
      case .finishBase(let base, let parts):
        if stored.parts[base]?.count != parts { violations.append("base \(base) was finished without all parts") }
        stored.whole = [base: parts]
        stored.parts = stored.parts.filter { $0.key >= base }
        stored.versions = stored.versions.filter { $0.key > base }
      case .sendVersion(let peer, let number):
        if let blob = stored.versions[number] {
          send(blob, number, to: peer, &sends)
        } else {
          core.missing(version: number, now: now, into: &actions)
        }
      case .sendBasePart(let peer, let base, let part):
        if let blob = stored.parts[base]?[part] {
          send(blob, base, to: peer, &sends)
        } else {
          core.missing(base: base, now: now, into: &actions)
        }
      case .readState: core.read(nil, now: now, into: &actions)
      case .describe: break
      }
    }
    return sends
  }

  private func store(_ number: UInt64, _ blob: Blob) {
    if let newest = stored.versions.keys.max(), number != newest + 1 {
      violations.append("version \(number) was stored after version \(newest)")
    }
    guard let content = try? VersionContent(decoding: ByteReader(blob)), content.number == number else {
      violations.append("version \(number) was stored with bytes that do not read as that version")
      return
    }
    stored.versions[number] = blob
    published += 1
  }

  private func send(_ content: Blob, _ number: UInt64, to peer: PeerID, _ sends: inout Sends) {
    let message = VersionMessage(
      store: heading.store, number: number, newest: heading.newest, content: ByteReader(content))
    sends.toPeers.append((peer, message.encoded(request: 0)))
  }
}

/// A replica's process.
final class SimulatedReplica {
  /// What a replica serves, and the base it is taking.
  final class Target: VersionTarget {
    typealias Rows = [String: [UInt64: [Float]]]
    private(set) var rows: Rows = [:]
    private(set) var tensors: [String: [Float]] = [:]
    private var base: (rows: Rows, tensors: [String: [Float]])?
    /// The newest version that was out when the message at hand was sent, and when the base's first part was.
    var newestNow: UInt64 = 0
    private var newestAtBase: UInt64 = 0
    private(set) var number: UInt64 = 0
    private(set) var bases = 0
    var violations: [String] = []

    func abandonBase() { base = nil }

    func beginBase() {
      base = ([:], [:])
      newestAtBase = newestNow
    }

    func commitBase(_ version: VersionContent) {
      guard let base else {
        violations.append("a base was committed that had not begun")
        return
      }
      if version.number < newestAtBase {
        violations.append("a base is served at version \(version.number), \(newestAtBase) was out when it was sent")
      }
      (rows, tensors, number) = (base.rows, base.tensors, version.number)
      self.base = nil
      bases += 1
    }

    func apply(_ change: TableChange, of version: VersionContent) {
      if base != nil { Self.apply(change, to: &base!.rows) } else { Self.apply(change, to: &rows) }
    }

    private static func apply(_ change: TableChange, to rows: inout Rows) {
      var table = rows[change.table] ?? [:]
      rows[change.table] = nil
      for id in change.tombstones { table[id] = nil }
      let weights = change.weights.array
      for (place, id) in change.ids.enumerated() {
        table[id] = Array(weights[place * change.weightCount..<(place + 1) * change.weightCount])
      }
      rows[change.table] = table
    }

    func setDense(_ changes: [TensorChange]) {
      for change in changes {
        if base != nil { base!.tensors[change.name] = change.values } else { tensors[change.name] = change.values }
      }
    }

    func publish(_ version: VersionContent) {
      if version.number != number + 1 || base != nil {
        violations.append("version \(version.number) was published after version \(number)")
      }
      number = version.number
    }
  }

  let index: Int
  let target: Target
  private(set) var follower: ReplicaFollower

  init(index: Int, incarnation: UInt64) {
    self.index = index
    target = Target()
    follower = ReplicaFollower(replica: index, incarnation: incarnation, target: target)
  }

  func receive(_ message: Blob, now: Int64) -> Blob? {
    var reader = ByteReader(message)
    if let header = try? MessageHeader(decoding: &reader), header.opcode == .version,
      let version = try? VersionMessage(decoding: &reader)
    {
      target.newestNow = version.newest
    }
    let answer = follower.receive(message, now: now)
    if let refusal = follower.refusal { target.violations.append("a replica could not apply a version: \(refusal)") }
    return answer
  }

  func tick(now: Int64) -> Blob? { follower.tick(now: now) }
}
