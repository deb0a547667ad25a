import Base
import Streams
import Testing

@testable import Ingesting

@Suite("What the ingest remembers") struct WriterTests {
  private final class Sink: RecordSink {
    var watermarks: [Milliseconds] = []
    var end = Position.start
    var synced = Position.start
    func append(_ payload: RawSpan) throws(StreamError) -> Position {
      var reader = ByteReader(Blob(payload.withUnsafeBytes { Array($0) }))
      if case .watermark(let time)? = try? Event(decoding: &reader) { watermarks.append(time) }
      return end
    }
    func sync() throws(StreamError) {}
  }

  @Test func `an event is known for its window and not for twice as long`() {
    var recent = RecentEvents(limit: 1000, window: .seconds(10), now: 0)
    let key = EventKey(high: 1, low: 2)
    func seconds(_ count: Int64) -> Int64 { count * 1_000_000_000 }
    let isNew = [9, 19, 31].map { recent.insert(key, now: seconds($0)) }
    #expect(isNew == [true, false, true])
  }

  @Test func `memory stays within its limit, and the newest half of it is always known`() {
    var recent = RecentEvents(limit: 1000, window: .seconds(10), now: 0)
    for number in 0..<UInt64(5000) {
      let isNew = recent.insert(EventKey(high: 0, low: number), now: 0)
      #expect(isNew && recent.count <= 1000)
    }
    for number in UInt64(4501)..<5000 {
      let isNew = recent.insert(EventKey(high: 0, low: number), now: 0)
      #expect(!isNew)
    }
  }

  @Test func `watermarks follow the newest event, never run ahead of the clock, and go on while nothing comes`() throws
  {
    let scratch = try Scratch()
    var options = IngestOptions(schema: schema, port: 0)
    options.latenessMilliseconds = 2000
    let (impressions, actions) = (Sink(), Sink())
    var writer = IngestWriter(
      options, impressions: [impressions], actions: [actions],
      rejected: try RejectedEvents(path: scratch.path + "/rejected", limit: 0), counters: SharedCounters(), now: 0)
    var parser = BatchParser(options)
    let wall: Milliseconds = 1_700_000_000_000
    try writer.tick(now: 0)
    #expect(impressions.watermarks.isEmpty)
    func send(_ time: Milliseconds, now: Int64, wall: Milliseconds) throws {
      let line = Array(#"{"type":"action","impression":\#(now),"action":"click","time":\#(time)}"#.utf8)
      let batch = parser.parse(line.span.bytes, arrival: wall)
      #expect(batch.records.count == 1)
      try writer.write([WaitingBatch(batch: batch, arrival: wall) { _ in }], now: now, wall: wall)
    }
    let second: Int64 = 1_000_000_000
    try send(wall - 5000, now: 0, wall: wall)
    try writer.tick(now: 0)
    try send(wall + 60_000, now: second, wall: wall + 1000)
    try writer.tick(now: second)
    try send(wall - 90_000, now: 2 * second, wall: wall + 2000)
    try writer.tick(now: 2 * second)
    try writer.tick(now: 60 * second)
    #expect(impressions.watermarks == [wall - 7000, wall - 1000, wall, wall + 58_000])
    #expect(actions.watermarks == impressions.watermarks)
  }

  @Test func `a protobuf action and its JSON line are one event to the ingest`() throws {
    var parser = BatchParser(IngestOptions(schema: schema, port: 0))
    let line = Array(#"{"type":"action","impression":17,"action":"click","time":1700000000000}"#.utf8)
    // EventBatch { events { action { number: 17 name: "click" time: 1700000000000 } } }
    let message: [UInt8] =
      [10, 18, 18, 16, 8, 17, 26, 5] + Array("click".utf8) + [32, 128, 208, 149, 255, 188, 49]
    let fromLine = parser.parse(line.span.bytes, arrival: 1_700_000_000_000)
    let fromMessage = try parser.parse(protobuf: message, arrival: 1_700_000_000_000)
    #expect(fromMessage.bytes == fromLine.bytes)
    #expect(fromMessage.records.map(\.key) == fromLine.records.map(\.key))
    #expect(fromMessage.records.count == 1 && fromMessage.refused.isEmpty)
  }
}
