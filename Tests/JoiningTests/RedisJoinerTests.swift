import Base
import Foundation
import Glibc
import Redis
import RedisStreams
import RedisTesting
import Streams
import Testing

@testable import Joining

/// Traffic on Redis Streams, and a joiner beside it that may be killed at any time.
struct RedisCluster {
  let root: String
  let port: Int
  let prefix: String
  let traffic: Traffic
  var options: JoinerOptions

  init(root: String, port: Int, prefix: String, _ traffic: Traffic) {
    self.root = root
    self.port = port
    self.prefix = prefix
    self.traffic = traffic
    options = JoinerOptions(rules: traffic.rules, stateDirectory: "\(root)/joiner-\(prefix)")
    options.readAheadMilliseconds = 500
  }

  func carrier(_ stream: String) -> RedisCarrier {
    RedisCarrier(RedisAddress(host: "127.0.0.1", port: port), prefix: prefix, stream: stream)
  }

  var streams: CarriedJoinerStreams {
    CarriedJoinerStreams(
      impressions: carrier("impressions"), actions: carrier("actions"), examples: carrier("examples"),
      late: carrier("late"))
  }

  /// Writes all events; waits while the server is away.
  func writeAll(syncEvery: Int = .max) throws {
    for input in traffic.rules.allInputs {
      var sink = try PatientSink.opened(shouldStop: { false }) { () throws(StreamError) in
        try carrier(input.stream.rawValue).sink(partition: input.partition)
      }
      for (index, event) in traffic.streams[input]!.enumerated() {
        var writer = ByteWriter()
        event.encode(into: &writer)
        try sink.append(writer.written)
        if index % syncEvery == syncEvery - 1 { try sink.sync() }
      }
      try sink.sync()
    }
  }

  /// All records of a partition, with their positions.
  func records(_ stream: String, _ partition: Int) throws -> [(position: Position, bytes: [UInt8])] {
    guard var source = try carrier(stream).source(partition: partition, consumer: "test", from: .start) else {
      return []
    }
    let end = try source.end()
    var records: [(position: Position, bytes: [UInt8])] = []
    while source.position < end {
      guard let record = try source.next() else { continue }
      var reader = record.reader
      records.append((record.position, try reader.view(UInt8.self, count: reader.remaining).array))
    }
    return records
  }

  /// The bytes of all examples, by partition.
  func examples() throws -> [[[UInt8]]] {
    try (0..<traffic.rules.outputPartitions).map { try records("examples", $0).map(\.bytes) }
  }

  /// What must come out, with the positions that the impressions have here.
  func expected() throws -> Set<[UInt8]> {
    var ends: [JoinInput: [Position]] = [:]
    for input in traffic.rules.allInputs where input.stream == .impressions {
      ends[input] = try records("impressions", input.partition).map(\.position)
    }
    return Set(
      traffic.expected().map { example in
        var example = example
        let input = JoinInput(.impressions, Int(example.impression.hash64 >> 32) % traffic.rules.impressionPartitions)
        example.ordinal = ends[input]![Int(example.ordinal.low) - 1]
        return example.encoded
      })
  }

  /// How far the examples are.
  func place() throws -> UInt64 {
    let carrier = carrier("examples")
    return try (0..<traffic.rules.outputPartitions).reduce(0) { $0 + (try carrier.end(partition: $1)?.low ?? 0) }
  }

  /// Joins until all is read and written.
  func finish() throws {
    let joiner = try Joiner(options, streams: streams)
    var idle = 0
    while idle < 5 {
      if try joiner.step() { idle = 0 } else { idle += 1 }
      usleep(3000)  // an empty answer stands for two milliseconds
    }
    #expect(joiner.status.inputs.allSatisfy { $0.unread == 0 })
    try joiner.checkpoint()
  }
}

/// Ends this process as `kill -9` does, a little later and wherever it is then.
private func killSoon(microseconds: UInt32) {
  let thread = Thread {
    usleep(microseconds)
    kill(getpid(), SIGKILL)
  }
  thread.start()
}

@Suite("Joiner on Redis", .serialized) struct RedisJoinerTests {
  /// `GUIRA_JOINER_KILLS=200 swift test --filter RedisJoinerTests` is the long run.
  static let kills = ProcessInfo.processInfo.environment["GUIRA_JOINER_KILLS"].flatMap { Int($0) } ?? 5

  @Test func `Redis in, Redis out, by the definition of the join`() throws {
    guard let server = try RedisProcess() else { return }
    let scratch = ScratchDirectory()
    let cluster = RedisCluster(root: scratch.path, port: server.port, prefix: "a", Traffic(impressions: 150, seed: 10))
    try cluster.writeAll()
    try cluster.finish()
    let examples = try cluster.examples().flatMap { $0 }
    #expect(try Set(examples) == cluster.expected())
    #expect(examples.count == Set(examples).count)
    try cluster.finish()
    #expect(try cluster.examples().flatMap { $0 } == examples)
  }

