// What waits for the compute centre: at most one request per user, the newest. Pure; its owner keeps it behind a lock.

public import Base
public import Streams

/// A user whose embeddings are to be worked out.
public struct ComputeRequest: Sendable, Equatable {
  /// The user's id.
  public var user: UInt64
  /// The user's features; those of other sides may be empty.
  public var features: FeatureBlock
  /// The event time of the newest thing the features tell of.
  public var eventTime: Milliseconds

  /// A request from its parts.
  public init(user: UInt64, features: FeatureBlock, eventTime: Milliseconds) {
    self.user = user
    self.features = features
    self.eventTime = eventTime
  }
}

/// A bounded queue in which a user's newer request takes the place of the one that waits.
///
/// When it is full the one that has waited longest goes and is counted: its user is read from stored entries, and asks
/// again with the next request.
public struct ComputeQueue: Sendable {
  /// What happened to requests.
  public struct Counters: Sendable, Equatable {
    /// Taken in.
    public var offered: UInt64 = 0
    /// Replaced by a newer one of the same user, or older than the one that waited.
    public var replaced: UInt64 = 0
    /// Dropped because the queue was full.
    public var dropped: UInt64 = 0
  }

  private let limit: Int
  private var waiting: [UInt64: ComputeRequest] = [:]
  /// Users in the order of their first request; those taken before their turn are skipped.
  private var order: [UInt64] = []
  private var first = 0
  /// Users being worked on.
  private var inHand: Set<UInt64> = []
  /// What happened so far.
  public private(set) var counters = Counters()

  /// A queue for at most `limit` users.
  public init(limit: Int) { self.limit = max(1, limit) }

  /// How many users wait.
  public var count: Int { waiting.count }

  /// Whether newer inputs of a user than those in the store wait or are in hand.
  public func isPending(_ user: UInt64) -> Bool { waiting[user] != nil || inHand.contains(user) }

  /// Takes a request in.
  public mutating func offer(_ request: ComputeRequest) {
    counters.offered += 1
    if let old = waiting[request.user] {
      counters.replaced += 1
      if request.eventTime >= old.eventTime { waiting[request.user] = request }
      return
    }
    while waiting.count >= limit, first < order.count {
      if waiting.removeValue(forKey: order[first]) != nil { counters.dropped += 1 }
      first += 1
    }
    waiting[request.user] = request
    order.append(request.user)
    tidy()
  }

  /// Drops requests of users who are forgotten.
  public mutating func remove(_ users: [UInt64]) {
    for user in users { waiting[user] = nil }
  }

  /// Memory that the order takes; never much more than that of those who wait.
  var orderCount: Int { order.count }

  /// Takes out of the order who had their turn, and who went before it.
  private mutating func tidy() {
    guard order.count > 1024, order.count > 2 * waiting.count else { return }
    var listed: Set<UInt64> = []
    order = order[first...].filter { waiting[$0] != nil && listed.insert($0).inserted }
    first = 0
  }

  /// Takes up to `count` requests out, those that wait longest first; they are in hand until `finish`.
  public mutating func take(_ count: Int) -> [ComputeRequest] {
    var taken: [ComputeRequest] = []
    while taken.count < count, first < order.count {
      if let request = waiting.removeValue(forKey: order[first]) {
        taken.append(request)
        inHand.insert(request.user)
      }
      first += 1
    }
    tidy()
    return taken
  }

  /// Says that these users' entries are stored.
  public mutating func finish(_ users: [UInt64]) { for user in users { inHand.remove(user) } }
}
