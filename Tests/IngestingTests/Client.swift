// A client of the ingest's ZeroMQ socket, as an application has one.

import Base
import Testing
import Wire

@testable import Ingesting

/// A client that may have several requests on their way.
final class Client {
  private let socket: SocketGroup

  init(_ endpoint: String, context: LinkContext = LinkContext()) throws {
    socket = try SocketGroup(connecting: [endpoint], context: context)
  }

  func send(_ message: Blob) { #expect(socket.send(message, to: 0)) }

  /// The next answer: its request, and its text or refusal.
  func receive(patience: Duration = .seconds(20)) throws -> (request: UInt64, answer: Result<String, ErrorReply>)? {
    let deadline = Clocks.monotonic() + patience.nanoseconds
    while Clocks.monotonic() < deadline {
      guard let message = try socket.receive(from: 0) else {
        socket.wait(timeout: .milliseconds(20))
        continue
      }
      var reader = ByteReader(message)
      let header = try MessageHeader(decoding: &reader)
      #expect(header.opcode == .events)
      if header.kind == .error { return (header.request, .failure(try ErrorReply(decoding: &reader))) }
      return (header.request, .success(try PlainMessage.text(decoding: &reader)))
    }
    return nil
  }

  func ask(_ text: String, request: UInt64 = 1) throws -> Result<String, ErrorReply>? {
    send(EventsRequest.encoded(Array(text.utf8), request: request))
    return try receive()?.answer
  }
}

extension Result where Success == String, Failure == ErrorReply {
  var text: String? { try? get() }
  var refusal: ErrorReply? {
    if case .failure(let refusal) = self { refusal } else { nil }
  }
}
