// What a new version brings: whether it is used at all, and of which users it tells something new.

internal import Base
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

  /// Queues the users who came lately and whose row is newer than the version at the last call, with their last inputs.
  ///
  /// What the model learned of a user's last visit is then in their entry before they come again. Its event time is that
  /// of the newest example in the version: it knows the user as of then. Belongs to the compute centre's thread.
  func queueChanged() {
    guard isRemembering, let newest = predictor.store.version else { return }
    let last = comparedVersion.exchange(newest.number, ordering: .relaxed)
    // Before the first version nobody was worked out, and whoever asked waits.
    guard last != 0, last != newest.number else { return }
    // The numbers of another store begin anew: all of its rows are new here.
    let since = newest.number > last ? last : 0
    let users = recent.withLock { $0.users }
    guard let isChanged = withEmbedder({ $0.isChanged(users, of: options.userFeature, since: since) }) else { return }
    let changed = recent.withLock { recent in zip(users, isChanged).compactMap { $1 ? recent[$0] : nil } }
    queue.withLock { queue in
      for var request in changed {
        request.eventTime = max(request.eventTime, newest.newestEventTime)
        queue.offer(request)
      }
    }
    state.withLock { $0.changed += UInt64(changed.count) }
  }

  /// Whether inputs are remembered for versions to come.
  var isRemembering: Bool { options.recomputesOnVersion && options.mode == .async }
}
