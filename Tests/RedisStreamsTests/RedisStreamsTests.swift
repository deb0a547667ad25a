import Base
import Foundation
import Redis
import RedisTesting
import Streams
import Testing

@testable import RedisStreams

/// Appends texts and gives their positions.
@discardableResult
private func append(_ texts: [String], to sink: inout any RecordSink) throws -> [Position] {
  var positions: [Position] = []
  for text in texts { positions.append(try sink.append(Array(text.utf8).span.bytes)) }
  return positions
}

/// All texts that a source gives now.
private func texts(_ source: inout any RecordSource) throws -> [String] {
  var texts: [String] = []
  var patience = 0
  while patience < 2 {
    guard let record = try source.next() else {
      // An empty answer stands for two milliseconds.
      patience += 1
      usleep(3000)
      continue
    }
    var reader = record.reader
    texts.append(String(decoding: try reader.view(UInt8.self, count: reader.remaining).array, as: UTF8.self))
  }
  return texts
}

@Suite("Redis Streams", .serialized) struct RedisStreamsTests {
  private func carrier(_ server: RedisProcess, _ stream: String = "actions") -> RedisCarrier {
    RedisCarrier(server.address, prefix: "test", stream: stream)
  }

  private func command(_ server: RedisProcess, _ words: String...) throws -> RedisReply {
    try RedisConnection(server.address, patience: .seconds(1)).ask([words.map { Array($0.utf8) }])[0]
  }

  @Test func `records come out as they went in, each partition by itself`() throws {
    guard let server = try RedisProcess() else { return }
    let carrier = carrier(server)
    #expect(try carrier.source(partition: 0, consumer: "joiner", from: .start) == nil)
    #expect(try carrier.end(partition: 0) == nil)
    for partition in 0..<3 {
      var sink = try carrier.sink(partition: partition)
      #expect(try carrier.end(partition: partition) == .start)
      let positions = try append(["a\(partition)", "", "c"], to: &sink)
      #expect(positions == positions.sorted() && Set(positions).count == 3)
      #expect(sink.end == positions[2] && sink.synced == .start)
      #expect(try carrier.end(partition: partition) == .start)
      try sink.sync()
      #expect(sink.synced == positions[2])
      #expect(try carrier.end(partition: partition) == positions[2])
    }
    for partition in 0..<3 {
      var source = try #require(try carrier.source(partition: partition, consumer: "joiner", from: .start))
      #expect(try texts(&source) == ["a\(partition)", "", "c"])
      #expect(try source.end() == source.position)
    }
  }

  @Test func `a source opened at a position begins behind it, after a restart of the server too`() throws {
    guard let server = try RedisProcess() else { return }
    let carrier = carrier(server)
    var sink = try carrier.sink(partition: 0)
    let all = (0..<5000).map { "record \($0)" }
    let positions = try append(all, to: &sink)
    try sink.sync()
    for place in [0, 1, 1023, 1024, 4998] {
      var source = try #require(try carrier.source(partition: 0, consumer: "x", from: positions[place]))
      #expect(try texts(&source) == Array(all[(place + 1)...]))
    }
    server.kill()
    try server.start()
    var source = try #require(try carrier.source(partition: 0, consumer: "x", from: positions[4000]))
    #expect(try texts(&source) == Array(all[4001...]))
  }

  @Test func `records larger than a step, and many at once, arrive whole`() throws {
    guard let server = try RedisProcess() else { return }
    let carrier = carrier(server)
    var sink = try carrier.sink(partition: 0)
    let large = String(repeating: "x", count: 3 << 20)
    try append([large, "small", large, large], to: &sink)
    try sink.sync()
    var source = try #require(try carrier.source(partition: 0, consumer: "x", from: .start))
    #expect(try texts(&source).map(\.utf8.count) == [3 << 20, 5, 3 << 20, 3 << 20])
  }

