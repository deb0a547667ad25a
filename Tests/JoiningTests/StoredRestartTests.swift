import Base
import Glibc
import Streams
import Testing

@testable import Joining

/// What a restart makes of impressions on disk.
@Suite("Pending impressions on disk after a restart", .serialized) struct StoredRestartTests {
  /// A cluster whose joiner stopped with a checkpoint in the middle, when impressions were on disk.
  private func stopped(_ scratch: ScratchDirectory) throws -> (cluster: Cluster, stored: Int) {
    var cluster = try Cluster(root: scratch.path, Traffic(impressions: 200, seed: 60))
    cluster.options.memory = 0
    try cluster.writeAll()
    let joiner = try cluster.joiner()
    joiner.readBatchLimit = 8
    while joiner.core.storedImpressions < 10 { _ = try joiner.step() }
    try joiner.checkpoint()
    return (cluster, joiner.core.storedImpressions)
  }

  private func snapshots(_ cluster: Cluster) throws -> [String] {
    try Files.names(in: cluster.options.stateDirectory).filter { $0.hasPrefix("pending-") }
  }

  @Test func `a store that is gone stops it, and the error says what would be lost`() throws {
    let scratch = ScratchDirectory()
    let (cluster, stored) = try stopped(scratch)
    let name = try #require(try snapshots(cluster).first)
    #expect(try snapshots(cluster).count == 1)
    let path = "\(cluster.options.stateDirectory)/\(name)"
    rename(path, "\(scratch.path)/away")
    let error = #expect(throws: JoinerError.self) { _ = try cluster.joiner() }
    #expect(
      error!.description
        == "the joiner's store of pending impressions \(path) cannot be used: it is not there. \(stored) "
        + "pending impressions are in it, and their labels would be lost: put the directory back as it was. Without it "
        + "(move \(cluster.options.stateDirectory)/joiner.checkpoint away) the joiner reads its inputs and outputs from "
        + "their beginning, which works while they are kept whole")
    rename("\(scratch.path)/away", path)
    try finish(cluster)
  }

  private func finish(_ cluster: Cluster) throws {
    let joiner = try cluster.joiner()
    while try joiner.step() {}
    var counters: JoinCounters?
    try joiner.run(until: { true }, report: { counters = $0.counters })
    try cluster.check(counters!)
    #expect(try snapshots(cluster).isEmpty)
  }

  @Test func `every file of a store is missed, and a flipped byte of its impressions is seen`() throws {
    let scratch = ScratchDirectory()
    let (cluster, stored) = try stopped(scratch)
    let directory = try "\(cluster.options.stateDirectory)/\(#require(snapshots(cluster).first))"
    var damages = 0
    for name in try Files.names(in: directory) where !name.hasPrefix("OPTIONS") {
      let path = "\(directory)/\(name)"
      let whole = try Files.read(path)
      unlink(path)
      let error = #expect(throws: JoinerError.self, "without \(name)") { _ = try cluster.joiner() }
      #expect(error!.description.contains("cannot be used: "))
      #expect(error!.description.contains(" \(stored) pending impressions are in it"))
      for place in stride(from: 0, to: whole.count / 2, by: max(1, whole.count / 12)) {
        var damaged = whole
        damaged[place] ^= 0x10
        try Files.replace(path, with: damaged, durable: false)
        // Whatever is not seen does no harm: the join goes on with all that was pending.
        do throws(JoinerError) {
          let joiner = try Joiner(cluster.options, streams: cluster.streams)
          #expect(joiner.core.storedImpressions == stored)
        } catch {
          damages += 1
        }
      }
      try Files.replace(path, with: whole, durable: false)
    }
    #expect(damages > 10)
    try finish(cluster)
  }

  @Test func `a store of another checkpoint is refused`() throws {
    let scratch = ScratchDirectory()
    let (cluster, stored) = try stopped(scratch)
    let old = try #require(try snapshots(cluster).first)
    let directory = cluster.options.stateDirectory
    do {
      let joiner = try cluster.joiner()
      joiner.readBatchLimit = 8
      try Files.makeDirectory("\(scratch.path)/kept")
      for name in try Files.names(in: "\(directory)/\(old)") {
        try Files.linkOrCopy("\(directory)/\(old)/\(name)", to: "\(scratch.path)/kept/\(name)", links: false)
      }
      while joiner.core.storedImpressions == stored || joiner.core.storedImpressions == 0 { _ = try joiner.step() }
      try joiner.checkpoint()
    }
    let new = try #require(try snapshots(cluster).first)
    #expect(new != old)
    try Files.remove("\(directory)/\(new)")
    rename("\(scratch.path)/kept", "\(directory)/\(new)")
    let error = #expect(throws: JoinerError.self) { _ = try cluster.joiner() }
    guard case .pendingLost = error else {
      Issue.record("\(error!)")
      return
    }
  }

  @Test func `windows and tasks may change while impressions are on disk`() throws {
    let scratch = ScratchDirectory()
    func rules(_ tasks: TaskSpec...) -> JoinRules { JoinRules(tasks: tasks, graceMilliseconds: 1000) }
    var options = JoinerOptions(
      rules: rules(task("old", window: 900), task("click", window: 400), task("like", window: 800)),
      stateDirectory: "\(scratch.path)/joiner")
    options.memory = 0
    let streams = CarriedJoinerStreams(journalsIn: scratch.path, durable: false)
    let sinks = [
      try JournalSink(StreamLocation(root: scratch.path, stream: .impressions, partition: 0)),
      try JournalSink(StreamLocation(root: scratch.path, stream: .actions, partition: 0)),
    ]
    func write(_ event: Event, to sink: Int) throws {
      var writer = ByteWriter()
      event.encode(into: &writer)
      try sinks[sink].append(writer.written)
      try sinks[sink].sync()
    }
    for number in 1...4 as ClosedRange<UInt64> { try write(impression(number, at: 1000), to: 0) }
    try write(action("like", 2, at: 1020), to: 1)
    for sink in 0...1 { try write(.watermark(time: 1030), to: sink) }
    do {
      let joiner = try Joiner(options, streams: streams)
      while try joiner.step() {}
      #expect(joiner.core.storedImpressions == 4)
      // Of an impression that is on disk: it must find its way there, and out again after the restart.
      try write(action("end", 3, at: 1050), to: 1)
      try write(action("like", 4, at: 1060), to: 1)
      while try joiner.step() {}
      #expect(joiner.core.storedImpressions == 4)
      try joiner.checkpoint()
    }
    options.rules = rules(task("new", window: 500), task("like", window: 300), task("click", window: 700))
    let joiner = try Joiner(options, streams: streams)
    #expect(joiner.core.storedImpressions == 4)
    for sink in 0...1 { try write(.watermark(time: 9000), to: sink) }
    while try joiner.step() {}
    try joiner.checkpoint()
    let source = try streams.written(.examples(0), from: .start)
    var reading = source
    var briefs: [String] = []
    while var record = try reading.next()?.reader { briefs.append(try Example(decoding: &record).brief) }
    #expect(
      briefs == [
        "3@1000 due 1050 [- - -]", "1@1000 due 1300 [. - .]", "2@1000 due 1300 [. + .]", "4@1000 due 1300 [. + .]",
        "1@1000 due 1500 [- . .]", "2@1000 due 1500 [- . .]", "4@1000 due 1500 [- . .]", "1@1000 due 1700 [. . -]",
        "2@1000 due 1700 [. . -]", "4@1000 due 1700 [. . -]",
      ])
  }
}
