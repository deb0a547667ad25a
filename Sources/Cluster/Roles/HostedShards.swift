// The shards of a cluster whose transport is `inproc`: threads in the trainer's process, each with the directory, status
// and files that a process of its own would have.

internal import Base
internal import Sharding
internal import Synchronization

/// Shards that run in this process.
final class HostedShards: Sendable {
  private let servers: [ShardServer]
  private let threads: [OwnedThread]
  private let outcome: Outcome

  private final class Outcome: Sendable {
    private let state = Mutex<(error: (any Error)?, handler: (@Sendable (any Error) -> Void)?)>((nil, nil))

    func failed(_ error: any Error) {
      let handler = state.withLock { state in
        state.error = state.error ?? error
        return state.handler
      }
      handler?(error)
    }

    func handle(_ handler: @escaping @Sendable (any Error) -> Void) {
      let error = state.withLock { state in
        state.handler = handler
        return state.error
      }
      if let error { handler(error) }
    }
  }

  /// Starts all shards of the host's cluster; they recover while trainers ask for them.
  init(_ host: RoleProcess) {
    let count = host.plan.configuration.shards.count
    // From each its server, or nil when it ended before it had one: the first that it says counts.
    let started = Mailbox<(shard: Int, server: ShardServer?)>(bound: 2 * count)
    let outcome = Outcome()
    threads = count.indices.map { index in
      let process = RoleProcess(RoleInstance(.shard, index), in: host)
      return OwnedThread(named: process.instance.directoryName) {
        let board = StatusBoard(process.instance, paths: process.paths)
        do {
          let directory = try RoleDirectory(process.instance, in: process.paths)
          defer { _ = directory.path }
          board.post(RoleStatus(process.instance, state: .starting))
          try process.runShard(board) { _ = started.offer((index, $0)) }
        } catch {
          board.post(RoleStatus(process.instance, state: .failed, message: "\(error)"))
          outcome.failed(error)
          _ = started.offer((index, nil))
        }
      }
    }
    self.outcome = outcome
    var heard: [Int: ShardServer?] = [:]
    while heard.count < count {
      for (shard, server) in started.waitAll(timeout: .seconds(1)) where heard[shard] == nil { heard[shard] = server }
    }
    servers = heard.values.compactMap { $0 }
  }

  /// Calls `handler` when a shard ends with an error, at once if one has.
  func onFailure(_ handler: @escaping @Sendable (any Error) -> Void) { outcome.handle(handler) }

  /// Has all of them make durable what they applied, and waits for it.
  func stop() {
    for server in servers { server.stop() }
    for thread in threads { thread.join() }
  }
}
