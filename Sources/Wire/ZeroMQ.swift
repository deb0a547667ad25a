// The only file that calls libzmq. Sockets are ROUTER (servers) and DEALER (clients), belong to the thread that made
// them, and carry one frame per message. Sends never block: a full queue answers false and the caller keeps the message.
// ZMQ_HEARTBEAT_* is never set: a stalled peer then aborts the process (libzmq #3937).

internal import CZeroMQ
public import Base

/// A ZeroMQ call that failed.
public struct LinkError: Error, Equatable, Sendable, CustomStringConvertible {
  /// What was tried, in words, with the endpoint.
  public let operation: String
  /// The system's or ZeroMQ's error number.
  public let code: Int32

  init(_ code: Int32, _ operation: String) {
    self.code = code
    self.operation = operation
  }

  /// "cannot <operation>: <reason>".
  public var description: String { unsafe "cannot \(operation): \(String(cString: zmq_strerror(code)))" }
}

/// Names one client of a ROUTER socket, as ZeroMQ's routing id.
public struct PeerID: Hashable, Sendable, CustomStringConvertible {
  /// The routing id's bytes.
  public let bytes: [UInt8]

  /// A peer by its routing id.
  public init(_ bytes: [UInt8]) { self.bytes = bytes }

  /// Hexadecimal digits.
  public var description: String { bytes.map { String($0, radix: 16) }.joined() }
}

/// The ZeroMQ context of a process; sockets retain it.
///
/// unchecked because: a ZeroMQ context may be used from any thread.
@safe public final class LinkContext: @unchecked Sendable {
  fileprivate let handle: UnsafeMutableRawPointer

  /// A new context with one I/O thread.
  public init() {
    guard let handle = unsafe zmq_ctx_new() else { preconditionFailure("zmq_ctx_new: \(zmq_errno())") }
    unsafe self.handle = handle
    unsafe zmq_ctx_set(handle, ZMQ_BLOCKY, 0)
  }

  deinit { unsafe zmq_ctx_term(handle) }
}

/// A ROUTER (server) or DEALER (client) socket.
@safe public struct Socket: ~Copyable {
  /// Which end of a conversation.
  public enum Kind: Sendable {
    /// Serves many peers.
    case router
    /// Talks to one server.
    case dealer
  }

  private let context: LinkContext
  private let handle: UnsafeMutableRawPointer
  private let kind: Kind

  /// A socket of this thread.
  /// - Parameter receiveQueue: messages of one peer that may wait to be received; beyond them its sends wait.
  public init(_ kind: Kind, context: LinkContext, receiveQueue: Int = 10_000) throws(LinkError) {
    guard let handle = unsafe zmq_socket(context.handle, kind == .router ? ZMQ_ROUTER : ZMQ_DEALER) else {
      throw LinkError(zmq_errno(), "make a socket")
    }
    self.context = context
    unsafe self.handle = handle
    self.kind = kind
    // These cannot fail on a fresh socket: the options exist and the values are legal.
    set(ZMQ_LINGER, 0)
    set(ZMQ_SNDHWM, 10_000)
    set(ZMQ_RCVHWM, Int32(clamping: receiveQueue))
    if kind == .router { set(ZMQ_ROUTER_MANDATORY, 1) }
    set(ZMQ_RECONNECT_IVL, 20)
    set(ZMQ_RECONNECT_IVL_MAX, 500)
    var limit = Int64(WireProtocol.frameLimit)
    unsafe zmq_setsockopt(handle, ZMQ_MAXMSGSIZE, &limit, 8)
  }

  deinit { _ = unsafe zmq_close(handle) }

  private func set(_ option: Int32, _ value: Int32) {
    var value = value
    let code = unsafe zmq_setsockopt(handle, option, &value, 4)
    precondition(code == 0, "cannot set socket option \(option): error \(zmq_errno())")
  }

  /// Serves at an endpoint, `ipc://path` or `tcp://host:port`.
  public func bind(_ endpoint: String) throws(LinkError) {
    guard unsafe zmq_bind(handle, endpoint) == 0 else { throw LinkError(zmq_errno(), "serve at \(endpoint)") }
  }

  /// Talks to an endpoint; succeeds also when nobody serves there yet.
  public func connect(_ endpoint: String) throws(LinkError) {
    guard unsafe zmq_connect(handle, endpoint) == 0 else { throw LinkError(zmq_errno(), "connect to \(endpoint)") }
  }

  /// Sends without copying and without waiting.
  ///
  /// False when the queue is full or, for a router, the peer is gone.
  public func send(_ message: Blob, to peer: PeerID? = nil) -> Bool {
    if let peer {
      let sent = unsafe peer.bytes.withUnsafeBytes { bytes in
        unsafe zmq_send(handle, bytes.baseAddress, bytes.count, ZMQ_SNDMORE | ZMQ_DONTWAIT)
      }
      guard sent >= 0 else { return false }
    }
    var frame = zmq_msg_t()
    let hint = unsafe Unmanaged.passRetained(message).toOpaque()
    unsafe message.withUnsafeBytes { bytes in
      _ = unsafe zmq_msg_init_data(
        &frame, UnsafeMutableRawPointer(mutating: bytes.baseAddress), bytes.count,
        { _, hint in unsafe Unmanaged<Blob>.fromOpaque(hint!).release() }, hint)
    }
    if unsafe zmq_msg_send(&frame, handle, ZMQ_DONTWAIT) >= 0 { return true }
    unsafe zmq_msg_close(&frame)
    return false
  }

