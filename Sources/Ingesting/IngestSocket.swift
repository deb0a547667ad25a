// ZeroMQ around the ingest: a ROUTER socket whose requests carry what a body over HTTP carries, and whose answers come when
// the events are in the streams. Belongs to the thread "events", which parses; the writer hands answers back by mail.

public import Base
internal import Streams
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

  private let door: IngestDoor
  private let parser: SharedParser
  private let server: AnsweringServer
  /// Answers on their way from the writer; as many as requests may wait, and those that are refused at once.
  private let answers: Mailbox<Answer>

  private struct Answer: Sendable {
    let peer: PeerID
    let message: Blob
  }

  init(_ door: IngestDoor, _ endpoint: String, _ security: LinkSecurity?) {
    self.door = door
    parser = SharedParser(door.options)
    // What waits in the socket's own queue is bounded too: there is little of it, as we refuse at once.
    server = AnsweringServer(
      endpoint: endpoint, security: security, receiveQueue: 64, frameLimit: door.options.bodyByteLimit + Self.slack)
    answers = Mailbox(bound: 2 * door.options.waitingLimit + 64)
  }

  func stop() { server.stop() }

  /// Who was refused, by the names that status shows.
  var refused: [String: UInt64] { server.refused }

  /// Serves until `stop`, and until those who wait for the writer have their answer.
  ///
  /// - Parameter opened: told where it serves.
  func run(opened: (String) -> Void) throws(LinkError) {
    try server.run(
      waking: [answers.descriptor], opened: opened,
      settle: { socket in
        // An answer that finds no room is dropped: its client asks again, and what is in the streams is known.
        for answer in answers.takeAll() { _ = socket.send(answer.message, to: answer.peer) }
      }
    ) { header, body, peer in
      do { try take(header, &body, peer) } catch let refusal as RequestRefusal {
        finish(.failure(refusal), header, peer)
      } catch {
        count(status: 400)
        throw error
      }
      return nil
    }
  }

  private func take(_ header: MessageHeader, _ body: inout ByteReader, _ peer: PeerID) throws {
    guard header.opcode == .events else {
      throw ErrorReply(.malformed, "an ingest answers 'events' here, not '\(header.opcode)'")
    }
    let word = try body.read(UInt32.self)
    guard let format = EventsRequest.Format(rawValue: word) else {
      throw ErrorReply(.malformed, "the events' format is \(word); expected 0 for JSON Lines or 1 for protobuf")
    }
    try door.admit(bytes: body.remaining)
    let arrival = Clocks.wall()
    let batch = try parser.parse(body.blob, from: body.offset, isProtobuf: format == .protobuf, arrival: arrival)
    door.submit(batch, arrival: arrival) { [self] result in finish(result, header, peer) }
  }

  private func finish(_ result: Result<IngestAnswer, RequestRefusal>, _ header: MessageHeader, _ peer: PeerID) {
    let answer: Answer
    switch result {
    case .success(let taken):
      count(status: taken.status)
      let text = String(decoding: taken.json, as: UTF8.self)
      answer = Answer(peer: peer, message: PlainMessage.text(.events, text, request: header.request))
    case .failure(let refusal):
      count(status: refusal.status)
      let reason = ErrorReply(refusal.isForNow ? .busy : .malformed, refusal.message)
      answer = Answer(peer: peer, message: reason.encoded(opcode: .events, request: header.request))
    }
    _ = answers.offer(answer)
  }

  private func count(status: Int) { door.counters.update { $0.answers[status, default: 0] += 1 } }
}
