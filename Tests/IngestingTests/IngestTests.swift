import Base
import Foundation
import Glibc
import Streams
import Synchronization
import Testing

@testable import Ingesting

@Suite("Ingest over HTTP", .serialized) struct IngestTests {
  private func impression(_ id: Int, user: Int = 7, time: Milliseconds) -> String {
    #"{"type":"impression","id":\#(id),"time":\#(time),"features":{"user":\#(user)}}"#
  }

  private func action(_ id: Int, _ name: String = "click", time: Milliseconds) -> String {
    #"{"type":"action","impression":\#(id),"action":"\#(name)","time":\#(time)}"#
  }

  @Test func `what was acknowledged is in the journal, with its arrival, in the partition of its impression`() throws {
    let scratch = try Scratch()
    let server = try startIngest(scratch) { $0.partitions = 2 }
    defer { server.stop() }
    let now = Clocks.wall()
    let body = (0..<50).flatMap { [impression($0, time: now - 60_000), action($0, time: now - 30_000)] }
    let answer = try post(body.joined(separator: "\n"), to: server.port)
    #expect(answer.status == 200)
    #expect(answer.body == #"{"accepted":100,"repeated":0,"refused":0,"errors":[]}"# + "\n")
    var found = 0
    for partition in 0..<2 {
      for event in try events(scratch, .impressions, partition: partition) {
        guard case .impression(let impression) = event else { continue }
        #expect(StreamLocation.partition(of: impression.id, count: 2) == partition)
        #expect((now...Clocks.wall()).contains(impression.arrival))
        #expect(impression.features == FeatureBlock(schema: schema, values: [.ids([7]), .ids([])]))
        found += 1
      }
      found += try events(scratch, .actions, partition: partition).filter { !isWatermark($0) }.count
    }
    #expect(found == 100)
    #expect(server.counters.impressions == 50 && server.counters.actions == 50)
  }

  @Test func `a request sent again is taken once, and so are events within one`() throws {
    let scratch = try Scratch()
    let server = try startIngest(scratch)
    defer { server.stop() }
    let now = Clocks.wall()
    let body = [
      impression(1, time: now), action(1, time: now), action(1, time: now), action(1, time: now - 1),
      action(1, "like", time: now), impression(1, user: 8, time: now),
    ].joined(separator: "\r\n")
    #expect(try post(body, to: server.port).body.hasPrefix(#"{"accepted":4,"repeated":2,"#))
    #expect(try post(body, to: server.port).body.hasPrefix(#"{"accepted":0,"repeated":6,"#))
    #expect(try events(scratch, .impressions).filter { !isWatermark($0) }.count == 1)
    #expect(try events(scratch, .actions).filter { !isWatermark($0) }.count == 3)
    #expect(server.counters.repeated == 8)
  }

  @Test func `wrong lines are refused alone with line and reason, and set aside`() throws {
    let scratch = try Scratch()
    let server = try startIngest(scratch)
    defer { server.stop() }
    let now = Clocks.wall()
    let ahead = now + 3_600_000
    let body = """
      {"type":"watermark","time":\(now)}
      \(impression(1, time: now))

      {"type":"impression","id":2,"time":\(now),"features":{"usr":1}}
      nonsense
      \(action(3, time: ahead))
      """
    let answer = try post(body, to: server.port, headers: ["Content-Type: application/x-ndjson; charset=utf-8"])
    #expect(answer.status == 400)
    #expect(
      answer.body.hasPrefix(
        #"{"accepted":1,"repeated":0,"refused":3,"errors":[{"line":4,"code":"unknown_feature","reason":"#
          + #""unknown feature 'usr'; the schema has user, tags"},{"line":5,"code":"not_json","#))
    #expect(answer.body.contains(#"{"line":6,"code":"absurd_time","reason":"time is \#(ahead); expected"#))
    let aside = try String(contentsOfFile: scratch.path + "/rejected.jsonl", encoding: .utf8).split(separator: "\n")
    #expect(aside.count == 3)
    #expect(aside[1].contains(#""line":5,"code":"not_json""#) && aside[1].hasSuffix(#""text":"nonsense"}"#))
    #expect(server.counters.refused == ["unknown_feature": 1, "not_json": 1, "absurd_time": 1])
    // The file has a limit, and counting goes on beyond it.
    for _ in 0..<10 { _ = try post(String(repeating: "x", count: 900), to: server.port) }
    #expect(server.counters.notSetAside > 0)
    #expect(
      try FileManager.default.attributesOfItem(atPath: scratch.path + "/rejected.jsonl")[.size] as? Int ?? .max <= 4096)
  }

  @Test func `a byte order mark, line ends of all kinds and a last line without one are taken, and gzip is refused`()
    throws
  {
    let scratch = try Scratch()
    let server = try startIngest(scratch)
    defer { server.stop() }
    let now = Clocks.wall()
    let body =
      "\u{FEFF}\(impression(1, time: now))\r\n\r\n \t\n\(impression(2, time: now))\n\u{FEFF}\(impression(3, time: now))\n"
      + action(1, time: now)
    let answer = try post(body, to: server.port)
    #expect(answer.body.hasPrefix(#"{"accepted":3,"repeated":0,"refused":1,"errors":[{"line":5,"code":"not_json","#))
    let packed = try post("\u{1F}\u{8B}", to: server.port)
    #expect(packed.status == 400 && packed.body.hasPrefix(#"{"accepted":0,"repeated":0,"refused":1,"#))
  }