  /// The next message without waiting; nil when there is none.
  ///
  /// A router also learns who sent it.
  public func receive() throws(LinkError) -> (peer: PeerID?, message: Blob)? {
    var peer: PeerID?
    if kind == .router {
      guard let identity = try receiveFrame() else { return nil }
      peer = PeerID(identity.array)
      guard hasMore else { return (peer, Blob([])) }
    }
    guard let message = try receiveFrame() else { return nil }
    // Frames beyond the one we speak of are a stranger's: read and dropped, so that the next message begins right.
    while hasMore { _ = try receiveFrame() }
    return (peer, message)
  }

  private var hasMore: Bool {
    var more: Int32 = 0
    var size = 4
    unsafe zmq_getsockopt(handle, ZMQ_RCVMORE, &more, &size)
    return more != 0
  }

  private func receiveFrame() throws(LinkError) -> Blob? {
    let frame = UnsafeMutablePointer<zmq_msg_t>.allocate(capacity: 1)
    unsafe zmq_msg_init(frame)
    while unsafe zmq_msg_recv(frame, handle, ZMQ_DONTWAIT) < 0 {
      let code = zmq_errno()
      if code == EINTR { continue }
      unsafe zmq_msg_close(frame)
      unsafe frame.deallocate()
      if code == EAGAIN { return nil }
      throw LinkError(code, "receive")
    }
    let count = unsafe zmq_msg_size(frame)
    guard let data = unsafe zmq_msg_data(frame), Int(bitPattern: data) % 8 == 0 else {
      // libzmq hands small messages out of its receive buffer, at any address: copy, so that arrays are aligned.
      var writer = ByteWriter(capacity: count)
      if let data = unsafe zmq_msg_data(frame) {
        unsafe writer.append(raw: RawSpan(_unsafeStart: UnsafeRawPointer(data), byteCount: count))
      }
      unsafe zmq_msg_close(frame)
      unsafe frame.deallocate()
      return writer.finish()
    }
    return unsafe Blob(owning: UnsafeRawPointer(data), count: count) { [address = UInt(bitPattern: frame)] _ in
      let frame = unsafe UnsafeMutablePointer<zmq_msg_t>(bitPattern: address)!
      unsafe zmq_msg_close(frame)
      unsafe frame.deallocate()
    }
  }

  fileprivate var pollItem: zmq_pollitem_t {
    unsafe zmq_pollitem_t(socket: handle, fd: 0, events: Int16(ZMQ_POLLIN), revents: 0)
  }

  /// Waits until this socket has a message or one of the descriptors is readable, or the time is over.
  public func wait(descriptors: [Int32] = [], timeout: Duration) {
    var items = unsafe [pollItem]
    for descriptor in descriptors {
      unsafe items.append(zmq_pollitem_t(socket: nil, fd: descriptor, events: Int16(ZMQ_POLLIN), revents: 0))
    }
    _ = unsafe zmq_poll(&items, Int32(items.count), Int(timeout.milliseconds))
  }
}

/// Several client sockets of one thread, polled together.
public final class SocketGroup {
  private let sockets: [Box]

  private final class Box {
    let socket: Socket
    init(_ socket: consuming Socket) { self.socket = socket }
  }

  /// Connects one DEALER socket to each endpoint.
  public init(connecting endpoints: [String], context: LinkContext) throws(LinkError) {
    var boxes: [Box] = []
    for endpoint in endpoints {
      let socket = try Socket(.dealer, context: context)
      try socket.connect(endpoint)
      boxes.append(Box(socket))
    }
    sockets = boxes
  }

  /// How many sockets there are.
  public var count: Int { sockets.count }

  /// Sends to socket `index`; false when its queue is full.
  public func send(_ message: Blob, to index: Int) -> Bool { sockets[index].socket.send(message) }

  /// The next message of socket `index`.
  public func receive(from index: Int) throws(LinkError) -> Blob? { try sockets[index].socket.receive()?.message }

  /// Waits until any socket, or `server`, has a message, or the time is over.
  public func wait(with server: borrowing Socket, timeout: Duration) {
    var items = unsafe sockets.map { unsafe $0.socket.pollItem }
    unsafe items.append(server.pollItem)
    _ = unsafe zmq_poll(&items, Int32(items.count), Int(timeout.milliseconds))
  }

  /// Waits until any socket has a message, or the time is over.
  public func wait(timeout: Duration) {
    var items = unsafe sockets.map { unsafe $0.socket.pollItem }
    _ = unsafe zmq_poll(&items, Int32(items.count), Int(timeout.milliseconds))
  }
}
