// Sockets over libzmq, which no other module calls. They are ROUTER (servers) and DEALER (clients), belong to the thread that made
// them, and carry one frame per message. Sends never block: a full queue answers false and the caller keeps the message.
// With a `LinkSecurity` in their context they speak CURVE, and a server receives only from those its allow-list names.
// ZMQ_HEARTBEAT_* is never set: a stalled peer then aborts the process (libzmq #3937).

internal import CZeroMQ
internal import Glibc
internal import Synchronization
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

/// The system's "required key not available".
let noKeyCode = ENOKEY
/// ZMQ_ZAP_ENFORCE_DOMAIN, which the header of libzmq 4.3 still hides among drafts.
private let zapEnforceDomain: Int32 = 93

/// Names one client of a ROUTER socket, as ZeroMQ's routing id.
public struct PeerID: Hashable, Sendable, CustomStringConvertible {
  /// The routing id's bytes.
  public let bytes: [UInt8]
  /// What the peer's key says it is; nil without keys.
  ///
  /// Not part of what makes two equal.
  public let role: PeerRole?

  /// A peer by its routing id.
  public init(_ bytes: [UInt8], role: PeerRole? = nil) {
    self.bytes = bytes
    self.role = role
  }

  /// Whether two are the same connection.
  public static func == (left: Self, right: Self) -> Bool { left.bytes == right.bytes }

  /// Hashes the routing id alone.
  public func hash(into hasher: inout Hasher) { hasher.combine(bytes) }

  /// Hexadecimal digits.
  public var description: String { bytes.map { String($0, radix: 16) }.joined() }
}

/// The ZeroMQ context of a process; sockets retain it.
///
/// unchecked because: a ZeroMQ context may be used from any thread.
@safe public final class LinkContext: @unchecked Sendable {
  fileprivate let handle: UnsafeMutableRawPointer
  fileprivate let security: LinkSecurity?
  private let doorkeeper = Mutex<Doorkeeper?>(nil)

  /// A new context with one I/O thread.
  ///
  /// - Parameter security: this process's key and the allow-list; nil: sockets speak to anybody, on ipc and loopback only.
  public init(_ security: LinkSecurity? = nil) {
    guard let handle = unsafe zmq_ctx_new() else { preconditionFailure("zmq_ctx_new: \(zmq_errno())") }
    unsafe self.handle = handle
    self.security = security
    unsafe zmq_ctx_set(handle, ZMQ_BLOCKY, 0)
  }

  /// Whether its sockets speak CURVE.
  var usesKeys: Bool { security != nil }

  /// Who lets clients in, from the first server on; nil without keys.
  func startedDoorkeeper() throws(LinkError) -> Doorkeeper? {
    guard let security else { return nil }
    return try doorkeeper.withLock { (current) throws(LinkError) -> Doorkeeper? in
      if current == nil { current = try unsafe Doorkeeper(security, context: handle) }
      return current
    }
  }

  deinit {
    // No socket is left: each retains its context.
    let doorkeeper = doorkeeper.withLock { $0 }
    doorkeeper?.end()
    doorkeeper?.close()
    unsafe zmq_ctx_term(handle)
  }
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
  /// Servers with keys: who lets clients in.
  private let doorkeeper: Doorkeeper?
  /// Clients with keys: whether they were let in.
  private let monitor: HandshakeMonitor?

  /// A socket of this thread.
  /// - Parameters:
  ///   - receiveQueue: messages of one peer that may wait to be received; beyond them its sends wait.
  ///   - frameLimit: the longest frame taken; libzmq closes the connection of who sends a longer one.
  public init(
    _ kind: Kind, context: LinkContext, receiveQueue: Int = 10_000, frameLimit: Int = WireProtocol.frameLimit
  ) throws(LinkError) {
    let doorkeeper = kind == .router ? try context.startedDoorkeeper() : nil
    guard let handle = unsafe zmq_socket(context.handle, kind == .router ? ZMQ_ROUTER : ZMQ_DEALER) else {
      throw LinkError(zmq_errno(), "make a socket")
    }
    do throws(LinkError) {
      let isWatched = kind == .dealer && context.usesKeys
      monitor = try isWatched ? unsafe HandshakeMonitor(of: handle, in: context.handle) : nil
    } catch {
      unsafe zmq_close(handle)
      throw error
    }
    self.context = context
    unsafe self.handle = handle
    self.kind = kind
    self.doorkeeper = doorkeeper
    // These cannot fail on a fresh socket: the options exist and the values are legal.
    set(ZMQ_LINGER, 0)
    set(ZMQ_SNDHWM, 10_000)
    set(ZMQ_RCVHWM, Int32(clamping: receiveQueue))
    if kind == .router { set(ZMQ_ROUTER_MANDATORY, 1) }
    set(ZMQ_RECONNECT_IVL, 20)
    set(ZMQ_RECONNECT_IVL_MAX, 500)
    var limit = Int64(frameLimit)
    unsafe zmq_setsockopt(handle, ZMQ_MAXMSGSIZE, &limit, 8)
  }

  deinit {
    _ = unsafe zmq_close(handle)
    monitor?.close()
  }

  private func set(_ option: Int32, _ value: Int32) {
    var value = value
    let code = unsafe zmq_setsockopt(handle, option, &value, 4)
    precondition(code == 0, "cannot set socket option \(option): error \(zmq_errno())")
  }

  /// Cannot fail: keys are checked when they are read.
  private func setKey(_ option: Int32, _ text: String) {
    let code = unsafe zmq_setsockopt(handle, option, text, text.utf8.count)
    precondition(code == 0, "cannot set socket option \(option): error \(zmq_errno())")
  }