  @Test func `an older writer is refused, whatever it does`() throws {
    guard let server = try RedisProcess() else { return }
    let carrier = carrier(server)
    var old = try carrier.sink(partition: 0)
    try append(["a"], to: &old)
    try old.sync()
    try append(["lost"], to: &old)
    var new = try carrier.sink(partition: 0)
    #expect(new.end == old.synced)
    let error = #expect(throws: StreamError.self) { try old.sync() }
    #expect(error == .fenced(stream: "actions/0", generation: 2))
    try append(["b"], to: &new)
    try new.sync()
    #expect(throws: StreamError.self) { try old.sync() }
    #expect(throws: StreamError.self) { try old.deleteRecords(before: new.synced, keeping: 0) }
    var source = try #require(try carrier.source(partition: 0, consumer: "x", from: .start))
    #expect(try texts(&source) == ["a", "b"])
  }

  @Test func `a step whose answer was lost is not carried out twice`() throws {
    guard let server = try RedisProcess() else { return }
    let partition = RedisPartition(prefix: "test", stream: "actions", partition: 0)
    let sink = try RedisSink(partition, server.address, durable: true)
    // Another connection carries out, under the sink's generation, what the sink is about to ask for.
    var link = RedisPartitionLink(partition, server.address)
    let end = RedisPartition.overhead + 1
    let step = ["1", "0", "\(end)", "a"].map { Array($0.utf8) }
    #expect(try link.run(.append, step) == .bytes(Array("\(end)".utf8)))
    for text in ["a", "b", "c"] { try sink.append(Array(text.utf8).span.bytes) }
    try sink.sync()
    var source: any RecordSource = RedisSource(partition, server.address, consumer: "x", from: .start)
    #expect(try texts(&source) == ["a", "b", "c"])
  }

  @Test func `while the server is away calls fail for now, and go on without loss or repeat`() throws {
    guard let server = try RedisProcess() else { return }
    let carrier = carrier(server)
    var sink = try carrier.sink(partition: 0)
    var source = try #require(try carrier.source(partition: 0, consumer: "x", from: .start))
    var expected: [String] = []
    var found: [String] = []
    for round in 0..<4 {
      let batch = (0..<50).map { "\(round).\($0)" }
      expected += batch
      try append(batch, to: &sink)
      if round % 2 == 0 { try sink.sync() }
      server.kill()
      #expect((#expect(throws: StreamError.self) { _ = try source.next() })?.isForNow == true)
      if round % 2 == 1 { #expect((#expect(throws: StreamError.self) { try sink.sync() })?.isForNow == true) }
      try server.start()
      var patient = PatientSink(sink, shouldStop: { false })
      try patient.sync()
      while (try? source.end()) == nil { usleep(1000) }
      found += try texts(&source)
    }
    #expect(found == expected)
  }

  @Test func `an acknowledged record is never lost by killing the server`() throws {
    guard let server = try RedisProcess() else { return }
    let carrier = carrier(server)
    var acknowledged = 0
    var expected: [String] = []
    for round in 0..<5 {
      var sink = try carrier.sink(partition: 0)
      for number in 0..<200 {
        expected.append("\(round).\(number)")
        try append([expected.last!], to: &sink)
        try sink.sync()
        acknowledged += 1
      }
      server.kill()
      try server.start()
    }
    var source = try #require(try carrier.source(partition: 0, consumer: "x", from: .start))
    #expect(try texts(&source) == expected)
    #expect(acknowledged == 1000)
  }

  @Test func `what no consumer needs is deleted, and who asks for it is told`() throws {
    guard let server = try RedisProcess() else { return }
    let carrier = carrier(server)
    var sink = try carrier.sink(partition: 0)
    let positions = try append((0..<3000).map { "record \($0)" }, to: &sink)
    try sink.sync()
    let source = try #require(try carrier.source(partition: 0, consumer: "joiner", from: .start))
    var committing = source
    try committing.commit(processed: positions[2500], safe: positions[2000])
    #expect(
      try carrier.consumers(partition: 0)
        == ["joiner": ConsumerPlace(processed: positions[2500], safe: positions[2000])])
    #expect(try carrier.backlog(partition: 0, of: "joiner") == positions[2999].low - positions[2500].low)
    try sink.deleteRecords(before: positions[2000], keeping: 0)
    var behind = try #require(try carrier.source(partition: 0, consumer: "joiner", from: positions[2000]))
    #expect(try texts(&behind).count == 999)
    var late = try #require(try carrier.source(partition: 0, consumer: "new", from: .start))
    let error = #expect(throws: StreamError.self) { _ = try late.next() }
    guard case .gone(_, .start, let first)? = error else {
      Issue.record("\(String(describing: error))")
      return
    }
    // The oldest that is left can be read.
    var rest = try #require(try carrier.source(partition: 0, consumer: "new", from: first))
    #expect(try texts(&rest).count >= 999)
  }

