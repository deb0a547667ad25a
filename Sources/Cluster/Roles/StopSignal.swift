// SIGTERM and SIGINT ask a role to stop in order.

internal import Base
internal import Synchronization

private let isAsked = Atomic<Bool>(false)

/// The wish that this process ends.
enum StopSignal {
  /// Whether a signal came.
  static var wasSent: Bool { isAsked.load(ordering: .relaxed) }

  /// Calls `stop` once when a signal comes, on a thread of its own.
  static func onSignal(_ stop: @escaping @Sendable () -> Void) {
    let signals = Signals.mailbox()
    _ = OwnedThread(named: "stop-signal") {
      while signals.waitAll(timeout: .seconds(60)).isEmpty {}
      isAsked.store(true, ordering: .relaxed)
      stop()
    }
  }
}
