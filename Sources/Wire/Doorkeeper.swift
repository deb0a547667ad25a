// Who lets clients in: one thread per process that serves, which answers libzmq's question "may this key in?" (ZAP,
// rfc.zeromq.org/spec/27), hears from the sockets' monitors who failed before that question, and reads the allow-list again
// when it changes.
//
// It fails closed. Its sockets stay open until every server is gone: libzmq would let any key in if nobody listened for the
// question; unanswered, a client waits in vain. When the thread ends, servers stop receiving and their process ends. And
// every message is judged once more by what libzmq noted on it when its peer was let in.

internal import Base
internal import CZeroMQ
internal import Synchronization

/// Answers for the servers of one context.
///
/// unchecked because: `questions`, `monitors` and `facts` are used by the thread alone from its start to its end, and by the
/// owner before and after; the rest is behind locks.
@safe final class Doorkeeper: @unchecked Sendable {
  /// What clients' keys are judged in; any name does, libzmq asks only when there is one.
  static let domain = "guira"

  private struct State {
    var roles: [String: PeerRole]
    var keys: [PublicKey: AllowList.Entry]
    var refusals = LinkRefusals()

    init(_ list: AllowList) {
      roles = [:]
      keys = [:]
      take(list)
    }

    mutating func take(_ list: AllowList) {
      roles = Dictionary(uniqueKeysWithValues: list.entries.map { ($0.userID, $0.role) })
      keys = Dictionary(uniqueKeysWithValues: list.entries.map { ($0.key, $0) })
      refusals.problem = ""
    }
  }

  private let file: String
  private let state: Mutex<State>
  private let isServing = Atomic(true)
  private let questions: UnsafeMutableRawPointer
  private var monitors: [HandshakeMonitor] = []
  private let newMonitors = Mailbox<HandshakeMonitor>(bound: 1024)
  private let context: UnsafeMutableRawPointer
  private var thread: OwnedThread?
  private var facts: FileFacts?

  /// Begins to answer; no server of the context may listen before.
  init(_ security: LinkSecurity, context: UnsafeMutableRawPointer) throws(LinkError) {
    guard let questions = unsafe zmq_socket(context, ZMQ_REP) else { throw LinkError(zmq_errno(), "make a socket") }
    guard unsafe zmq_bind(questions, "inproc://zeromq.zap.01") == 0 else {
      let code = zmq_errno()
      unsafe zmq_close(questions)
      throw LinkError(code, "answer for keys")
    }
    unsafe self.questions = questions
    unsafe self.context = context
    file = security.allowListFile
    state = Mutex(State(security.allowList))
    thread = OwnedThread(named: "doorkeeper") { [self] in
      run()
      isServing.store(false, ordering: .sequentiallyConsistent)
    }
  }

  /// Ends the thread, then closes what it used.
  ///
  /// Servers that still live receive nothing from here on.
  func end() {
    newMonitors.close()
    thread?.join()
    thread = nil
  }

  /// Closes the sockets; call it when all servers are closed, after `end`.
  func close() {
    for monitor in monitors + newMonitors.takeAll() { monitor.close() }
    monitors = []
    unsafe zmq_close(questions)
  }

  // MARK: For servers' threads

  /// Whether clients are answered for; a server must not serve otherwise.
  var isWatching: Bool { isServing.load(ordering: .relaxed) }

  /// Who was refused so far.
  var refusals: LinkRefusals { state.withLock { $0.refusals } }

  /// The role of a peer by what libzmq noted on its message; nil for one that is not, or no longer, in the list.
  func role(ofUser user: UnsafePointer<CChar>?) -> PeerRole? {
    guard let name = unsafe user.map({ unsafe String(cString: $0) }) else { return nil }
    return state.withLock { $0.roles[name] }
  }

  /// Counts a message that was dropped because its peer has no role.
  func countRevoked() { state.withLock { $0.refusals.revokedMessages += 1 } }

  /// Listens for handshakes of a server's clients that fail before a key is seen.
  func watch(_ server: UnsafeMutableRawPointer) throws(LinkError) {
    let monitor = try unsafe HandshakeMonitor(of: server, in: context)
    guard newMonitors.offer(monitor) else { throw LinkError(noKeyCode, "watch one more server's clients") }
  }

  // MARK: The thread

  private func run() {
    while true {
      monitors += newMonitors.takeAll()
      if newMonitors.isClosed { return }
      var items = unsafe [
        zmq_pollitem_t(socket: questions, fd: 0, events: Int16(ZMQ_POLLIN), revents: 0),
        zmq_pollitem_t(socket: nil, fd: newMonitors.descriptor, events: Int16(ZMQ_POLLIN), revents: 0),
      ]
      for monitor in monitors { unsafe items.append(monitor.pollItem) }
      guard unsafe zmq_poll(&items, Int32(items.count), 1000) >= 0 || zmq_errno() == EINTR else { return }
      readListIfChanged()
      guard answerQuestions() else { return }
      hearMonitors()
    }
  }

  private func readListIfChanged() {
    let now = try? Files.facts(file)
    guard now == nil || now != facts else { return }
    do throws(KeyError) {
      let list = try AllowList(file: file)
      state.withLock { $0.take(list) }
      facts = now
    } catch {
      // Whoever is in stays in by the last good list; nobody else comes in until the file is mended.
      facts = nil
      state.withLock { $0.refusals.problem = error.description }
    }
  }

  /// False when questions can no longer be answered.
  private func answerQuestions() -> Bool {
    while true {
      let frames: [[UInt8]]
      do throws(LinkError) {
        guard let received = try unsafe receiveFrames(questions) else { return true }
        frames = received
      } catch { return false }
      let reply = answer(to: frames)
      for (index, frame) in reply.enumerated() {
        let more = index < reply.count - 1 ? ZMQ_SNDMORE : 0
        guard unsafe zmq_send(questions, frame, frame.count, more) >= 0 else { return false }
      }
    }
  }

  /// The ZAP reply to a ZAP request; counts refusals.
  func answer(to frames: [[UInt8]]) -> [[UInt8]] {
    let (code, user) = state.withLock { state -> (code: String, user: String) in
      // version, request, domain, address, routing id, mechanism, then the key's bytes
      guard frames.count == 7, frames[0] == Array("1.0".utf8), frames[2] == Array(Self.domain.utf8) else {
        state.refusals.failedHandshakes += 1
        return ("400", "")
      }
      guard frames[5] == Array("CURVE".utf8) else {
        state.refusals.nullClients += 1
        return ("400", "")
      }
      guard state.refusals.problem.isEmpty, let key = PublicKey(bytes: frames[6]), let entry = state.keys[key] else {
        state.refusals.unknownKeys += 1
        return ("400", "")
      }
      return ("200", entry.userID)
    }
    let request = frames.count > 1 ? frames[1] : []
    return [Array("1.0".utf8), request, Array(code.utf8), [], Array(user.utf8), []]
  }

  private func hearMonitors() {
    for monitor in monitors {
      while let failure = monitor.next() {
        state.withLock { state in
          switch failure {
          // An answer refused it, and counted it.
          case .refused: break
          case .withoutKey: state.refusals.nullClients += 1
          case .other: state.refusals.failedHandshakes += 1
          }
        }
      }
    }
  }
}
