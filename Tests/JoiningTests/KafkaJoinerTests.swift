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
  var properties: String?

  init(root: String, brokers: String, _ traffic: Traffic) {
    self.root = root
    self.brokers = brokers
    self.traffic = traffic
    options = JoinerOptions(rules: traffic.rules, stateDirectory: "\(root)/joiner")
    options.readAheadMilliseconds = 500
  }

  func carrier(_ stream: String) -> KafkaCarrier {
    KafkaCarrier(brokers: brokers, topic: stream, propertiesFile: properties, root: root, stream: stream)
  }

  var streams: CarriedJoinerStreams {
    CarriedJoinerStreams(
      impressions: carrier("impressions"), actions: carrier("actions"), examples: carrier("examples"),
      late: carrier("late"))
  }

  func writeAll() throws {
    var writer = try KafkaTrafficWriter(self)
    try writer.write(upTo: 1)
  }

  func records(_ stream: String, _ partition: Int) throws -> [(position: Position, bytes: [UInt8])] {
    guard var source = try carrier(stream).source(partition: partition, consumer: "test", from: .start) else {
      return []
    }
    let end = try source.end()
    let deadline = Clocks.monotonic() + 60_000_000_000
    var records: [(position: Position, bytes: [UInt8])] = []
    while source.position < end {
      let next: StreamRecord?
      do throws(StreamError) {
        next = try source.next()
      } catch {
        guard error.isForNow else { throw error }
        next = nil
      }
      guard let record = next else {
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

  /// Steps for a while, or until something is so; gives how often the joiner said that it waits for a server.
  func work(_ joiner: Joiner, atMost patience: Duration, until isDone: () -> Bool) throws -> Int {
    let deadline = Clocks.monotonic() + patience.nanoseconds
    var troubles = 0
    while !isDone(), Clocks.monotonic() < deadline {
      _ = try joiner.step()
      if joiner.trouble != nil { troubles += 1 }
      usleep(500)
    }
    return troubles
  }

  /// Works until all that the joiner wrote is acknowledged.
  func settle(_ joiner: Joiner) throws {
    let deadline = Clocks.monotonic() + 30_000_000_000
    while true {
      do throws(JoinerError) { return try joiner.checkpoint() } catch {
        guard error.isForNow, Clocks.monotonic() < deadline else { throw error }
      }
    }
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
    try settle(joiner)
  }
}

/// The writers of all inputs, who write the traffic piece by piece.
private struct KafkaTrafficWriter {
  private let traffic: Traffic
  private var sinks: [(input: JoinInput, sink: PatientSink, written: Int)] = []

  init(_ cluster: KafkaCluster) throws {
    traffic = cluster.traffic
    let deadline = Clocks.monotonic() + 60_000_000_000
    for input in traffic.rules.allInputs {
      let sink = try PatientSink.opened(shouldStop: { Clocks.monotonic() > deadline }) { () throws(StreamError) in
        try cluster.carrier(input.stream.rawValue).sink(partition: input.partition)
      }
      sinks.append((input, sink, 0))
    }
  }

  /// Writes each input up to a share of its events.
  mutating func write(upTo share: Double) throws {
    for index in sinks.indices {
      let events = traffic.streams[sinks[index].input]!
      let end = Int(share * Double(events.count))
      for event in events[sinks[index].written..<end] {
        var writer = ByteWriter()
        event.encode(into: &writer)
        try sinks[index].sink.append(writer.written)
      }
      sinks[index].written = end
      try sinks[index].sink.sync()
    }
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

  @Test func `brokers that are lost and answer with errors cost no label, and repeat none`() throws {
    let scratch = ScratchDirectory()
    let traffic = Traffic(impressions: 200, seed: 30)
    let brokers = try cluster(traffic)
    var cluster = KafkaCluster(root: scratch.path, brokers: brokers.brokers, traffic)
    cluster.properties = try MockCluster.oneRequestAtATime(in: "\(scratch.path)/settings")
    cluster.options.syncInterval = .zero
    cluster.options.checkpointInterval = .milliseconds(20)
    var writer = try KafkaTrafficWriter(cluster)
    let joiner = try Joiner(cluster.options, streams: cluster.streams)
    joiner.readBatchLimit = 8
    var (troubles, lost) = (0, 0)
    let rounds = 5
    for round in 0..<rounds {
      // Some of it is met by those who write the inputs, the rest by the joiner, who reads and writes.
      brokers.inject([.notLeader, .timedOut, .unknownPartition, .notLeader, .timedOut, .notLeader], into: .fetch)
      brokers.inject([.notLeader], into: .offsets)
      brokers.inject([.timedOut], into: .metadata)
      brokers.inject([.timedOut], into: .produce)
      try writer.write(upTo: Double(round + 1) / Double(rounds))
      brokers.inject([.notLeader, .timedOut, .notEnoughReplicas], into: .produce)
      let begun = joiner.core.counters.impressions
      troubles += try cluster.work(joiner, atMost: .seconds(5)) { joiner.core.counters.impressions > begun + 16 }
      // The mock repeats what is under way when its answer is lost; a broker does not.
      try cluster.settle(joiner)
      let away = round % 2 == 0 ? [1 + round % 3] : [1, 2, 3]
      for broker in away { brokers.set(broker, up: false) }
      lost += try cluster.work(joiner, atMost: .milliseconds(500)) { false }
      if round == 2 { brokers.lead("examples", 0, by: 1) }
      for broker in away { brokers.set(broker, up: true) }
    }
    try cluster.finish(joiner)
    brokers.clearErrors()
    try cluster.check()
    #expect(joiner.core.counters.impressions >= 200)
    print("joiner on Kafka: waited in \(troubles) steps for errors, in \(lost) for lost brokers")
    #expect(lost > 0, "no broker was missed")
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
