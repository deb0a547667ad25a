// What a new version brings: whether it is used at all, and of which users it tells something new.

internal import Base
internal import Serving
internal import Synchronization

extension Soap {
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
  func isOpen() -> Bool {
    guard let newest = predictor.store.version?.number else { return false }
    // One thread compares at a time: while it does, others keep users of the accepted version only.
    return isKnown(newest) ?? opening.withLock { _ in isKnown(newest) ?? admit(newest) }
  }

  /// Whether a version is used; nil when it has not been compared.
  private func isKnown(_ version: UInt64) -> Bool? {
    state.withLock { state in
      if state.gate.acceptedVersion == version { return true }
      return state.gate.heldVersion == version ? false : nil
    }
  }

  private func admit(_ newest: UInt64) -> Bool {
    let inputs = state.withLock { $0.probe.requests.map(\.features) }
    guard let vectors = inputs.isEmpty ? [] : embed(inputs)?.values else { return false }
    return state.withLock { state in
      guard state.gate.admit(version: newest, vectors: vectors) else { return false }
      // Those that were kept meanwhile have no vector of this version; their users are not kept again.
      state.probe.requests.removeLast(state.probe.requests.count - inputs.count)
      version.store(newest, ordering: .relaxed)
      return true
    }
  }

  // MARK: Users whose row a version changed

  /// Queues the users who came lately and whose row is newer than the version at the last call, with their last inputs.
  ///
  /// What the model learned of a user's last visit is then in their entry before they come again. The entry is later than
  /// the user's others, and no earlier than the newest example in the version. Belongs to the compute centre's thread.
  func queueChanged() {
    guard isRemembering, let newest = predictor.store.version else { return }
    let last = comparedVersion.exchange(newest.number, ordering: .relaxed)
    // Before the first version nobody was worked out, and whoever asked waits.
    guard last != 0, last != newest.number else { return }
    // The numbers of another store begin anew: all of its rows are new here.
    let since = newest.number > last ? last : 0
    let oldest = options.pooling.timeToLive.map { now.earlier(by: $0.milliseconds) } ?? .min
    let users = recent.withLock { $0.users(since: oldest) }
    // Readers wait for the locks of the queues: they are held for some users at a time.
    for start in stride(from: 0, to: users.count, by: 512) {
      let some = Array(users[start..<min(users.count, start + 512)])
      guard let isChanged = withEmbedder({ $0.isChanged(some, of: options.userFeature, since: since) }) else { return }
      queue(zip(some, isChanged).filter(\.1).map(\.0), of: newest)
    }
  }

  private func queue(_ users: [UInt64], of version: VersionInfo) {
    guard !users.isEmpty else { return }
    let stored = (try? store.entries(of: users, asOf: nil)) ?? users.map { _ in [] }
    let isWaiting = queue.withLock { queue in users.map { queue.isPending($0) } }
    // Whoever is forgotten meanwhile leaves the inputs first and the queues then.
    let count = recent.withLock { recent in
      changed.withLock { changed in
        var count: UInt64 = 0
        for (place, user) in users.enumerated() where !isWaiting[place] {
          guard var request = recent[user] else { continue }
          let newest = stored[place].first?.eventTime ?? request.eventTime
          request.eventTime = max(request.eventTime, version.newestEventTime, newest.later(by: 1))
          changed.offer(request)
          count += 1
        }
        return count
      }
    }
    state.withLock { $0.changed += count }
  }

  /// Remembers inputs for versions to come, but for users who are being forgotten.
  func remember(_ requests: [ComputeRequest]) {
    let now = now
    recent.withLock { recent in
      let isBarred = erasures.withLock { erasures in requests.map { erasures.isBarred($0.user) } }
      for (request, isBarred) in zip(requests, isBarred) where !isBarred { recent.keep(request, at: now) }
    }
  }
}
