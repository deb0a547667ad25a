// The platform: a read path that answers from the store at once, and a compute centre that works embeddings out beside
// it. Readers are any threads; the compute centre is the thread that calls `run`. They meet in the store and in a queue
// behind a lock that is held for look-ups only.

public import Base
internal import Layers
public import Serving
public import Streams
internal import Synchronization

/// When embeddings are worked out.
public enum SoapMode: String, Sendable, CaseIterable, Codable {
  /// A request with features queues its user; the answer comes from the store at once.
  case async
  /// A request with features waits for its embedding.
  case realtime
  /// As async, but the queue is worked off at an interval.
  case offline
  /// A user's embedding is worked out once.
  case frozen
}

/// How a platform works.
public struct SoapOptions: Sendable {
  /// The upstream model.
  public var model: String
  /// The feature that names the user.
  public var userFeature: String
  /// When embeddings are worked out; default `async`.
  public var mode = SoapMode.async
  /// How stored entries become an answer.
  public var pooling = EmbeddingPooling()
  /// Users that may wait for the compute centre; default 100,000.
  public var queueLimit = 100_000
  /// Users worked out together; default 64.
  public var batchSize = 64
  /// How often `offline` works, monotonic clock; default a day.
  public var refreshEvery = Duration.seconds(86_400)
  /// Largest 1 − mean cosine to the last version with which a version is used; nil for any.
  public var holdAbove: Double?
  /// Which part of the users is this process's, and how many parts there are; default all of one.
  public var part = (index: 0, count: 1)
  /// What every batch takes longer, for experiments; default 0.
  public var computeDelay = Duration.zero

  /// Options with everything at its default.
  public init(model: String, userFeature: String) {
    self.model = model
    self.userFeature = userFeature
  }
}

/// Which process has a user.
public enum UserPart {
  /// The part of a user among `count`.
  public static func index(of user: UInt64, count: Int) -> Int {
    Int(truncatingIfNeeded: Hashing.mix(user) >> 32) % max(1, count)
  }
}

/// Why a platform cannot be made, or a request not be answered.
public enum SoapError: Error, Equatable, Sendable, CustomStringConvertible {
  /// There is no model of this name with a user tower.
  case noUserTower(model: String)
  /// The feature is not one of the events' id features.
  case unknownUserFeature(String)
  /// Another process has the user.
  case elsewhere(user: UInt64, part: Int)

  /// What is wrong.
  public var description: String {
    switch self {
    case .noUserTower(let model): "model '\(model)' has no user tower; name a model of kind sum"
    case .unknownUserFeature(let name): "feature '\(name)' is not an id feature of the events"
    case .elsewhere(let user, let part): "user \(user) is kept by soap \(part); ask there"
    }
  }
}

/// The platform of one process.
public final class Soap: Sendable {
  /// Counts since the process started.
  struct Counters: Sendable {
    var reads: [EmbeddingSource: UInt64] = [:]
    var computed: UInt64 = 0
    var storeFailures: UInt64 = 0
    var problem = ""
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
  private let queue: Mutex<ComputeQueue>
  private let state: Mutex<Counters>
  private let version = Atomic<UInt64>(0)
  private let embedders = Mutex<[UserEmbedder]>([])
  private let wake = Mailbox<Void>(bound: 1)
  private let isStopping = Atomic<Bool>(false)
  private let clock: @Sendable () -> Milliseconds

  /// A platform over a store and a replica's tables.
  /// - Parameter clock: the wall clock.
  public init(
    _ options: SoapOptions, store: any FeatureStore, predictor: Predictor,
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
    queue = Mutex(ComputeQueue(limit: options.queueLimit))
    state = Mutex(Counters(gate: SnapshotGate(width: shape.width, holdAbove: options.holdAbove)))
  }

  // MARK: The read path

  /// The vectors of some users, from what is stored.
  ///
  /// - Parameters:
  ///   - shape: what the asking model reads; nil for what the configured model gives.
  ///   - asOf: only entries made from events up to this event time.
  public func vectors(
    of users: [UInt64], shape: EmbeddingShape? = nil, asOf: Milliseconds? = nil
  ) throws(FeatureStoreError) -> [UserVector] {
    let entries = try store.entries(of: users, asOf: asOf)
    let newest = version.load(ordering: .relaxed)
    let pending = queue.withLock { queue in users.map { queue.isPending($0) } }
    let now = clock()
    var vectors: [UserVector] = []
    vectors.reserveCapacity(users.count)
    for (index, stored) in entries.enumerated() {
      let isCurrent = asOf == nil && !pending[index] && stored.first?.version == newest && newest > 0
      vectors.append(
        options.pooling.vector(of: stored, isCurrent: isCurrent, shape: shape ?? self.shape, now: now))
    }
    state.withLock { state in
      for vector in vectors { state.reads[vector.source, default: 0] += 1 }
    }
    return vectors
  }

  /// The vectors of users whose features are at hand: answered from what is stored, and queued to be worked out.
  ///
  /// With `realtime` the embeddings are worked out first.
  public func vectors(for requests: [ComputeRequest]) throws(FeatureStoreError) -> [UserVector] {
    let users = requests.map(\.user)
    switch options.mode {
    case .realtime:
      if try !compute(requests) { offer(requests) }
      return try vectors(of: users)
    case .async, .offline:
      let answer = try vectors(of: users)
      offer(requests)
      return answer
    case .frozen:
      let answer = try vectors(of: users)
      offer(zip(requests, answer).filter { $1.source == .default }.map(\.0))
      return answer
    }
  }

