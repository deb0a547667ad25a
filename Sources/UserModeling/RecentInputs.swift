// What users were last worked out from, so that they can be again when the model learns something of them. Pure; its owner
// keeps it behind a lock.

internal import Base

/// The newest inputs of the users who came last.
///
/// Two generations: when the younger is full it becomes the older, whose users are let go of unless they came again. So it
/// remembers at least the half of its limit.
struct RecentInputs: Sendable {
  private let limit: Int
  private var younger: [UInt64: ComputeRequest] = [:]
  private var older: [UInt64: ComputeRequest] = [:]

  /// Of at most `limit` users.
  init(limit: Int) { self.limit = max(2, limit) }

  /// How many users it remembers.
  var count: Int { younger.count + older.count }

  /// Remembers inputs, unless it has newer ones of the user.
  mutating func keep(_ request: ComputeRequest) {
    let known = older.removeValue(forKey: request.user) ?? younger[request.user]
    let isNewer = request.eventTime >= known?.eventTime ?? .min
    younger[request.user] = isNewer ? request : known
    guard younger.count >= limit / 2 else { return }
    (older, younger) = (younger, [:])
  }

  /// Lets go of users who are forgotten.
  mutating func remove(_ users: [UInt64]) {
    for user in users { (younger[user], older[user]) = (nil, nil) }
  }

  /// Lets go of inputs of before a time.
  mutating func forget(before oldest: Milliseconds) {
    guard oldest > .min else { return }
    younger = younger.filter { $1.eventTime >= oldest }
    older = older.filter { $1.eventTime >= oldest }
  }

  /// The users, in no order.
  var users: [UInt64] { Array(younger.keys) + older.keys }

  /// The inputs of a user; nil when there are none.
  subscript(user: UInt64) -> ComputeRequest? { younger[user] ?? older[user] }
}
