// ZeroMQ around the ingest: a ROUTER socket whose requests carry what a body over HTTP carries, and whose answers come when
// the events are in the streams. Belongs to the thread "events", which parses; the writer hands answers back by mail.

public import Base
internal import Streams
internal import Synchronization
internal import Wire

/// A batch of events on its way to an ingest.
public enum EventsRequest {
  /// How the events are written.
  public enum Format: UInt32, Sendable {
    /// A line of JSON for each.
    case jsonLines = 0
    /// An `EventBatch` of events.proto.
    case protobuf = 1
  }

  /// The whole message: a header, a UInt32 that names the format, and the events.
  public static func encoded(_ events: [UInt8], as format: Format = .jsonLines, request: UInt64) -> Blob {
    var writer = ByteWriter(capacity: events.count + 32)
    MessageHeader(.events, request: request).encode(into: &writer)
    writer.append(format.rawValue)
    writer.append(bytes: events)
    return writer.finish()
  }
}

/// Answers at an endpoint, on a thread of its own.
final class IngestSocket: Sendable {
  /// What a message may have beside its events.
  private static let slack = 1 << 20
  private static let batch = 32

  private let door: IngestDoor
  private let parser: SharedParser
  private let isStopping = Atomic(false)
  private let forbidden = Atomic<UInt64>(0)
  /// Answers on their way from the writer; as many as requests may wait, and those that are refused at once.
  private let answers: Mailbox<Answer>

  private struct Answer: Sendable {
    let peer: PeerID
    let message: Blob
  }

  init(_ door: IngestDoor) {
    self.door = door
    parser = SharedParser(door.options)
    answers = Mailbox(bound: 2 * door.options.waitingLimit + 64)
  }

  func stop() { isStopping.store(true, ordering: .relaxed) }

  /// Serves until `stop`, and until those who wait for the writer have their answer.
  ///
  /// - Parameter opened: told where it serves.
  func run(_ endpoint: String, _ security: LinkSecurity?, opened: (String) -> Void) throws(LinkError) {
    // What waits in the socket's own queue is bounded too: there is little of it, as we refuse at once.
    let socket = try Socket(
      .router, context: LinkContext(security), receiveQueue: 64, frameLimit: door.options.bodyByteLimit + Self.slack)
    try socket.bind(endpoint)
    opened(socket.endpoint)
    while !isStopping.load(ordering: .relaxed) {
      var received = 0
      while received < Self.batch, let (peer, message) = try socket.receive() {
        received += 1
        if let peer { take(message, from: peer) }
      }
      send(socket)
      if received == 0 { socket.wait(descriptors: [answers.descriptor], timeout: .milliseconds(50)) }
    }
    send(socket)
  }

  /// An answer that finds no room is dropped: its client asks again, and what is in the streams is known.
  private func send(_ socket: borrowing Socket) {
    for answer in answers.takeAll() { _ = socket.send(answer.message, to: answer.peer) }
  }

  private func take(_ message: Blob, from peer: PeerID) {
    var reader = ByteReader(message)
    guard let header = try? MessageHeader(decoding: &reader), header.kind == .request else { return }
    do {
      if let role = peer.role, !header.opcode.isAllowed(to: role) {
        throw ErrorReply.forbidden(header.opcode, to: role)
      }
      guard header.opcode == .events else {
        throw ErrorReply(.malformed, "an ingest answers 'events' here, not '\(header.opcode)'")
      }
      let word = try reader.read(UInt32.self)
      guard let format = EventsRequest.Format(rawValue: word) else {
        throw ErrorReply(.malformed, "the events' format is \(word); expected 0 for JSON Lines or 1 for protobuf")
      }
      try door.admit(bytes: reader.remaining)
      let arrival = Clocks.wall()
      let batch = try parser.parse(message, from: reader.offset, isProtobuf: format == .protobuf, arrival: arrival)
      door.submit(batch, arrival: arrival) { [self] result in finish(result, header, peer) }
    } catch let refusal as RequestRefusal {
      finish(.failure(refusal), header, peer)
    } catch {
      let refusal = error as? ErrorReply ?? ErrorReply(.malformed, "\(error)")
      reply(refusal.encoded(opcode: header.opcode, request: header.request), status: 400, to: peer)
    }
  }

  private func finish(_ result: Result<IngestAnswer, RequestRefusal>, _ header: MessageHeader, _ peer: PeerID) {
    switch result {
    case .success(let answer):
      let text = String(decoding: answer.json, as: UTF8.self)
      reply(PlainMessage.text(.events, text, request: header.request), status: answer.status, to: peer)
    case .failure(let refusal):
      let reason = ErrorReply(refusal.isForNow ? .busy : .malformed, refusal.message)
      reply(reason.encoded(opcode: .events, request: header.request), status: refusal.status, to: peer)
    }
  }

  private func reply(_ message: Blob, status: Int, to peer: PeerID) {
    door.counters.update { $0.answers[status, default: 0] += 1 }
    _ = answers.offer(Answer(peer: peer, message: message))
  }
}
