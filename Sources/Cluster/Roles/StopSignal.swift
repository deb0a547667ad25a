// SIGTERM and SIGINT ask a role to stop in order. The handler only sets a flag; a thread of its own passes it on, because
// a signal handler may do nothing else.

internal import Base
internal import Glibc
internal import Synchronization

private let isAsked = Atomic<Bool>(false)

/// The wish that this process ends.
public enum StopSignal {
  /// Whether SIGTERM or SIGINT came.
  public static var wasSent: Bool { isAsked.load(ordering: .relaxed) }

  /// Takes over both signals and calls `stop` once when one comes, on a thread of its own.
  public static func onSignal(_ stop: @escaping @Sendable () -> Void) {
    for number in [SIGTERM, SIGINT] {
      signal(number) { _ in isAsked.store(true, ordering: .relaxed) }
    }
    _ = OwnedThread(named: "stop-signal") {
      while !wasSent { usleep(20_000) }
      stop()
    }
  }
}
