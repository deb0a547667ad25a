// The platform: a read path that answers from the store at once, and a compute centre that works embeddings out beside
// it. Readers are any threads; the compute centre is the thread that calls `run`. They meet in the store and in a queue
// behind a lock that is held for look-ups only. Who is forgotten is in Soap+Forgetting.swift, what a version brings in
// Soap+Versions.swift, and which versions are read by whom in Soap+Serving.swift.

public import Base
internal import Layers
public import Serving
public import Streams
internal import Synchronization

/// The platform of one process.
public final class Soap: Sendable {
  /// Counts since the process started.
  struct Counters: Sendable {
    var reads: [EmbeddingSource: UInt64] = [:]
    var withheld: UInt64 = 0
    var computed: UInt64 = 0
    /// Users queued because a version changed their row.
    var changed: UInt64 = 0
    var storeFailures: UInt64 = 0
    /// Why the store failed last; empty since it has done what it was asked.
    var storeProblem = ""
    /// Why what is served could not be written down last; empty since it was.
    var servingProblem = ""
    var gate: SnapshotGate
    /// Inputs by which versions are compared, as many as the gate has vectors of.
    var probe = Probe()
    /// Nanoseconds of a batch in the compute centre.
    var batches = Histogram()
  }

  /// The options in effect.
  public let options: SoapOptions
  /// What the configured model gives.
  public let shape: EmbeddingShape
  let predictor: Predictor
  let store: any FeatureStore
  private let userColumn: Int
  let queue: Mutex<ComputeQueue>
  /// Users whose row a version changed; they have their turn when nobody waits in `queue`.
  let changed: Mutex<ComputeQueue>
  let state: Mutex<Counters>
  /// What downstream models have seen; nil when versions are served at once.
  let seen: Mutex<SeenVersions?>
  let servedFile: ServedFile?
  /// By downstream model its place in `seen`; -1 for one that does not wait.
  let downstream: [String: Int]
  /// The version in use; 0 before the first.
  let version = Atomic<UInt64>(0)
  /// Held while a version is compared with the last.
  let opening = Mutex<Void>(())
  /// What users were last worked out from; empty unless `isRemembering`.
  let recent: Mutex<RecentInputs>
  /// Whether inputs are remembered for versions to come.
  let isRemembering: Bool
  /// The version up to which users' rows were looked at.
  let comparedVersion = Atomic<UInt64>(0)
  let erasures = Mutex(Erasures())
  let isBaseNew = Atomic<Bool>(false)
  private let embedders = Mutex<[UserEmbedder]>([])
  private let wake = Mailbox<Void>(bound: 1)
  private let isStopping = Atomic<Bool>(false)
  private let clock: @Sendable () -> Milliseconds

  /// A platform over a store and a replica's tables.
  /// - Parameters:
  ///   - servedFile: where what is served to downstream models is kept; nil for nowhere.
  ///   - clock: the wall clock.
  public init(
    _ options: SoapOptions, store: any FeatureStore, predictor: Predictor, servedFile: ServedFile? = nil,
    clock: @escaping @Sendable () -> Milliseconds = { Clocks.wall() }
  ) throws(SoapError) {
    guard let embedder = UserEmbedder(predictor, model: options.model) else {
      throw .noUserTower(model: options.model)
    }
    guard
      let column = predictor.schema.features.firstIndex(where: {
        if case .id = $0.kind { $0.name == options.userFeature } else { false }
      })
    else { throw .unknownUserFeature(options.userFeature) }
    self.options = options
    self.store = store
    self.predictor = predictor
    self.clock = clock
    userColumn = column
    shape = EmbeddingShape(count: embedder.embeddings, dimension: embedder.embeddingDimension)
    guard shape.width <= EmbeddingShape.widthLimit else { throw .tooWide(model: options.model, shape: shape) }
    queue = Mutex(ComputeQueue(limit: options.queueLimit))
    changed = Mutex(ComputeQueue(limit: options.queueLimit))
    isRemembering =
      options.recomputesOnVersion && options.mode == .async && embedder.hasTable(of: options.userFeature)
    recent = Mutex(RecentInputs(limit: options.queueLimit))
    state = Mutex(Counters(gate: SnapshotGate(width: shape.width, holdAbove: options.holdAbove)))
    self.servedFile = servedFile
    let seen = try Self.seenVersions(options, file: servedFile, now: clock())
    downstream = Dictionary(options.downstream.map { ($0, seen?.index(of: $0) ?? -1) }) { first, _ in first }
    store.keep(seen?.states ?? [])
    self.seen = Mutex(seen)
  }

  // MARK: The read path

  /// The vectors of some users, from what is stored.
  ///
  /// - Parameters:
  ///   - shape: what the asking model reads; nil for what the configured model gives.
  ///   - asOf: only entries made from events up to this event time.
  ///   - audience: the models that will read them.
  public func vectors(
    of users: [UInt64], shape: EmbeddingShape? = nil, asOf: Milliseconds? = nil, for audience: Audience = .anyone
  ) throws(FeatureStoreError) -> [UserVector] {
    try vectors(of: users, shape: shape, asOf: asOf, inputs: nil, audience)
  }

