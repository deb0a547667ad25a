// Asynchronous tests beside tests that block. Swift gives tasks as many threads as there are cores; a few tests that wait
// for processes or sockets hold all of them, and whatever waits for a deadline meanwhile misses it.

import Dispatch
public import Testing

/// Runs the tasks of a test on a thread that no other test can hold.
public struct OwnThread: SuiteTrait, TestTrait, TestScoping {
  private static let executor = SerialExecutor()

  /// A suite's tests too.
  public var isRecursive: Bool { true }

  /// Runs a test with its tasks on that thread.
  public func provideScope(
    for test: Test, testCase: Test.Case?, performing function: @Sendable () async throws -> Void
  ) async throws {
    try await withTaskExecutorPreference(Self.executor) { try await function() }
  }

  private final class SerialExecutor: TaskExecutor {
    // A serial queue is given a thread however many others are busy.
    private let queue = DispatchQueue(label: "own-thread")

    func enqueue(_ job: consuming ExecutorJob) {
      let job = UnownedJob(job)
      queue.async { job.runSynchronously(on: self.asUnownedTaskExecutor()) }
    }
  }
}

extension Trait where Self == OwnThread {
  /// For tests that answer and ask in the same process and have deadlines.
  public static var onOwnThread: Self { Self() }
}
