// Keeps the player from running ahead of the cluster: it waits while the joiner or a trainer is too far behind.

internal import Base
internal import Streams
internal import Synchronization

/// Says whether the cluster can take more; looks at the consumers' positions at most every few milliseconds.
final class BacklogGate: Sendable {
  private let streams: ClusterStreams
  private let trainers: [String]
  private let state = Mutex<(next: Int64, isOpen: Bool)>((0, true))

  init(_ streams: ClusterStreams, models: [String]) {
    self.streams = streams
    trainers = models.map { "trainer-\($0)" }
  }

  /// Whether it may go on; while the positions cannot be asked, it is as it was.
  var isOpen: Bool {
    state.withLock { state in
      let now = Clocks.monotonic()
      guard now >= state.next else { return state.isOpen }
      state.next = now + 5_000_000
      do throws(StreamError) {
        let lags = [
          try lag(of: .impressions, ["joiner"]), try lag(of: .actions, ["joiner"]), try lag(of: .examples, trainers),
        ]
        state.isOpen = lags.allSatisfy { $0 <= Replay.leadBytes }
      } catch {}
      return state.isOpen
    }
  }

  /// How far the slowest of the consumers is behind, over all partitions.
  private func lag(of stream: StreamLocation.Stream, _ consumers: [String]) throws(StreamError) -> UInt64 {
    let carrier = streams[stream]
    var lag: UInt64 = 0
    for partition in 0..<(streams.partitions[stream] ?? 0) {
      guard let end = try carrier.end(partition: partition) else { continue }
      let places = try carrier.consumers(partition: partition)
      let slowest = consumers.map { places[$0]?.processed ?? .start }.min() ?? end
      lag += carrier.bytes(from: slowest, to: end)
    }
    return lag
  }
}
