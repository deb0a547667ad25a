// The client's side of a benchmark: a number of requests under way at a time, the time of each answer, rows per second.
// It speaks the plain protocol; what a trainer does besides (dedup, grouping, keeping pushes) is not measured here.

internal import Base
internal import CKernels
internal import Wire

/// One run's figures.
struct BenchRun {
  var rows = 0
  var seconds = 0.0
  var latencies = Histogram()
  /// Processor time of both processes, in nanoseconds.
  var cpu: Int64 = 0

  var cpuNanosecondsPerRow: Double { rows > 0 ? Double(cpu) / Double(rows) : 0 }
  var rowsPerSecond: Double { seconds > 0 ? Double(rows) / seconds : 0 }
  func microseconds(_ quantile: Double) -> Double { Double(latencies.quantile(quantile)) / 1e3 }
}

/// The ids of many requests, drawn before anything is measured.
struct BenchIDs {
  private let ranks: [UInt32]
  private let batch: Int
  private let seed: UInt64
  private var next = 0

  init(_ settings: PullPushSettings) {
    batch = settings.batch
    seed = settings.seed
    let length = batch * max(1, min(1024, 1 << 22 / batch))
    var ranks = Self.draw(settings, length, seed: seed)
    if settings.isDistinct {
      var distinct: [UInt32] = []
      var seen: Set<UInt32> = []
      var draws = 1 as UInt64
      while distinct.count < length {
        for rank in ranks where seen.insert(rank).inserted {
          distinct.append(rank)
          if seen.count == batch { seen.removeAll(keepingCapacity: true) }
        }
        draws += 1
        ranks = Self.draw(settings, length, seed: seed &+ draws)
      }
      ranks = Array(distinct.prefix(length))
    }
    self.ranks = ranks
  }

  /// Ids uniform among `count`.
  init(uniform count: Int, _ settings: PullPushSettings) {
    var settings = settings
    (settings.distribution, settings.ids, settings.isDistinct) = (.uniform, count, false)
    self.init(settings)
  }

  private static func draw(_ settings: PullPushSettings, _ length: Int, seed: UInt64) -> [UInt32] {
    var ranks = [UInt32](repeating: 0, count: length)
    switch settings.distribution {
    case .uniform: unsafe guira_stream_ranks_uniform(seed, UInt64(settings.ids), &ranks, length)
    case .zipf(let exponent): unsafe guira_stream_ranks_zipf(seed, UInt64(settings.ids), exponent, &ranks, length)
    }
    return ranks
  }

  /// The ids of the next request; `offset` is added to their ranks.
  mutating func take(into ids: inout [UInt64], offset: Int = 0) {
    if next + batch > ranks.count { next = 0 }
    for place in 0..<batch { ids[place] = guira_stream_id(seed, UInt64(Int(ranks[next + place]) + offset)) }
    next += batch
  }
}

/// A connection to one server with its chain claimed.
struct BenchClient: ~Copyable {
  static let chain = ChainKey(consumer: "bench", stream: "bench", partition: 0)
  static let patience = Duration.seconds(20)

  private let settings: PullPushSettings
  let server: BenchProcess
  private let socket: Socket
  private var ids: [UInt64]
  private let sightings: [UInt32]
  private let gradients: [Float]
  private let ownership: Ownership
  private var applied = Position.start
  private var nextRequest: UInt64 = 1
  private(set) var pushes: UInt64 = 0

  /// Connects, waits until the server has filled its table, and claims.
  init(_ settings: PullPushSettings, _ server: BenchProcess, _ context: LinkContext) throws {
    let ownership = Ownership(generation: 1, owner: 1)
    if server.service != .echo {
      var asker = try Asker(endpoint: server.endpoint, context: context)
      try Self.open(server, &asker, ownership)
    }
    let socket = try Socket(.dealer, context: context)
    try socket.connect(server.endpoint)
    self.settings = settings
    self.server = server
    self.socket = socket
    self.ownership = ownership
    ids = [UInt64](repeating: 0, count: settings.batch)
    sightings = [UInt32](repeating: 1, count: settings.batch)
    gradients = [Float](repeating: 0.01, count: settings.batch * settings.dimension)
  }

  private static func open(_ server: BenchProcess, _ asker: inout Asker, _ ownership: Ownership) throws {
    while true {
      guard server.isRunning else { throw BenchmarkError(description: "the server '\(server.service)' has ended") }
      do {
        _ = try asker.ask(timeout: .seconds(1)) { Hello(role: .trainer).encoded(request: $0) }
        break
      } catch is AskError {}
    }
    let claim = Claim(chain: chain, ownership: ownership)
    _ = try asker.ask(timeout: patience) { claim.encoded(request: $0) }
  }

