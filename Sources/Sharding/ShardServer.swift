// The shard's shell: one thread with a ROUTER socket and the core, one thread that writes and syncs the journal. Values
// go between them through two mailboxes, so an fsync never delays a pull.

internal import Base
internal import Embeddings
internal import Journal
internal import Synchronization
public import Wire

/// Where a shard lives and how durable it is.
public struct ShardServerOptions: Sendable {
  /// The shard itself.
  public var shard: ShardOptions
  /// Where it serves.
  public var endpoint: String
  /// The journal's directory.
  public var journalDirectory: String
  /// False (`durability: none`): blocks are written but not synced; for experiments.
  public var isDurable: Bool = true
  /// Starts although the journal is damaged, with what is left.
  public var acceptLoss: Bool = false

  /// Options with defaults.
  public init(shard: ShardOptions, endpoint: String, journalDirectory: String) {
    self.shard = shard
    self.endpoint = endpoint
    self.journalDirectory = journalDirectory
  }
}

/// Runs one shard until told to stop.
public final class ShardServer: Sendable {
  private enum JournalOrder: Sendable {
    case append(Blob)
    case sync(epoch: UInt64)
  }

  private enum JournalNews: Sendable {
    case synced(epoch: UInt64)
    case failed(String)
  }

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
  ///   - onReady: called once, when requests are answered, with the number of blocks that were replayed.
  ///   - onStatus: called about twice a second on the shard's thread.
  /// - Throws: `JournalError`, `RecoveryError`, `LinkError`.
  public func run(
    onReady: (_ blocks: Int) -> Void = { _ in }, onStatus: (ShardStatus) -> Void = { _ in }
  ) throws {
    var journalOptions = JournalOptions()
    journalOptions.durable = options.isDurable
    let writer = try JournalWriter(
      directory: options.journalDirectory, options: journalOptions, acceptLoss: options.acceptLoss)
    var core = ShardCore(
      options.shard, incarnation: .random(in: 1 ... .max), identity: (writer.identity.high, writer.identity.low))
    let blocks = try recover(&core)

    let context = LinkContext()
    let socket = try Socket(.router, context: context)
    try socket.bind(options.endpoint)

    let orders = Mailbox<JournalOrder>(bound: 1 << 16)
    let news = Mailbox<JournalNews>(bound: 1 << 16)
    let box = JournalBox(writer)
    let thread = OwnedThread(named: "journal-\(options.shard.index)") { Self.write(box, orders: orders, news: news) }
    defer {
      orders.close()
      thread.join()
    }
    var actions: [ShardAction] = [.append(core.beginRun(now: Clocks.monotonic()))]
    try perform(&actions, socket: socket, orders: orders)
    onReady(blocks)
    try serve(&core, socket: socket, orders: orders, news: news, onStatus: onStatus)
  }

  /// Replays the journal into the core; gives the number of blocks.
  private func recover(_ core: inout ShardCore) throws -> Int {
    var reader = try JournalReader(
      directory: options.journalDirectory, from: JournalReader.bounds(directory: options.journalDirectory).lowerBound)
    var records = 0
    while let record = try reader.next() {
      // A copy, because arrays inside must be aligned and the journal packs records.
      var copy = ByteWriter(capacity: record.range.count)
      copy.append(raw: record.bytes)
      try core.recover(copy.finish())
      records += 1
    }
    return records
  }

  private func serve(
    _ core: inout ShardCore, socket: borrowing Socket, orders: Mailbox<JournalOrder>, news: Mailbox<JournalNews>,
    onStatus: (ShardStatus) -> Void
  ) throws {
    var actions: [ShardAction] = []
    var nextStatus: Int64 = 0
    while true {
      var received = 0
      while received < 64, let (peer, message) = try socket.receive() {
        received += 1
        if let peer { core.receive(message, from: peer, now: Clocks.monotonic(), into: &actions) }
        try perform(&actions, socket: socket, orders: orders)
      }
      for item in news.takeAll() {
        switch item {
        case .synced(let epoch):
          core.blockSynced(epoch: epoch, into: &actions)
          if !actions.isEmpty, FaultPoint.acknowledgeHalf.isDue {
            actions.removeLast((actions.count + 1) / 2)
            try perform(&actions, socket: socket, orders: orders)
            FaultPoint.acknowledgeHalf.die(after: .milliseconds(5))
          }
        case .failed(let problem): throw RecoveryError(description: problem)
        }
      }
      let now = Clocks.monotonic()
      let isStopping = isStopping.load(ordering: .relaxed)
      if isStopping { core.closeEarly() }
      core.work(now: now, into: &actions)
      try perform(&actions, socket: socket, orders: orders)
      if now >= nextStatus {
        nextStatus = now + 500_000_000
        onStatus(core.status())
      }
      if isStopping, core.isQuiet {
        onStatus(core.status())
        return
      }
      if received == 0, !core.hasWork {
        socket.wait(descriptors: [news.descriptor], timeout: .milliseconds(20))
      }
    }
  }

  private func perform(
    _ actions: inout [ShardAction], socket: borrowing Socket, orders: Mailbox<JournalOrder>
  ) throws {
    for action in actions {
      switch action {
      case .send(let peer, let message):
        // False: the peer is gone or does not read. It will ask again.
        _ = socket.send(message, to: peer)
      case .append(let record): try submit(.append(record), to: orders)
      case .sync(let epoch): try submit(.sync(epoch: epoch), to: orders)
      }
    }
    actions.removeAll(keepingCapacity: true)
  }

  /// A full mailbox means the disk is behind by tens of thousands of records: the shard waits, which slows trainers down.
  private func submit(_ order: JournalOrder, to orders: Mailbox<JournalOrder>) throws {
    while !orders.offer(order) {
      if orders.isClosed { throw RecoveryError(description: "the journal thread has ended") }
      _ = Mailbox<Void>(bound: 1).waitAll(timeout: .milliseconds(1))
    }
  }

  /// The writer crosses to its thread inside this box.
  ///
  /// unchecked because: it is filled before the thread starts and used by that thread alone.
  private final class JournalBox: @unchecked Sendable {
    var writer: JournalWriter
    init(_ writer: consuming JournalWriter) { self.writer = writer }
  }

  /// The body of the journal's thread.
  private static func write(_ box: JournalBox, orders: Mailbox<JournalOrder>, news: Mailbox<JournalNews>) {
    do {
      while true {
        let batch = orders.waitAll(timeout: .seconds(1))
        if batch.isEmpty, orders.isClosed { return }
        for order in batch {
          switch order {
          case .append(let record):
            try box.writer.append(record.bytes)
            if FaultPoint.blockHalf.isDue {
              try box.writer.flush()
              FaultPoint.blockHalf.die()
            }
          case .sync(let epoch):
            if FaultPoint.blockWritten.isDue {
              try box.writer.flush()
              FaultPoint.blockWritten.die()
            }
            try box.writer.sync()
            FaultPoint.blockSynced.pass()
            _ = news.offer(.synced(epoch: epoch))
          }
        }
      }
    } catch {
      _ = news.offer(.failed("the journal cannot be written: \(error)"))
      orders.close()
    }
  }
}
