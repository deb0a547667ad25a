// Who is forgotten: what must leave the store still, what is being worked out meanwhile, and who waits for versions that know
// of it. Pure; its owner keeps it behind a lock.

/// Keeps forgotten users from coming back through what was in hand when they were forgotten.
struct Erasures: Sendable {
  /// By batch in hand: who was forgotten since it began.
  private var running: [Int: Set<UInt64>] = [:]
  private var nextRun = 0
  /// Whose entries the store has still to remove.
  private var owed: Set<UInt64> = []
  /// By user how many versions must come before anything is worked out for them.
  private var barred: [UInt64: Int] = [:]
  /// How often users were forgotten.
  private(set) var count: UInt64 = 0

  /// Takes users out.
  ///
  /// - Parameter versions: how many versions must come before they are worked out again: those that are on their way
  ///   may hold their rows still.
  mutating func forget(_ users: [UInt64], barredFor versions: Int) {
    count += UInt64(users.count)
    owed.formUnion(users)
    for run in running.keys { running[run]?.formUnion(users) }
    if versions > 0 { for user in users { barred[user] = versions } }
  }

  func isBarred(_ user: UInt64) -> Bool { barred[user] != nil }

  /// A version is there, with all that sync knew when it made it.
  mutating func versionCame() {
    for (user, versions) in barred { barred[user] = versions > 1 ? versions - 1 : nil }
  }

  /// A batch begins: from here on it reads rows.
  mutating func begin() -> Int {
    nextRun += 1
    running[nextRun] = []
    return nextRun
  }

  /// A batch is stored: what it stored of those who were forgotten meanwhile is owed.
  mutating func finish(_ run: Int) { owed.formUnion(running.removeValue(forKey: run) ?? []) }

  /// Hands out whose entries are to be removed.
  mutating func takeOwed() -> [UInt64] {
    defer { owed = [] }
    return Array(owed)
  }

  /// The store could not remove them now.
  mutating func giveBack(_ users: [UInt64]) { owed.formUnion(users) }
}
