// The shell of a follower: one thread with a socket to sync.

internal import Base
internal import Synchronization
public import Wire

/// Keeps a replica's content up to date until told to stop.
public final class ReplicaLink: Sendable {
  private let endpoint: String
  private let replica: Int
  private let security: LinkSecurity?
  private let isStopping = Atomic<Bool>(false)

  /// A link of replica `replica` to sync at `endpoint`.
  ///
  /// - Parameter security: the replica's key and that of sync; nil when sync asks for none.
  public init(endpoint: String, replica: Int, security: LinkSecurity? = nil) {
    self.endpoint = endpoint
    self.security = security
    self.replica = replica
  }

  /// Asks `run` to return.
  public func stop() { isStopping.store(true, ordering: .relaxed) }

  /// Follows sync until `stop`.
  ///
  /// Blocks the calling thread, which alone calls the target.
  ///
  /// - Parameter onIdle: called at least every 100 ms between messages, for status.
  public func run(target: any VersionTarget, onIdle: (ReplicaFollower) -> Void = { _ in }) throws {
    let context = LinkContext(security)
    let socket = try Socket(.dealer, context: context)
    try socket.connect(endpoint)
    var follower = ReplicaFollower(replica: replica, incarnation: .random(in: 1 ... .max), target: target)
    while !isStopping.load(ordering: .relaxed) {
      while let (_, message) = try socket.receive() {
        if let answer = follower.receive(message, now: Clocks.monotonic()) { _ = socket.send(answer) }
      }
      if let message = follower.tick(now: Clocks.monotonic()) { _ = socket.send(message) }
      onIdle(follower)
      socket.wait(timeout: .milliseconds(100))
    }
  }
}
