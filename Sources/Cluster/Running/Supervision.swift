// Who is started, restarted and stopped, and when: time and endings in, actions out. No process is touched here.
//
// Stopping goes role by role, producers first, and a role is only told to stop when all before it are gone. Until its
// turn comes, a process that dies is still restarted: those before it may need it to finish.

internal import Base

/// How a process ended.
public enum ProcessEnding: Equatable, Sendable, CustomStringConvertible {
  /// It exited with this code.
  case exit(Int32)
  /// This signal ended it.
  case signal(Int32)
  /// It could not be started at all, and why.
  case notStarted(String)

  /// "exited with code 1", "was ended by signal 9", "could not be started: …".
  public var description: String {
    switch self {
    case .exit(let code): "exited with code \(code)"
    case .signal(let signal): "was ended by signal \(signal)"
    case .notStarted(let reason): "could not be started: \(reason)"
    }
  }
}

extension ProcessEnding {
  /// What a process exits with when only an operator can decide how to go on.
  ///
  /// The supervisor stops everything and tells why.
  public static let needsOperator: Int32 = 3

  /// Whether starting it again would not help, or would hide a loss.
  var isFinal: Bool { self == .exit(ConfigurationError.exitCode) || self == .exit(Self.needsOperator) }
}

/// When processes are started again, and how long they may take to stop.
public struct SupervisionOptions: Sendable, Equatable {
  /// How long after its first end a process is started again; doubles with each further end.
  public var firstDelay: Duration = .milliseconds(100)
  /// The longest such delay.
  public var longestDelay: Duration = .seconds(10)
  /// A process that has lived this long begins again with the first delay.
  public var resetAfter: Duration = .seconds(30)
  /// How long a process may take to stop before it is killed.
  public var stopGrace: Duration = .seconds(15)

  /// The defaults.
  public init() {}
}

/// The supervisor's decisions.
///
/// Times are monotonic nanoseconds.
struct Supervision: Sendable {
  enum Action: Equatable, Sendable {
    case start(Int)
    case terminate(Int, pid: Int32)
    case kill(Int, pid: Int32)
  }

  enum Phase: Equatable, Sendable {
    /// To be started at a time.
    case due(at: Int64)
    /// An action to start it was given out.
    case starting
    case running(pid: Int32, since: Int64)
    /// Told to stop; killed when it has not by `killAt`, which is nil once that was done.
    case stopping(pid: Int32, killAt: Int64?)
    case gone
  }

  struct Child: Sendable {
    let instance: RoleInstance
    var phase: Phase
    var nextDelay: Duration
    var restarts = 0
    var lastEnding: ProcessEnding?
  }

  let options: SupervisionOptions
  private(set) var children: [Child]
  private(set) var isStopping = false

  init(_ instances: [RoleInstance], options: SupervisionOptions, now: Int64) {
    self.options = options
    children = instances.map { Child(instance: $0, phase: .due(at: now), nextDelay: options.firstDelay) }
  }

  /// Whether everything has ended and nothing will be started.
  var isDone: Bool { isStopping && children.allSatisfy { $0.phase == .gone } }

  /// Begins to stop everything, in order.
  mutating func stop() { isStopping = true }

  /// What is to be done now.
  mutating func actions(now: Int64) -> [Action] {
    var actions: [Action] = []
    let stage = isStopping ? children.filter { $0.phase != .gone }.map(\.instance.role).min() : nil
    for index in children.indices {
      let isStage = children[index].instance.role == stage
      switch children[index].phase {
      case .due where isStage:
        children[index].phase = .gone
      case .due(let at) where at <= now:
        children[index].phase = .starting
        actions.append(.start(index))
      case .running(let pid, _) where isStage:
        children[index].phase = .stopping(pid: pid, killAt: now + options.stopGrace.nanoseconds)
        actions.append(.terminate(index, pid: pid))
      case .stopping(let pid, let killAt?) where killAt <= now:
        children[index].phase = .stopping(pid: pid, killAt: nil)
        actions.append(.kill(index, pid: pid))
      case .due, .starting, .running, .stopping, .gone: break
      }
    }
    return actions
  }

  /// A process was started.
  mutating func started(_ index: Int, pid: Int32, now: Int64) {
    children[index].phase = .running(pid: pid, since: now)
  }

  /// A process ended, or could not be started.
  /// - Returns: how long until it is started again; nil when it is not.
  @discardableResult
  mutating func ended(_ index: Int, _ ending: ProcessEnding, now: Int64) -> Duration? {
    children[index].lastEnding = ending
    if case .stopping = children[index].phase {
      children[index].phase = .gone
      return nil
    }
    if case .running(_, let since) = children[index].phase, now - since >= options.resetAfter.nanoseconds {
      children[index].nextDelay = options.firstDelay
    }
    let delay = children[index].nextDelay
    children[index].nextDelay = min(delay * 2, options.longestDelay)
    children[index].restarts += 1
    children[index].phase = .due(at: now + delay.nanoseconds)
    return delay
  }
}
