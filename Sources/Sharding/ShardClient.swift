// The client's side of the protocol without its sockets: claims partitions on all shards, keeps every push until it is
// durable, and mends whatever the link or a shard loses. Messages and time in, messages out; one thread.
//
// All trouble ends in one path: when something is overdue or refused, the client says `hello`; the shard's `welcome` tells
// where it stands, and what it has not applied is sent again in order. A shard answers in the order it reads, so a
// welcome also proves that everything sent before it was read or lost.

public import Base
public import Wire

/// Speaks to all shards for one consumer.
public struct ShardClient {
  struct Pull {
    var requests: [Blob?]
    var replies: [PullReply?]
    var sentAt: [Int64]
    var missing: Int
  }

  var peers: [ShardPeer]
  let chains: [ChainKey]
  let owner: UInt64
  var generation: UInt64 = 0
  var positions: [ChainKey: [Position]] = [:]
  var pulls: [UInt64: Pull] = [:]
  var nextRequest: UInt64 = 1
  let retryAfter: Int64
  let heartbeatEvery: Int64
  /// Spreads retries of many clients; seeded, so that runs can be repeated.
  var random: SeededRandom
  let check: (Int, Welcome) -> String?

  /// Bytes of pushes that are not durable yet.
  public private(set) var keptBytes = 0
  /// Messages to send: shard and bytes.
  ///
  /// The shell takes them and sends them in order.
  public internal(set) var outgoing: [(shard: Int, message: Blob)] = []
  /// Why the client cannot go on.
  public internal(set) var failure: ClientFailure?
  /// How often the client had to find out where a shard stands.
  public internal(set) var resynchronizations = 0

  /// A client of `shardCount` shards that will own `chains`.
  ///
  /// - Parameters:
  ///   - owner: drawn at random by the shell; breaks ties between claims.
  ///   - retryAfter: how long an answer may take before the client asks where the shard stands. Default 2 s.
  ///   - heartbeatEvery: how long a shard may be silent before an idle client asks whether it lives. Default 1 s.
  ///   - check: what is wrong with a shard's welcome, in words; nil when it fits.
  public init(
    shardCount: Int, chains: [ChainKey], owner: UInt64, retryAfter: Duration = .seconds(2),
    heartbeatEvery: Duration = .seconds(1),
    check: @escaping (Int, Welcome) -> String? = { _, _ in nil }
  ) {
    peers = Array(repeating: ShardPeer(), count: shardCount)
    self.chains = chains
    self.owner = owner
    self.retryAfter = retryAfter.nanoseconds
    self.heartbeatEvery = heartbeatEvery.nanoseconds
    random = SeededRandom(seed: owner)
    self.check = check
  }

  /// How many shards there are.
  public var shardCount: Int { peers.count }

  /// Whether all partitions are claimed on all shards, so that pushes may begin.
  public var isReady: Bool { generation > 0 && peers.allSatisfy { $0.claimed.count == chains.count } }

  /// The ownership to stamp pushes with.
  public var ownership: Ownership { Ownership(generation: generation, owner: owner) }

  /// Where each shard stood in a chain when it was claimed; empty before `isReady`.
  public func claimedPositions(of chain: ChainKey) -> [Position] { positions[chain] ?? [] }

  /// The position up to which a chain is durable on every shard.
  public func durablePosition(of chain: ChainKey) -> Position {
    peers.map { $0.durable[chain] ?? .start }.min() ?? .start
  }

  /// The position up to which every shard has applied a chain, as far as this client was told.
  public func appliedPosition(of chain: ChainKey) -> Position {
    peers.map { $0.applied[chain] ?? .start }.min() ?? .start
  }

  /// The most pushes that one shard has not acknowledged as applied.
  public var batchesAhead: Int { peers.reduce(0) { max($0, $1.pushes.unapplied) } }

  /// The welcome of a shard, once it came.
  public func welcome(of shard: Int) -> Welcome? { peers[shard].welcome }

  /// What the client waits for, in words; nil when for nothing in particular.
  public var waitsFor: String? {
    let silent = peers.indices.filter { peers[$0].welcome == nil }
    if !silent.isEmpty { return "waits for shards \(silent.map(String.init).joined(separator: ", "))" }
    let lost = peers.indices.filter { peers[$0].isSynchronizing }
    if !lost.isEmpty { return "waits for shards \(lost.map(String.init).joined(separator: ", ")) to answer again" }
    return isReady ? nil : "claims its partitions"
  }

  /// Takes what must be sent now.
  public mutating func takeOutgoing() -> [(shard: Int, message: Blob)] {
    defer { outgoing.removeAll(keepingCapacity: true) }
    return outgoing
  }

