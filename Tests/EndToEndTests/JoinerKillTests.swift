import Base
import Cluster
import Foundation
import Glibc
import Streams
import Testing

/// A joiner as a process of its own, on journals that the test writes.
private struct JoinerLives {
  let state: String
  let configuration: String

  /// - Parameter memory: its bound, as the configuration writes it.
  init(state: String, memory: String) throws {
    self.state = state
    configuration = "\(state).yaml"
    var text = try String(contentsOfFile: sampleConfiguration, encoding: .utf8)
    for (key, value) in [("memory: 1GiB", "memory: \(memory)"), ("checkpointEvery: 10s", "checkpointEvery: 100ms")] {
      try #require(text.contains(key))
      text = text.replacingOccurrences(of: key, with: value)
    }
    // Clicks wait for their window, so that many are pending; likes do not, so that actions call impressions back.
    let closing = try #require(text.range(of: "closing: [view_end]"))
    text.replaceSubrange(closing, with: "closing: []")
    try text.write(toFile: configuration, atomically: true, encoding: .utf8)
    try FileManager.default.createDirectory(atPath: state, withIntermediateDirectories: true)
  }

  func begin(fault: String? = nil) throws -> Process {
    try start(
      ["joiner", "--config", configuration, "--state", state, "--index", "0"], output: "\(state).log",
      environment: ["GUIRA_SUPERVISOR": "\(getpid())"].merging(fault.map { ["GUIRA_FAULT": $0] } ?? [:]) { $1 })
  }

  /// What a process of this joiner said last, when it was this one.
  func status(of process: Process) -> RoleStatus? {
    guard let data = try? Data(contentsOf: URL(filePath: "\(state)/joiner-0/status.json")),
      let status = try? JSONDecoder().decode(RoleStatus.self, from: data), status.pid == process.processIdentifier
    else { return nil }
    return status
  }

  /// Lets it come to the end of what is written, and ends it as an operator would.
  func finish() throws {
    let process = try begin()
    let deadline = Clocks.monotonic() + 240_000_000_000
    while process.isRunning, Clocks.monotonic() < deadline {
      if let counters = status(of: process)?.counters, counters["unread"] == 0, counters["pendingImpressions"] == 0,
        counters["impressions"] ?? 0 > 0
      {
        break
      }
      usleep(20_000)
    }
    try #require(process.isRunning, "the joiner ended: \(tail("\(state).log"))")
    try #require(Clocks.monotonic() < deadline, "the joiner did not come to the end: \(tail("\(state).log"))")
    process.terminate()
    process.waitUntilExit()
    #expect(process.terminationStatus == 0)
  }

  /// Every example in its partition's order of bytes.
  func examples() throws -> [[UInt8]] {
    let source = try JournalSource(StreamLocation(root: state, stream: .examples, partition: 0), consumer: "test")
    var records: [[UInt8]] = []
    while var record = try source.next()?.reader {
      records.append(try record.view(UInt8.self, count: record.remaining).array)
    }
    return records.sorted { $0.lexicographicallyPrecedes($1) }
  }
}

/// Traffic that goes into a joiner's journals piece by piece: 30 % of it repeated, 20 % late.
private struct PiecewiseTraffic {
  private var generator: TrafficGenerator
  private var sinks: [JournalSink]
  private var newest: Milliseconds = .min
  private var count = 0

  init(impressions: Int, seed: UInt64, root: String) throws {
    var options = TrafficOptions()
    options.seed = seed
    options.impressions = impressions
    options.impressionsPerSecond = 4
    options.repeatedShare = 0.3
    options.lateShare = 0.2
    generator = TrafficGenerator(options)
    sinks = try ["impressions", "actions"].map {
      try JournalSink(StreamLocation(root: root, stream: $0, partition: 0))
    }
  }

