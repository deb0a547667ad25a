// HTTP around the ingest: paths and statuses. Handlers run on the event loop's thread, where bodies are parsed; the answer
// waits for the writer.

internal import Base
internal import HTTPTypes
internal import Hummingbird
internal import NIOCore
internal import Streams

/// The routes of an ingest.
struct IngestRouter: Sendable {
  let door: IngestDoor
  let parser: SharedParser

  private var options: IngestOptions { door.options }

  func build() -> Router<BasicRequestContext> {
    let router = Router()
    router.post("/v1/events") { request, _ in
      let answer: Response
      do { answer = try await take(request) } catch let refusal as RequestRefusal { answer = response(refusal) }
      door.counters.update { $0.answers[answer.status.code, default: 0] += 1 }
      return answer
    }
    router.get("/healthz") { _, _ in text(200, "alive\n") }
    router.get("/readyz") { _, _ in
      let problem = door.backlog()
      return text(problem == nil ? 200 : 503, (problem ?? "ready") + "\n")
    }
    router.get("/metrics") { _, _ in text(200, door.counters.now.exposition()) }
    return router
  }

  private func take(_ request: Request) async throws -> Response {
    let isProtobuf = try isProtobuf(request)
    let announced = request.headers[.contentLength].flatMap { Int($0) } ?? 0
    try door.admit(bytes: announced)
    let body: ByteBuffer
    do { body = try await request.body.collect(upTo: options.bodyByteLimit) } catch is NIOTooManyBytesError {
      throw door.tooLarge
    }
    let arrival = Clocks.wall()
    let batch: IngestBatch
    do throws(ProtobufFault) {
      batch = try parser.parse(body, isProtobuf: isProtobuf, arrival: arrival)
    } catch {
      throw RequestRefusal(status: 400, message: "\(error)")
    }
    let answer = try await withCheckedContinuation { continuation in
      door.submit(batch, arrival: arrival) { continuation.resume(returning: $0) }
    }.get()
    return response(answer.status, "application/json", answer.json)
  }

  /// Whether the body is protobuf; else it is JSON Lines.
  private func isProtobuf(_ request: Request) throws(RequestRefusal) -> Bool {
    if let encoding = request.headers[.contentEncoding], encoding != "identity" {
      throw RequestRefusal(status: 415, message: "Content-Encoding is '\(encoding)'; send the body uncompressed")
    }
    guard let type = request.headers[.contentType] else { return false }
    let media = type.prefix { $0 != ";" }.lowercased()
    if media == "application/x-protobuf" || media == "application/protobuf" { return true }
    let known = ["application/x-ndjson", "application/jsonl", "application/json", "text/plain"]
    // What curl says of -d and --data-binary when it is not told otherwise.
    guard known.contains(media) || media == "application/x-www-form-urlencoded" else {
      throw RequestRefusal(
        status: 415,
        message: "Content-Type is '\(media)'; send JSON Lines as application/x-ndjson, or application/x-protobuf")
    }
    return false
  }

  // MARK: Answers

  private func response(_ refusal: RequestRefusal) -> Response {
    var writer = ByteWriter(capacity: 256)
    writer.append(text: "{\"error\":")
    writer.append(quoted: refusal.message)
    writer.append(text: "}\n")
    var answer = response(refusal.status, "application/json", writer.finish().array)
    if refusal.isForNow { answer.headers[.retryAfter] = "\(max(1, Int(options.retryAfter.inSeconds.rounded(.up))))" }
    return answer
  }

  private func text(_ status: Int, _ text: String) -> Response {
    response(status, "text/plain; version=0.0.4", Array(text.utf8))
  }

  private func response(_ status: Int, _ type: String, _ body: [UInt8]) -> Response {
    Response(
      status: .init(code: status), headers: [.contentType: type], body: .init(byteBuffer: ByteBuffer(bytes: body)))
  }
}

extension IngestCounters {
  /// The Prometheus text exposition of the counters.
  func exposition() -> String {
    var text = ""
    func family(_ name: String, _ type: String, _ help: String, _ samples: [(labels: String, value: String)]) {
      text += "# HELP \(name) \(help)\n# TYPE \(name) \(type)\n"
      for sample in samples { text += "\(name)\(sample.labels) \(sample.value)\n" }
    }
    family(
      "guira_ingest_events_total", "counter", "Events in the journal, by kind.",
      [("{kind=\"impression\"}", "\(impressions)"), ("{kind=\"action\"}", "\(actions)")])
    family("guira_ingest_repeated_total", "counter", "Events that had been taken before.", [("", "\(repeated)")])
    family(
      "guira_ingest_refused_total", "counter", "Events that were refused, by reason.",
      refused.sorted { $0.key < $1.key }.map { ("{reason=\"\($0.key)\"}", "\($0.value)") })
    family(
      "guira_ingest_requests_total", "counter", "Requests answered, by status code.",
      answers.sorted { $0.key < $1.key }.map { ("{code=\"\($0.key)\"}", "\($0.value)") })
    family("guira_ingest_syncs_total", "counter", "Syncs of the journals.", [("", "\(syncs)")])
    family(
      "guira_ingest_newest_event_timestamp_seconds", "gauge", "Newest event time.",
      [("", "\(Double(newestTime) / 1000)")])
    family(
      "guira_ingest_watermark_timestamp_seconds", "gauge", "Newest watermark.", [("", "\(Double(watermark) / 1000)")])
    return text
  }
}
