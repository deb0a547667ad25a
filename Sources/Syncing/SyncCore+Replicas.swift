// Replicas: each says what it has, sync sends the one thing that comes next. One message is in flight per replica, so a
// slow one delays nobody and holds no memory; a lost message is sent again because the replica says again what it has.

public import Base
internal import Foundation
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
    state.part = message.part
    state.lastSeen = now
    replicas[peer] = state
    // A restarted replica speaks through a new connection; the old one is dead.
    for (other, old) in replicas where other != peer && old.index == state.index { replicas[other] = nil }
    if message.store == store, message.part == 0 { acknowledge(message.version, by: state.index, now: now) }
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
    guard var state = replicas[peer], store != 0, let base else { return }
    let next: (version: UInt64, part: UInt32, isBase: Bool)
    if state.store == store, state.part > 0, state.version == base.number {
      next = (base.number, state.part, true)
    } else if state.store == store, state.part == 0, state.version >= base.number {
      guard state.version < newest else { return }
      next = (state.version + 1, 0, false)
    } else if state.store == store, state.part == 0, state.version >= oldestVersion, state.version < newest {
      next = (state.version + 1, 0, false)
    } else {
      next = (base.number, 0, true)
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

  /// The oldest version a replica may have and still be brought forward version by version.
  var oldestVersion: UInt64 { base?.number ?? newest }

  /// What sync says of itself.
  public func status(now: Int64) -> SyncStatus {
    SyncStatus(
      store: store, newest: newest, base: base?.number ?? 0, cursors: shards.map(\.cursor),
      durableEpochs: shards.map(\.durableEpoch), isBehind: isBehind,
      replicas: replicas.values.sorted { $0.index < $1.index }.map {
        SyncStatus.Replica(
          index: $0.index, version: $0.store == store && $0.part == 0 ? $0.version : 0,
          silentMilliseconds: (now - $0.lastSeen) / 1_000_000)
      },
      totals: totals, counters: counters.merging(linkRefusals.counters) { own, _ in own },
      newestEventTime: newestEventTime, freshness: freshness)
  }

  /// Whether something merged is not published yet, or a shard's block is not merged yet.
  var isBehind: Bool {
    store == 0 || base == nil || hasProgress || !changedTensors.isEmpty || tables.values.contains { !$0.isEmpty }
      || shards.contains { $0.cursor < $0.durableEpoch || $0.welcome == nil }
  }

  /// The newest version and the number of the store, for messages.
  public var heading: (store: UInt64, newest: UInt64) { (store, newest) }
}

/// What sync says of itself when asked; JSON on the wire.
public struct SyncStatus: Codable, Sendable, Equatable {
  /// The store's random number.
  public var store: UInt64
  /// The newest version.
  public var newest: UInt64
  /// The newest base; 0 while the first is made.
  public var base: UInt64
  /// Per shard: the last epoch merged.
  public var cursors: [UInt64]
  /// Per shard: the last synced epoch it told of.
  public var durableEpochs: [UInt64]
  /// Whether something is merged but not published, or not merged yet.
  public var isBehind: Bool
  /// Followers seen within 30 s.
  public var replicas: [Replica]
  /// What was published since the cluster began.
  public var totals: VersionContent.Totals
  /// Counts since the process started: bases, blocks, resets, malformed messages.
  public var counters: [String: UInt64]
  /// The newest event time published.
  public var newestEventTime: Milliseconds
  /// Arrival → servable on every replica, milliseconds.
  public var freshness: Histogram

  /// One replica as sync sees it.
  public struct Replica: Codable, Sendable, Equatable {
    /// Which.
    public var index: Int
    /// The version it has; 0 before its base is whole.
    public var version: UInt64
    /// Since its last message.
    public var silentMilliseconds: Int64
  }

  /// As JSON text.
  public var json: String {
    guard let data = try? JSONEncoder().encode(self) else { return "{}" }
    return String(decoding: data, as: UTF8.self)
  }

  /// Reads the JSON text; nil when it is not a status.
  public init?(json: String) {
    guard let value = try? JSONDecoder().decode(Self.self, from: Data(json.utf8)) else { return nil }
    self = value
  }

  init(
    store: UInt64, newest: UInt64, base: UInt64, cursors: [UInt64], durableEpochs: [UInt64], isBehind: Bool,
    replicas: [Replica], totals: VersionContent.Totals, counters: [String: UInt64], newestEventTime: Milliseconds,
    freshness: Histogram
  ) {
    self.store = store
    self.newest = newest
    self.base = base
    self.cursors = cursors
    self.durableEpochs = durableEpochs
    self.isBehind = isBehind
    self.replicas = replicas
    self.totals = totals
    self.counters = counters
    self.newestEventTime = newestEventTime
    self.freshness = freshness
  }
}
