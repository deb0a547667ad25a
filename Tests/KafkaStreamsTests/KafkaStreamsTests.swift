import Base
import Foundation
import Glibc
import KafkaTesting
import Streams
import Testing

@testable import KafkaStreams

private func append(_ texts: [String], to sink: inout any RecordSink) throws {
  for text in texts { try sink.append(Array(text.utf8).span.bytes) }
}

/// The texts that a source gives until it is at `end`; fewer when that takes too long.
private func texts(
  _ source: inout any RecordSource, upTo end: Position, patience: Duration = .seconds(20)
) throws -> [String] {
  var texts: [String] = []
  let deadline = Clocks.monotonic() + patience.nanoseconds
  while source.position < end, Clocks.monotonic() < deadline {
    do throws(StreamError) {
      guard let record = try source.next() else {
        usleep(1000)
        continue
      }
      var reader = record.reader
      texts.append(String(decoding: (try? reader.view(UInt8.self, count: reader.remaining).array) ?? [], as: UTF8.self))
    } catch {
      guard error.isForNow else { throw error }
    }
  }
  return texts
}

@Suite("Kafka, on librdkafka's mock cluster", .serialized) struct KafkaStreamsTests {
  private let root = "/tmp/guira-kafka-\(getpid())-\(UInt32.random(in: 0 ... .max))"

  private func carrier(_ cluster: MockCluster, root: String? = nil, properties: String? = nil) -> KafkaCarrier {
    KafkaCarrier(
      brokers: cluster.brokers, topic: "actions", propertiesFile: properties, root: root ?? self.root, stream: "actions"
    )
  }

  private func cluster(partitions: Int = 2) throws -> MockCluster {
    let cluster = try MockCluster()
    cluster.create("actions", partitions: partitions)
    return cluster
  }

  /// Ends waiting after a while.
  private func patience() -> @Sendable () -> Bool {
    let deadline = Clocks.monotonic() + 40_000_000_000
    return { Clocks.monotonic() > deadline }
  }

  private func cleanUp() { try? FileManager.default.removeItem(atPath: root) }

