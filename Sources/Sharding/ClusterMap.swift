// Which shard owns an id. The id space is cut into a fixed number of buckets by hash; shards own contiguous ranges of
// them. A map has a number; requests carry it, so that one grouped by another map is refused.

internal import Base

/// The assignment of buckets to shards.
public struct ClusterMap: Equatable, Sendable {
  /// How many buckets the id space is cut into.
  public static let bucketCount = 4096

  /// How many shards share the buckets evenly.
  public let shardCount: Int
  /// The number of this assignment.
  public var number: UInt64 { UInt64(shardCount) }

  /// An even assignment to `shardCount` shards (1...4096).
  public init(shardCount: Int) {
    precondition((1...Self.bucketCount).contains(shardCount), "\(shardCount) shards")
    self.shardCount = shardCount
  }

  /// The bucket of an id.
  public static func bucket(of id: UInt64) -> Int {
    // Another stream of the mixer than the tables' index uses: all ids of a shard share the bucket's bits.
    Int(Hashing.mix(id ^ 0x6275_636B_6574_7321) >> 52)
  }

  /// The shard that owns an id.
  public func shard(of id: UInt64) -> Int {
    owner(of: Self.bucket(of: id))
  }

  /// Who owns which of a batch's ids: for each shard the places of its ids in `ids`, bucket after bucket.
  ///
  /// Every client groups its requests with this.
  public func places(of ids: [UInt64]) -> [[Int32]] {
    // Bucket above, place below: sorted they are bucket after bucket, and equal batches make equal requests.
    var keys = ids.indices.map { UInt64(Self.bucket(of: ids[$0])) << 32 | UInt64($0) }
    keys = ids.count < Self.fewIDs ? keys.sorted() : Self.countingSorted(keys)
    var places = [[Int32]](repeating: [], count: shardCount)
    var start = 0
    while start < keys.count {
      let shard = owner(of: Int(keys[start] >> 32))
      let end = keys[start...].firstIndex { owner(of: Int($0 >> 32)) != shard } ?? keys.count
      places[shard] = keys[start..<end].map { Int32(truncatingIfNeeded: $0) }
      start = end
    }
    return places
  }

  /// From so many on it pays to look at every bucket.
  private static let fewIDs = 512

  /// Sorts keys of ascending places by their buckets.
  private static func countingSorted(_ keys: [UInt64]) -> [UInt64] {
    var next = [Int32](repeating: 0, count: bucketCount + 1)
    for key in keys { next[Int(key >> 32) + 1] += 1 }
    for bucket in 0..<bucketCount { next[bucket + 1] += next[bucket] }
    var sorted = [UInt64](repeating: 0, count: keys.count)
    for key in keys {
      let bucket = Int(key >> 32)
      sorted[Int(next[bucket])] = key
      next[bucket] += 1
    }
    return sorted
  }

  private func owner(of bucket: Int) -> Int { bucket * shardCount / Self.bucketCount }

  /// The shard that owns a dense tensor.
  public func shard(ofTensor name: String) -> Int {
    Int(Hashing.xxh3(name) % UInt64(shardCount))
  }
}
