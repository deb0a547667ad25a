// Which users an action makes worth working out again, and when: as soon as it counts. Pure; belongs to the thread that
// follows the streams.

public import Base
public import Streams

/// Finds the users of actions, with the features of the newest impression each was shown.
///
/// It remembers impressions for as long as their actions count, up to a limit; actions of others are counted and have no
/// effect: the user is worked out with their next request.
public struct ActionTriggers: Sendable {
  private struct Due: Comparable, Sendable {
    var time: Milliseconds
    var impression: ImpressionID

    static func < (left: Self, right: Self) -> Bool { left.time < right.time }
  }

  private struct User: Sendable {
    var features: FeatureBlock
    var time: Milliseconds
    var impressions = 0
  }

  private let actions: Set<String>
  private let delay: Int64
  private let memory: Int64
  private let limit: Int
  private var users: [UInt64: User] = [:]
  private var userOf: [ImpressionID: UInt64] = [:]
  /// Impressions in the order they came, the first `forgotten` of them no longer known.
  private var shown: [(id: ImpressionID, time: Milliseconds)] = []
  private var forgotten = 0
  private var waiting = MinHeap<Due>()
  /// Actions of impressions that are not known, or whose user is no concern of this process.
  public private(set) var unmatched: UInt64 = 0

  /// Triggers for actions of these names.
  ///
  /// - Parameters:
  ///   - delay: how long after its time an action counts, event time.
  ///   - memory: how long after an impression its actions count, event time.
  ///   - limit: the most impressions that are remembered, and the most actions that wait.
  public init(
    actions: Set<String>, delayMilliseconds delay: Int64, memoryMilliseconds memory: Int64, limit: Int = 1_000_000
  ) {
    self.actions = actions
    self.delay = delay
    self.memory = memory
    self.limit = max(1, limit)
  }

  /// How many impressions are remembered.
  public var impressionCount: Int { userOf.count }

  /// Takes an event that came in time.
  ///
  /// - Parameter user: the user of a block; nil for one who is no concern of this process.
  public mutating func take(_ event: Event, user: (FeatureBlock) -> UInt64?) {
    switch event {
    case .impression(let impression):
      guard userOf[impression.id] == nil, let user = user(impression.features) else { return }
      userOf[impression.id] = user
      shown.append((impression.id, impression.time))
      var known = users[user] ?? User(features: impression.features, time: impression.time)
      known.impressions += 1
      if impression.time >= known.time { (known.features, known.time) = (impression.features, impression.time) }
      users[user] = known
      if shown.count - forgotten > limit { forgetOldest() }
    case .action(let action):
      guard actions.contains(action.name), waiting.count < limit else { return }
      waiting.insert(Due(time: action.time.later(by: delay), impression: action.impression))
    case .watermark: break
    }
  }

  /// The users of actions that count before `frontier` and were not given yet, each once.
  public mutating func due(before frontier: Milliseconds) -> [(user: UInt64, features: FeatureBlock)] {
    var acted: [UInt64] = []
    var isListed: Set<UInt64> = []
    while let next = waiting.first, next.time < frontier {
      _ = waiting.popFirst()
      guard let user = userOf[next.impression] else {
        unmatched += 1
        continue
      }
      if isListed.insert(user).inserted { acted.append(user) }
    }
    let result = acted.compactMap { user in users[user].map { (user: user, features: $0.features) } }
    while forgotten < shown.count, shown[forgotten].time.later(by: delay).later(by: memory) < frontier {
      forgetOldest()
    }
    return result
  }

  private mutating func forgetOldest() {
    let id = shown[forgotten].id
    forgotten += 1
    if let user = userOf.removeValue(forKey: id), var known = users[user] {
      known.impressions -= 1
      users[user] = known.impressions > 0 ? known : nil
    }
    guard forgotten > 1024, forgotten > shown.count / 2 else { return }
    shown.removeFirst(forgotten)
    forgotten = 0
  }
}
