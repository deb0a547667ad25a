// What makes a push count exactly once: which chain it belongs to, where it begins and ends, and who owns the chain.

public import Base

/// One chain of pushes: a consumer (the model) reading one partition of a stream.
public struct ChainKey: Hashable, Sendable, BitwiseCopyable, Comparable {
  /// XXH3-64 of the consumer's name.
  public var consumer: UInt64
  /// XXH3-64 of the stream's name.
  public var stream: UInt64
  /// The partition.
  public var partition: UInt64

  /// The chain of a consumer, a stream and a partition by their names.
  public init(consumer: String, stream: String, partition: Int) {
    self.consumer = Hashing.xxh3(consumer)
    self.stream = Hashing.xxh3(stream)
    self.partition = UInt64(partition)
  }

  /// Any fixed order.
  public static func < (left: Self, right: Self) -> Bool {
    (left.consumer, left.stream, left.partition) < (right.consumer, right.stream, right.partition)
  }
}

/// Who owns a chain: a generation, and a random owner number that breaks ties.
public struct Ownership: Hashable, Sendable, BitwiseCopyable, Comparable {
  /// Rises with every claim.
  public var generation: UInt64
  /// Drawn at random by each claimer.
  public var owner: UInt64

  /// Generations are below this, so that there is always one above.
  public static let generationLimit: UInt64 = 1 << 62
  /// Nobody's.
  public static let none = Ownership(generation: 0, owner: 0)

  /// An ownership from its parts.
  public init(generation: UInt64, owner: UInt64) {
    self.generation = generation
    self.owner = owner
  }

  /// Orders by generation, then owner.
  public static func < (left: Self, right: Self) -> Bool {
    left.generation == right.generation ? left.owner < right.owner : left.generation < right.generation
  }
}

/// The stamp of a push (DESIGN 3.2).
public struct Stamp: Hashable, Sendable, BitwiseCopyable {
  /// The chain the push belongs to.
  public var chain: ChainKey
  /// Who sends it.
  public var ownership: Ownership
  /// The end of the batch before; must be what the shard has applied.
  public var previousEnd: Position
  /// The end of this batch.
  public var end: Position
  /// How many examples the batch holds.
  public var exampleCount: UInt64
  /// The newest event time among the batch's impressions and labels.
  public var eventTime: Milliseconds
  /// Event time up to which the partition has been read.
  public var watermark: Milliseconds

  /// A stamp from its parts.
  public init(
    chain: ChainKey, ownership: Ownership, previousEnd: Position, end: Position, exampleCount: Int,
    eventTime: Milliseconds, watermark: Milliseconds
  ) {
    self.chain = chain
    self.ownership = ownership
    self.previousEnd = previousEnd
    self.end = end
    self.exampleCount = UInt64(exampleCount)
    self.eventTime = eventTime
    self.watermark = watermark
  }
}

/// Where a shard stands in one chain.
public struct ChainState: Hashable, Sendable, BitwiseCopyable {
  /// The chain.
  public var chain: ChainKey
  /// Who owns it.
  public var ownership: Ownership
  /// The end of the last batch applied.
  public var applied: Position
  /// The end of the last batch whose block is synced.
  public var durable: Position
  /// Examples applied since the chain began.
  public var exampleCount: UInt64
  /// The newest event time applied.
  public var eventTime: Milliseconds
  /// Event time up to which the partition has been read.
  public var watermark: Milliseconds

  /// A chain nobody has pushed to.
  public init(chain: ChainKey) {
    self.chain = chain
    ownership = .none
    applied = .start
    durable = .start
    exampleCount = 0
    eventTime = .min
    watermark = .min
  }
}

/// When the actions behind some examples arrived: a count per 10 ms of arrival time, for measuring freshness.
public struct ArrivalCount: Hashable, Sendable, BitwiseCopyable {
  /// Arrival time, UTC milliseconds, rounded down to 10 ms.
  public var arrival: Milliseconds
  /// How many examples.
  public var count: UInt64

  /// A count of examples at one arrival time.
  public init(arrival: Milliseconds, count: UInt64) {
    self.arrival = arrival
    self.count = count
  }

  /// Whether this can be true: others subtract arrivals from their clocks and sum the counts.
  ///
  /// Times are below 2^50, which is the year 37,648, counts at most 2^32.
  public var isPlausible: Bool { (0..<1 << 50).contains(arrival) && count <= 1 << 32 }
}
