// Replicas: each says what it has, sync sends the one thing that comes next. One message is in flight per replica, so a
// slow one delays nobody and holds no memory; a lost message is sent again because the replica says again what it has.

public import Base
public import Wire

extension SyncCore {
  /// The most replicas served at a time; more are not answered until some have been silent for long.
  static let replicaLimit = 4096

  /// Takes a message of a replica or a control client.
  public mutating func receive(_ message: Blob, from peer: PeerID, now: Int64, into actions: inout [SyncAction]) {
    var reader = ByteReader(message)
    do {
      let header = try MessageHeader(decoding: &reader)
      guard header.kind == .request else { return }
      if let role = peer.role, !header.opcode.isAllowed(to: role) {
        count("forbidden")
        let refusal = ErrorReply.forbidden(header.opcode, to: role)
        actions.append(.send(peer, refusal.encoded(opcode: header.opcode, request: header.request)))
        return
      }
      switch header.opcode {
      case .follow:
        follow(try Follow(decoding: &reader), from: peer, now: now, into: &actions)
      case .publish:
        publish(dense: try PublishRequest(decoding: &reader).dense)
        actions.append(.send(peer, PlainMessage.empty(.publish, .reply, request: header.request)))
      case .versions:
        let number = try VersionsRequest(decoding: &reader).number
        actions.append(.describe(peer, request: header.request, version: number))
      case .pin:
        let target = try PinRequest(decoding: &reader).version
        take(ReturnOrder(peer: peer, request: header.request, target: target, isResume: false), into: &actions)
      case .resume:
        try reader.expectEnd()
        take(ReturnOrder(peer: peer, request: header.request, target: 0, isResume: true), into: &actions)
      case .status:
        actions.append(.send(peer, PlainMessage.text(.status, status(now: now).json, request: header.request)))
      default:
        let error = ErrorReply(.malformed, "sync does not answer '\(header.opcode)'")
        actions.append(.send(peer, error.encoded(opcode: header.opcode, request: header.request)))
      }
    } catch {
      count("malformed")
      actions.append(.send(peer, ErrorReply(.malformed, "\(error)").encoded(opcode: .follow, request: 0)))
    }
  }

  private mutating func follow(_ message: Follow, from peer: PeerID, now: Int64, into actions: inout [SyncAction]) {
    guard replicas[peer] != nil || replicas.count < Self.replicaLimit else {
      count("refusedReplicas")
      return
    }
    var state = replicas[peer] ?? ReplicaState(index: Int(message.replica))
    state.store = message.store
    state.version = message.version
    state.served = message.served
    state.part = message.part
    state.lastSeen = now
    replicas[peer] = state
    // A restarted replica speaks through a new connection; the old one is dead.
    for (other, old) in replicas where other != peer && old.index == state.index { replicas[other] = nil }
    // What a replica holds beside what it serves is not servable yet.
    if message.store == store, message.served <= newest { acknowledge(message.served, by: state.index, now: now) }
    bringForward(peer, now: now, into: &actions)
  }

  private mutating func acknowledge(_ version: UInt64, by replica: Int, now: Int64) {
    // Of a replica beyond those configured nobody waits for news.
    guard replica < options.replicaCount else { return }
    acknowledged[replica] = version
    guard acknowledged.count >= options.replicaCount else { return }
    let everywhere = acknowledged.values.min() ?? 0
    while let first = awaited.first, first.number <= everywhere {
      for arrival in first.arrivals {
        let (delay, overflow) = wall.subtractingReportingOverflow(arrival.arrival)
        if !overflow { freshness.record(delay, times: arrival.count) }
      }
      awaited.removeFirst()
    }
  }

  /// In a fixed order, so that equal runs send equal things.
  mutating func bringAllForward(now: Int64, into actions: inout [SyncAction]) {
    for peer in replicas.keys.sorted(by: { $0.bytes.lexicographicallyPrecedes($1.bytes) }) {
      bringForward(peer, now: now, into: &actions)
    }
  }

  /// Sends what a replica needs next, unless that is on its way.
  mutating func bringForward(_ peer: PeerID, now: Int64, into actions: inout [SyncAction]) {
    guard var state = replicas[peer], store != 0 else { return }
    let next: (version: UInt64, part: UInt32, isBase: Bool)
    let isOurs = state.store == store && state.version <= newest
    if isOurs, state.part == 0, state.version > 0, state.version + 1 >= oldestKept {
      guard state.version < newest else { return }
      next = (state.version + 1, 0, false)
    } else if let base, base.number + 1 >= oldestKept {
      next = (base.number, isOurs && state.part > 0 && state.version == base.number ? state.part : 0, true)
    } else {
      return  // until there is a base with all versions since
    }
    if let sent = state.sent, sent.version == next.version, sent.part == next.part,
      now - sent.at < options.retryAfter.nanoseconds
    {
      return
    }
    state.sent = (next.version, next.part, now)
    replicas[peer] = state
    actions.append(
      next.isBase
        ? .sendBasePart(peer, base: next.version, part: Int(next.part)) : .sendVersion(peer, next.version))
  }

  /// Per shard: the last epoch merged.
  public var cursors: [UInt64] { shards.map(\.cursor) }

  /// What sync says of itself.
  public func status(now: Int64) -> SyncStatus {
    SyncStatus(
      store: store, newest: newest, base: base?.number ?? 0, cursors: cursors,
      durableEpochs: shards.map(\.durableEpoch), isBehind: isBehind,
      replicas: replicas.values.sorted { $0.index < $1.index }.map {
        SyncStatus.Replica(
          index: $0.index, version: $0.store == store ? $0.served : 0,
          silentMilliseconds: (now - $0.lastSeen) / 1_000_000)
      },
      totals: totals, counters: counters.merging(linkRefusals.counters) { own, _ in own },
      newestEventTime: newestEventTime, freshness: freshness, pinned: pin?.version ?? 0, waiting: waiting(now: now),
      lagMilliseconds: lag)
  }

  /// How many rows no version has yet, and since when the oldest waits.
  private func waiting(now: Int64) -> SyncStatus.Waiting {
    let since = shards.compactMap { $0.merged.first?.mergedAt }.min() ?? now
    return SyncStatus.Waiting(
      rows: tables.values.reduce(0) { $0 + $1.rowCount }, milliseconds: (now - since) / 1_000_000)
  }

  /// How long ago the oldest action arrived that is not servable on every replica; 0 when there is none.
  private var lag: Int64 {
    var oldest = readyArrivals.lazy.map(\.arrival).min()
    func note(_ counts: [ArrivalCount]) {
      for count in counts where count.arrival > .min && count.arrival < oldest ?? .max { oldest = count.arrival }
    }
    for version in awaited { note(version.arrivals) }
    arrivalQueue.forEach { note($0.counts) }
    for block in shards.first?.merged ?? [] { for push in block.arrivals { note(push.counts) } }
    guard let oldest, case let (lag, overflow) = wall.subtractingReportingOverflow(oldest), !overflow else { return 0 }
    return max(0, lag)
  }

  /// Whether something merged is not published yet, or a shard's block is not merged yet.
  var isBehind: Bool {
    store == 0 || base == nil || hasProgress || !changedTensors.isEmpty || tables.values.contains { !$0.isEmpty }
      || shards.contains { $0.cursor < $0.durableEpoch || $0.welcome == nil }
  }

  /// The newest version and the number of the store, for messages.
  public var heading: (store: UInt64, newest: UInt64) { (store, newest) }
}
