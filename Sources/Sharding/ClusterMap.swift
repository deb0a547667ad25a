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
    Self.bucket(of: id) * shardCount / Self.bucketCount
  }

  /// The shard that owns a dense tensor.
  public func shard(ofTensor name: String) -> Int {
    Int(Hashing.xxh3(name) % UInt64(shardCount))
  }
}
