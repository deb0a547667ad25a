// Arrivals of pushes that not every shard has applied yet: an event is servable only with all of its rows. Bounded, for a
// chain that some shard never reaches must not make sync grow; what is dropped is missing from freshness and nowhere else.

internal import Base
internal import Sharding
internal import Wire

/// Arrivals by chain, each in the order of its pushes.
struct WaitingArrivals {
  /// The most that wait, in arrival counts of 16 bytes: 16 MiB.
  static let limit = 1 << 20
  /// The most that one version carries.
  static let versionLimit = 1 << 20
  /// The most that the versions carry which not all replicas have.
  static let awaitedLimit = 1 << 22

  private var chains: [ChainKey: [BlockRecord.PushArrivals]] = [:]
  private var size = 0

  /// A push costs more than its counts.
  private static func size(_ pushes: some Sequence<BlockRecord.PushArrivals>) -> Int {
    pushes.reduce(0) { $0 + $1.counts.count + 5 }
  }

  var isEmpty: Bool { chains.isEmpty }

  /// Takes the arrivals of pushes, in order.
  ///
  /// - Returns: how many arrival counts were dropped: the older half of the chain where most wait, until there is room.
  mutating func add(_ pushes: [BlockRecord.PushArrivals]) -> Int {
    for push in pushes { chains[push.chain, default: []].append(push) }
    size += Self.size(pushes)
    var dropped = 0
    while size > Self.limit {
      let sizes = chains.map { (chain: $0.key, size: Self.size($0.value)) }
      guard let fullest = sizes.max(by: { ($0.size, $0.chain) < ($1.size, $1.chain) })?.chain else { break }
      let old = remove((chains[fullest, default: []].count + 1) / 2, of: fullest)
      dropped += old.reduce(0) { $0 + $1.counts.count }
    }
    return dropped
  }

  /// The arrivals of pushes that every shard has applied, given how far each chain is applied everywhere.
  mutating func takeReady(_ appliedEverywhere: (ChainKey) -> Position) -> [ArrivalCount] {
    var ready: [ArrivalCount] = []
    // In a fixed order, so that equal runs make equal versions.
    for chain in chains.keys.sorted() {
      let (end, pushes) = (appliedEverywhere(chain), chains[chain, default: []])
      // Ends rise along a chain: what lies behind the first that is not ready is not looked at.
      let count = pushes.firstIndex { $0.end > end } ?? pushes.count
      guard count > 0 else { continue }
      for push in remove(count, of: chain) { ready.append(contentsOf: push.counts) }
    }
    return ready
  }

  /// Every push that waits.
  func forEach(_ body: (BlockRecord.PushArrivals) -> Void) {
    for pushes in chains.values { pushes.forEach(body) }
  }

  private mutating func remove(_ count: Int, of chain: ChainKey) -> [BlockRecord.PushArrivals] {
    guard var pushes = chains.removeValue(forKey: chain) else { return [] }
    let removed = Array(pushes.prefix(count))
    pushes.removeFirst(removed.count)
    if !pushes.isEmpty { chains[chain] = pushes }
    size -= Self.size(removed)
    return removed
  }
}
