import Base
import Glibc
import Journal
import Streams
import Testing

@testable import Joining

/// A directory of its own that goes with the value.
final class ScratchDirectory {
  let path: String

  init() {
    var template = Array("/tmp/guira-joining-XXXXXX".utf8CString)
    precondition(mkdtemp(&template) != nil, "no scratch directory")
    path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  deinit {
    ScratchDirectory.remove(path)
  }

  private static func remove(_ path: String) {
    if unlink(path) == 0 { return }
    for name in (try? Files.names(in: path)) ?? [] { remove("\(path)/\(name)") }
    rmdir(path)
  }
}

/// Traffic that is written to journals piece by piece, and a joiner beside it that may be dropped at any time.
struct Cluster {
  let root: String
  let traffic: Traffic
  var options: JoinerOptions
  private var writers: [JoinInput: JournalSink] = [:]
  private var written: [JoinInput: Int] = [:]

  init(root: String, _ traffic: Traffic, lateActions: Bool = false) throws {
    self.root = root
    self.traffic = traffic
    var rules = traffic.rules
    rules.emitsLateActions = lateActions
    options = JoinerOptions(rules: rules, stateDirectory: "\(root)/joiner")
    options.readAheadMilliseconds = 500
  }

  var streams: CarriedJoinerStreams { CarriedJoinerStreams(journalsIn: root, durable: false) }

  func joiner() throws -> Joiner { try Joiner(options, streams: streams) }

  private func location(_ input: JoinInput) -> StreamLocation {
    StreamLocation(root: root, stream: input.stream.rawValue, partition: input.partition)
  }

  /// Writes up to `count` more records of an input; false when it was at its end.
  mutating func write(_ input: JoinInput, count: Int) throws -> Bool {
    let events = traffic.streams[input]!
    let begin = written[input, default: 0]
    guard begin < events.count else { return false }
    if writers[input] == nil {
      var journal = JournalOptions()
      journal.durable = false
      writers[input] = try JournalSink(location(input), options: journal)
    }
    let end = min(begin + count, events.count)
    for event in events[begin..<end] {
      var writer = ByteWriter()
      event.encode(into: &writer)
      try writers[input]!.append(writer.written)
    }
    try writers[input]!.sync()
    written[input] = end
    return true
  }

  mutating func writeAll() throws {
    for input in traffic.rules.allInputs { while try write(input, count: .max / 2) {} }
    writers = [:]
  }

  func records(_ stream: String, _ partition: Int) throws -> [[UInt8]] {
    let location = StreamLocation(root: root, stream: stream, partition: partition)
    let source = try JournalSource(location, consumer: "test")
    var records: [[UInt8]] = []
    while var record = try source.next()?.reader {
      records.append(try record.view(UInt8.self, count: record.remaining).array)
    }
    return records
  }

  /// All examples, each in the partition it belongs to.
  func examples() throws -> [Example] {
    try (0..<traffic.rules.outputPartitions).flatMap { partition in
      try records("examples", partition).map { bytes in
        var reader = ByteReader(Blob(bytes))
        let example = try Example(decoding: &reader)
        try reader.expectEnd()
        #expect(Int(example.impression.hash64 % UInt64(traffic.rules.outputPartitions)) == partition)
        return example
      }
    }
  }

  /// The ordinal of a record is its position in the journal, not its number as in `Traffic.expected`.
  func expected() throws -> [Example] {
    var ends: [JoinInput: [Position]] = [:]
    for input in traffic.rules.allInputs where input.stream == .impressions {
      let source = try JournalSource(location(input), consumer: "test")
      while let record = try source.next() { ends[input, default: []].append(record.position) }
    }
    return traffic.expected().map { example in
      var example = example
      let input = JoinInput(.impressions, Int(example.impression.hash64 >> 32) % traffic.rules.impressionPartitions)
      example.ordinal = ends[input]![Int(example.ordinal.low) - 1]
      return example
    }
  }

