// Keeps the player from running ahead of the cluster: it waits while the joiner or a trainer is too far behind.

internal import Base
internal import Journal
internal import Streams
internal import Synchronization

/// Says whether the cluster can take more; looks at the consumers' positions at most every few milliseconds.
final class BacklogGate: Sendable {
  private let root: String
  private let consumers: [String]
  private let examplePartitions: Int
  private let state = Mutex<(next: Int64, isOpen: Bool)>((0, true))

  init(_ configuration: ClusterConfiguration, root: String, models: [String]) {
    self.root = root
    consumers = models.map { "trainer-\($0)" }
    examplePartitions = configuration.streams.examples.partitions
  }

  func isOpen(impressions: [any RecordSink], actions: [any RecordSink]) -> Bool {
    state.withLock { state in
      let now = Clocks.monotonic()
      guard now >= state.next else { return state.isOpen }
      state.next = now + 5_000_000
      state.isOpen =
        lag(of: impressions, .impressions) <= Replay.leadBytes && lag(of: actions, .actions) <= Replay.leadBytes
        && exampleLag <= Replay.leadBytes
      return state.isOpen
    }
  }

  private func lag(of sinks: [any RecordSink], _ stream: StreamLocation.Stream) -> UInt64 {
    var lag: UInt64 = 0
    for (partition, sink) in sinks.enumerated() {
      let directory = StreamLocation(root: root, stream: stream, partition: partition).directory
      let processed = (try? JournalConsumers.read(directory: directory))?["joiner"]?.processed ?? 0
      lag += sink.end.low - min(sink.end.low, processed)
    }
    return lag
  }

  private var exampleLag: UInt64 {
    var lag: UInt64 = 0
    for partition in 0..<examplePartitions {
      let directory = StreamLocation(root: root, stream: .examples, partition: partition).directory
      guard let end = (try? JournalReader.bounds(directory: directory))?.upperBound,
        let positions = try? JournalConsumers.read(directory: directory)
      else { continue }
      let slowest = consumers.map { positions[$0]?.processed ?? 0 }.min() ?? end
      lag += end - min(end, slowest)
    }
    return lag
  }
}
