// How users leave the platform: an operator forgets them, or a version says that their row is gone. A version does not say
// why; whoever may have been forgotten leaves, so one who expired is answered with the default until they come again.

internal import Synchronization

extension Soap {
  /// Removes users whose row is gone from the upstream model, and requests that wait for them; the store's failures are
  /// counted, and tried again.
  public func rowsGone(of users: [UInt64]) {
    forget(users, barredFor: 0)
    settle()
  }

  /// Removes users for good; when it returns, nobody reads what was learned of them.
  ///
  /// Nothing is worked out for them until two more versions have come: the rows here are those of before.
  public func forget(_ users: [UInt64]) throws(FeatureStoreError) {
    let own = users.filter(isOwn)
    forget(own, barredFor: 2)
    try store.remove(own)
  }

  private func forget(_ users: [UInt64], barredFor versions: Int) {
    let own = users.filter(isOwn)
    guard !own.isEmpty else { return }
    erasures.withLock { $0.forget(own, barredFor: versions) }
    recent.withLock { $0.remove(own) }
    changed.withLock { $0.remove(own) }
    queue.withLock { $0.remove(own) }
  }

  /// Says that a version is served.
  public func versionCame() { erasures.withLock { $0.versionCame() } }

  /// Says that a base is served: a base does not say who is gone, so the compute centre compares soon.
  public func baseCame() { isBaseNew.store(true, ordering: .relaxed) }

  /// Says that what is served now does not tell who is gone; gives whether a base had not been compared yet.
  public func takeBackBase() -> Bool { isBaseNew.exchange(false, ordering: .relaxed) }

  /// Removes users of whom something was learned and who have no row any more; false when it must be tried again.
  @discardableResult
  public func forgetUsersWithoutRows() -> Bool {
    var gone: [UInt64] = []
    let isDone = attempt { () throws(FeatureStoreError) in
      try store.learnedUsers { users in
        for start in stride(from: 0, to: users.count, by: 1024) {
          let some = users[start..<min(users.count, start + 1024)].filter(isOwn)
          guard let hasRow = hasRows(some) else { return }
          gone += zip(some, hasRow).filter { !$1 }.map(\.0)
        }
      }
    }
    rowsGone(of: gone)
    return isDone
  }

  /// Removes what the store owes.
  func settle() {
    let owed = erasures.withLock { $0.takeOwed() }
    guard !owed.isEmpty else { return }
    if !attempt({ () throws(FeatureStoreError) in try store.remove(owed) }) {
      erasures.withLock { $0.giveBack(owed) }
    }
  }

  // MARK: What the compute centre does around a batch

  /// Begins a batch, with the requests of those who may be worked out, and with what the stream says of them.
  func begin(_ requests: [ComputeRequest]) -> (run: Int, requests: [ComputeRequest]) {
    let (run, allowed) = erasures.withLock { erasures in
      (erasures.begin(), requests.filter { !erasures.isBarred($0.user) })
    }
    let filled = allowed.map { request in
      ComputeRequest(
        user: request.user, features: predictor.filled(request.features, at: request.eventTime),
        eventTime: request.eventTime)
    }
    return (run, filled)
  }

  /// Ends a batch: what it stored of those who were forgotten meanwhile leaves again.
  func finish(_ run: Int) {
    erasures.withLock { $0.finish(run) }
    settle()
  }
}