  @Test func `as many bytes stay as are to be kept`() throws {
    guard let server = try RedisProcess() else { return }
    let carrier = carrier(server)
    var sink = try carrier.sink(partition: 0)
    try append((0..<3000).map { "record \($0)" }, to: &sink)
    try sink.sync()
    try sink.deleteRecords(before: sink.synced, keeping: sink.synced.low)
    var source = try #require(try carrier.source(partition: 0, consumer: "x", from: .start))
    #expect(try texts(&source).count == 3000)
  }

  @Test func `a record that somebody took out, or put in, is noticed`() throws {
    guard let server = try RedisProcess() else { return }
    let carrier = carrier(server)
    var sink = try carrier.sink(partition: 0)
    let positions = try append(["a", "b", "c"], to: &sink)
    try sink.sync()
    #expect(try command(server, "XDEL", "{test:actions:0}", "0-\(positions[1].low)") == .integer(1))
    var source = try #require(try carrier.source(partition: 0, consumer: "x", from: .start))
    #expect(
      throws: StreamError.gone(stream: "actions/0", wanted: positions[0], first: positions[1])
    ) {
      while try source.next() != nil {}
    }
    _ = try command(server, "XADD", "{test:actions:1}", "*", "field", "value")
    var other = try carrier.sink(partition: 1)
    try append(["mine"], to: &other)
    #expect(throws: StreamError.self) { try other.sync() }
  }

  @Test func `a server that lost what it had acknowledged is told, by reader and writer`() throws {
    guard let server = try RedisProcess() else { return }
    let carrier = carrier(server)
    var sink = try carrier.sink(partition: 0)
    try append(["a", "b"], to: &sink)
    try sink.sync()
    var source = try #require(try carrier.source(partition: 0, consumer: "x", from: .start))
    #expect(try texts(&source).count == 2)
    _ = try command(server, "HSET", "{test:actions:0}:writer", "end", "17")
    let lost = #expect(throws: StreamError.self) { _ = try source.next() }
    #expect(lost?.isForNow == false)
    try append(["c"], to: &sink)
    #expect((#expect(throws: StreamError.self) { try sink.sync() })?.isForNow == false)
  }

  @Test func `a server that would lose what it acknowledged is refused, unless durability is none`() throws {
    for (arguments, advice) in [
      (["--appendonly", "no"], "`appendonly yes`"), (["--appendfsync", "everysec"], "`appendfsync always`"),
    ] {
      guard let server = try RedisProcess(arguments: arguments) else { return }
      let error = #expect(throws: StreamError.self) { _ = try carrier(server).sink(partition: 0) }
      #expect("\(try #require(error))".contains(advice))
      _ = try RedisCarrier(server.address, prefix: "test", stream: "actions", durable: false).sink(partition: 0)
    }
  }

  @Test func `a full server makes the writer wait, not lose`() throws {
    guard let server = try RedisProcess(arguments: ["--maxmemory", "3mb"]) else { return }
    let carrier = carrier(server)
    var sink = try carrier.sink(partition: 0)
    try append((0..<180).map { "\($0)" + String(repeating: "x", count: 20_000) }, to: &sink)
    #expect((#expect(throws: StreamError.self) { try sink.sync() })?.isForNow == true)
    _ = try command(server, "CONFIG", "SET", "maxmemory", "100mb")
    try sink.sync()
    var source = try #require(try carrier.source(partition: 0, consumer: "x", from: .start))
    #expect(try texts(&source).count == 180)
  }

  @Test func `a password is asked for and given`() throws {
    guard let server = try RedisProcess() else { return }
    _ = try command(server, "CONFIG", "SET", "requirepass", "open sesame")
    #expect((#expect(throws: StreamError.self) { _ = try carrier(server).sink(partition: 0) })?.isForNow == true)
    var address = server.address
    address.password = "open sesame"
    var sink = try RedisCarrier(address, prefix: "test", stream: "actions").sink(partition: 0)
    try append(["a"], to: &sink)
    try sink.sync()
    #expect(!"\(address)".contains("sesame"))
  }
}
