// HTTP around the ingest: paths, limits and statuses. Handlers run on the event loop's thread, where bodies are parsed; the
// answer waits for the writer.

internal import Base
internal import HTTPTypes
internal import Hummingbird
internal import NIOCore
internal import Streams
internal import Synchronization

/// A refusal of a whole request.
struct RequestRefusal: Error {
  let status: Int
  let message: String
  /// Whether it may be sent again a little later.
  var isForNow = false
}

/// The routes of an ingest.
struct IngestRouter: Sendable {
  let options: IngestOptions
  let inbox: Mailbox<WaitingBatch>
  let counters: SharedCounters
  /// Why nothing is taken now, in words; nil when it is.
  let backlog: @Sendable () -> String?
  let parser: SharedParser

  func build() -> Router<BasicRequestContext> {
    let router = Router()
    router.post("/v1/events") { request, _ in
      let answer: Response
      do { answer = try await take(request) } catch let refusal as RequestRefusal { answer = response(refusal) }
      counters.update { $0.answers[answer.status.code, default: 0] += 1 }
      return answer
    }
    router.get("/healthz") { _, _ in text(200, "alive\n") }
    router.get("/readyz") { _, _ in
      let problem = backlog()
      return text(problem == nil ? 200 : 503, (problem ?? "ready") + "\n")
    }
    router.get("/metrics") { _, _ in text(200, counters.now.exposition()) }
    return router
  }

  private func take(_ request: Request) async throws -> Response {
    let isProtobuf = try isProtobuf(request)
    if let problem = backlog() { throw RequestRefusal(status: 503, message: problem, isForNow: true) }
    let tooLarge = RequestRefusal(
      status: 413, message: "the body is larger than the limit of \(options.bodyByteLimit) bytes; send fewer events")
    let announced = request.headers[.contentLength].flatMap { Int($0) } ?? 0
    guard announced <= options.bodyByteLimit else { throw tooLarge }
    let body: ByteBuffer
    do { body = try await request.body.collect(upTo: options.bodyByteLimit) } catch is NIOTooManyBytesError {
      throw tooLarge
    }
    let arrival = Clocks.wall()
    let batch: IngestBatch
    do throws(ProtobufFault) {
      batch = try parser.parse(body, isProtobuf: isProtobuf, arrival: arrival)
    } catch {
      throw RequestRefusal(status: 400, message: "\(error)")
    }
    guard !batch.isTooLong else {
      throw RequestRefusal(
        status: 413, message: "more than \(options.eventLimit) events; send them in several requests")
    }
    guard !batch.records.isEmpty || !batch.refused.isEmpty else {
      return json(200, accepted: 0, repeated: 0, refused: [])
    }
    let outcome: IngestOutcome? = await withCheckedContinuation { continuation in
      let isIn = inbox.offer(
        WaitingBatch(batch: batch, arrival: arrival) { continuation.resume(returning: $0) })
      if !isIn { continuation.resume(returning: nil) }
    }
    switch outcome {
    case .taken(let accepted, let repeated):
      return json(batch.refused.isEmpty ? 200 : 400, accepted: accepted, repeated: repeated, refused: batch.refused)
    case .failed(let problem):
      throw RequestRefusal(status: 503, message: "the events could not be written: \(problem)", isForNow: true)
    case nil where inbox.isClosed:
      throw RequestRefusal(status: 503, message: "the ingest is stopping", isForNow: true)
    case nil:
      throw RequestRefusal(
        status: 429, message: "\(options.waitingLimit) requests wait to be written; send fewer at a time",
        isForNow: true)
    }
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

  /// The most refused lines an answer names.
  private static let errorLimit = 100

  private func json(_ status: Int, accepted: Int, repeated: Int, refused: [RefusedLine]) -> Response {
    var writer = ByteWriter(capacity: 256)
    writer.append(text: "{\"accepted\":")
    writer.append(decimal: UInt64(accepted))
    writer.append(text: ",\"repeated\":")
    writer.append(decimal: UInt64(repeated))
    writer.append(text: ",\"refused\":")
    writer.append(decimal: UInt64(refused.count))
    writer.append(text: ",\"errors\":[")
    for (index, line) in refused.prefix(Self.errorLimit).enumerated() {
      writer.append(text: index == 0 ? "{\"line\":" : ",{\"line\":")
      writer.append(decimal: UInt64(line.fault.line))
      writer.append(text: ",\"code\":")
      writer.append(quoted: line.fault.reason.code)
      writer.append(text: ",\"reason\":")
      writer.append(quoted: "\(line.fault.reason)")
      writer.append(text: "}")
    }
    writer.append(text: "]}\n")
    return response(status, "application/json", writer.finish().array)
  }

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

/// The parser of an event loop; handlers use it one after the other.
final class SharedParser: Sendable {
  private struct Box: ~Copyable { var parser: BatchParser }
  private let box: Mutex<Box>

  init(_ options: IngestOptions) { box = Mutex(Box(parser: BatchParser(options))) }

  func parse(_ body: ByteBuffer, isProtobuf: Bool, arrival: Milliseconds) throws(ProtobufFault) -> IngestBatch {
    try box.withLock { box throws(ProtobufFault) in
      guard isProtobuf else { return box.parser.parse(body.readableBytesSpan, arrival: arrival) }
      return try box.parser.parse(protobuf: Array(body.readableBytesView), arrival: arrival)
    }
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
