// How far each model has been trained by what a version holds: whoever reads versions learns from it which examples the
// replicas' parameters have seen. Worked out from the shards' chains, of which every block holds all.

public import Base
internal import Wire

/// How far one consumer, a model, had come with what is in a version.
public struct ConsumerProgress: Hashable, Sendable, BitwiseCopyable {
  /// XXH3-64 of the consumer's name, as in its chains.
  public var consumer: UInt64
  /// Examples that every shard has applied, over all its chains.
  public var exampleCount: UInt64
  /// The smallest watermark of its active chains on all shards; `Int64.min` before there was one.
  ///
  /// A chain is active when it moved within the last minute, as for expiry.
  public var watermark: Milliseconds

  /// Progress from its parts.
  public init(consumer: UInt64, exampleCount: UInt64, watermark: Milliseconds) {
    self.consumer = consumer
    self.exampleCount = exampleCount
    self.watermark = watermark
  }
}

extension SyncCore {
  private static let activeFor: Int64 = 60_000_000_000

  /// Takes note of a chain's state that is in the version about to be made.
  mutating func settle(_ state: ChainState, of shard: Int, mergedAt: Int64) {
    if shards[shard].chains[state.chain]?.applied != state.applied {
      chainMovedAt[state.chain] = max(chainMovedAt[state.chain] ?? .min, mergedAt)
    }
    shards[shard].chains[state.chain] = state
    newestEventTime = max(newestEventTime, state.eventTime)
  }

  /// Brings `progress` up to the chains, of all consumers that every shard has told of.
  ///
  /// Sync that came back knows the stored state until then; counts do not go back, and without an active chain the
  /// watermark stays.
  mutating func updateProgress(now: Int64) {
    var sums: [UInt64: (examples: UInt64, watermark: Milliseconds?)] = [:]
    for key in shards[0].chains.keys {
      let states = shards.compactMap { $0.chains[key] }
      guard states.count == shards.count, let examples = states.map(\.exampleCount).min(),
        let watermark = states.map(\.watermark).min()
      else { continue }
      var sum = sums[key.consumer] ?? (0, nil)
      sum.examples = UInt64(clamping: UInt128(sum.examples) + UInt128(examples))
      // A chain that nobody has pushed to has none.
      if watermark > .min, now - (chainMovedAt[key] ?? longAgo) < Self.activeFor {
        sum.watermark = min(sum.watermark ?? watermark, watermark)
      }
      sums[key.consumer] = sum
    }
    for (consumer, sum) in sums {
      let known = progress[consumer]
      progress[consumer] = ConsumerProgress(
        consumer: consumer, exampleCount: max(sum.examples, known?.exampleCount ?? 0),
        watermark: sum.watermark ?? known?.watermark ?? .min)
    }
  }

  /// What versions say of all consumers, in a fixed order.
  var progressList: [ConsumerProgress] {
    pin?.progress ?? Array(progress.values.sorted { $0.consumer < $1.consumer }.prefix(VersionContent.consumerLimit))
  }
}
