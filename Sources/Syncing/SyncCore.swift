// Sync without its sockets and files: blocks in, versions out. It reads every shard's blocks as they are synced, merges
// them, publishes what changed as a numbered version, and brings each replica forward one version at a time. How blocks
// are merged is in SyncCore+Blocks.swift, what a version holds in SyncCore+Publishing.swift and SyncCore+Budget.swift, how
// bases are made in SyncCore+Base.swift, how replicas are served in SyncCore+Replicas.swift and returned to an earlier
// version in SyncCore+Pins.swift.
//
// Invariant: a version is stored before it is sent, and a block counts as taken only when the version that holds it is
// stored; so after a crash sync reads on from the newest stored version and loses nothing.

public import Base
internal import Embeddings
internal import Sharding
public import Wire

/// What the shell must do, in order.
public enum SyncAction: Sendable {
  /// Send a message to a shard.
  case sendShard(Int, Blob)
  /// Send a message to a replica or a control client.
  case send(PeerID, Blob)
  /// Forget all stored versions: a new store begins.
  case beginStore(UInt64)
  /// Store a version durably.
  case storeVersion(UInt64, Blob)
  /// Store a part of a base.
  case storeBasePart(base: UInt64, part: Int, Blob)
  /// The base is whole: make it durable, and drop what is older than the set time.
  case finishBase(base: UInt64, parts: Int)
  /// Send a stored version.
  case sendVersion(PeerID, UInt64)
  /// Send a stored part of a base.
  case sendBasePart(PeerID, base: UInt64, part: Int)
  /// Read the state of an earlier version, as far as it differs from the newest, and hand it to `SyncCore.read`.
  case readState(of: UInt64)
  /// Answer with what is known of a stored version; of all for 0.
  case describe(PeerID, request: UInt64, version: UInt64)
}

/// What a restarted sync finds on disk.
public struct StoredState: Sendable {
  /// The store's random number.
  public var store: UInt64
  /// The newest version, its shards' epochs and identities.
  public var newest: VersionContent
  /// The newest whole base and how many parts it has.
  public var base: (number: UInt64, parts: Int)
  /// Per shard the last epoch the base may have read from; empty when that is not known.
  public var baseEpochs: [UInt64]

  /// A state from its parts.
  public init(
    store: UInt64, newest: VersionContent, base: (number: UInt64, parts: Int), baseEpochs: [UInt64] = []
  ) {
    self.store = store
    self.newest = newest
    self.base = base
    self.baseEpochs = baseEpochs
  }
}

/// The state of sync.
public struct SyncCore {
  struct Shard {
    var welcome: Welcome?
    var identity: UInt64 = 0
    /// The last epoch merged whole.
    var cursor: UInt64 = 0
    /// The last epoch of which everything is in a version.
    var shipped: UInt64 = 0
    /// Blocks after that one, merged whole.
    var merged: [MergedBlock] = []
    /// The last epoch that need not be read again after a restart.
    var persisted: UInt64 = 0
    var partial: [BlockRecord.Parsed] = []
    /// The epoch of the block that `partial` is the beginning of.
    var partialEpoch: UInt64 = 0
    /// The first request sent since `cursor` moved.
    var cursorRequest: UInt64 = 0
    var askedAt: Int64 = longAgo
    var isWaiting = false
    var durableEpoch: UInt64 = 0
    var chains: [ChainKey: ChainState] = [:]
    /// Sync came back: the dense tensors that blocks brought before are not on its disk and must be read anew.
    var needsTensors = false
    var tensorRequest: UInt64 = 0
    var tensorsAskedAt: Int64 = longAgo
  }

  struct ReplicaState {
    var index: Int
    var store: UInt64 = 0
    var version: UInt64 = 0
    var served: UInt64 = 0
    var part: UInt32 = 0
    var lastSeen: Int64 = longAgo
    var sent: (version: UInt64, part: UInt32, at: Int64)?
  }

  struct AwaitedVersion {
    var number: UInt64
    var arrivals: [ArrivalCount]
  }

  let options: SyncOptions
  var shards: [Shard]
  var tables: [String: MergedTable] = [:]
  var tensors: [String: [Float]] = [:]
  var changedTensors: Set<String> = []
  var arrivalQueue = WaitingArrivals()
  var readyArrivals: [ArrivalCount] = []
  var newestEventTime: Milliseconds = .min
  /// By consumer, what the newest version says of its training.
  var progress: [UInt64: ConsumerProgress] = [:]
  /// When a chain was last seen to have moved, monotonic clock.
  var chainMovedAt: [ChainKey: Int64] = [:]
  var hasProgress = false