  @Test func `limits have a status each, and what is refused for now says when to come again`() throws {
    let scratch = try Scratch()
    let isBehind = Atomic(false)
    let server = try startIngest(scratch) {
      $0.bodyByteLimit = 2000
      $0.eventLimit = 3
    } backlog: {
      isBehind.load(ordering: .relaxed) ? "the joiner is behind" : nil
    }
    defer { server.stop() }
    let now = Clocks.wall()
    let four = (1...4).map { action($0, time: now) }.joined(separator: "\n")
    #expect(try post(four, to: server.port).status == 413)
    #expect(try post(String(repeating: " ", count: 2001), to: server.port).status == 413)
    #expect(try post("a", to: server.port, headers: ["Content-Encoding: gzip"]).status == 415)
    #expect(try post("a", to: server.port, headers: ["Content-Type: image/png"]).status == 415)
    #expect(try post("", to: server.port).body.hasPrefix(#"{"accepted":0,"#))
    #expect(try post("", to: server.port, path: "/v1/event").status == 404)
    #expect(try post("", to: server.port, path: "/readyz", method: "GET").status == 200)
    isBehind.store(true, ordering: .relaxed)
    let refused = try post(action(9, time: now), to: server.port)
    #expect(refused.status == 503)
    #expect(refused.body == #"{"error":"the joiner is behind"}"# + "\n")
    #expect(refused.head.lowercased().contains("retry-after: 1"))
    #expect(try post("", to: server.port, path: "/readyz", method: "GET").status == 503)
    #expect(try events(scratch, .actions).filter { !isWatermark($0) }.isEmpty)
    let metrics = try post("", to: server.port, path: "/metrics", method: "GET").body
    #expect(metrics.contains("guira_ingest_requests_total{code=\"413\"} 2"))
    #expect(metrics.contains("guira_ingest_requests_total{code=\"503\"} 1"))
  }

  @Test func `requests beyond those that may wait are told so`() throws {
    let gate = Mailbox<Void>(bound: 1)
    let inSync = Mailbox<Void>(bound: 100)
    let scratch = try Scratch()
    var options = IngestOptions(schema: schema, port: 0)
    options.waitingLimit = 2
    let path = scratch.path
    let server = try IngestServer(options: options, logger: .init(label: "test")) { () throws(StreamError) in
      IngestSinks(
        impressions: [GatedSink(gate, inSync)], actions: [GatedSink(gate, inSync)], rejectedPath: path + "/rejected")
    }
    let now = Clocks.wall()
    let statuses = Mutex<[Int]>([])
    let first = OwnedThread(named: "first") { [self] in
      let answer = try? post(action(0, time: now), to: server.port)
      statuses.withLock { $0.append(answer?.status ?? 0) }
    }
    // The writer holds the first request; two more may wait, the other two are refused.
    #expect(!inSync.waitAll(timeout: .seconds(20)).isEmpty)
    let refused = Mailbox<Int>(bound: 10)
    let others = (1...4).map { id in
      OwnedThread(named: "other") { [self] in
        let answer = try? post(action(id, time: now), to: server.port)
        statuses.withLock { $0.append(answer?.status ?? 0) }
        if answer?.status == 429 { _ = refused.offer(id) }
      }
    }
    var told = 0
    let deadline = Clocks.monotonic() + 20_000_000_000
    while told < 2, Clocks.monotonic() < deadline { told += refused.waitAll(timeout: .seconds(1)).count }
    gate.close()
    for thread in [first] + others { thread.join() }
    #expect(statuses.withLock { $0.sorted() } == [200, 200, 200, 429, 429])
    server.stop()
  }

  @Test func `a journal that cannot be written is said to all who wait, and ends the ingest`() throws {
    let scratch = try Scratch()
    let path = scratch.path
    let server = try IngestServer(options: IngestOptions(schema: schema, port: 0), logger: .init(label: "test")) {
      () throws(StreamError) in
      IngestSinks(impressions: [FullSink()], actions: [FullSink()], rejectedPath: path + "/rejected")
    }
    let answer = try post(action(1, time: Clocks.wall()), to: server.port)
    #expect(answer.status == 503)
    #expect(answer.body.contains("the events could not be written: there is nothing at no space"))
    #expect(try post(action(1, time: Clocks.wall()), to: server.port).status == 503)
    #expect(server.failure != nil)
    #expect(server.counters.actions == 0)
    server.stop()
  }

  @Test func `a port that is taken is said, and nothing is left running`() throws {
    let scratch = try Scratch()
    let server = try startIngest(scratch)
    defer { server.stop() }
    let (port, other) = (server.port, try Scratch())
    #expect(throws: IngestError.listening(.portBusy(host: "127.0.0.1", port: port))) {
      _ = try startIngest(other) { $0.http.port = port }
    }
  }
}

/// A sink whose syncs wait until its gate is closed.
private final class GatedSink: RecordSink {
  private let gate: Mailbox<Void>
  private let inSync: Mailbox<Void>
  private(set) var end = Position.start
  private(set) var synced = Position.start

  init(_ gate: Mailbox<Void>, _ inSync: Mailbox<Void>) {
    self.gate = gate
    self.inSync = inSync
  }

  func append(_ payload: RawSpan) throws(StreamError) -> Position {
    end = Position(low: end.low + 1)
    return end
  }

  func sync() throws(StreamError) {
    _ = inSync.offer(())
    while !gate.isClosed { _ = gate.waitAll(timeout: .seconds(1)) }
    synced = end
  }
}

/// A sink on a full disk.
private final class FullSink: RecordSink {
  let end = Position.start
  let synced = Position.start
  func append(_ payload: RawSpan) throws(StreamError) -> Position { end }
  func sync() throws(StreamError) { throw .noDataset(path: "no space") }
}