  @Test func `records come out as they went in, each partition by itself, from any position`() throws {
    defer { cleanUp() }
    let cluster = try cluster()
    let carrier = carrier(cluster)
    for partition in 0..<2 {
      var sink = try carrier.sink(partition: partition)
      try append((0..<2000).map { "\(partition).\($0)" }, to: &sink)
      try sink.sync()
      #expect(try carrier.end(partition: partition) == sink.synced)
      #expect(sink.end == sink.synced)
    }
    for partition in 0..<2 {
      let end = try #require(try carrier.end(partition: partition))
      var source = try #require(try carrier.source(partition: partition, consumer: "joiner", from: .start))
      #expect(try texts(&source, upTo: end) == (0..<2000).map { "\(partition).\($0)" })
      #expect(try source.end() == source.position)
      // The writer's first record has no content: offset 0. So record n ends at n + 2.
      for place in [0, 1, 1234, 1999] {
        var later = try #require(
          try carrier.source(partition: partition, consumer: "x", from: Position(low: UInt64(place + 2))))
        #expect(try texts(&later, upTo: end) == (place + 1..<2000).map { "\(partition).\($0)" })
      }
    }
    #expect(try carrier.end(partition: 7) == nil)
    #expect(try carrier.source(partition: 7, consumer: "x", from: .start) == nil)
  }

  @Test func `places are noted beside the state, and nobody commits to the group`() throws {
    defer { cleanUp() }
    let cluster = try cluster()
    let carrier = carrier(cluster)
    var sink = try carrier.sink(partition: 0)
    try append(["a", "b", "c"], to: &sink)
    try sink.sync()
    #expect(try carrier.backlog(partition: 0, of: "joiner") == nil)
    var source = try #require(try carrier.source(partition: 0, consumer: "joiner", from: .start))
    #expect(try texts(&source, upTo: sink.synced) == ["a", "b", "c"])
    try source.commit(processed: Position(low: 3), safe: Position(low: 2))
    #expect(
      try carrier.consumers(partition: 0)["joiner"]
        == ConsumerPlace(processed: Position(low: 3), safe: Position(low: 2)))
    #expect(try carrier.backlog(partition: 0, of: "joiner") == 256)
    // A consumer that begins anew begins where its own state says, whatever it committed.
    var again = try #require(try carrier.source(partition: 0, consumer: "joiner", from: .start))
    #expect(try texts(&again, upTo: sink.synced) == ["a", "b", "c"])
  }

  @Test func `errors that brokers answer with lose and repeat nothing`() throws {
    defer { cleanUp() }
    let cluster = try cluster()
    let carrier = carrier(cluster, properties: try MockCluster.oneRequestAtATime(in: root))
    cluster.inject([.timedOut, .notLeader], into: .metadata)
    cluster.inject([.loading, .timedOut], into: .producerID)
    cluster.inject([.notLeader, .timedOut], into: .offsets)
    var sink: any RecordSink = try PatientSink.opened(shouldStop: patience()) { () throws(StreamError) in
      try carrier.sink(partition: 0)
    }
    var expected: [String] = []
    for round in 0..<6 {
      cluster.inject([.notLeader, .timedOut, .notEnoughReplicas, .notLeader], into: .produce)
      let batch = (0..<100).map { "\(round).\($0)" }
      expected += batch
      try append(batch, to: &sink)
      try sink.sync()
    }
    let end = try #require(try carrier.end(partition: 0))
    #expect(sink.synced == end)
    cluster.inject([.notLeader, .timedOut, .unknownPartition, .notLeader], into: .fetch)
    var source = try #require(try carrier.source(partition: 0, consumer: "x", from: .start))
    #expect(try texts(&source, upTo: end) == expected)
  }

  @Test func `a question to a leader that is away ends in time, and is not asked again at once`() throws {
    defer { cleanUp() }
    let cluster = try cluster()
    cluster.lead("actions", 0, by: 1)
    let carrier = carrier(cluster)
    var sink = try carrier.sink(partition: 0)
    try append(["a"], to: &sink)
    try sink.sync()
    #expect(try carrier.end(partition: 0) == Position(low: 2))
    cluster.set(1, up: false)
    let begun = Clocks.monotonic()
    let error = #expect(throws: StreamError.self) { try carrier.end(partition: 0) }
    #expect(error?.isForNow == true)
    #expect(Clocks.monotonic() - begun < 10_000_000_000)
    let again = Clocks.monotonic()
    #expect(throws: StreamError.self) { try carrier.end(partition: 0) }
    #expect(Clocks.monotonic() - again < 500_000_000)
    cluster.set(1, up: true)
    let deadline = Clocks.monotonic() + 20_000_000_000
    var end: Position?
    while end == nil, Clocks.monotonic() < deadline {
      end = try? carrier.end(partition: 0)
      usleep(1000)
    }
    #expect(end == Position(low: 2))
  }

  @Test func `while the brokers are away a writer waits, and all it was given arrives once`() throws {
    defer { cleanUp() }
    let cluster = try cluster()
    var sink = try carrier(cluster).sink(partition: 0)
    try append(["before"], to: &sink)
    try sink.sync()
    for broker in 1...3 { cluster.set(broker, up: false) }
    try append((0..<500).map { "\($0)" }, to: &sink)
    let error = #expect(throws: StreamError.self) { try sink.sync() }
    #expect(error?.isForNow == true)
    #expect(sink.synced < sink.end)
    for broker in 1...3 { cluster.set(broker, up: true) }
    var patient = PatientSink(sink, shouldStop: patience())
    try patient.sync()
    let end = try #require(try carrier(cluster).end(partition: 0))
    var source = try #require(try carrier(cluster).source(partition: 0, consumer: "x", from: .start))
    #expect(try texts(&source, upTo: end) == ["before"] + (0..<500).map { "\($0)" })
  }

  @Test func `a reader goes on when the leader of its partition is lost and another takes over`() throws {
    defer { cleanUp() }
    let cluster = try cluster()
    cluster.lead("actions", 0, by: 1)
    var sink = try carrier(cluster).sink(partition: 0)
    var source = try #require(try carrier(cluster).source(partition: 0, consumer: "x", from: .start))
    var found: [String] = []
    for round in 0..<4 {
      let leader = 1 + round % 3
      cluster.set(leader, up: false)
      try append((0..<50).map { "\(round).\($0)" }, to: &sink)
      cluster.lead("actions", 0, by: 1 + (round + 1) % 3)
      var patient = PatientSink(sink, shouldStop: patience())
      try patient.sync()
      found += try texts(&source, upTo: sink.synced)
      cluster.set(leader, up: true)
    }
    #expect(found == (0..<4).flatMap { round in (0..<50).map { "\(round).\($0)" } })
  }

  @Test func `what an older writer still had on its way is passed over by every reader`() throws {
    defer { cleanUp() }
    let cluster = try cluster()
    let (first, second) = ("\(root)/a", "\(root)/b")
    var old = try carrier(cluster, root: first).sink(partition: 0)
    try append(["old 1", "old 2"], to: &old)
    try old.sync()
    // On another machine nothing but this keeps the two apart.
    var new = try carrier(cluster, root: second).sink(partition: 0)
    try append(["late 1"], to: &old)
    try old.sync()
    try append(["new 1"], to: &new)
    try new.sync()
    try append(["late 2"], to: &old)
    try old.sync()
    try append(["new 2"], to: &new)
    try new.sync()
    let carrier = carrier(cluster)
    let end = try #require(try carrier.end(partition: 0))
    var source = try #require(try carrier.source(partition: 0, consumer: "x", from: .start))
    var positions: [Position] = []
    var found: [String] = []
    while source.position < end {
      guard let record = try source.next() else { continue }
      positions.append(record.position)
      var reader = record.reader
      found.append(String(decoding: try reader.view(UInt8.self, count: reader.remaining).array, as: UTF8.self))
    }
    #expect(found == ["old 1", "old 2", "new 1", "new 2"])
    // From any of its positions another reader sees the same.
    for place in positions.indices {
      var later = try #require(try carrier.source(partition: 0, consumer: "x", from: positions[place]))
      #expect(try texts(&later, upTo: end) == Array(found[(place + 1)...]))
    }
  }

  @Test func `a second writer on the same machine is refused`() throws {
    defer { cleanUp() }
    let cluster = try cluster()
    let sink = try carrier(cluster).sink(partition: 0)
    #expect(throws: StreamError.self) { try carrier(cluster).sink(partition: 0) }
    _ = try carrier(cluster).sink(partition: 1)
    _ = sink.end
  }

  @Test func `a topic without the partition is told with what to do`() throws {
    defer { cleanUp() }
    let cluster = try cluster(partitions: 1)
    let error = #expect(throws: StreamError.self) { try carrier(cluster).sink(partition: 3) }
    #expect("\(try #require(error))".contains("create the topic with more partitions"))
  }

  @Test func `who asks for records that the brokers have dropped is told`() throws {
    defer { cleanUp() }
    let cluster = try cluster()
    let carrier = carrier(cluster)
    var sink = try carrier.sink(partition: 0)
    // The mock keeps 5 MiB of a partition.
    for round in 0..<8 {
      try append((0..<10).map { "\(round).\($0)" + String(repeating: "x", count: 100_000) }, to: &sink)
      try sink.sync()
    }
    var source = try #require(try carrier.source(partition: 0, consumer: "x", from: Position(low: 2)))
    // Why there is nothing at its offset cannot be asked at first.
    cluster.inject([.timedOut, .timedOut, .timedOut, .timedOut, .timedOut], into: .offsets)
    var refusal: StreamError?
    let deadline = Clocks.monotonic() + 20_000_000_000
    while refusal == nil, Clocks.monotonic() < deadline {
      do throws(StreamError) { _ = try source.next() } catch { refusal = error.isForNow ? nil : error }
      usleep(1000)
    }
    guard case .gone(_, Position(low: 2), let oldest)? = refusal else {
      Issue.record("\(String(describing: refusal))")
      return
    }
    #expect(oldest > Position(low: 2))
    var fresh = try #require(try carrier.source(partition: 0, consumer: "new", from: .start))
    #expect(try texts(&fresh, upTo: sink.synced).last?.hasPrefix("7.9") == true)
  }

  @Test func `settings from a file are used, but for those our promises rest on`() throws {
    defer { cleanUp() }
    try FileManager.default.createDirectory(atPath: root, withIntermediateDirectories: true)
    let file = "\(root)/kafka.properties"
    try "# comment\nclient.id = guira-test\nacks=0\nenable.idempotence=false\n".write(
      toFile: file, atomically: true, encoding: .utf8)
    let topic = KafkaTopic(brokers: "127.0.0.1:1", name: "t", propertiesFile: file)
    #expect(try topic.properties() == ["client.id": "guira-test"])
    try "no.such.setting=1\n".write(toFile: file, atomically: true, encoding: .utf8)
    let error = #expect(throws: StreamError.self) { _ = try KafkaClient.producer(topic, partition: 0) }
    #expect("\(try #require(error))".contains("no.such.setting"))
  }
}