  var totals = VersionContent.Totals()
  var store: UInt64 = 0
  var newest: UInt64 = 1
  var base: (number: UInt64, parts: Int)?
  /// Per shard the last epoch that the base may have read from.
  var baseEpochs: [UInt64] = []
  /// Versions before this one are not sent any more.
  var oldestKept: UInt64 = 0
  var pin: Pin?
  /// What the newest stored version says replicas are pinned to; 0 for none.
  var storedPin: UInt64 = 0
  var order: ReturnOrder?
  var isReadingState = false
  /// With a byte budget: what replicas have.
  var shipped: [String: ShippedRows] = [:]
  var bytesSinceBase = 0
  var versionsSinceBase = 0
  var baseBytes = 0
  var building: BaseBuilder?
  var lastPublish: Int64 = longAgo
  var nextSparse: Int64 = 0
  var nextDense: Int64 = 0
  var wantsPublish = false
  var wantsDense = false

  var replicas: [PeerID: ReplicaState] = [:]
  /// By replica index: the newest version it has acknowledged.
  var acknowledged: [Int: UInt64] = [:]
  var awaited: [AwaitedVersion] = []
  var nextRequest: UInt64 = 1
  /// The first request sent for the present store.
  var storeRequest: UInt64 = 0
  /// Wall-clock time of the last tick.
  var wall: Milliseconds = 0
  /// `exampleCount` of the stored state; counts are known only when every shard has closed an epoch again.
  var knownExamples: UInt64 = 0
  let randomStore: () -> UInt64

  /// Arrival → servable on every replica, in milliseconds.
  public internal(set) var freshness = Histogram()
  /// Counts since the process started.
  public internal(set) var counters: [String: UInt64] = [:]
  /// Who was not let in, as the shell's socket tells; shown in status.
  public var linkRefusals = LinkRefusals()

  /// A sync that begins anew, or goes on from what is stored.
  public init(_ options: SyncOptions, stored: StoredState?, randomStore: @escaping () -> UInt64) {
    self.options = options
    self.randomStore = randomStore
    shards = Array(repeating: Shard(), count: options.shardCount)
    if let stored, stored.newest.epochs.count == options.shardCount {
      store = stored.store
      newest = stored.newest.number
      base = stored.base
      baseEpochs = stored.baseEpochs
      storedPin = stored.newest.pinned
      if storedPin > 0 {
        pin = Pin(
          version: stored.newest.pinned, from: 0, isComplete: false, newestEventTime: stored.newest.newestEventTime,
          exampleCount: stored.newest.exampleCount, progress: stored.newest.progress)
      }
      newestEventTime = stored.newest.newestEventTime
      totals = stored.newest.totals
      knownExamples = stored.newest.exampleCount
      progress = Dictionary(stored.newest.progress.map { ($0.consumer, $0) }) { _, last in last }
      for shard in shards.indices {
        shards[shard].needsTensors = true
        shards[shard].cursor = stored.newest.epochs[shard]
        shards[shard].shipped = stored.newest.epochs[shard]
        shards[shard].persisted = stored.newest.epochs[shard]
        shards[shard].identity = stored.newest.identities[shard]
      }
    }
  }

  mutating func count(_ counter: String, _ by: Int = 1) { counters[counter, default: 0] += UInt64(by) }

  mutating func request() -> UInt64 {
    defer { nextRequest += 1 }
    return nextRequest
  }

  // MARK: Time

  /// Does what time asks for: asks shards, publishes, sends again.
  public mutating func tick(now: Int64, wall: Milliseconds, into actions: inout [SyncAction]) {
    self.wall = wall
    for shard in shards.indices { ask(shard, now: now, into: &actions) }
    guard shards.allSatisfy({ $0.welcome != nil }) else { return }
    if store == 0 { beginStore(now: now, into: &actions) }
    for shard in shards.indices { askForTensors(shard, now: now, into: &actions) }
    stepBase(now: now, into: &actions)
    if base != nil || building != nil { publishIfDue(now: now, into: &actions) }
    stepOrder(now: now, into: &actions)
    if building == nil, pin == nil, order == nil, isBaseDue { beginBase(now: now, into: &actions) }
    bringAllForward(now: now, into: &actions)
    replicas = replicas.filter { now - $0.value.lastSeen < 30_000_000_000 }
  }

  private var isBaseDue: Bool {
    base == nil || bytesSinceBase > max(options.rebaseBytes, 2 * baseBytes) || versionsSinceBase > Self.rebaseVersions
  }

  /// A new replica takes the base and every version since: with more than this many a new base is made.
  static let rebaseVersions = 10_000

  private mutating func ask(_ shard: Int, now: Int64, into actions: inout [SyncAction]) {
    let state = shards[shard]
    // Which blocks are wanted is known when all shards have told where they stand.
    guard state.welcome == nil || store != 0 else { return }
    guard !state.isWaiting || now - state.askedAt > options.retryAfter.nanoseconds else { return }
    shards[shard].isWaiting = true
    shards[shard].askedAt = now
    guard state.welcome != nil else {
      actions.append(.sendShard(shard, Hello(role: .sync).encoded(request: request())))
      return
    }
    let question = BlocksRequest(
      afterEpoch: state.cursor, skipRecords: UInt32(state.partial.count),
      waitMilliseconds: UInt32(options.retryAfter.milliseconds / 2), persistedEpoch: state.persisted)
    actions.append(.sendShard(shard, question.encoded(request: request())))
  }

