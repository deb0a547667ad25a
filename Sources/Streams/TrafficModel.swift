// The world behind synthetic traffic: users with tastes that drift, items that come and go, and the true probability that
// this user clicks that item now. Only ids leave it; the truth is kept for tests.

internal import Base
internal import Glibc

/// Draws ranks with probability proportional to 1 / (rank + 1)^exponent.
struct Zipf {
  private let cumulative: [Double]

  init(count: Int, exponent: Double) {
    precondition(count > 0, "a zipf distribution of \(count) ranks")
    var sum = 0.0
    cumulative = (0..<count).map { rank in
      sum += pow(Double(rank + 1), -exponent)
      return sum
    }
  }

  func rank(_ random: inout SeededRandom) -> Int {
    let at = random.uniform() * (cumulative.last ?? 1)
    var low = 0
    var high = cumulative.count - 1
    while low < high {
      let middle = (low + high) / 2
      if cumulative[middle] < at { low = middle + 1 } else { high = middle }
    }
    return low
  }
}

extension SeededRandom {
  /// A draw from the standard normal distribution.
  mutating func normal() -> Double {
    let radius = sqrt(-2 * log(1 - uniform()))
    return radius * cos(2 * .pi * uniform())
  }

  /// A draw from the exponential distribution of this mean.
  mutating func exponential(mean: Double) -> Double { -log(1 - uniform()) * mean }

  mutating func chance(_ probability: Double) -> Bool { uniform() < probability }

  /// Four independent normal draws.
  mutating func vector() -> SIMD4<Double> { SIMD4(normal(), normal(), normal(), normal()) }
}

/// The state of the synthetic world.
struct TrafficModel {
  private struct User {
    var taste: SIMD4<Double>
    var bias: Double
    var mood = 0.0
    var seen: Milliseconds
  }

  private struct Item {
    var id: UInt64
    var vector: SIMD4<Double>
    var bias: Double
    var dies: Milliseconds
  }

  private let options: TrafficOptions
  private let userRanks: Zipf
  private let itemRanks: Zipf
  private let categories: [SIMD4<Double>]
  private var users: [Int: User] = [:]
  private var items: [Int: Item] = [:]
  private var itemCount: UInt64 = 0

  init(options: TrafficOptions, random: inout SeededRandom) {
    self.options = options
    userRanks = Zipf(count: options.users, exponent: options.zipfExponent)
    itemRanks = Zipf(count: options.items, exponent: options.zipfExponent)
    categories = (0..<options.categories).map { _ in random.vector() }
  }

  /// Shows some item to some user.
  mutating func show(
    at time: Milliseconds, _ random: inout SeededRandom
  ) -> (user: UInt64, item: UInt64, category: UInt64, hour: UInt64, click: Double, like: Double) {
    let userRank = userRanks.rank(&random)
    let slot = itemRanks.rank(&random)
    let user = user(userRank, at: time, &random)
    let item = item(slot, at: time, &random)
    let hour = time / 3_600_000 % 24
    let match = (user.taste * item.vector).sum() / 2
    let click = Self.sigmoid(
      -0.6 + user.bias + user.mood + item.bias + 1.3 * match + 0.3 * sin(Double(hour) * .pi / 12))
    let like = click * Self.sigmoid(-2 + match)
    let category = UInt64(slot % options.categories)
    return (UInt64(userRank + 1), item.id, category, UInt64(hour), click, like)
  }

  /// A user's taste is a random walk that forgets: after `tasteDrift` a share of 1/e of it is left.
  ///
  /// So is the mood, if there are moods.
  private mutating func user(_ rank: Int, at time: Milliseconds, _ random: inout SeededRandom) -> User {
    var user: User
    if let known = users[rank] {
      user = known
    } else {
      user = User(taste: random.vector(), bias: 0.4 * random.normal(), seen: time)
      if options.mood > 0 { user.mood = options.mood * random.normal() }
    }
    func kept(_ drift: Duration) -> Double { exp(-Double(time - user.seen) / Double(drift.milliseconds)) }
    let taste = kept(options.tasteDrift)
    user.taste = taste * user.taste + sqrt(1 - taste * taste) * random.vector()
    if options.mood > 0 {
      let mood = kept(options.moodDrift)
      user.mood = mood * user.mood + sqrt(1 - mood * mood) * options.mood * random.normal()
    }
    user.seen = time
    users[rank] = user
    return user
  }

  /// A place in the catalogue: when its item has lived its life, a new item with a new id takes it.
  private mutating func item(_ slot: Int, at time: Milliseconds, _ random: inout SeededRandom) -> Item {
    if let item = items[slot], item.dies > time { return item }
    itemCount += 1
    let category = categories[slot % options.categories]
    let life = random.exponential(mean: Double(options.itemLifetime.milliseconds))
    let item = Item(
      id: itemCount, vector: 0.7 * category + 0.7 * random.vector(), bias: 0.6 * random.normal(),
      dies: time + Int64(min(life, 1e12)) + 1)
    items[slot] = item
    return item
  }

  private static func sigmoid(_ logit: Double) -> Double { 1 / (1 + exp(-logit)) }
}
