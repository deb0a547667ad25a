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
    let buckets = ids.map { UInt16(Self.bucket(of: $0)) }
    // A counting sort: stable, so equal batches make equal requests.
    var next = [Int32](repeating: 0, count: Self.bucketCount + 1)
    for bucket in buckets { next[Int(bucket) + 1] += 1 }
    for bucket in 0..<Self.bucketCount { next[bucket + 1] += next[bucket] }
    var counts = [Int](repeating: 0, count: shardCount)
    for bucket in buckets { counts[owner(of: Int(bucket))] += 1 }
    var sorted = [Int32](repeating: 0, count: ids.count)
    for (place, bucket) in buckets.enumerated() {
      sorted[Int(next[Int(bucket)])] = Int32(place)
      next[Int(bucket)] += 1
    }
    var start = 0
    return counts.map { count in
      defer { start += count }
      return Array(sorted[start..<start + count])
    }
  }

  private func owner(of bucket: Int) -> Int { bucket * shardCount / Self.bucketCount }

  /// The shard that owns a dense tensor.
  public func shard(ofTensor name: String) -> Int {
    Int(Hashing.xxh3(name) % UInt64(shardCount))
  }
}