  /// Appends some records; false at the end, when the last window has passed.
  mutating func write(_ records: Int) throws -> Bool {
    for _ in 0..<records {
      guard let record = generator.next() else {
        try append(.watermark(time: newest + 3_600_000), to: [0, 1])
        return false
      }
      count += 1
      newest = max(newest, record.event.time)
      if case .impression = record.event {
        try append(record.event, to: [0])
      } else {
        try append(record.event, to: [1])
      }
      if count % 50 == 0 { try append(.watermark(time: newest - generator.latenessMilliseconds), to: [0, 1]) }
    }
    for index in sinks.indices { try sinks[index].sync() }
    return true
  }

  private mutating func append(_ event: Event, to indices: [Int]) throws {
    var writer = ByteWriter()
    event.encode(into: &writer)
    for index in indices {
      try sinks[index].append(writer.written)
      if case .watermark = event { try sinks[index].sync() }
    }
  }
}

@Suite("Kill -9 of the joiner", .serialized) struct JoinerKillTests {
  /// How often it is killed.
  private let kills = ProcessInfo.processInfo.environment["GUIRA_JOINER_KILLS"].flatMap { Int($0) } ?? 5

  @Test func `killed over and over in a replay, it gives the examples of an undisturbed run exactly`() throws {
    let scratch = try Scratch()
    let seed = UInt64(kills)
    var random = SeededRandom(seed: seed)
    let joiner = try JoinerLives(state: "\(scratch.path)/killed", memory: "1MiB")
    let impressions = max(4000, 200 * kills)
    var traffic = try PiecewiseTraffic(impressions: impressions, seed: seed, root: joiner.state)
    var (killed, atPoints, livesWithStore) = (0, 0, 0)
    for life in 0..<kills {
      // About all records, in as many pieces as there are lives; at times a life has nothing new to read.
      if life % 7 != 6 { _ = try traffic.write(impressions * 4 / kills) }
      let point = [nil, "pending.stored", nil, "pending.snapshot", "pending.named"][life % 5]
      let process = try joiner.begin(
        fault: point.map { "\($0):\(Int.random(in: 1...($0 == "pending.stored" ? 30 : 2), using: &random))" })
      let patience = Clocks.monotonic() + 60_000_000_000
      while process.isRunning, joiner.status(of: process) == nil, Clocks.monotonic() < patience { usleep(2000) }
      // From when it is at work: a moment at random, or longer when it is to find its own.
      let work = Int64.random(in: 0...1_000_000_000, using: &random) + (point == nil ? 0 : 2_000_000_000)
      let deadline = Clocks.monotonic() + work
      while process.isRunning, Clocks.monotonic() < deadline { usleep(2000) }
      if process.isRunning { kill(process.processIdentifier, SIGKILL) } else { atPoints += 1 }
      process.waitUntilExit()
      try #require(
        process.terminationReason == .uncaughtSignal && process.terminationStatus == SIGKILL,
        "life \(life) ended by itself: \(tail("\(joiner.state).log"))")
      killed += 1
      let names = (try? Files.names(in: "\(joiner.state)/joiner-0")) ?? []
      if names.contains(where: { $0.hasPrefix("pending-") }) { livesWithStore += 1 }
    }
    while try traffic.write(1000) {}
    try joiner.finish()
    #expect(killed == kills)
    // A few short lives may end before anything is put on disk.
    #expect(livesWithStore > 0 || kills < 50)
    let undisturbed = try JoinerLives(state: "\(scratch.path)/undisturbed", memory: "1GiB")
    try FileManager.default.createDirectory(atPath: "\(undisturbed.state)/streams", withIntermediateDirectories: true)
    for stream in ["impressions", "actions"] {
      try FileManager.default.copyItem(
        atPath: "\(joiner.state)/streams/\(stream)", toPath: "\(undisturbed.state)/streams/\(stream)")
    }
    try undisturbed.finish()
    let (found, expected) = (try joiner.examples(), try undisturbed.examples())
    #expect(expected.count >= impressions)
    #expect(found.count == expected.count)
    #expect(found == expected, "\(Set(found).symmetricDifference(expected).count) examples differ")
    print(
      "joiner killed \(killed) times, \(atPoints) of them at a fault point, \(livesWithStore) with a store: "
        + "\(found.count) examples, equal: \(found == expected)")
  }
}
