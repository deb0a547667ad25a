// What users were last worked out from, so that they can be again when the model learns something of them. Pure; its owner
// keeps it behind a lock.

internal import Base

/// The newest inputs of the users who came last.
///
/// Two generations: when the younger is full it becomes the older, whose users are let go of unless they came again. So it
/// remembers at least the half of its limit.
struct RecentInputs: Sendable {
  private struct Kept: Sendable {
    var request: ComputeRequest
    /// When they came, wall clock: events of a replay are as old as they are.
    var at: Milliseconds
  }

  private let limit: Int
  private var younger: [UInt64: Kept] = [:]
  private var older: [UInt64: Kept] = [:]

  /// Of at most `limit` users.
  init(limit: Int) { self.limit = max(2, limit) }

  /// How many users it remembers.
  var count: Int { younger.count + older.count }

  /// Remembers inputs, unless it has newer ones of the user.
  mutating func keep(_ request: ComputeRequest, at now: Milliseconds) {
    let known = (older.removeValue(forKey: request.user) ?? younger[request.user])?.request
    let newest = known.flatMap { $0.eventTime > request.eventTime ? $0 : nil } ?? request
    younger[request.user] = Kept(request: newest, at: now)
    guard younger.count >= limit / 2 else { return }
    (older, younger) = (younger, [:])
  }

  /// Lets go of users who are forgotten.
  mutating func remove(_ users: [UInt64]) {
    for user in users { (younger[user], older[user]) = (nil, nil) }
  }

  /// The users who came at a time or later, in no order; lets go of the others.
  ///
  /// One pass over all of them, and a request may wait for it: what stays is not copied.
  mutating func users(since oldest: Milliseconds) -> [UInt64] {
    var (users, gone): ([UInt64], [UInt64]) = ([], [])
    users.reserveCapacity(count)
    for generation in [younger, older] {
      for (user, kept) in generation {
        if kept.at >= oldest { users.append(user) } else { gone.append(user) }
      }
    }
    remove(gone)
    return users
  }

  /// The inputs of a user; nil when there are none.
  subscript(user: UInt64) -> ComputeRequest? { (younger[user] ?? older[user])?.request }
}