  @Test func `killed again and again during a replay, its examples are those of an undisturbed run`() async throws {
    guard let server = try RedisProcess() else { return }
    let scratch = ScratchDirectory()
    let impressions = 60 * Self.kills + 200
    let traffic = Traffic(impressions: impressions, seed: 51)
    let calm = RedisCluster(root: scratch.path, port: server.port, prefix: "calm", traffic)
    try calm.writeAll()
    try calm.finish()
    let cluster = RedisCluster(root: scratch.path, port: server.port, prefix: "killed", traffic)
    try cluster.writeAll()
    var random = SeededRandom(seed: 7)
    var halfway = 0
    for round in 0..<Self.kills {
      // By turns at its n-th write, and at any moment at all.
      let moment = round % 2 == 0 ? Int.random(in: 1...150, using: &random) : Int.random(in: 5...150, using: &random)
      await #expect(processExitsWith: .signal(SIGKILL)) {
        [
          root = scratch.path as String, port = server.port as Int, impressions = impressions as Int,
          round = round as Int, moment = moment as Int
        ] in
        var cluster = RedisCluster(
          root: root, port: port, prefix: "killed", Traffic(impressions: impressions, seed: 51))
        cluster.options.syncInterval = round % 4 < 2 ? .zero : .milliseconds(5)
        cluster.options.checkpointInterval = round % 3 == 0 ? .zero : .milliseconds(20)
        let isAtWrite = round % 2 == 0
        let fuse = DeadlyStreams.Fuse(isAtWrite ? moment : .max)
        let joiner = try Joiner(cluster.options, streams: DeadlyStreams(streams: cluster.streams, fuse: fuse))
        joiner.readBatchLimit = 2
        if !isAtWrite { killSoon(microseconds: UInt32(moment * 1000)) }
        while true {
          _ = try joiner.step()
          usleep(100)
        }
      }
      let place = try cluster.place()
      if place > 0, try place < calm.place() { halfway += 1 }
    }
    try cluster.finish()
    for (killed, undisturbed) in zip(try cluster.examples(), try calm.examples()) {
      #expect(killed.count == undisturbed.count)
      #expect(Set(killed) == Set(undisturbed))
      #expect(Set(killed).count == killed.count)
    }
    #expect(2 * halfway >= Self.kills, "most kills came before the first example or after the last")
    print("joiner on Redis: \(Self.kills) kills, \(halfway) of them in the middle of the examples")
  }

  @Test func `with the server killed and started again it waits, goes on, and loses nothing`() throws {
    guard let server = try RedisProcess() else { return }
    let scratch = ScratchDirectory()
    var cluster = RedisCluster(root: scratch.path, port: server.port, prefix: "b", Traffic(impressions: 300, seed: 12))
    cluster.options.syncInterval = .zero
    cluster.options.checkpointInterval = .milliseconds(10)
    try cluster.writeAll(syncEvery: 10)
    let joiner = try Joiner(cluster.options, streams: cluster.streams)
    joiner.readBatchLimit = 8
    joiner.houseKeepingInterval = .zero
    for round in 0..<6 {
      for _ in 0..<(10 * round) { _ = try joiner.step() }
      server.kill()
      for _ in 0..<5 { #expect(try !joiner.step()) }
      #expect(joiner.status.waitsFor?.contains("is not there") == true)
      try server.start()
    }
    var idle = 0
    while idle < 50 {
      if try joiner.step() { idle = 0 } else { idle += 1 }
      usleep(1000)
    }
    #expect(joiner.trouble == nil)
    try joiner.checkpoint()
    let examples = try cluster.examples().flatMap { $0 }
    #expect(try Set(examples) == cluster.expected())
    #expect(examples.count == Set(examples).count)
  }

  @Test func `a joiner that was replaced stops, and leaves nothing behind`() throws {
    guard let server = try RedisProcess() else { return }
    let scratch = ScratchDirectory()
    var cluster = RedisCluster(root: scratch.path, port: server.port, prefix: "c", Traffic(impressions: 100, seed: 13))
    cluster.options.syncInterval = .zero
    try cluster.writeAll()
    let old = try Joiner(cluster.options, streams: cluster.streams)
    old.readBatchLimit = 4
    for _ in 0..<20 { _ = try old.step() }
    // Another machine has a copy of the state directory.
    var other = RedisCluster(root: scratch.path + "/other", port: server.port, prefix: "c", cluster.traffic)
    other.options.syncInterval = .zero
    try other.finish()
    let error = #expect(throws: JoinerError.self) { while try old.step() {} }
    guard case .stream(_, .fenced)? = error else {
      Issue.record("\(String(describing: error))")
      return
    }
    let examples = try cluster.examples().flatMap { $0 }
    #expect(try Set(examples) == cluster.expected())
    #expect(examples.count == Set(examples).count)
  }
}