  mutating func request() -> UInt64 {
    defer { nextRequest += 1 }
    return nextRequest
  }

  // MARK: Pull and push

  /// Sends a pull; `requests[shard]` is made with the ticket as request number, nil where nothing is wanted.
  public mutating func pull(now: Int64, _ make: (_ ticket: UInt64, _ shard: Int) -> Blob?) -> UInt64 {
    let ticket = request()
    let requests = peers.indices.map { make(ticket, $0) }
    let missing = requests.count { $0 != nil }
    pulls[ticket] = Pull(
      requests: requests, replies: Array(repeating: nil, count: peers.count),
      sentAt: Array(repeating: now, count: peers.count), missing: missing)
    for shard in peers.indices where !peers[shard].isSynchronizing {
      if let message = requests[shard] { send(message, to: shard) }
    }
    return ticket
  }

  /// The replies of a pull when all have come, nil before; forgets the pull then.
  public mutating func takePull(_ ticket: UInt64) -> [PullReply?]? {
    guard let pull = pulls[ticket], pull.missing == 0 else { return nil }
    pulls[ticket] = nil
    return pull.replies
  }

  /// Sends one batch's push to every shard, in a chain that is claimed.
  public mutating func push(
    chain: ChainKey, end: Position, now: Int64, _ make: (_ request: UInt64, _ shard: Int) -> Blob
  ) {
    for shard in peers.indices {
      let message = make(request(), shard)
      let isOpen = !peers[shard].isSynchronizing
      peers[shard].pushes.append(message, chain: chain, end: end, sentAt: isOpen ? now : nil)
      keptBytes += message.count
      if isOpen { send(message, to: shard) }
    }
  }

  /// Asks all shards to close their epoch, so that kept pushes become durable sooner.
  public mutating func askForEarlyClose() {
    for shard in peers.indices where !peers[shard].isSynchronizing {
      send(PlainMessage.empty(.closeEpoch, request: request()), to: shard)
    }
  }

  // MARK: Messages

  /// Takes a message of a shard.
  ///
  /// Bytes that are not the protocol's are dropped: the retry finds out.
  public mutating func receive(_ message: Blob, from shard: Int, now: Int64) {
    guard failure == nil else { return }
    var reader = ByteReader(message)
    do {
      let header = try MessageHeader(decoding: &reader)
      heard(
        from: shard, request: header.request, wentWell: header.kind == .reply && header.opcode != .hello, now: now)
      switch (header.opcode, header.kind) {
      case (.hello, .reply): try welcomed(Welcome(decoding: &reader), by: shard, now: now)
      case (.claim, .reply): claimed(try ChainReply(decoding: &reader), by: shard)
      case (.push, .reply), (.durable, .reply): applied(try ChainReply(decoding: &reader).state, by: shard)
      case (.ping, .reply): try ponged(Pong(decoding: &reader), by: shard, now: now)
      case (.pull, .reply): try pulled(PullReply(decoding: &reader), ticket: header.request, from: shard)
      case (let opcode, .error): refused(try ErrorReply(decoding: &reader), opcode, by: shard, now: now)
      default: break
      }
    } catch {
      synchronize(shard, now: now)
    }
  }

  private mutating func welcomed(_ welcome: Welcome, by shard: Int, now: Int64) throws {
    guard welcome.shard == shard, welcome.shardCount == peers.count else {
      failure = .mismatch(
        shard: shard,
        "it is shard \(welcome.shard) of \(welcome.shardCount), expected shard \(shard) of "
          + "\(peers.count); compare the endpoints in the configuration")
      return
    }
    if let problem = check(shard, welcome) {
      failure = .mismatch(shard: shard, problem)
      return
    }
    if let before = peers[shard].welcome,
      before.identityHigh != welcome.identityHigh || before.identityLow != welcome.identityLow
    {
      failure = .identityChanged(shard: shard)
      return
    }
    // The answer to a hello said twice: what was sent after the first answer is still on its way.
    let isRepeat = !peers[shard].isSynchronizing && peers[shard].incarnation == welcome.incarnation
    peers[shard].welcome = welcome
    peers[shard].incarnation = welcome.incarnation
    peers[shard].isSynchronizing = false
    peers[shard].credits.requestLimit = welcome.requestCredits == 0 ? .max : welcome.requestCredits
    peers[shard].credits.byteLimit = welcome.byteCredits == 0 ? .max : welcome.byteCredits
    for state in welcome.chains where peers[shard].claimed.contains(state.chain) {
      guard state.ownership == ownership else {
        failure = .fenced(shard: shard, generation: state.ownership.generation)
        return
      }
      if let known = peers[shard].durable[state.chain], state.applied < known {
        failure = .lostDurable(shard: shard, acknowledged: known, found: state.applied)
        return
      }
      applied(state, by: shard, isWelcome: !isRepeat)
    }
    guard !isRepeat else { return }
    claimAll(now: now)
    sendAgain(to: shard, now: now)
  }

