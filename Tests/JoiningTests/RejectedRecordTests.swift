import Base
import Streams
import Testing

@testable import Joining

@Suite("Rejected records") struct RejectedRecordTests {
  private func bytes(_ event: Event, and more: [UInt8] = []) -> [UInt8] {
    var writer = ByteWriter()
    event.encode(into: &writer)
    return writer.copy() + more
  }

  @Test func `records that are no events, or of absurd times, are refused alone and set aside`() throws {
    let scratch = ScratchDirectory()
    var cluster = try Cluster(root: scratch.path, Traffic(impressions: 60, seed: 77))
    let good = action("click", 1, at: 5)
    let bad: [[UInt8]] = [
      Array("{}".utf8), Array(bytes(good).dropLast()), bytes(good, and: [0]),
      bytes(action("click", 1, at: JoinedRecordFault.latestTime + 1)), bytes(action("click", 1, at: .max)),
    ]
    do {
      let sink = try JournalSink(StreamLocation(root: scratch.path, stream: "actions", partition: 0))
      for record in bad { try sink.append(record.span.bytes) }
      try sink.sync()
    }
    try cluster.writeAll()
    let joiner = try cluster.joiner()
    while try joiner.step() {}
    var status: JoinerStatus?
    try joiner.run(until: { true }, report: { status = $0 })
    try cluster.check(try #require(status).counters)
    #expect(status?.counters.malformed == 5)
    #expect(status?.refused == ["not_an_event": 3, "absurd_time": 2])
    #expect(status?.notSetAside == 0)
    let aside = try Files.read("\(scratch.path)/joiner/\(RejectedEvents.fileName)").split(separator: 0x0A).map {
      String(decoding: $0, as: UTF8.self)
    }
    #expect(aside.count == 5)
    #expect(aside[0].contains(#""stream":"actions","partition":0,"position":"#))
    #expect(aside[0].contains(#""code":"not_an_event""#) && aside[0].hasSuffix(#""text":"7b7d"}"#))
    #expect(aside[4].contains(#""code":"absurd_time","reason":"time is 9223372036854775807; expected UTC"#))
  }
}
