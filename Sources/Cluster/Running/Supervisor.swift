// Runs the processes of a cluster: starts each, starts again what dies, stops all in order. One thread, "supervisor", owns
// the decisions (`Supervision`) and the children; it lives until the last of them is gone, because the kernel kills a role
// when the thread that started it ends.

internal import Base
internal import Foundation
internal import Glibc
internal import Synchronization

/// A process to be kept running.
public struct ChildSpec: Sendable, Equatable {
  /// Which part of the cluster it is.
  public var instance: RoleInstance
  /// The program's path.
  public var executable: String
  /// Its arguments, without the program's name.
  public var arguments: [String]
  /// Where its output goes, a file that is appended to; its directory is made.
  public var log: String

  /// A process from its parts.
  public init(_ instance: RoleInstance, executable: String, arguments: [String], log: String) {
    self.instance = instance
    self.executable = executable
    self.arguments = arguments
    self.log = log
  }
}

/// Something the supervisor did or saw.
public enum SupervisorEvent: Sendable, Equatable {
  /// A process was started.
  case started(RoleInstance, pid: Int32)
  /// A process ended; it is started again after the delay, if there is one.
  case ended(RoleInstance, ProcessEnding, restartIn: Duration?)
  /// A process was told to stop.
  case stopping(RoleInstance)
  /// A process did not stop in time and was killed.
  case killed(RoleInstance)
  /// A process found its configuration wrong: everything is being stopped.
  case refused(RoleInstance, message: String)
  /// Everything has ended.
  case finished
}

/// Keeps the processes of a cluster running until it is told to stop.
public final class Supervisor: Sendable {
  /// What is known about one process.
  public struct Child: Sendable, Equatable {
    /// Which part of the cluster it is.
    public var instance: RoleInstance
    /// Its process number; nil when it does not run.
    public var pid: Int32?
    /// How often it was started again.
    public var restarts: Int
  }

  /// What the thread tells the outside.
  fileprivate final class Board: Sendable {
    let content = Mutex<(children: [Child], failure: String?)>(([], nil))
  }

  private let board: Board
  private let stopRequests: Mailbox<Void>
  private let thread: OwnedThread

  /// Starts the processes, in order.
  /// - Parameters:
  ///   - status: where the supervisor says how often it restarted whom; nil for nowhere.
  ///   - onEvent: called on the supervisor's thread; must not block.
  public init(
    _ specs: [ChildSpec], options: SupervisionOptions = SupervisionOptions(), status: StatePaths? = nil,
    onEvent: @escaping @Sendable (SupervisorEvent) -> Void = { _ in }
  ) {
    let board = Board()
    let requests = Mailbox<Void>(bound: 1)
    self.board = board
    stopRequests = requests
    thread = OwnedThread(named: "supervisor") {
      var loop = SupervisorLoop(specs, options: options, status: status, board: board, onEvent: onEvent)
      loop.run(until: requests)
    }
  }

  /// The processes as they are now.
  public var children: [Child] { board.content.withLock { $0.children } }

  /// Why everything is being stopped, when a process found its configuration wrong.
  public var failure: String? { board.content.withLock { $0.failure } }

  /// Begins to stop everything, in order; `wait` returns when it is done.
  public func stop() { _ = stopRequests.offer(()) }

  /// Waits until every process has ended.
  ///
  /// Call it once.
  public func wait() { thread.join() }
}

/// What the thread "supervisor" owns.
private struct SupervisorLoop {
  /// How often endings are looked for.
  private static let tick = Duration.milliseconds(20)
  /// A log longer than this is set aside when its process starts again.
  private static let logLimit = 64 << 20

  private let specs: [ChildSpec]
  private var supervision: Supervision
  private var writer: StatusWriter?
  private let board: Supervisor.Board
  private let onEvent: @Sendable (SupervisorEvent) -> Void

  init(
    _ specs: [ChildSpec], options: SupervisionOptions, status: StatePaths?, board: Supervisor.Board,
    onEvent: @escaping @Sendable (SupervisorEvent) -> Void
  ) {
    self.specs = specs
    supervision = Supervision(specs.map(\.instance), options: options, now: Clocks.monotonic())
    if let status {
      try? Files.makeDirectory(status.directory(RoleInstance(.supervisor)))
      writer = StatusWriter(RoleInstance(.supervisor), in: status)
    }
    self.board = board
    self.onEvent = onEvent
  }

  mutating func run(until stopRequests: Mailbox<Void>) {
    while !supervision.isDone {
      if !stopRequests.waitAll(timeout: Self.tick).isEmpty { supervision.stop() }
      reap()
      for action in supervision.actions(now: Clocks.monotonic()) { perform(action) }
      publish()
    }
    onEvent(.finished)
  }

  private mutating func perform(_ action: Supervision.Action) {
    switch action {
    case .start(let index):
      do throws(FileError) {
        let pid = try Self.spawn(specs[index])
        supervision.started(index, pid: pid, now: Clocks.monotonic())
        onEvent(.started(specs[index].instance, pid: pid))
      } catch { ended(index, .notStarted("\(error)")) }
    case .terminate(let index, let pid):
      onEvent(.stopping(specs[index].instance))
      _ = Glibc.kill(pid, SIGTERM)
    case .kill(let index, let pid):
      // The whole group: what the process started must not outlive it.
      _ = Glibc.kill(-pid, SIGKILL)
      onEvent(.killed(specs[index].instance))
    }
  }

