// How threads exchange values. A mailbox has a bound; what happens when it is full is the caller's choice at the call.

internal import CKernels
internal import Glibc
internal import Synchronization

/// A bounded queue of values between threads, with a file descriptor that a poll loop can wait on.
///
/// The descriptor is readable while values wait, so a thread that polls sockets learns of mail in the same call.
public final class Mailbox<Value: Sendable>: Sendable {
  private let queue: Mutex<Queue>
  private let bound: Int
  private let event: Int32

  private struct Queue: Sendable {
    var values: [Value] = []
    var isClosed = false
  }

  /// A mailbox for at most `bound` waiting values.
  public init(bound: Int) {
    self.bound = bound
    queue = Mutex(Queue())
    event = guira_event_descriptor()
    precondition(event >= 0, "cannot make an event descriptor: errno \(errno)")
  }

  deinit { close(event) }

  /// The descriptor to poll for reading.
  public var descriptor: Int32 { event }

  /// Puts a value in, unless the box is full or closed; false then, and the value is the caller's to keep.
  public func offer(_ value: Value) -> Bool {
    let accepted = queue.withLock { queue -> Bool in
      guard !queue.isClosed, queue.values.count < bound else { return false }
      queue.values.append(value)
      return true
    }
    if accepted { signal() }
    return accepted
  }

  /// Puts a value in, waiting while the box is full; false when it is closed.
  ///
  /// For owned threads only: it blocks.
  public func put(_ value: Value) -> Bool {
    while !offer(value) {
      if isClosed { return false }
      usleep(500)
    }
    return true
  }

  /// Takes everything that waits, oldest first; empty when nothing does.
  public func takeAll() -> [Value] {
    var counter: UInt64 = 0
    _ = unsafe read(event, &counter, 8)
    return queue.withLock { queue in
      let values = queue.values
      queue.values = []
      return values
    }
  }

  /// Takes everything, waiting up to `timeout` for the first value.
  ///
  /// Empty after the time, or when closed.
  public func waitAll(timeout: Duration) -> [Value] {
    let waiting = takeAll()
    if !waiting.isEmpty || isClosed { return waiting }
    var poll = pollfd(fd: event, events: Int16(POLLIN), revents: 0)
    _ = unsafe Glibc.poll(&poll, 1, Int32(clamping: timeout.milliseconds))
    return takeAll()
  }

  /// Waits for `duration`, or less when the box is closed meanwhile.
  public func pause(_ duration: Duration) {
    let end = Clocks.monotonic() + duration.nanoseconds
    while !isClosed, Clocks.monotonic() < end { usleep(5000) }
  }

  /// Refuses further values and wakes the reader; values already inside can still be taken.
  public func close() {
    queue.withLock { $0.isClosed = true }
    signal()
  }

  /// Whether `close` was called.
  public var isClosed: Bool { queue.withLock { $0.isClosed } }

  private func signal() {
    var one: UInt64 = 1
    _ = unsafe write(event, &one, 8)
  }

  private func close(_ descriptor: Int32) { Glibc.close(descriptor) }
}
