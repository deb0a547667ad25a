import Base
import Foundation
import Streams
import Testing
import Wire

@testable import Serving
@testable import UserModeling

@Suite("User embeddings over HTTP and messages") struct SoapServiceTests {
  private func soap(_ adjust: (inout SoapOptions) -> Void = { _ in }) throws -> Soap {
    let fixture = try Fixture()
    try fixture.load(version: 3)
    return try fixture.soap(store: MemoryStore(), adjust)
  }

  private func embed(_ service: SoapService, _ body: String, model: String = "users") throws -> [[String: Any]] {
    let bytes = Array(body.utf8)
    let reply = try service.embed(model: model, body: bytes.span.bytes)
    let object = try JSONSerialization.jsonObject(with: Data(reply.body)) as? [String: Any]
    return try #require(object?["users"] as? [[String: Any]])
  }

  private func refusal(_ service: SoapService, _ body: String, model: String = "users") -> RequestError? {
    do { _ = try embed(service, body, model: model) } catch { return error as? RequestError }
    return nil
  }

  @Test func `instances are answered and queued, and users read what came of them`() throws {
    let soap = try soap()
    let service = SoapService(soap: soap, stalenessLimit: nil)
    let first = try embed(
      service, #"{"instances":[{"user_id":7,"liked":[1,2]},{"user_id":"anna"}],"event_time":6000}"#)
    #expect(first.map { $0["source"] as? String } == ["default", "default"])
    #expect(soap.workOnce())
    let second = try embed(service, #"{"users":[7,"anna",8]}"#)
    #expect(second.map { $0["source"] as? String } == ["current", "current", "default"])
    #expect(second[0]["event_time"] as? Int == 6000 && second[0]["version"] as? Int == 3)
    #expect((second[0]["embedding"] as? [Double])?.count == 16)
    let one = try service.user(model: "users", name: "anna")
    #expect(String(decoding: one.body, as: UTF8.self).contains("\"source\":\"current\""))
    let shaped = try embed(service, #"{"users":[7],"shape":[1,4]}"#)
    #expect(shaped[0]["source"] as? String == "default" && (shaped[0]["embedding"] as? [Double])?.count == 4)
    #expect(try embed(service, #"{"users":[7],"as_of":5999}"#)[0]["source"] as? String == "default")
    #expect(try embed(service, #"{"users":[7],"as_of":6000}"#)[0]["source"] as? String == "stored")
  }

  @Test func `what cannot be answered is refused with what was expected`() throws {
    let service = SoapService(soap: try soap(), stalenessLimit: nil)
    let refusals = [
      "[": (400, "the body is not JSON"), "[]": (400, "the body is a list; expected an object"),
      "{}": (400, "the body needs one of 'users' and 'instances'"),
      #"{"users":[1],"instances":[]}"#: (400, "the body needs one of 'users' and 'instances'"),
      #"{"users":7}"#: (400, "'users' is an integer; expected a list"),
      #"{"users":[1.5]}"#: (400, "users[0] is a fraction; expected an integer or a text"),
      #"{"user":[1]}"#: (400, "'user' is not known; use users or instances, for, shape, as_of, event_time"),
      #"{"instances":[{"user_id":1}],"event_time":310001}"#: (
        400, "'event_time': the event time 310001 is more than 300.0 seconds after now, 10000"
      ),
      #"{"users":[\#((0..<300).map { "\($0)" }.joined(separator: ","))],"shape":[1,65536]}"#: (
        400, "300 users of 1 × 65536 numbers are more than 67108864 bytes"
      ),
      #"{"users":[1],"shape":[0,4]}"#: (400, "'shape' is not two numbers such as [2, 96]"),
      #"{"instances":[{"liked":[1]}]}"#: (400, "instances[0] has no 'user_id', which names the user"),
      #"{"instances":[{"user_id":1,"likes":[]}]}"#: (400, "instances[0]: "),
    ]
    for (body, (status, message)) in refusals {
      let answer = try #require(refusal(service, body), "\(body) was taken")
      #expect(answer.status == status && answer.message.hasPrefix(message), "\(body): \(answer.message)")
    }
    #expect(refusal(service, #"{"users":[1]}"#, model: "other")?.status == 404)
    let part = SoapService(soap: try soap { $0.part = (0, 2) }, stalenessLimit: nil)
    let other = try #require((0..<99 as Range<UInt64>).first { UserPart.index(of: $0, count: 2) == 1 })
    #expect(
      refusal(part, #"{"users":[\#(other)]}"#)
        == RequestError(status: 421, message: "user \(other) is kept by soap 1; ask there"))
  }

  @Test func `a platform that refuses the versions is not ready and says why`() throws {
    let soap = try soap()
    let service = SoapService(soap: soap, stalenessLimit: nil)
    _ = try embed(service, #"{"instances":[{"user_id":7}],"event_time":310000}"#)
    #expect(soap.workOnce() && service.readiness().status == 200)
    soap.predictor.store.refusal = "table 'user' has 5 weights per row"
    let reply = service.readiness()
    #expect(reply.status == 503 && String(decoding: reply.body, as: UTF8.self).contains("has 5 weights per row"))
    #expect(soap.status.problem == "table 'user' has 5 weights per row")
  }

  @Test func `metrics and status count what was answered`() throws {
    let service = SoapService(soap: try soap(), stalenessLimit: nil)
    #expect(service.readiness().status == 503)
    _ = try embed(service, #"{"instances":[{"user_id":7}]}"#)
    #expect(service.soap.workOnce())
    #expect(service.readiness().status == 200)
    _ = try embed(service, #"{"users":[7]}"#)
    let text = service.exposition()
    #expect(text.contains("guira_soap_reads_total{source=\"current\"} 1\n"))
    #expect(text.contains("guira_soap_reads_total{source=\"default\"} 1\n"))
    #expect(text.contains("guira_soap_computed_total 1\n"))
    #expect(String(decoding: service.statusReply().body, as: UTF8.self).contains("\"queued\":0"))
  }

  @Test func `requests and replies are read as they were written, and cut ones are refused`() throws {
    let request = EmbedRequest.encoded(
      model: "users", users: [7, 8], count: 2, dimension: 8, numbers: .float16, eventTime: 5, features: [[1, 2], []],
      request: 9)
    var reader = ByteReader(request)
    #expect(try MessageHeader(decoding: &reader) == MessageHeader(.embed, request: 9))
    let read = try EmbedRequest(decoding: &reader)
    #expect(read.model == "users" && read.users.array == [7, 8] && read.features == [[1, 2], []])
    #expect(read.count == 2 && read.dimension == 8 && read.numbers == .float16 && read.eventTime == 5)
    let origin = EmbedReply.Origin(version: 3, eventTime: 4, age: 5, source: 2, pooled: 1)
    let reply = EmbedReply.encoded(
      request: 9, count: 1, dimension: 2, numbers: .float32, origins: [origin, origin]
    ) { for index in 0..<4 { $0[index] = Float(index) } }
    var body = ByteReader(reply)
    _ = try MessageHeader(decoding: &body)
    let answer = try EmbedReply(decoding: &body)
    #expect(answer.origins.array == [origin, origin] && answer.values.array == [0, 1, 2, 3])
    for length in 16..<request.count {
      var cut = ByteReader(Blob(slicing: request, 16..<length))
      #expect(throws: DecodeError.self) { try EmbedRequest(decoding: &cut) }
    }
    for length in 16..<reply.count {
      var cut = ByteReader(Blob(slicing: reply, 16..<length))
      #expect(throws: DecodeError.self) { try EmbedReply(decoding: &cut) }
    }
  }
}
