// The server's process of a benchmark: a shard with a full table, or the same frames with no table behind them. It ends
// when its parent does, or when it is told to by a signal; what it leaves on disk is the parent's to remove.

internal import Base
internal import CKernels
internal import Sharding
internal import Wire

/// Serves a benchmark until the process ends.
public struct BenchServer {
  private let settings: PullPushSettings
  private let service: BenchService
  private let endpoint: String

  /// A server that is not running yet.
  public init(_ settings: PullPushSettings, service: BenchService, endpoint: String) {
    self.settings = settings
    self.service = service
    self.endpoint = endpoint
  }

  /// Fills the table and serves for ever.
  public func run() throws {
    guira_keep_freed_memory()
    switch service {
    case .echo: try echo()
    case .table: try serveTable()
    case .none, .epoch: try serveShard()
    case .rows: try BenchModel.serveRows(settings, endpoint: endpoint)
    case .predict:
      guard let port = endpoint.split(separator: ":").last.flatMap({ Int($0) }) else { return }
      try BenchModel.serve(port: port, seed: settings.seed)
    case .users, .usersHTTP:
      try BenchUsers.serve(settings, endpoint: endpoint, isHTTP: service == .usersHTTP, delay: .zero)
    case .slowUsers: try BenchUsers.serve(settings, endpoint: endpoint, isHTTP: false, delay: .milliseconds(500))
    }
  }

  /// Answers a pull with a frame of the size its rows would have, and everything else with one of a push's answer.
  private func echo() throws {
    let socket = try Socket(.router, context: LinkContext())
    try socket.bind(endpoint)
    var writer = ByteWriter()
    PullReply.begin(request: 0, incarnation: 1, sections: 1, tensors: 0, numbers: settings.numbers, into: &writer)
    let count = settings.batch * settings.dimension
    PullReply.beginNumbers(number: 0, count: count, into: &writer)
    writer.append(numbers: settings.numbers, count: count) { target in
      for place in 0..<count { target[place] = 1 }
    }
    let rows = writer.finish()
    let state = ChainState(chain: ChainKey(consumer: "bench", stream: "bench", partition: 0))
    let answer = ChainReply(incarnation: 1, state: state).encoded(.push, request: 0)
    while true {
      while let (peer, message) = try socket.receive() {
        var reader = ByteReader(message)
        let header = try MessageHeader(decoding: &reader)
        _ = socket.send(header.opcode == .pull ? rows : answer, to: peer)
      }
      socket.wait(timeout: .seconds(1))
    }
  }

  /// A shard without its journal.
  private func serveTable() throws {
    var options = settings.shard
    options.epoch = .seconds(1 << 30)
    var core = ShardCore(options, incarnation: 1, identity: (1, 1))
    fill(&core)
    _ = core.beginRun(now: Clocks.monotonic())
    let socket = try Socket(.router, context: LinkContext())
    try socket.bind(endpoint)
    var actions: [ShardAction] = []
    while true {
      var received = 0
      while received < 64, let (peer, message) = try socket.receive() {
        received += 1
        if let peer { core.receive(message, from: peer, now: Clocks.monotonic(), into: &actions) }
        perform(&actions, &core, socket)
      }
      core.work(now: Clocks.monotonic(), into: &actions)
      perform(&actions, &core, socket)
      if received == 0, !core.hasWork { socket.wait(timeout: .milliseconds(20)) }
    }
  }

  private func perform(_ actions: inout [ShardAction], _ core: inout ShardCore, _ socket: borrowing Socket) {
    var index = 0
    while index < actions.count {
      switch actions[index] {
      case .send(let peer, let message): _ = socket.send(message, to: peer)
      case .append, .beginSegment, .keepForgotten, .checkpointBegin, .checkpointSection, .checkpointCancel,
        .checkpointFinish:
        break
      case .sync(let epoch): core.blockSynced(epoch: epoch, into: &actions)
      }
      index += 1
    }
    actions.removeAll(keepingCapacity: true)
  }

  private func serveShard() throws {
    var options = ShardServerOptions(
      shard: settings.shard, endpoint: endpoint, directory: settings.journalDirectory)
    options.isDurable = service == .epoch
    // Sync is not there to take the blocks away.
    options.shard.retainedBytes = 1 << 20
    // Checkpoints are measured when they are asked for.
    options.shard.checkpointEvery = .zero
    try ShardServer(options).run(prepare: { fill(&$0) })
  }

  private func fill(_ core: inout ShardCore) {
    let count = settings.ids
    let seed = settings.seed
    core.fill(table: 0, count: count) { guira_stream_id(seed, UInt64($0)) }
  }
}