  /// Reads a shard's dense tensors after a restart of sync, so that the next dense version holds them.
  private mutating func askForTensors(_ shard: Int, now: Int64, into actions: inout [SyncAction]) {
    guard shards[shard].needsTensors, now - shards[shard].tensorsAskedAt > options.retryAfter.nanoseconds else {
      return
    }
    shards[shard].tensorsAskedAt = now
    shards[shard].tensorRequest = request()
    actions.append(.sendShard(shard, densePull(of: shard, request: shards[shard].tensorRequest)))
  }

  func densePull(of shard: Int, request: UInt64) -> Blob {
    PullRequest.encoded(
      request: request, mapNumber: shards[shard].welcome?.mapNumber ?? 0, eventTime: .min, wantsDense: true,
      sections: [])
  }

  /// Begins a store of versions: everything replicas had is replaced by a base.
  mutating func beginStore(now: Int64, into actions: inout [SyncAction]) {
    store = randomStore()
    storeRequest = nextRequest
    newest = 1
    base = nil
    baseEpochs = []
    oldestKept = 0
    pin = nil
    storedPin = 0
    shipped = [:]
    building = nil
    tables = [:]
    // What was merged so far belongs to the old store; a dense version must not bring it back over the base's tensors.
    tensors = [:]
    changedTensors = []
    awaited = []
    acknowledged = [:]
    knownExamples = 0
    progress = [:]
    chainMovedAt = [:]
    // A version follows the base soon: it says where a restarted sync goes on.
    hasProgress = true
    arrivalQueue = WaitingArrivals()
    readyArrivals = []
    bytesSinceBase = 0
    for shard in shards.indices {
      guard let welcome = shards[shard].welcome else { continue }
      shards[shard].identity = welcome.identityLow
      shards[shard].cursor = welcome.durableEpoch
      shards[shard].shipped = welcome.durableEpoch
      shards[shard].merged = []
      shards[shard].persisted = welcome.durableEpoch
      shards[shard].partial = []
      shards[shard].isWaiting = false
      shards[shard].chains = [:]
      shards[shard].needsTensors = false
    }
    actions.append(.beginStore(store))
    beginBase(now: now, into: &actions)
    count("stores")
  }

  // MARK: Shards

  /// Takes a message of a shard.
  public mutating func receive(_ message: Blob, fromShard shard: Int, now: Int64, into actions: inout [SyncAction]) {
    var reader = ByteReader(message)
    do {
      let header = try MessageHeader(decoding: &reader)
      switch (header.opcode, header.kind) {
      case (.hello, .reply):
        let welcome = try Welcome(decoding: &reader)
        guard welcome.shard == shard, welcome.shardCount == shards.count else {
          // Asked again after `retryAfter`; status shows that sync waits for this shard.
          count("wrongShards")
          return
        }
        shards[shard].isWaiting = false
        shards[shard].welcome = welcome
        shards[shard].durableEpoch = welcome.durableEpoch
      case (.blocksSince, .reply):
        try merge(BlocksReply(decoding: &reader), request: header.request, of: shard, now: now, into: &actions)
      case (.blocksSince, .error):
        // What was missed is no longer kept: begin anew from where the shard is. Anything else is asked again later, and
        // what was said of another place than the present one is no news.
        let isNews = store != 0 && header.request >= max(storeRequest, shards[shard].cursorRequest)
        if try ErrorReply(decoding: &reader).code == .gone, isNews { restart() }
      case (.scan, .reply):
        try scanned(ScanReply(decoding: &reader), request: header.request, now: now, into: &actions)
      case (.pull, .reply):
        let reply = try PullReply(decoding: &reader)
        readTensors(reply, request: header.request, of: shard)
        try pulledDense(reply, request: header.request, of: shard, now: now, into: &actions)
      default: break
      }
    } catch {
      // Asked again after `retryAfter`, not at once: the answer may be the same.
      count("malformed")
      shards[shard].partial = []
    }
  }

  private mutating func readTensors(_ reply: PullReply, request: UInt64, of shard: Int) {
    guard shards[shard].needsTensors, shards[shard].tensorRequest == request, let welcome = shards[shard].welcome,
      reply.incarnation == welcome.incarnation
    else { return }
    shards[shard].needsTensors = false
    for tensor in reply.tensors where welcome.tensors.indices.contains(tensor.tensor) {
      tensors[welcome.tensors[tensor.tensor].name] = tensor.values.array
      changedTensors.insert(welcome.tensors[tensor.tensor].name)
    }
  }

  /// Forgets what is known of all shards, so that a new store begins when they have answered.
  mutating func restart() {
    if pin != nil { count("lostPins") }
    store = 0
    pin = nil
    order = nil
    isReadingState = false
    building = nil
    for index in shards.indices {
      shards[index].welcome = nil
      shards[index].isWaiting = false
    }
    count("resets")
  }
}