  /// A shard that came back since may lack what it had acknowledged.
  private mutating func ponged(_ pong: Pong, by shard: Int, now: Int64) throws {
    peers[shard].pingAt = nil
    if pong.incarnation != peers[shard].incarnation { synchronize(shard, now: now) }
  }

  private mutating func sendAgain(to shard: Int, now: Int64) {
    for message in peers[shard].pushes.sendAgain(now: now) {
      send(PushRequest.renumbered(message, request: request()), to: shard)
    }
    for (ticket, pull) in pulls.sorted(by: { $0.key < $1.key }) where pull.replies[shard] == nil {
      guard let message = pull.requests[shard] else { continue }
      pulls[ticket]?.sentAt[shard] = now
      send(message, to: shard)
    }
  }

  private mutating func claimed(_ reply: ChainReply, by shard: Int) {
    let state = reply.state
    guard state.ownership == ownership, chains.contains(state.chain) else { return }
    if positions[state.chain] == nil {
      positions[state.chain] = Array(repeating: .start, count: peers.count)
    }
    if peers[shard].claimed.insert(state.chain).inserted { positions[state.chain]?[shard] = state.applied }
    applied(state, by: shard)
  }

  /// Notes how far a chain is applied and durable, and lets go of what is durable.
  private mutating func applied(_ state: ChainState, by shard: Int, isWelcome: Bool = false) {
    let appliedEnd = isWelcome ? state.applied : max(state.applied, peers[shard].applied[state.chain] ?? .start)
    let durableEnd = max(state.durable, peers[shard].durable[state.chain] ?? .start)
    peers[shard].applied[state.chain] = appliedEnd
    peers[shard].durable[state.chain] = durableEnd
    keptBytes -= peers[shard].pushes.note(state.chain, applied: appliedEnd, durable: durableEnd)
  }

  private mutating func pulled(_ reply: PullReply, ticket: UInt64, from shard: Int) throws(DecodeError) {
    guard var pull = pulls[ticket], let request = pull.requests[shard], pull.replies[shard] == nil else { return }
    guard try answers(reply, request, of: shard) else {
      failure = .mismatch(shard: shard, "its answer to a pull does not hold the rows and tensors that were asked for")
      return
    }
    pulls[ticket] = nil
    pull.replies[shard] = reply
    pull.missing -= 1
    pulls[ticket] = pull
  }

  /// Whether a reply has a row for every id asked for and whole tensors, so that nobody behind reads past its end.
  private func answers(_ reply: PullReply, _ request: Blob, of shard: Int) throws(DecodeError) -> Bool {
    var reader = ByteReader(request)
    _ = try MessageHeader(decoding: &reader)
    let sections = try PullRequest(decoding: &reader).sections
    guard let welcome = peers[shard].welcome, sections.count == reply.rows.count else { return false }
    for (section, rows) in zip(sections, reply.rows) {
      guard welcome.tables.indices.contains(section.table) else { return false }
      let (floats, overflow) = section.ids.count.multipliedReportingOverflow(
        by: welcome.tables[section.table].weightCount)
      guard !overflow, rows.count == floats else { return false }
    }
    return reply.tensors.allSatisfy {
      welcome.tensors.indices.contains($0.tensor) && welcome.tensors[$0.tensor].count == $0.values.count
    }
  }

  private mutating func refused(_ error: ErrorReply, _ opcode: Opcode, by shard: Int, now: Int64) {
    switch (error.code, opcode) {
    case (.fenced, .claim):
      guard error.generation >= generation else { return }
      // Who reads from the positions of its claim cannot claim again: they would be others now.
      guard !isReady else {
        failure = .fenced(shard: shard, generation: error.generation)
        return
      }
      // Another claimer was faster: claim above it, on all shards.
      raise(above: error.generation, of: shard)
      for index in peers.indices { peers[index].claimed = [] }
      positions = [:]
      claimAll(now: now)
    case (.fenced, _):
      failure = .fenced(shard: shard, generation: error.generation)
    case (.mismatch, _), (.staleMap, _), (.forbidden, _), (.malformed, .claim), (.malformed, .pull),
      (.malformed, .push):
      // The same bytes would be refused again.
      failure = .mismatch(shard: shard, error.message)
    case (.busy, _):
      synchronize(shard, now: now, afterPause: true)
    default:
      synchronize(shard, now: now)
    }
  }
}