  /// - Parameter inputs: by user the event time of the newest inputs there are; nil when only the queue knows.
  private func vectors(
    of users: [UInt64], shape: EmbeddingShape?, asOf: Milliseconds?, inputs: [Milliseconds]?, _ audience: Audience
  ) throws(FeatureStoreError) -> [UserVector] {
    let entries = try store.entries(of: users, asOf: asOf)
    let newest = version.load(ordering: .relaxed)
    let pending = queue.withLock { queue in users.map { queue.isPending($0) } }
    let now = clock()
    let limits = limits(of: audience, users)
    let shape = shape ?? self.shape
    var vectors: [UserVector] = []
    vectors.reserveCapacity(users.count)
    for (index, all) in entries.enumerated() {
      let stored = limits?.readable(all, index) ?? all
      let isNewest = stored.first?.eventTime ?? .min >= inputs?[index] ?? .min
      let isCurrent =
        asOf == nil && !pending[index] && isNewest && stored.first?.version == newest && newest > 0
      var vector = options.pooling.vector(of: stored, isCurrent: isCurrent, shape: shape, now: now)
      if vector.source == .default, stored.count < all.count {
        vector.isWithheld = options.pooling.hasLiving(all, shape: shape, now: now)
      }
      vectors.append(vector)
    }
    if let limits, asOf == nil { count(vectors, for: audience, beyond: limits.served, inputs: inputs, now: now) }
    state.withLock { state in
      for vector in vectors {
        state.reads[vector.source, default: 0] += 1
        if vector.isWithheld { state.withheld += 1 }
      }
    }
    return vectors
  }

  /// The vectors of users whose features are at hand: answered from what is stored, and queued to be worked out.
  ///
  /// With `realtime` the embeddings are worked out first.
  public func vectors(
    for requests: [ComputeRequest], audience: Audience = .anyone
  ) throws(FeatureStoreError) -> [UserVector] {
    func answer() throws(FeatureStoreError) -> [UserVector] {
      try vectors(of: requests.map(\.user), shape: nil, asOf: nil, inputs: requests.map(\.eventTime), audience)
    }
    switch options.mode {
    case .realtime:
      if try !compute(requests) { offer(requests) }
      return try answer()
    case .async, .offline:
      let answer = try answer()
      offer(requests)
      return answer
    case .frozen:
      let answer = try answer()
      offer(zip(requests, answer).filter { $1.source == .default && !$1.isWithheld }.map(\.0))
      return answer
    }
  }

  /// Has users worked out when their turn comes, without an answer.
  public func offer(_ requests: [ComputeRequest]) {
    guard !requests.isEmpty else { return }
    if isRemembering { remember(requests) }
    queue.withLock { queue in for request in requests { queue.offer(request) } }
    _ = wake.offer(())
  }

  /// Has users worked out anew who acted, with their last known features and all that counts before `frontier`.
  ///
  /// Entries that are of a later event time already give way to these: what was known at that time has grown.
  public func recompute(_ acted: [(user: UInt64, features: FeatureBlock)], countedBefore frontier: Milliseconds) {
    guard !acted.isEmpty, options.mode != .frozen else { return }
    let stored = try? store.entries(of: acted.map(\.user), asOf: nil)
    offer(
      acted.enumerated().map { place, acted in
        ComputeRequest(
          user: acted.user, features: acted.features,
          eventTime: max(frontier, stored?[place].first?.eventTime ?? frontier))
      })
  }

  /// The user a feature block is of, when this process has that user; nil for a block without a user.
  public func user(of features: FeatureBlock) -> UInt64? {
    guard let values = try? features.values(of: predictor.schema), case .ids(let ids) = values[userColumn] else {
      return nil
    }
    return ids.first
  }

  /// Refuses an event time that no event could have: its entry would stay a user's newest until then.
  public func requirePast(_ eventTime: Milliseconds) throws(SoapError) {
    let now = clock()
    guard eventTime <= now.later(by: options.allowedSkew.milliseconds) else {
      throw .ahead(eventTime: eventTime, now: now, allowed: options.allowedSkew)
    }
  }

  /// The wall clock.
  var now: Milliseconds { clock() }

  /// Whether this process has a user.
  public func isOwn(_ user: UInt64) -> Bool {
    options.part.count <= 1 || UserPart.index(of: user, count: options.part.count) == options.part.index
  }

  /// Refuses users that another process has.
  public func requireOwn(_ users: [UInt64]) throws(SoapError) {
    for user in users where !isOwn(user) {
      throw .elsewhere(user: user, part: UserPart.index(of: user, count: options.part.count))
    }
  }

  // MARK: The compute centre

  /// Asks `run` to return.
  public func stop() {
    isStopping.store(true, ordering: .relaxed)
    wake.close()
  }

