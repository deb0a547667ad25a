import Base
import Foundation
import Streams
import Testing
import Wire

@testable import Ingesting

/// What is wrong reaches the ingest through the real socket: each event is refused alone, and the rest goes on.
@Suite("Wrong events over ZeroMQ", .serialized) struct SocketRefusalTests {
  private let now = Clocks.wall()

  private struct Answer: Decodable {
    struct Fault: Decodable, Equatable {
      let line: Int
      let code: String
      let reason: String
    }
    let accepted: Int
    let repeated: Int
    let refused: Int
    let errors: [Fault]
  }

  private struct Aside: Decodable {
    let arrival: Int64
    let line: Int
    let code: String
    let reason: String
    let text: String
  }

  private func answer(_ text: String?) throws -> Answer {
    try JSONDecoder().decode(Answer.self, from: Data(try #require(text).utf8))
  }

  private func setAside(_ scratch: Scratch) throws -> [Aside] {
    let bytes = try Data(contentsOf: URL(filePath: scratch.path + "/rejected.jsonl"))
    #expect(String(data: bytes, encoding: .utf8) != nil, "the file is UTF-8 whatever was sent")
    return try bytes.split(separator: 0x0A).map { try JSONDecoder().decode(Aside.self, from: $0) }
  }

  private func impression(_ id: Int, time: Int64? = nil, _ rest: String = #""features":{"user":7}"#) -> [UInt8] {
    Array(#"{"type":"impression","id":\#(id),"time":\#(time ?? now),\#(rest)}"#.utf8)
  }

  @Test func `wrong lines of every kind are refused alone with line and reason, counted and kept`() throws {
    let scratch = try Scratch()
    let server = try startIngest(scratch, { $0.endpoint = "tcp://127.0.0.1:*" }, rejectedByteLimit: 1 << 20)
    defer { server.stop() }
    let client = try Client(try #require(server.endpoint))
    let lines: [(bytes: [UInt8], code: String?, reason: String)] = [
      (impression(1), nil, ""),
      (impression(2, #""colour":1"#), "unknown_field", "no field 'colour'"),
      (Array(#"{"type":"impression","id":3}"#.utf8), "missing_field", "no 'time'"),
      (Array(#"{"type":"impression","time":\#(now)}"#.utf8), "missing_field", "no 'id'"),
      (Array(#"{"type":"action","impression":1,"time":\#(now)}"#.utf8), "missing_field", "no 'action'"),
      (Array(#"{"id":4,"time":\#(now)}"#.utf8), "missing_field", "no 'type'"),
      (Array(#"{"type":"impression","id":4,"time":"noon"}"#.utf8), "wrong_type", "'time' is a text"),
      (impression(5, #""features":[1]"#), "wrong_type", "'features' is a list"),
      (impression(5, #""features":{"user":1.5}"#), "wrong_type", "'user' is a fraction"),
      (impression(5, #""prediction":{"click":2}"#), "wrong_type", "expected 0...1"),
      (impression(6, time: now / 1000), "absurd_time", "looks like seconds"),
      (impression(6, time: now + 3_600_000), "absurd_time", "time is \(now + 3_600_000)"),
      (impression(6, time: .min), "absurd_time", "time is \(Int64.min)"),
      ([UInt8](repeating: 0x20, count: 1 << 20) + [0x31], "not_json", "not a JSON object"),  // blanks are cut off first
      (impression(7, "\"features\":{\"user\":\"\(String(repeating: "x", count: 1 << 20))\"}"), "oversized", "1048576"),
      (
        Array(#"{"type":"action","impression":""#.utf8) + [0xFF, 0xFE] + Array(#"","action":"click","time":1}"#.utf8),
        "not_utf8", "not UTF-8"
      ),
      (Array("nonsense".utf8), "not_json", "not a JSON object"),
      ([0x00, 0x01, 0x02], "not_json", "not a JSON object"),
      (Array(#"{"type":"sale"}"#.utf8), "unknown_type", "'sale'"),
      (impression(8, #""features":{"usr":1}"#), "unknown_feature", "'usr'"),
      (impression(8, #""features":{"tags":[1,2,3]}"#), "too_many_ids", "the limit is 2"),
      (impression(8, #""prediction":{"buy":0.5}"#), "unknown_task", "'buy'"),
      (Array(#"{"type":"action","impression":1,"action":"click","time":\#(now)}"#.utf8), nil, ""),
    ]
    let wrong = lines.enumerated().filter { $0.element.code != nil }
    client.send(EventsRequest.encoded(Array(lines.map(\.bytes).joined(separator: [0x0A])), request: 1))
    let told = try answer(try client.receive()?.answer.text)
    #expect(told.accepted == 2 && told.repeated == 0 && told.refused == wrong.count)
    #expect(told.errors.map(\.line) == wrong.map { $0.offset + 1 })
    #expect(told.errors.map(\.code) == wrong.map { $0.element.code })
    for (fault, line) in zip(told.errors, wrong) {
      #expect(fault.reason.contains(line.element.reason), "line \(fault.line): \(fault.reason)")
    }
    var counts: [String: UInt64] = [:]
    for line in wrong { counts[line.element.code ?? "", default: 0] += 1 }
    #expect(server.counters.refused == counts && server.counters.notSetAside == 0)
    let aside = try setAside(scratch)
    #expect(aside.map(\.line) == told.errors.map(\.line) && aside.map(\.code) == told.errors.map(\.code))
    #expect(aside.map(\.reason) == told.errors.map(\.reason))
    for (kept, line) in zip(aside, wrong) {
      let blanks = line.element.bytes.prefix { $0 == 0x20 }.count
      let head = line.element.bytes.dropFirst(blanks).prefix(RejectedEvent.textLimit)
      #expect(kept.text == String(decoding: head, as: UTF8.self))
      #expect(kept.arrival >= now)
    }
    // The rest went on, and so does the conversation.
    #expect(
      try client.ask(String(decoding: impression(9), as: UTF8.self), request: 2)?.text?.hasPrefix(#"{"accepted":1,"#)
        == true)
    #expect(try events(scratch, .impressions).count { !isWatermark($0) } == 2)
    #expect(try events(scratch, .actions).count { !isWatermark($0) } == 1)
  }

  @Test func `beyond its limit the file of refused lines grows no more, and counting goes on`() throws {
    let scratch = try Scratch()
    let server = try startIngest(scratch, { $0.endpoint = "tcp://127.0.0.1:*" })
    defer { server.stop() }
    let client = try Client(try #require(server.endpoint))
    for request in 1...20 as ClosedRange<UInt64> {
      client.send(
        EventsRequest.encoded(Array(String(repeating: "x", count: 900).utf8) + [0x0A, 0xFF], request: request))
      #expect(try answer(try client.receive()?.answer.text).refused == 2)
    }
    let counters = server.counters
    #expect(counters.refused == ["not_json": 20, "not_utf8": 20])
    let aside = try setAside(scratch)
    #expect(counters.notSetAside == 40 - UInt64(aside.count) && aside.count > 2)
    #expect(try Data(contentsOf: URL(filePath: scratch.path + "/rejected.jsonl")).count <= 4096)
  }

  @Test func `wrong events of a protobuf batch are refused alone, a batch that is none whole`() throws {
    let scratch = try Scratch()
    let server = try startIngest(scratch, { $0.endpoint = "tcp://127.0.0.1:*" }, rejectedByteLimit: 1 << 20)
    defer { server.stop() }
    let client = try Client(try #require(server.endpoint))
    func message(_ field: UInt8, _ parts: [UInt8]...) -> [UInt8] {
      let content = parts.flatMap { $0 }
      return [field << 3 | 2, UInt8(content.count)] + content
    }
    func varint(_ field: UInt8, _ value: Int64) -> [UInt8] {
      var rest = UInt64(bitPattern: value)
      var bytes = [field << 3]
      while rest >= 0x80 {
        bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
        rest >>= 7
      }
      return bytes + [UInt8(rest)]
    }
    func text(_ field: UInt8, _ text: String) -> [UInt8] { message(field, Array(text.utf8)) }
    func shown(_ parts: [UInt8]...) -> [UInt8] { message(1, message(1, parts.flatMap { $0 })) }
    func feature(_ name: String, _ values: [UInt8]) -> [UInt8] { message(4, text(1, name), values) }
    let good = shown(varint(1, 1), varint(3, now), feature("user", varint(2, 7)))
    let bodies: [(bytes: [UInt8], code: String?)] = [
      (good, nil),
      (shown(varint(1, 2), varint(3, now), varint(9, 1)), nil),  // an unknown field is passed over
      (shown(varint(1, 3)), "missing_field"),
      (shown(varint(3, now)), "missing_field"),
      (message(1), "missing_field"),
      (shown(varint(1, 4), varint(3, now / 1000)), "absurd_time"),
      (shown(varint(1, 4), varint(3, now + 3_600_000)), "absurd_time"),
      (shown(varint(1, 4), varint(3, -1)), "absurd_time"),
      (shown(varint(1, 5), varint(3, now), feature("usr", varint(2, 7))), "unknown_feature"),
      (shown(varint(1, 5), varint(3, now), feature("user", message(4, [0, 0, 0, 0]))), "wrong_type"),
      (shown(varint(1, 5), varint(3, now), feature("user", varint(2, 7) + varint(2, 8))), "too_many_ids"),
      (shown(varint(1, 5), varint(3, now), message(5, text(1, "buy"))), "unknown_task"),
      (message(1, message(2, varint(1, 1), varint(4, now))), "wrong_type"),  // no name
      (message(1, message(2, varint(1, 1), text(3, "click"), varint(4, now))), nil),
    ]
    let wrong = bodies.enumerated().filter { $0.element.code != nil }
    client.send(EventsRequest.encoded(bodies.flatMap(\.bytes), as: .protobuf, request: 1))
    let told = try answer(try client.receive()?.answer.text)
    #expect(told.accepted == 3 && told.refused == wrong.count)
    #expect(told.errors.map(\.line) == wrong.map { $0.offset + 1 })
    #expect(told.errors.map(\.code) == wrong.map { $0.element.code })
    let aside = try setAside(scratch)
    #expect(aside.map(\.line) == told.errors.map(\.line) && aside.map(\.code) == told.errors.map(\.code))
    #expect(aside.last?.text.contains("\(now)") == true)
    // A text that is not UTF-8 makes a message that is none: nothing of the batch is taken.
    let broken: [[UInt8]] = [
      shown(varint(3, now), message(2, [0xFF])), [0x0A, 0x7F, 0x0A], shown([0x33]),
      [0x0A] + [UInt8](repeating: 0xFF, count: 12),
    ]
    for (place, tail) in broken.enumerated() {
      let fresh = shown(varint(1, 100 + Int64(place)), varint(3, now))
      client.send(EventsRequest.encoded(fresh + tail, as: .protobuf, request: UInt64(place + 2)))
      let refusal = try #require(try client.receive()?.answer.refusal)
      #expect(refusal.code == .malformed && refusal.message.contains("no EventBatch"))
    }
    #expect(try events(scratch, .impressions).count { !isWatermark($0) } == 2)
    client.send(EventsRequest.encoded(shown(varint(1, 200), varint(3, now)), as: .protobuf, request: 99))
    #expect(try answer(try client.receive()?.answer.text).accepted == 1)
  }
}
