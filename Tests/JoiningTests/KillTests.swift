import Base
import Glibc
import Streams
import Testing

@testable import Joining

/// Streams whose n-th append or sync kills the process: before, in the middle of, or after the work.
struct DeadlyStreams: JoinerStreams {
  let streams: CarriedJoinerStreams
  let fuse: Fuse

  final class Fuse {
    var left: Int
    init(_ left: Int) { self.left = left }

    func burn() {
      left -= 1
      if left == 0 { kill(getpid(), SIGKILL) }
    }
  }

  struct Sink: RecordSink {
    var sink: any RecordSink
    let fuse: Fuse

    mutating func append(_ payload: RawSpan) throws(StreamError) -> Position {
      fuse.burn()
      return try sink.append(payload)
    }

    mutating func sync() throws(StreamError) {
      fuse.burn()
      try sink.sync()
      fuse.burn()
    }

    var end: Position { sink.end }
    var synced: Position { sink.synced }
  }

  func source(_ input: JoinInput, from position: Position) throws(StreamError) -> (any RecordSource)? {
    try streams.source(input, from: position)
  }
  func sink(_ output: JoinOutput) throws(StreamError) -> any RecordSink {
    Sink(sink: try streams.sink(output), fuse: fuse)
  }
  func written(_ output: JoinOutput, from position: Position) throws(StreamError) -> any RecordSource {
    try streams.written(output, from: position)
  }
  func slowestConsumer(of output: JoinOutput) throws(StreamError) -> (processed: Position, safe: Position)? {
    try streams.slowestConsumer(of: output)
  }
  func discard(_ output: JoinOutput, before position: Position, from sink: any RecordSink) throws(StreamError) {}
}

@Suite("Kill -9", .serialized) struct KillTests {
  @Test func `killed for real at its n-th write, it neither loses nor repeats a label`() async throws {
    let scratch = ScratchDirectory()
    var cluster = try Cluster(root: scratch.path, Traffic(impressions: 100, seed: 50), lateActions: true)
    try cluster.writeAll()
    let root = scratch.path
    for fuse in [1, 3, 40, 95, 120, 200] {
      await #expect(processExitsWith: .signal(SIGKILL)) { [root = root as String, fuse = fuse as Int] in
        var cluster = try Cluster(root: root, Traffic(impressions: 100, seed: 50), lateActions: true)
        cluster.options.checkpointInterval = .zero
        cluster.options.syncInterval = .zero
        cluster.options.memory = 0
        let streams = DeadlyStreams(streams: cluster.streams, fuse: DeadlyStreams.Fuse(fuse))
        let joiner = try Joiner(cluster.options, streams: streams)
        joiner.readBatchLimit = 4
        while try joiner.step() {}
        try joiner.checkpoint()
      }
    }
    cluster.options.memory = 0
    let joiner = try cluster.joiner()
    while try joiner.step() {}
    var counters: JoinCounters?
    try joiner.run(until: { true }, report: { counters = $0.counters })
    try cluster.check(counters!)
    #expect(UInt64(try cluster.records("late", 0).count) == counters!.lateActions)
  }
}