  /// Works the queue off until `stop`.
  ///
  /// Blocks the calling thread.
  public func run() {
    var refreshAt = Clocks.monotonic() + options.refreshEvery.nanoseconds
    var syncAt: Int64 = 0
    while !isStopping.load(ordering: .relaxed) {
      let now = Clocks.monotonic()
      if now >= syncAt {
        syncAt = now + 500_000_000
        attempt { () throws(FeatureStoreError) in try store.sync() }
        settle()
        if isBaseNew.exchange(false, ordering: .relaxed), !forgetUsersWithoutRows() {
          isBaseNew.store(true, ordering: .relaxed)
        }
      }
      if options.mode == .offline {
        guard now >= refreshAt else {
          _ = isOpen()  // so that status tells of the version that waits for the refresh
          _ = wake.waitAll(timeout: .milliseconds(50))
          continue
        }
        refreshAt = now + options.refreshEvery.nanoseconds
        while !isStopping.load(ordering: .relaxed), workOnce() {}
      } else if !workOnce(), !wake.waitAll(timeout: .milliseconds(20)).isEmpty {
        // Others come with the first one, and a batch costs little more than one user.
        wake.pause(.milliseconds(5))
      }
    }
    attempt { () throws(FeatureStoreError) in try store.sync() }
  }

  /// Works out one batch of the queue; false when there was nothing to do, or it could not be done now.
  @discardableResult
  public func workOnce() -> Bool {
    guard isOpen() else { return false }
    queueChanged()
    return work(off: queue) ?? work(off: changed) ?? false
  }

  /// Works out one batch; nil when nobody waits.
  private func work(off queue: borrowing Mutex<ComputeQueue>) -> Bool? {
    let batch = queue.withLock { $0.take(options.batchSize) }
    guard !batch.isEmpty else { return nil }
    var isDone = false
    let isHealthy = attempt { () throws(FeatureStoreError) in isDone = try compute(batch) }
    queue.withLock { queue in
      queue.finish(batch.map(\.user))
      if !isDone { for request in batch where !queue.isPending(request.user) { queue.offer(request) } }
    }
    return isDone && isHealthy
  }

  /// Works out users and stores them; false while there is no version to work with.
  private func compute(_ requests: [ComputeRequest]) throws(FeatureStoreError) -> Bool {
    let began = Clocks.monotonic()
    guard isOpen() else { return false }
    let (run, requests) = begin(requests)
    defer { finish(run) }
    guard !requests.isEmpty else { return true }
    guard let embeddings = embed(requests.map(\.features)) else { return false }
    guard embeddings.version.number == version.load(ordering: .relaxed) || isOpen() else { return false }
    if options.computeDelay > .zero { wake.pause(options.computeDelay) }
    let now = clock()
    let width = shape.width
    let hadRows = hasRows(requests.map(\.user))
    var writes: [EmbeddingWrite] = []
    writes.reserveCapacity(requests.count)
    for (index, request) in requests.enumerated() {
      writes.append(
        EmbeddingWrite(
          user: request.user,
          entry: EmbeddingEntry(
            version: embeddings.version.number, eventTime: request.eventTime, madeAt: now, shape: shape,
            values: Array(embeddings.values[index * width..<(index + 1) * width]), hadRow: hadRows?[index] ?? false)))
    }
    try store.write(writes)
    state.withLock { state in
      state.computed += UInt64(requests.count)
      state.batches.record((Clocks.monotonic() - began) / 1000)
      guard embeddings.version.number == state.gate.acceptedVersion else { return }
      for (index, request) in requests.enumerated() where state.probe.keep(request) {
        state.gate.extend(embeddings.values[index * width..<(index + 1) * width])
      }
    }
    return true
  }

  /// Lends a user tower to `body`.
  func withEmbedder<Result>(_ body: (UserEmbedder) -> Result?) -> Result? {
    let embedder = embedders.withLock { $0.popLast() } ?? UserEmbedder(predictor, model: options.model)
    guard let embedder else { return nil }
    defer { embedders.withLock { $0.append(embedder) } }
    return body(embedder)
  }

  /// By user whether the model has a row of theirs; nil when it has none of anybody's.
  func hasRows(_ users: [UInt64]) -> [Bool]? { withEmbedder { $0.hasRows(users, of: options.userFeature) } }

  /// Runs the user tower; nil while there is no base.
  func embed(_ blocks: [FeatureBlock]) -> UserEmbeddings? {
    var columns = FeatureColumns(schema: predictor.schema)
    for block in blocks {
      // Whoever takes requests in has checked them.
      guard (try? block.append(to: &columns, schema: predictor.schema)) != nil else { return nil }
    }
    return withEmbedder { $0.embed(columns) }
  }

  /// Runs what may fail in the store, and remembers why it did.
  @discardableResult
  func attempt(_ body: () throws(FeatureStoreError) -> Void) -> Bool {
    do throws(FeatureStoreError) {
      try body()
      state.withLock { $0.storeProblem = "" }
      return true
    } catch {
      state.withLock { state in
        state.storeFailures += 1
        state.storeProblem = "\(error)"
      }
      return false
    }
  }
}
