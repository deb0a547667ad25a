// How handshakes of one socket fail, as libzmq tells it: over a socket pair inside the process, from its own thread.

internal import Base
internal import CZeroMQ

/// Hears of one socket's failed handshakes.
///
/// unchecked because: one thread at a time uses it, the one that made it or the one it was handed to through a mailbox.
@safe final class HandshakeMonitor: @unchecked Sendable {
  enum Failure: Equatable {
    /// The other side does not take this key.
    case refused
    /// The other side showed no key: it speaks NULL or PLAIN, or was gone before it could be told. The two are one,
    /// because a client that sees CURVE often hangs up before its own word arrives.
    case withoutKey
    /// Anything else: a key of another server, bytes that are no handshake.
    case other
  }

  /// How long a client that was refused waits before it knocks again: its key may be on its way into the allow-list.
  static let pause: Int64 = 2_000_000_000

  private let pair: UnsafeMutableRawPointer
  /// For clients: when it was refused last; nil once it knocked again.
  private var refusedAt: Int64?
  private var isClosed = false
  private var wasRefused = false

  init(of socket: UnsafeMutableRawPointer, in context: UnsafeMutableRawPointer) throws(LinkError) {
    // Unique while the socket lives, which is as long as the name is taken.
    let address = "inproc://guira.handshakes.\(UInt(bitPattern: socket))"
    let events =
      ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH
    guard unsafe zmq_socket_monitor(socket, address, events) == 0, let pair = unsafe zmq_socket(context, ZMQ_PAIR)
    else { throw LinkError(zmq_errno(), "watch a socket's handshakes") }
    // libzmq's own thread writes here and would wait when the queue were full: let it have no end. Each is a few bytes.
    var unbounded: Int32 = 0
    unsafe zmq_setsockopt(pair, ZMQ_RCVHWM, &unbounded, 4)
    guard unsafe zmq_connect(pair, address) == 0 else {
      let code = zmq_errno()
      unsafe zmq_close(pair)
      throw LinkError(code, "watch a socket's handshakes")
    }
    unsafe self.pair = pair
  }

  deinit { close() }

  /// Lets the context end, which waits for all its sockets; nothing is heard after it.
  func close() {
    guard !isClosed else { return }
    isClosed = true
    unsafe zmq_close(pair)
  }

  var pollItem: zmq_pollitem_t {
    unsafe zmq_pollitem_t(socket: pair, fd: 0, events: Int16(ZMQ_POLLIN), revents: 0)
  }

  /// The next failure without waiting; nil when there is none.
  func next() -> Failure? {
    while !isClosed, let frames = try? unsafe receiveFrames(pair) {
      // UInt16 event, UInt32 value, both in this machine's order; then the address.
      guard let first = frames.first, first.count == 6 else { continue }
      let event = Int32(first[0]) | Int32(first[1]) << 8
      let value = (2..<6).reduce(0) { $0 | UInt32(first[$1]) << (8 * UInt32($1 - 2)) }
      switch event {
      case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH: return .refused
      case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL: return .withoutKey
      default: return value == UInt32(ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH) ? .withoutKey : .other
      }
    }
    return nil
  }

  /// For clients: whether the last that was heard of the other side is that it refused this key.
  var isRefused: Bool {
    hear()
    return wasRefused
  }

  /// For clients: the other side said something.
  func wasAnswered() { wasRefused = false }

  private func hear() {
    while let failure = next() {
      if failure == .refused { (refusedAt, wasRefused) = (Clocks.monotonic(), true) }
    }
  }

  /// For clients: whether it is time to knock again, which libzmq does not do by itself after a refusal.
  func isTimeToKnock(now: Int64) -> Bool {
    hear()
    guard let at = refusedAt, now - at >= Self.pause else { return false }
    refusedAt = nil
    return true
  }
}

/// All frames of a socket's next message; nil when there is none.
func receiveFrames(_ socket: UnsafeMutableRawPointer) throws(LinkError) -> [[UInt8]]? {
  var frames: [[UInt8]] = []
  var frame = zmq_msg_t()
  unsafe zmq_msg_init(&frame)
  defer { unsafe zmq_msg_close(&frame) }
  repeat {
    while unsafe zmq_msg_recv(&frame, socket, ZMQ_DONTWAIT) < 0 {
      let code = zmq_errno()
      if code == EINTR { continue }
      if code == EAGAIN { return nil }
      throw LinkError(code, "receive")
    }
    unsafe frames.append([UInt8](UnsafeRawBufferPointer(start: zmq_msg_data(&frame), count: zmq_msg_size(&frame))))
  } while unsafe zmq_msg_more(&frame) != 0
  return frames
}