  /// Has users worked out when their turn comes, without an answer.
  public func offer(_ requests: [ComputeRequest]) {
    guard !requests.isEmpty else { return }
    queue.withLock { queue in for request in requests { queue.offer(request) } }
    _ = wake.offer(())
  }

  /// The user a feature block is of, when this process has that user; nil for a block without a user.
  public func user(of features: FeatureBlock) -> UInt64? {
    guard let values = try? features.values(of: predictor.schema), case .ids(let ids) = values[userColumn] else {
      return nil
    }
    return ids.first
  }

  /// Refuses users that another process has.
  public func requireOwn(_ users: [UInt64]) throws(SoapError) {
    guard options.part.count > 1 else { return }
    for user in users {
      let part = UserPart.index(of: user, count: options.part.count)
      guard part == options.part.index else { throw .elsewhere(user: user, part: part) }
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
    let batch = queue.withLock { $0.take(options.batchSize) }
    guard !batch.isEmpty else { return false }
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
    guard isOpen(), let embeddings = embed(requests.map(\.features)) else { return false }
    guard embeddings.version.number == version.load(ordering: .relaxed) || isOpen() else { return false }
    if options.computeDelay > .zero { wake.pause(options.computeDelay) }
    let now = clock()
    let width = shape.width
    var writes: [EmbeddingWrite] = []
    writes.reserveCapacity(requests.count)
    for (index, request) in requests.enumerated() {
      writes.append(
        EmbeddingWrite(
          user: request.user,
          entry: EmbeddingEntry(
            version: embeddings.version.number, eventTime: request.eventTime, madeAt: now, shape: shape,
            values: Array(embeddings.values[index * width..<(index + 1) * width]))))
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

  /// Runs the user tower; nil while there is no base.
  private func embed(_ blocks: [FeatureBlock]) -> UserEmbeddings? {
    let embedder = embedders.withLock { $0.popLast() } ?? UserEmbedder(predictor, model: options.model)
    guard let embedder else { return nil }
    defer { embedders.withLock { $0.append(embedder) } }
    var columns = FeatureColumns(schema: predictor.schema)
    for block in blocks {
      // Whoever takes requests in has checked them.
      guard (try? block.append(to: &columns, schema: predictor.schema)) != nil else { return nil }
    }
    return embedder.embed(columns)
  }

  // MARK: Versions

  /// The inputs of some users.
  struct Probe: Sendable {
    static let limit = 256
    var requests: [ComputeRequest] = []
    private var users: Set<UInt64> = []

    /// Whether a request was kept: one per user, until there are enough.
    mutating func keep(_ request: ComputeRequest) -> Bool {
      guard requests.count < Self.limit, users.insert(request.user).inserted else { return false }
      requests.append(request)
      return true
    }
  }

  /// Whether there is a version to work with; compares a new one with the last.
  private func isOpen() -> Bool {
    guard let newest = predictor.store.version?.number else { return false }
    let known = state.withLock { ($0.gate.acceptedVersion, $0.gate.heldVersion) }
    if known.0 == newest { return true }
    if known.1 == newest { return false }
    let inputs = state.withLock { $0.probe.requests.map(\.features) }
    guard let vectors = inputs.isEmpty ? [] : embed(inputs)?.values else { return false }
    return state.withLock { state in
      guard state.gate.acceptedVersion != newest else { return true }
      guard state.gate.admit(version: newest, vectors: vectors) else {
        state.problem = "version \(newest) moves users too far and is held back"
        return false
      }
      state.problem = ""
      // Those that were kept meanwhile have no vector of this version; their users are not kept again.
      state.probe.requests.removeLast(state.probe.requests.count - inputs.count)
      version.store(newest, ordering: .relaxed)
      return true
    }
  }

  /// Runs what may fail in the store, and remembers why it did.
  @discardableResult
  private func attempt(_ body: () throws(FeatureStoreError) -> Void) -> Bool {
    do throws(FeatureStoreError) {
      try body()
      return true
    } catch {
      state.withLock { state in
        state.storeFailures += 1
        state.problem = "\(error)"
      }
      return false
    }
  }

  // MARK: Status

  /// What the platform does.
  public var status: SoapStatus {
    let (count, counters) = queue.withLock { ($0.count, $0.counters) }
    let state = state.withLock { $0 }
    var status = SoapStatus()
    status.currentReads = state.reads[.current] ?? 0
    status.storedReads = state.reads[.stored] ?? 0
    status.defaultReads = state.reads[.default] ?? 0
    status.computed = state.computed
    status.queued = count
    status.replaced = counters.replaced
    status.dropped = counters.dropped
    status.storeFailures = state.storeFailures
    status.version = state.gate.acceptedVersion
    status.heldVersion = state.gate.heldVersion
    status.heldVersions = state.gate.heldCount
    status.shift = state.gate.shift
    status.batches = state.batches
    status.extent = store.extent
    status.problem = state.problem
    return status
  }
}