  func check(_ counters: JoinCounters, sourceLocation: SourceLocation = #_sourceLocation) throws {
    let expected = try expected()
    let found = try examples().map(\.encoded)
    #expect(found.count == expected.count, sourceLocation: sourceLocation)
    #expect(Set(found) == Set(expected.map(\.encoded)), sourceLocation: sourceLocation)
    #expect(counters.examples == UInt64(expected.count), sourceLocation: sourceLocation)
    for (index, labels) in counters.labels.enumerated() {
      let emitted = expected.count { $0.labels[index] != .masked }
      let positive = expected.count { $0.labels[index] == .positive }
      #expect(labels.emitted == UInt64(emitted) && labels.positive == UInt64(positive), sourceLocation: sourceLocation)
    }
  }
}

@Suite("Joiner", .serialized) struct JoinerTests {
  @Test func `journals in, journals out, and a second run has nothing to add`() throws {
    let scratch = ScratchDirectory()
    var cluster = try Cluster(root: scratch.path, Traffic(impressions: 150, seed: 10))
    try cluster.writeAll()
    var status: JoinerStatus?
    for _ in 0..<2 {
      let joiner = try cluster.joiner()
      while try joiner.step() {}
      try joiner.run(until: { true }, report: { status = $0 })
      try cluster.check(status!.counters)
    }
    #expect(status!.inputs.map(\.name) == ["impressions 0", "impressions 1", "actions 0", "actions 1", "actions 2"])
    #expect(status!.inputs.allSatisfy { $0.unread == 0 && $0.behindMilliseconds == 0 })
    #expect(status!.withheldImpressions == 0)
    #expect(status!.waitsFor == nil)
    let places = try JournalConsumers.read(directory: "\(scratch.path)/streams/actions/1")
    #expect(places["joiner"]!.safe > 0 && places["joiner"]!.processed == places["joiner"]!.safe)
  }

  @Test(arguments: [1 << 30, 8_000, 0])
  func `dropped at any moment and started anew, it neither loses nor repeats a label`(memory: Int) throws {
    var stored = 0
    for seed in 0..<12 as Range<UInt64> {
      let scratch = ScratchDirectory()
      var random = SeededRandom(seed: seed)
      var cluster = try Cluster(root: scratch.path, Traffic(impressions: 120, seed: 20 + seed), lateActions: true)
      cluster.options.checkpointInterval = seed % 3 == 0 ? .seconds(3600) : .microseconds(200)
      cluster.options.syncInterval = seed % 2 == 0 ? .zero : .microseconds(500)
      cluster.options.memory = memory
      var joiner: Joiner? = try cluster.joiner()
      var open = cluster.traffic.rules.allInputs
      var drops = 0
      while let input = open.randomElement(using: &random) {
        if try !cluster.write(input, count: Int.random(in: 1...60, using: &random)) { open.removeAll { $0 == input } }
        for _ in 0..<Int.random(in: 0...8, using: &random) { _ = try joiner!.step() }
        guard random.uniform() < 0.3 else { continue }
        if random.uniform() < 0.3 { try joiner!.checkpoint() }
        stored += joiner!.core.storedImpressions
        joiner = nil  // what was not flushed is gone, and so is the state since the last checkpoint
        joiner = try cluster.joiner()
        drops += 1
      }
      while try joiner!.step() {}
      var counters: JoinCounters?
      try joiner!.run(until: { true }, report: { counters = $0.counters })
      #expect(drops > 3)
      try cluster.check(counters!)
      let late = try cluster.records("late", 0)
      #expect(UInt64(late.count) == counters!.lateActions)
      #expect(joiner!.core.pendingImpressions == 0)
    }
    #expect(memory == 1 << 30 ? stored == 0 : stored > 0)
  }

  @Test func `without its checkpoint it reads everything again and adds nothing`() throws {
    let scratch = ScratchDirectory()
    var cluster = try Cluster(root: scratch.path, Traffic(impressions: 100, seed: 40), lateActions: true)
    try cluster.writeAll()
    var counters: JoinCounters?
    for _ in 0..<2 {
      let joiner = try cluster.joiner()
      while try joiner.step() {}
      try joiner.run(until: { true }, report: { counters = $0.counters })
      try cluster.check(counters!)
      #expect(UInt64(try cluster.records("late", 0).count) == counters!.lateActions)
      unlink("\(scratch.path)/joiner/joiner.checkpoint")
    }
  }

  @Test func `it stops reading while a consumer is too far behind`() throws {
    let scratch = ScratchDirectory()
    var cluster = try Cluster(root: scratch.path, Traffic(impressions: 100, seed: 41))
    cluster.options.backlogLimit = 500
    try cluster.writeAll()
    for partition in 0..<2 {
      _ = try JournalSink(StreamLocation(root: scratch.path, stream: .examples, partition: partition))
      try JournalConsumers.commit(
        directory: "\(scratch.path)/streams/examples/\(partition)", consumer: "trainer", processed: 0, safe: 0)
    }
    let joiner = try cluster.joiner()
    joiner.houseKeepingInterval = .zero
    joiner.readBatchLimit = 8
    var steps = 0
    while !joiner.isHeldBack, steps < 10_000 {
      _ = try joiner.step()
      try joiner.checkpoint()
      steps += 1
    }
    #expect(try joiner.step() == false)
    #expect(joiner.status.waitsFor!.hasPrefix("waits for the readers of examples "))
    let held = try cluster.examples().count
    #expect(held < 100)
    for _ in 0..<20 { _ = try joiner.step() }
    #expect(try cluster.examples().count == held)
    for partition in 0..<2 {
      try JournalConsumers.remove(directory: "\(scratch.path)/streams/examples/\(partition)", consumer: "trainer")
    }
    _ = try joiner.step()
    while try joiner.step() {}
    var counters: JoinCounters?
    try joiner.run(until: { true }, report: { counters = $0.counters })
    try cluster.check(counters!)
  }

