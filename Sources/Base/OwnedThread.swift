// A named thread that owns what it works on.

internal import CKernels
internal import Glibc

/// One thread with a name and a body; `join` waits for its end.
public final class OwnedThread: Sendable {
  private let thread: pthread_t

  private final class Body {
    let name: String
    let yields: Bool
    let run: @Sendable () -> Void
    init(name: String, yields: Bool, run: @escaping @Sendable () -> Void) {
      self.name = name
      self.yields = yields
      self.run = run
    }
  }

  /// Starts a thread that calls `body` once.
  ///
  /// The name (15 characters kept) is what `top -H` and debuggers show.
  ///
  /// - Parameter yields: whether threads that wake take its core at once; for work that nobody waits for by the
  ///   millisecond, on a machine where a request's threads have to share cores with it.
  public init(named name: String, yields: Bool = false, _ body: @escaping @Sendable () -> Void) {
    var thread = pthread_t()
    let argument = unsafe Unmanaged.passRetained(Body(name: name, yields: yields, run: body)).toOpaque()
    let code = unsafe pthread_create(
      &thread, nil,
      { raw in
        let body = unsafe Unmanaged<Body>.fromOpaque(raw!).takeRetainedValue()
        unsafe guira_name_this_thread(body.name)
        if body.yields { guira_yield_to_others() }
        body.run()
        return nil
      }, argument)
    precondition(code == 0, "cannot start thread \(name): error \(code)")
    self.thread = thread
  }

  /// Waits until the body has returned.
  ///
  /// Call it once.
  public func join() { pthread_join(thread, nil) }
}
