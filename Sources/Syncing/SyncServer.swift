// The sync role's shell: one thread with a socket to each shard, a ROUTER socket for replicas and operators, and the
// version store.

internal import Base
internal import Synchronization
public import Wire

/// Where sync finds shards and keeps versions.
public struct SyncServerOptions: Sendable {
  /// The core.
  public var sync: SyncOptions
  /// Where each shard serves, by shard.
  public var shardEndpoints: [String]
  /// Where sync serves replicas.
  public var endpoint: String
  /// The directory of versions.
  public var directory: String
  /// Its key, the shards', and who may speak to it; nil: anybody, on ipc and loopback only.
  public var security: LinkSecurity?

  /// Options with all parts.
  public init(sync: SyncOptions, shardEndpoints: [String], endpoint: String, directory: String) {
    self.sync = sync
    self.shardEndpoints = shardEndpoints
    self.endpoint = endpoint
    self.directory = directory
  }
}

/// Runs sync until told to stop.
public final class SyncServer: Sendable {
  private let options: SyncServerOptions
  private let isStopping = Atomic<Bool>(false)

  /// A sync that is not running yet.
  public init(_ options: SyncServerOptions) { self.options = options }

  /// Asks `run` to return.
  public func stop() { isStopping.store(true, ordering: .relaxed) }

  /// Serves until `stop`.
  ///
  /// Blocks the calling thread.
  ///
  /// - Parameter onStatus: called about twice a second on this thread.
  public func run(onStatus: (SyncStatus) -> Void = { _ in }) throws {
    let lock = try lockedDirectory()
    let store = try VersionStore(directory: options.directory, keep: options.sync.keepVersions)
    let stored = try store.load()
    var core = SyncCore(options.sync, stored: stored) { .random(in: 1 ... .max) }
    let context = LinkContext(options.security)
    let server = try Socket(.router, context: context)
    try server.bind(options.endpoint)
    let shards = try SocketGroup(connecting: options.shardEndpoints, context: context)
    var actions: [SyncAction] = []
    var nextStatus: Int64 = 0
    while !isStopping.load(ordering: .relaxed) {
      var didWork = false
      for shard in 0..<shards.count {
        while let message = try shards.receive(from: shard) {
          core.receive(message, fromShard: shard, now: Clocks.monotonic(), into: &actions)
          didWork = true
        }
      }
      var received = 0
      while received < 256, let (peer, message) = try server.receive() {
        if let peer { core.receive(message, from: peer, now: Clocks.monotonic(), into: &actions) }
        received += 1
        didWork = true
      }
      core.linkRefusals = server.refusals
      let now = Clocks.monotonic()
      core.tick(now: now, wall: Clocks.wall(), into: &actions)
      try perform(&actions, core: &core, store: store, server: server, shards: shards)
      if now >= nextStatus {
        nextStatus = now + 500_000_000
        onStatus(core.status(now: now))
      }
      if !didWork { shards.wait(with: server, timeout: .milliseconds(10)) }
    }
    onStatus(core.status(now: Clocks.monotonic()))
    _ = lock
  }

  private func lockedDirectory() throws(FileError) -> FileLock {
    try Files.makeDirectory(options.directory)
    return try FileLock(path: options.directory + ".lock")
  }

  private func perform(
    _ actions: inout [SyncAction], core: inout SyncCore, store: VersionStore, server: borrowing Socket,
    shards: SocketGroup
  ) throws {
    // What is missing on the disk adds to the list.
    var index = 0
    while index < actions.count {
      switch actions[index] {
      case .sendShard(let shard, let message): _ = shards.send(message, to: shard)
      case .send(let peer, let message): _ = server.send(message, to: peer)
      case .beginStore(let id): try store.begin(id)
      case .storeVersion(let number, let blob): try store.store(number, blob)
      case .storeBasePart(let base, let part, let blob): try store.store(base: base, part: part, blob)
      case .finishBase(let base, let parts): try store.finish(base: base, parts: parts)
      case .sendVersion(let peer, let number):
        if let content = store.version(number) {
          send(content, number: number, to: peer, heading: core.heading, server: server)
        } else {
          core.missing(version: number, now: Clocks.monotonic(), into: &actions)
        }
      case .sendBasePart(let peer, let base, let part):
        if let content = store.part(part, ofBase: base) {
          send(content, number: base, to: peer, heading: core.heading, server: server)
        } else {
          core.missing(base: base, now: Clocks.monotonic(), into: &actions)
        }
      case .readState(let number):
        core.read(store.state(of: number), now: Clocks.monotonic(), into: &actions)
      case .describe(let peer, let request, let number):
        _ = server.send(describe(number, store, request: request), to: peer)
      }
      index += 1
    }
    actions.removeAll(keepingCapacity: true)
  }

  private func describe(_ number: UInt64, _ store: VersionStore, request: UInt64) -> Blob {
    if number == 0 { return PlainMessage.text(.versions, store.list.jsonText, request: request) }
    guard let details = store.details(of: number) else {
      return ErrorReply(.gone, "version \(number) is not kept").encoded(opcode: .versions, request: request)
    }
    return PlainMessage.text(.versions, details.jsonText, request: request)
  }

  private func send(
    _ content: Blob, number: UInt64, to peer: PeerID, heading: (store: UInt64, newest: UInt64),
    server: borrowing Socket
  ) {
    let message = VersionMessage(
      store: heading.store, number: number, newest: heading.newest, content: ByteReader(content))
    _ = server.send(message.encoded(request: 0), to: peer)
  }
}