  @Test func `it tells what it waits for`() throws {
    let scratch = ScratchDirectory()
    var traffic = Traffic(impressions: 0, seed: 1)
    for input in traffic.rules.allInputs { traffic.streams[input] = [.watermark(time: 50_000)] }
    traffic.streams[JoinInput(.actions, 2)] = [.watermark(time: 10_000), .watermark(time: 50_000)]
    var cluster = try Cluster(root: scratch.path, traffic)
    cluster.options.readAheadMilliseconds = 10_000
    let joiner = try cluster.joiner()
    joiner.houseKeepingInterval = .zero
    _ = try joiner.step()
    #expect(joiner.status.waitsFor == "waits for impressions 0: the stream is not there yet")
    for input in traffic.rules.allInputs { _ = try cluster.write(input, count: 0) }
    while try joiner.step() {}
    #expect(joiner.status.waitsFor == nil)
    for input in traffic.rules.allInputs.dropLast() { _ = try cluster.write(input, count: 1) }
    while try joiner.step() {}
    #expect(joiner.status.waitsFor == "waits for actions 2: nothing has come yet")
    _ = try cluster.write(JoinInput(.actions, 2), count: 1)
    while try joiner.step() {}
    #expect(joiner.status.waitsFor == "waits for actions 2: 40 s behind")
    _ = try cluster.write(JoinInput(.actions, 2), count: 1)
    while try joiner.step() {}
    #expect(joiner.status.waitsFor == nil)
    #expect(joiner.status.watermark == 50_000)
  }

  @Test func `no input is read far ahead of the others`() throws {
    let scratch = ScratchDirectory()
    var traffic = Traffic(impressions: 0, seed: 1)
    let shown = JoinInput(.impressions, 0)
    traffic.streams[shown] = (0..<1000).map { impression($0, at: 10_000 + Int64($0) * 10) }
    for input in traffic.rules.allInputs where input != shown { traffic.streams[input] = [.watermark(time: 12_000)] }
    var cluster = try Cluster(root: scratch.path, traffic)
    try cluster.writeAll()
    let joiner = try cluster.joiner()
    while try joiner.step() {}
    #expect(joiner.status.watermark == 12_000)
    #expect(joiner.status.inputs[0].watermark == 12_510, "the first record beyond 500 ms ahead")
  }

  @Test func `two joiners never share a state directory, nor an output`() throws {
    let scratch = ScratchDirectory()
    var cluster = try Cluster(root: scratch.path, Traffic(impressions: 0, seed: 1))
    let joiner = try cluster.joiner()
    #expect(throws: JoinerError.self) { _ = try cluster.joiner() }
    cluster.options.stateDirectory += "-other"
    let error = #expect(throws: JoinerError.self) { _ = try cluster.joiner() }
    #expect(error!.description.hasPrefix("the joiner cannot use the stream examples 0: "))
    withExtendedLifetime(joiner) {}
  }

  @Test func `a checkpoint that does not read, or is of other streams, stops it with words`() throws {
    let scratch = ScratchDirectory()
    var cluster = try Cluster(root: scratch.path, Traffic(impressions: 30, seed: 42))
    try cluster.writeAll()
    do {
      let joiner = try cluster.joiner()
      while try joiner.step() {}
      try joiner.checkpoint()
    }
    let path = "\(scratch.path)/joiner/joiner.checkpoint"
    let good = try Files.read(path)
    var random = SeededRandom(seed: 1)
    for _ in 0..<200 {
      var damaged = good
      damaged[Int.random(in: good.indices, using: &random)] ^= 1 << UInt8.random(in: 0..<8, using: &random)
      try Files.replace(path, with: damaged, durable: false)
      #expect(throws: JoinerError.self) { _ = try cluster.joiner() }
    }
    try Files.replace(path, with: [], durable: false)
    #expect(throws: JoinerError.badCheckpoint(path: path, .truncated(offset: 0, needed: 4, available: 0))) {
      _ = try cluster.joiner()
    }
    try Files.replace(path, with: good, durable: false)
    cluster.options.rules.outputPartitions = 1
    #expect(throws: JoinerError.fewerOutputs(stored: 2, configured: 1)) { _ = try cluster.joiner() }
    cluster.options.rules.outputPartitions = 2
    rename("\(scratch.path)/streams/examples/0", "\(scratch.path)/streams/examples/gone")
    let error = #expect(throws: JoinerError.self) { _ = try cluster.joiner() }
    #expect(error!.description.hasPrefix("examples 0 ends at 0, before "))
  }
}
