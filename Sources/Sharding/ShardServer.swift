// The shard's shell: one thread with a ROUTER socket and the core; the disk has threads of its own (ShardDisk.swift).

internal import Base
internal import Journal
internal import Synchronization
public import Wire

/// Where a shard lives and how durable it is.
public struct ShardServerOptions: Sendable {
  /// The shard itself.
  public var shard: ShardOptions
  /// Where it serves.
  public var endpoint: String
  /// Where it serves threads of its own process, `inproc://…`; nil for nowhere.
  public var inProcessEndpoint: String?
  /// What the sockets of the process share; nil for one of its own.
  ///
  /// Endpoints of `inproc` are those of one context.
  public var context: LinkContext?
  /// The shard's directory: its journal, checkpoints and forgotten ids.
  public var files: ShardFiles
  /// False (`durability: none`): blocks are written but not synced; for experiments.
  public var isDurable: Bool = true
  /// Starts although the journal or a checkpoint is damaged, with what is left.
  public var acceptLoss: Bool = false
  /// How many of its own checkpoints the shard keeps; one that is damaged can then be passed over.
  ///
  /// Default 2.
  public var keepCheckpoints: Int = 2
  /// Its key and who may speak to it; nil: anybody, on ipc and loopback only.
  public var security: LinkSecurity?

  /// Options with defaults.
  public init(shard: ShardOptions, endpoint: String, directory: String) {
    self.shard = shard
    self.endpoint = endpoint
    files = ShardFiles(directory: directory)
  }
}

/// Runs one shard until told to stop.
public final class ShardServer: Sendable {
  private let options: ShardServerOptions
  private let isStopping = Atomic<Bool>(false)

  /// A shard that is not running yet.
  public init(_ options: ShardServerOptions) { self.options = options }

  /// Asks `run` to close the last epoch and return; callable from any thread and from signal handlers' threads.
  public func stop() { isStopping.store(true, ordering: .relaxed) }

  /// Recovers, serves, and returns after `stop`, when everything applied is durable.
  ///
  /// Blocks the calling thread.
  ///
  /// - Parameters:
  ///   - prepare: called once, after recovery, before requests are answered.
  ///   - onReady: called once, when requests are answered, with what the shard came back from.
  ///   - onStatus: called about twice a second on the shard's thread.
  /// - Throws: `JournalError`, `RecoveryError`, `LinkError`.
  public func run(
    prepare: (inout ShardCore) -> Void = { _ in },
    onReady: (RecoverySummary) -> Void = { _ in }, onStatus: (ShardStatus) -> Void = { _ in }
  ) throws {
    var journalOptions = JournalOptions()
    journalOptions.durable = options.isDurable
    var recovery = ShardRecovery(options.shard, files: options.files, acceptLoss: options.acceptLoss)
    let (writer, box) = try recovery.run(journalOptions, incarnation: .random(in: 1 ... .max))
    try box.core.dense.check(recordLimit: journalOptions.recordLimit)
    prepare(&box.core)

    let context = options.context ?? LinkContext(options.security)
    // Hellos and pings are not counted by clients.
    let socket = try Socket(
      .router, context: context, receiveQueue: options.shard.creditRequests + 16,
      frameLimit: options.shard.creditBytes + Self.frameSlack)
    try socket.bind(options.endpoint)
    if let inProcess = options.inProcessEndpoint { try socket.bind(inProcess) }

    let disk = ShardDisk(
      writer, files: options.files, shard: options.shard.index, isDurable: options.isDurable,
      keepCheckpoints: options.keepCheckpoints)
    defer { disk.stop() }
    try disk.perform(.append(box.core.beginRun(now: Clocks.monotonic())))
    onReady(recovery.summary)
    try serve(&box.core, socket: socket, disk: disk, onStatus: onStatus)
  }

  /// What a frame may have above the byte credits and still be refused in words: 64 KiB.
  private static let frameSlack = 1 << 16

  /// A pause between requests longer than this is used by a checkpoint: 50 ms.
  private static let quiet: Int64 = 50_000_000

  private func serve(
    _ core: inout ShardCore, socket: borrowing Socket, disk: ShardDisk, onStatus: (ShardStatus) -> Void
  ) throws {
    var actions: [ShardAction] = []
    var nextStatus: Int64 = 0
    var lastRequest = Clocks.monotonic()
    while true {
      var received = 0
      while received < 64, let (peer, message) = try socket.receive() {
        received += 1
        if let peer { core.receive(message, from: peer, now: Clocks.monotonic(), into: &actions) }
        try perform(&actions, socket: socket, disk: disk)
      }
      core.linkRefusals = socket.refusals
      for item in disk.news.takeAll() { try take(item, &core, socket: socket, disk: disk, into: &actions) }
      let now = Clocks.monotonic()
      if received > 0 { lastRequest = now }
      let isStopping = isStopping.load(ordering: .relaxed)
      if isStopping {
        guard core.stall.isEmpty else {
          throw RecoveryError(description: "\(core.stall); what is not durable yet will be sent again")
        }
        core.closeEarly()
      }
      core.work(now: now, isIdle: now - lastRequest > Self.quiet, into: &actions)
      try perform(&actions, socket: socket, disk: disk)
      if now >= nextStatus {
        nextStatus = now + 500_000_000
        onStatus(core.status())
      }
      if isStopping, core.isQuiet {
        onStatus(core.status())
        return
      }
      if received == 0, !core.hasWork {
        let pause: Duration = core.isScanning ? .milliseconds(1) : .milliseconds(20)
        socket.wait(descriptors: [disk.news.descriptor], timeout: pause)
      }
    }
  }

  private func take(
    _ news: DiskNews, _ core: inout ShardCore, socket: borrowing Socket, disk: ShardDisk,
    into actions: inout [ShardAction]
  ) throws {
    switch news {
    case .synced(let epoch, let end):
      core.blockSynced(epoch: epoch, journalEnd: end, into: &actions)
      if !actions.isEmpty, FaultPoint.acknowledgeHalf.isDue {
        actions.removeLast((actions.count + 1) / 2)
        try perform(&actions, socket: socket, disk: disk)
        FaultPoint.acknowledgeHalf.die(after: .milliseconds(5))
      }
    case .full(let problem): core.setStall(problem)
    case .failed(let problem): throw RecoveryError(description: problem)
    case .written(let sections): core.checkpointWritten(sections: sections)
    case .kept(let problem): core.setCheckpointProblem(problem)
    case .checkpoint(let result, let offset):
      core.checkpointEnded(result, into: &actions)
      if offset > 0 { disk.deleteBlocks(before: offset) }
    }
  }

  private func perform(_ actions: inout [ShardAction], socket: borrowing Socket, disk: ShardDisk) throws {
    for action in actions {
      if case .send(let peer, let message) = action {
        // False: the peer is gone or does not read. It will ask again.
        _ = socket.send(message, to: peer)
      } else {
        try disk.perform(action)
      }
    }
    actions.removeAll(keepingCapacity: true)
  }
}
