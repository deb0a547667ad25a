import Base
import Foundation
import Glibc
import KafkaStreams
import KafkaTesting
import Streams
import Testing

@testable import Joining

/// Traffic on Kafka topics, and a joiner beside it.
private struct KafkaCluster {
  let root: String
  let brokers: String
  let traffic: Traffic
  var options: JoinerOptions

  init(root: String, brokers: String, _ traffic: Traffic) {
    self.root = root
    self.brokers = brokers
    self.traffic = traffic
    options = JoinerOptions(rules: traffic.rules, stateDirectory: "\(root)/joiner")
    options.readAheadMilliseconds = 500
  }

  func carrier(_ stream: String) -> KafkaCarrier {
    KafkaCarrier(brokers: brokers, topic: stream, root: root, stream: stream)
  }

  var streams: CarriedJoinerStreams {
    CarriedJoinerStreams(
      impressions: carrier("impressions"), actions: carrier("actions"), examples: carrier("examples"),
      late: carrier("late"))
  }

  func writeAll() throws {
    for input in traffic.rules.allInputs {
      let deadline = Clocks.monotonic() + 60_000_000_000
      var sink = PatientSink(
        try carrier(input.stream.rawValue).sink(partition: input.partition),
        shouldStop: { Clocks.monotonic() > deadline })
      for event in traffic.streams[input]! {
        var writer = ByteWriter()
        event.encode(into: &writer)
        try sink.append(writer.written)
      }
      try sink.sync()
    }
  }

  func records(_ stream: String, _ partition: Int) throws -> [(position: Position, bytes: [UInt8])] {
    guard var source = try carrier(stream).source(partition: partition, consumer: "test", from: .start) else {
      return []
    }
    let end = try source.end()
    let deadline = Clocks.monotonic() + 60_000_000_000
    var records: [(position: Position, bytes: [UInt8])] = []
    while source.position < end {
      guard let record = try source.next() else {
        guard Clocks.monotonic() < deadline else {
          throw FileError(ETIMEDOUT, "read \(stream)/\(partition) from \(source.position) to \(end)")
        }
        usleep(200)
        continue
      }
      var reader = record.reader
      records.append((record.position, try reader.view(UInt8.self, count: reader.remaining).array))
    }
    return records
  }

  func check(sourceLocation: SourceLocation = #_sourceLocation) throws {
    var ends: [JoinInput: [Position]] = [:]
    for input in traffic.rules.allInputs where input.stream == .impressions {
      ends[input] = try records("impressions", input.partition).map(\.position)
    }
    let expected = Set(
      traffic.expected().map { example in
        var example = example
        let input = JoinInput(.impressions, Int(example.impression.hash64 >> 32) % traffic.rules.impressionPartitions)
        example.ordinal = ends[input]![Int(example.ordinal.low) - 1]
        return example.encoded
      })
    let found = try (0..<traffic.rules.outputPartitions).flatMap { try records("examples", $0).map(\.bytes) }
    #expect(Set(found) == expected, sourceLocation: sourceLocation)
    #expect(found.count == expected.count, sourceLocation: sourceLocation)
  }

  /// Steps until all inputs are read and all outputs acknowledged.
  func finish(_ joiner: Joiner) throws {
    let deadline = Clocks.monotonic() + 60_000_000_000
    var idle = 0
    while idle < 20, Clocks.monotonic() < deadline {
      let isRead = joiner.status.inputs.allSatisfy { $0.unread == 0 && $0.watermark != nil }
      if try joiner.step() || !isRead || joiner.trouble != nil { idle = 0 } else { idle += 1 }
      usleep(1000)
    }
    #expect(idle == 20)
    try joiner.checkpoint()
  }
}

@Suite("Joiner on Kafka, on librdkafka's mock cluster", .serialized) struct KafkaJoinerTests {
  private func cluster(_ traffic: Traffic) throws -> MockCluster {
    let cluster = try MockCluster()
    cluster.create("impressions", partitions: traffic.rules.impressionPartitions)
    cluster.create("actions", partitions: traffic.rules.actionPartitions)
    cluster.create("examples", partitions: traffic.rules.outputPartitions)
    return cluster
  }

  @Test(
    .enabled(
      if: getenv("GUIRA_KAFKA_FAULTS") != nil,
      "SKIPPED: it stalled twice on a machine with much other work, for a reason not found yet; GUIRA_KAFKA_FAULTS=1 runs it"
    ))
  func `brokers that are lost and answer with errors cost no label, and repeat none`() throws {
    let scratch = ScratchDirectory()
    let traffic = Traffic(impressions: 150, seed: 30)
    let brokers = try cluster(traffic)
    var cluster = KafkaCluster(root: scratch.path, brokers: brokers.brokers, traffic)
    cluster.options.syncInterval = .zero
    cluster.options.checkpointInterval = .milliseconds(20)
    try cluster.writeAll()
    let joiner = try Joiner(cluster.options, streams: cluster.streams)
    joiner.readBatchLimit = 8
    for round in 0..<3 {
      brokers.inject([.notLeader, .timedOut, .notEnoughReplicas], into: .produce)
      brokers.inject([.notLeader, .timedOut], into: .fetch)
      brokers.inject([.notLeader], into: .offsets)
      brokers.set(1 + round % 3, up: false)
      for _ in 0..<12 { _ = try joiner.step() }
      brokers.set(1 + round % 3, up: true)
      for _ in 0..<12 { _ = try joiner.step() }
    }
    try cluster.finish(joiner)
    try cluster.check()
  }

  @Test func `killed again and again, it neither loses nor repeats a label`() async throws {
    let scratch = ScratchDirectory()
    let traffic = Traffic(impressions: 200, seed: 31)
    let brokers = try cluster(traffic)
    let cluster = KafkaCluster(root: scratch.path, brokers: brokers.brokers, traffic)
    try cluster.writeAll()
    let place = { try (0..<2).reduce(0) { $0 + (try cluster.carrier("examples").end(partition: $1)?.low ?? 0) } }
    var places: [UInt64] = []
    for (round, fuse) in [3, 60, 140, 90].enumerated() {
      await #expect(processExitsWith: .signal(SIGKILL)) {
        [root = scratch.path as String, brokers = brokers.brokers as String, round = round as Int, fuse = fuse as Int]
        in
        var cluster = KafkaCluster(root: root, brokers: brokers, Traffic(impressions: 200, seed: 31))
        cluster.options.syncInterval = .zero
        cluster.options.checkpointInterval = round % 2 == 0 ? .zero : .milliseconds(50)
        let streams = DeadlyStreams(streams: cluster.streams, fuse: DeadlyStreams.Fuse(fuse))
        let joiner = try Joiner(cluster.options, streams: streams)
        joiner.readBatchLimit = 4
        while true {
          _ = try joiner.step()
          usleep(200)
        }
      }
      places.append(try place())
    }
    try cluster.finish(Joiner(cluster.options, streams: cluster.streams))
    try cluster.check()
    #expect(places == places.sorted() && places[1] > 4)
  }
}
