// What every way into the ingest has in common: limits and back-pressure, parsing, and the wait for the streams. HTTP and
// ZeroMQ differ only in how they carry a body here and an answer back.

internal import Base
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

/// What a request whose events were looked at is told.
struct IngestAnswer: Sendable {
  let accepted: Int
  let repeated: Int
  let refused: [RefusedLine]
  /// The most refused lines that are named.
  private static let errorLimit = 100

  /// As HTTP says it: 400 when lines were refused, though the others were taken.
  var status: Int { refused.isEmpty ? 200 : 400 }

  var json: [UInt8] {
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
    return writer.finish().array
  }
}

/// The way to the writer.
struct IngestDoor: Sendable {
  let options: IngestOptions
  let inbox: Mailbox<WaitingBatch>
  let counters: SharedCounters
  /// Why nothing is taken now, in words; nil when it is.
  let backlog: @Sendable () -> String?

  var tooLarge: RequestRefusal {
    RequestRefusal(
      status: 413, message: "the body is larger than the limit of \(options.bodyByteLimit) bytes; send fewer events")
  }

  /// Refuses a request before its body is read.
  func admit(bytes: Int) throws(RequestRefusal) {
    if let problem = backlog() { throw RequestRefusal(status: 503, message: problem, isForNow: true) }
    guard bytes <= options.bodyByteLimit else { throw tooLarge }
  }

  /// Hands a parsed body to the writer.
  ///
  /// - Parameter answer: called once, on the writer's thread when the events are in the streams, or at once.
  func submit(
    _ batch: IngestBatch, arrival: Milliseconds,
    answer: @escaping @Sendable (Result<IngestAnswer, RequestRefusal>) -> Void
  ) {
    guard !batch.isTooLong else {
      return answer(
        .failure(
          RequestRefusal(
            status: 413, message: "more than \(options.eventLimit) events; send them in several requests")))
    }
    guard !batch.records.isEmpty || !batch.refused.isEmpty else {
      return answer(.success(IngestAnswer(accepted: 0, repeated: 0, refused: [])))
    }
    let refused = batch.refused
    let isIn = inbox.offer(
      WaitingBatch(batch: batch, arrival: arrival) { outcome in
        switch outcome {
        case .taken(let accepted, let repeated):
          answer(.success(IngestAnswer(accepted: accepted, repeated: repeated, refused: refused)))
        case .failed(let problem):
          answer(
            .failure(
              RequestRefusal(status: 503, message: "the events could not be written: \(problem)", isForNow: true)))
        }
      })
    if isIn { return }
    answer(
      .failure(
        inbox.isClosed
          ? RequestRefusal(status: 503, message: "the ingest is stopping", isForNow: true)
          : RequestRefusal(
            status: 429, message: "\(options.waitingLimit) requests wait to be written; send fewer at a time",
            isForNow: true)))
  }
}

/// The parser of an event loop, or of a socket's thread; handlers use it one after the other.
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

  /// The events of a message behind its first `offset` bytes.
  func parse(
    _ message: Blob, from offset: Int, isProtobuf: Bool, arrival: Milliseconds
  ) throws(ProtobufFault) -> IngestBatch {
    try box.withLock { box throws(ProtobufFault) in
      let body = message.bytes.extracting(offset..<message.count)
      guard isProtobuf else { return box.parser.parse(body, arrival: arrival) }
      return try box.parser.parse(protobuf: unsafe body.withUnsafeBytes { unsafe Array($0) }, arrival: arrival)
    }
  }
}