  /// Serves at an endpoint, `ipc://path` or `tcp://host:port`.
  ///
  /// Without keys only where nobody but this machine's processes can come: ipc and loopback.
  public func bind(_ endpoint: String) throws(LinkError) {
    if let doorkeeper, let security = context.security {
      set(ZMQ_CURVE_SERVER, 1)
      setKey(ZMQ_CURVE_SECRETKEY, security.secret.secretText)
      setKey(ZMQ_ZAP_DOMAIN, Doorkeeper.domain)
      // Where libzmq knows it, nobody to ask means no. The doorkeeper does not depend on it.
      var yes: Int32 = 1
      unsafe zmq_setsockopt(handle, zapEnforceDomain, &yes, 4)
      try unsafe doorkeeper.watch(handle)
    } else if !LinkSecurity.isPrivate(endpoint) {
      throw LinkError(
        noKeyCode, "serve at \(endpoint) without keys, which only ipc and loopback may (see guira keys create)")
    }
    guard unsafe zmq_bind(handle, endpoint) == 0 else { throw LinkError(zmq_errno(), "serve at \(endpoint)") }
  }

  /// Talks to an endpoint; succeeds also when nobody serves there yet.
  public func connect(_ endpoint: String) throws(LinkError) {
    if let security = context.security {
      setKey(ZMQ_CURVE_SERVERKEY, try security.serverKey(of: endpoint).description)
      setKey(ZMQ_CURVE_PUBLICKEY, security.secret.publicKey.description)
      setKey(ZMQ_CURVE_SECRETKEY, security.secret.secretText)
    }
    guard unsafe zmq_connect(handle, endpoint) == 0 else { throw LinkError(zmq_errno(), "connect to \(endpoint)") }
  }

  /// A new connection after one that was refused: libzmq does not try again by itself then.
  private func knockAgain() throws(LinkError) {
    let endpoint = endpoint
    unsafe zmq_disconnect(handle, endpoint)
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
  /// A router also learns who sent it. With keys, what a peer sends that is not (or no longer) in the allow-list is
  /// dropped, and nil says that there was nothing.
  public func receive() throws(LinkError) -> (peer: PeerID?, message: Blob)? {
    guard kind == .router else {
      if let received = try receiveFrame() {
        monitor?.wasAnswered()
        return (nil, received.frame)
      }
      if let monitor, monitor.isTimeToKnock(now: Clocks.monotonic()) { try knockAgain() }
      return nil
    }
    if let doorkeeper, !doorkeeper.isWatching {
      throw LinkError(noKeyCode, "serve: the thread that lets clients in has ended")
    }
    guard let sender = try receiveFrame()?.frame.array else { return nil }
    let received = hasMore ? try receiveFrame() : nil
    // Frames beyond the one we speak of are a stranger's: read and dropped, so that the next message begins right.
    while hasMore { _ = try receiveFrame() }
    if let doorkeeper, received?.role == nil {
      doorkeeper.countRevoked()
      return nil
    }
    return (PeerID(sender, role: received?.role), received?.frame ?? Blob([]))
  }

  /// Whether the server refused this process's key and has said nothing since; it is asked again every two seconds.
  public var isRefused: Bool { monitor?.isRefused ?? false }

  /// Who was refused at this socket's context; nobody without keys.
  public var refusals: LinkRefusals { doorkeeper?.refusals ?? LinkRefusals() }

  private var hasMore: Bool {
    var more: Int32 = 0
    var size = 4
    unsafe zmq_getsockopt(handle, ZMQ_RCVMORE, &more, &size)
    return more != 0
  }

  /// The next frame and, behind a doorkeeper, the role of whoever sent it; libzmq notes that on what a peer sends, not on
  /// the frame with its routing id.
  private func receiveFrame() throws(LinkError) -> (frame: Blob, role: PeerRole?)? {
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
    let role = unsafe doorkeeper?.role(ofUser: zmq_msg_gets(frame, "User-Id"))
    let count = unsafe zmq_msg_size(frame)
    guard let data = unsafe zmq_msg_data(frame), Int(bitPattern: data) % 8 == 0 else {
      // libzmq hands small messages out of its receive buffer, at any address: copy, so that arrays are aligned.
      var writer = ByteWriter(capacity: count)
      if let data = unsafe zmq_msg_data(frame) {
        unsafe writer.append(raw: RawSpan(_unsafeStart: UnsafeRawPointer(data), byteCount: count))
      }
      unsafe zmq_msg_close(frame)
      unsafe frame.deallocate()
      return (writer.finish(), role)
    }
    let blob = unsafe Blob(owning: UnsafeRawPointer(data), count: count) { [address = UInt(bitPattern: frame)] _ in
      let frame = unsafe UnsafeMutablePointer<zmq_msg_t>(bitPattern: address)!
      unsafe zmq_msg_close(frame)
      unsafe frame.deallocate()
    }
    return (blob, role)
  }

  fileprivate var pollItem: zmq_pollitem_t {
    unsafe zmq_pollitem_t(socket: handle, fd: 0, events: Int16(ZMQ_POLLIN), revents: 0)
  }

  /// Where this socket serves, with the port that `tcp://127.0.0.1:*` was given, or is connected to; empty before.
  public var endpoint: String {
    var text = [CChar](repeating: 0, count: 1024)
    var count = text.count
    guard unsafe zmq_getsockopt(handle, ZMQ_LAST_ENDPOINT, &text, &count) == 0, count > 0 else { return "" }
    return String(decoding: text[..<(count - 1)].map { UInt8(bitPattern: $0) }, as: UTF8.self)
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

  /// The first socket whose server refused this process's key and has said nothing since.
  public var refused: Int? { sockets.firstIndex { $0.socket.isRefused } }

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