  private mutating func reap() {
    for (index, child) in supervision.children.enumerated() {
      let pid: Int32
      switch child.phase {
      case .running(let running, _): pid = running
      case .stopping(let stopping, _): pid = stopping
      case .due, .starting, .gone: continue
      }
      var status: Int32 = 0
      guard unsafe waitpid(pid, &status, WNOHANG) == pid else { continue }
      let signal = status & 0x7F
      ended(index, signal == 0 ? .exit((status >> 8) & 0xFF) : .signal(signal))
    }
  }

  private mutating func ended(_ index: Int, _ ending: ProcessEnding) {
    let instance = specs[index].instance
    let delay = supervision.ended(index, ending, now: Clocks.monotonic())
    if ending.isFinal, delay != nil {
      let message = lastMessage(inLog: specs[index].log) ?? "it cannot go on; see \(specs[index].log)"
      board.content.withLock { $0.failure = $0.failure ?? "\(instance): \(message)" }
      supervision.stop()
      onEvent(.refused(instance, message: message))
    } else {
      onEvent(.ended(instance, ending, restartIn: delay))
    }
  }

  private mutating func publish() {
    let children = supervision.children.map { child in
      switch child.phase {
      case .running(let pid, _), .stopping(let pid, _):
        Supervisor.Child(instance: child.instance, pid: pid, restarts: child.restarts)
      case .due, .starting, .gone:
        Supervisor.Child(instance: child.instance, pid: nil, restarts: child.restarts)
      }
    }
    board.content.withLock { $0.children = children }
    guard var writer, writer.isDue() else { return }
    var status = RoleStatus(RoleInstance(.supervisor), state: supervision.isStopping ? .stopping : .ready)
    for child in children { status.counters[StatusKey.restarts(child.instance)] = Double(child.restarts) }
    for child in supervision.children {
      if let ending = child.lastEnding { status.texts[child.instance.directoryName] = ending.description }
    }
    writer.update(status)
    self.writer = writer
  }

  /// Starts a process in a group of its own, so that Ctrl-C at the terminal reaches the supervisor alone.
  private static func spawn(_ spec: ChildSpec) throws(FileError) -> pid_t {
    if let slash = spec.log.lastIndex(of: "/") { try Files.makeDirectory(String(spec.log[..<slash])) }
    var info = stat()
    if unsafe stat(spec.log, &info) == 0, info.st_size > logLimit { _ = unsafe rename(spec.log, "\(spec.log).1") }
    let log = unsafe open(spec.log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0o644)
    guard log >= 0 else { throw FileError(errno, "open \(spec.log)") }
    defer { close(log) }

    var actions = unsafe posix_spawn_file_actions_t()
    var attributes = posix_spawnattr_t()
    unsafe posix_spawn_file_actions_init(&actions)
    unsafe posix_spawnattr_init(&attributes)
    defer {
      unsafe posix_spawn_file_actions_destroy(&actions)
      unsafe posix_spawnattr_destroy(&attributes)
    }
    unsafe posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
    unsafe posix_spawn_file_actions_adddup2(&actions, log, 1)
    unsafe posix_spawn_file_actions_adddup2(&actions, log, 2)
    var none = sigset_t()
    var defaults = sigset_t()
    unsafe sigemptyset(&none)
    unsafe sigemptyset(&defaults)
    for signal in [SIGINT, SIGTERM, SIGHUP, SIGPIPE] { unsafe sigaddset(&defaults, signal) }
    unsafe posix_spawnattr_setsigmask(&attributes, &none)
    unsafe posix_spawnattr_setsigdefault(&attributes, &defaults)
    unsafe posix_spawnattr_setpgroup(&attributes, 0)
    unsafe posix_spawnattr_setflags(
      &attributes, Int16(POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))

    var environment = ProcessInfo.processInfo.environment
    environment[ParentWatch.variable] = "\(getpid())"
    var pid = pid_t()
    let code = unsafe withCStrings([spec.executable] + spec.arguments) { arguments in
      unsafe withCStrings(environment.map { "\($0.key)=\($0.value)" }) { environment in
        unsafe posix_spawn(&pid, spec.executable, &actions, &attributes, arguments, environment)
      }
    }
    guard code == 0 else { throw FileError(code, "start \(spec.executable)") }
    return pid
  }
}

/// Calls `body` with the strings as C has them: an array of pointers that ends with nil.
private func withCStrings<Result>(
  _ strings: [String], _ body: (UnsafePointer<UnsafeMutablePointer<CChar>?>) -> Result
) -> Result {
  let copies = unsafe strings.map { unsafe strdup($0) } + [nil]
  defer { unsafe copies.forEach { unsafe free($0) } }
  return unsafe copies.withUnsafeBufferPointer { unsafe body($0.baseAddress!) }
}

/// The message of the last line of a log, JSON or not.
private func lastMessage(inLog path: String) -> String? {
  guard let bytes = try? Files.read(path) else { return nil }
  let lines = bytes.suffix(64 << 10).split(separator: UInt8(ascii: "\n"))
  guard let line = lines.last(where: { !$0.isEmpty }) else { return nil }
  struct Line: Decodable { var message: String }
  if let parsed = try? JSONDecoder().decode(Line.self, from: Data(line)) { return parsed.message }
  return String(decoding: line, as: UTF8.self)
}