  /// Pulls for a while.
  mutating func pull(_ stream: inout BenchIDs, inFlight: Int, seconds: Double) throws -> BenchRun {
    try run(inFlight: inFlight, seconds: seconds) { client in
      stream.take(into: &client.ids)
      return PullRequest.encoded(
        request: client.nextRequest, mapNumber: 1, eventTime: 0, wantsDense: false,
        numbers: client.settings.numbers, sections: [(table: 0, ids: client.ids, sightings: client.sightings)])
    }
  }

  /// Pushes for a while; `offset` is asked for each request.
  mutating func push(
    _ stream: inout BenchIDs, inFlight: Int, seconds: Double, offset: () -> Int = { 0 }
  ) throws -> BenchRun {
    try run(inFlight: inFlight, seconds: seconds) { client in
      stream.take(into: &client.ids, offset: offset())
      return client.nextPush()
    }
  }

  private mutating func nextPush() -> Blob {
    pushes += 1
    let end = Position(low: pushes)
    let stamp = Stamp(
      chain: Self.chain, ownership: ownership, previousEnd: applied, end: end, exampleCount: 1, eventTime: 0,
      watermark: 0)
    applied = end
    var writer = ByteWriter(capacity: 512 + settings.batch * (12 + 4 * settings.dimension))
    PushRequest.begin(
      request: nextRequest, stamp: stamp, mapNumber: 1, sections: 1, tensors: 0, arrivals: [],
      numbers: settings.numbers, into: &writer)
    PushRequest.beginSection(table: 0, ids: ids, sightings: sightings, floats: gradients.count, into: &writer)
    if settings.numbers == .float32 {
      writer.append(array: gradients)
    } else {
      writer.append(numbers: settings.numbers, count: gradients.count) { target in
        for place in gradients.indices { target[place] = gradients[place] }
      }
    }
    return writer.finish()
  }

  private mutating func run(
    inFlight: Int, seconds: Double, _ make: (inout BenchClient) -> Blob
  ) throws -> BenchRun {
    var run = BenchRun()
    var sent: [Int64] = []
    var answered = 0
    let cpu = server.cpuTime + BenchProcess.ownCPUTime
    let start = Clocks.monotonic()
    let end = start + Int64(seconds * 1e9)
    var now = start
    while true {
      while now < end, sent.count - answered < inFlight {
        let message = make(&self)
        nextRequest += 1
        sent.append(Clocks.monotonic())
        guard socket.send(message) else { throw BenchmarkError(description: "the queue to the server is full") }
      }
      guard answered < sent.count else { break }
      try waitForAnswer()
      now = Clocks.monotonic()
      run.latencies.record(now - sent[answered])
      answered += 1
    }
    run.rows = answered * settings.batch
    run.seconds = Double(now - start) / 1e9
    run.cpu = server.cpuTime + BenchProcess.ownCPUTime - cpu
    return run
  }

  /// Takes the next answer; news of durability in between are dropped.
  private func waitForAnswer() throws {
    let deadline = Clocks.monotonic() + Self.patience.nanoseconds
    while true {
      while let (_, message) = try socket.receive() {
        var reader = ByteReader(message)
        let header = try MessageHeader(decoding: &reader)
        switch (header.kind, header.opcode) {
        case (.error, _): throw try ErrorReply(decoding: &reader)
        case (_, .durable): continue
        case (_, .pull):
          let reply = try PullReply(decoding: &reader)
          guard reply.rows.first?.count == settings.batch * settings.dimension else {
            throw BenchmarkError(description: "a pull was answered with \(reply.rows.first?.count ?? 0) floats")
          }
          return
        case (_, .push):
          _ = try ChainReply(decoding: &reader)
          return
        default: return
        }
      }
      guard Clocks.monotonic() < deadline, server.isRunning else {
        throw BenchmarkError(
          description: server.isRunning
            ? "no answer within \(Self.patience)" : "the server '\(server.service)' has ended")
      }
      socket.wait(timeout: .milliseconds(100))
    }
  }

  /// Waits until all that was pushed is durable; gives how long that took, in seconds.
  func settle(_ context: LinkContext) throws -> Double {
    let start = Clocks.monotonic()
    var asker = try Asker(endpoint: server.endpoint, context: context)
    while Clocks.monotonic() - start < 300_000_000_000 {
      _ = try asker.ask(timeout: Self.patience) { PlainMessage.empty(.closeEpoch, request: $0) }
      if try asker.shardStatus(timeout: Self.patience)?.isQuiet == true { break }
    }
    return Double(Clocks.monotonic() - start) / 1e9
  }

  /// What the server counted.
  static func status(_ server: BenchProcess, _ context: LinkContext) throws -> ShardStatus {
    var asker = try Asker(endpoint: server.endpoint, context: context)
    guard let status = try asker.shardStatus(timeout: patience) else {
      throw BenchmarkError(description: "the server's status cannot be read")
    }
    return status
  }
}
