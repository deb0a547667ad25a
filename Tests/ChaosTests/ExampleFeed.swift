// The stream of examples, made straight from impressions: the joiner has crash tests of its own, and here the driver must
// decide when examples come and which partition they go to.

import Base
import Cluster
import Streams

/// Writes examples into the partitions the trainers read, bit by bit.
final class ExampleFeed {
  private var input: EventInput
  private let sinks: [JournalSink]
  private let schema: EventSchema
  private let keyFeature: Int
  private(set) var sent = 0
  private(set) var isExhausted = false

  init(events: String, root: String, configuration: ClusterConfiguration) throws {
    schema = configuration.eventSchema
    keyFeature = schema.features.firstIndex { $0.name == ChaosOptions.counted } ?? 0
    input = try EventInput.open(path: events, schema: schema, importInto: root)
    sinks = try (0..<configuration.streams.examples.partitions).map {
      try JournalSink(StreamLocation(root: root, stream: .examples, partition: $0))
    }
    // Readers want a stream that is there.
    for sink in sinks { try sink.sync() }
  }

  /// Sends until `count` examples are out in all; gives whether any was sent.
  @discardableResult func send(upTo count: Int) throws -> Bool {
    guard sent < count, !isExhausted else { return false }
    while sent < count {
      guard let event = try input.next() else {
        isExhausted = true
        break
      }
      guard case .impression(let impression) = event else { continue }
      guard case .ids(let ids) = try impression.features.values(of: schema)[keyFeature], let id = ids.first else {
        continue
      }
      let example = Example(
        impression: impression.id, time: impression.time, ordinal: Position(low: UInt64(sent)), due: impression.time,
        arrival: Clocks.wall(), labels: schema.tasks.map { _ in .negative }, rates: schema.tasks.map { _ in 1 },
        predictions: [], features: impression.features)
      var writer = ByteWriter()
      example.encode(into: &writer)
      // By user: then one user's examples have one order, and the third sighting is the same one in every run.
      try sinks[Int(Hashing.mix(id) % UInt64(sinks.count))].append(writer.written)
      sent += 1
    }
    for sink in sinks { try sink.sync() }
    return true
  }

  /// Where the streams end.
  var ends: [UInt64] { sinks.map(\.synced.low) }
}
