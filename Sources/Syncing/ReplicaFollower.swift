// The replica's side of sync without its socket: says what it has, applies what comes next, asks again when something is
// missing or damaged. What the target refuses, because its configuration is another one, is asked for again now and then:
// the configuration of the shards may change back.

public import Base
internal import Wire

/// What a replica keeps versions in; called by one thread.
public protocol VersionTarget: AnyObject {
  /// Begins a base beside what is served; a base begun before is dropped.
  func beginBase() throws
  /// Drops the base, if one is begun: what it brings is refused.
  func abandonBase()
  /// Replaces what is served by the base, which now is this version.
  func commitBase(_ version: VersionContent) throws
  /// Applies rows and removals of one table: to the base while one is being taken, else to what is served.
  func apply(_ change: TableChange, of version: VersionContent) throws
  /// Sets dense tensors, all at once: of the base while one is being taken, else of what is served.
  func setDense(_ tensors: [TensorChange]) throws
  /// What is served is now this version.
  func publish(_ version: VersionContent) throws
}

/// What the shell must send.
public struct ReplicaFollower {
  private let replica: Int
  private let incarnation: UInt64
  private let target: any VersionTarget
  private var store: UInt64 = 0
  private var version: UInt64 = 0
  private var part: UInt32 = 0
  private var baseStore: UInt64 = 0
  private var baseNumber: UInt64 = 0
  private var baseTensors: [TensorChange] = []
  /// While a base is being taken: the version it must reach before it is served, known with its last part.
  private var commitAt: UInt64?
  /// Arrivals in versions that were applied and are not served yet.
  private var arrivals: [ArrivalCount] = []
  private var nextFollow: Int64 = longAgo
  private var nextRequest: UInt64 = 1
  /// The version that is served; 0 before the first base.
  public private(set) var servedVersion: UInt64 = 0
  /// Versions and parts that could not be applied, with the last reason.
  public private(set) var rejected: (count: Int, reason: String) = (0, "")
  /// Why the target does not take what the cluster trains; nil while it does.
  ///
  /// What is served meanwhile is the last version it took, if any.
  public private(set) var refusal: String?
  private static let refusalPause: Int64 = 5_000_000_000

  /// A follower that has nothing yet.
  public init(replica: Int, incarnation: UInt64, target: any VersionTarget) {
    self.replica = replica
    self.incarnation = incarnation
    self.target = target
  }

  /// The follow message, when it is time for one: it acknowledges, asks, and shows the replica is alive.
  public mutating func tick(now: Int64) -> Blob? {
    guard now >= nextFollow else { return nil }
    return follow(now: now)
  }

  private mutating func follow(now: Int64) -> Blob {
    nextFollow = now + 500_000_000
    nextRequest += 1
    let message =
      part > 0
      ? Follow(replica: replica, incarnation: incarnation, store: baseStore, version: baseNumber, part: part, served: 0)
      : Follow(
        replica: replica, incarnation: incarnation, store: store, version: version,
        served: commitAt == nil ? servedVersion : 0)
    return message.encoded(request: nextRequest)
  }

  /// Applies a message of sync; gives what to answer.
  public mutating func receive(_ message: Blob, now: Int64) -> Blob? {
    var reader = ByteReader(message)
    let received: VersionMessage
    var content: VersionContent
    do {
      let header = try MessageHeader(decoding: &reader)
      guard header.opcode == .version, header.kind == .request else { return nil }
      received = try VersionMessage(decoding: &reader)
      content = try VersionContent(decoding: received.content)
      content.store = received.store
    } catch {
      rejected = (rejected.count + 1, "\(error)")
      return follow(now: now)
    }
    do {
      return try take(received, content, now: now)
    } catch {
      // What was begun is not served: a base goes, and rows of a version are put there again with the same values.
      refusal = "\(error)"
      target.abandonBase()
      (baseStore, baseNumber, part) = (0, 0, 0)
      if commitAt != nil { (store, version, commitAt) = (0, 0, nil) }
      nextFollow = now + Self.refusalPause
      return nil
    }
  }

  private mutating func take(
    _ received: VersionMessage, _ content: VersionContent, now: Int64
  ) throws -> Blob? {
    if let place = content.basePart {
      guard try takeBase(received, content, place) else { return nil }
      return follow(now: now)
    }
    guard store != 0, received.store == store, version < .max, content.number == version + 1, part == 0 else {
      // A repeat, or a gap: say again what is here.
      return content.number <= version && received.store == store ? nil : follow(now: now)
    }
    for table in content.tables { try target.apply(table, of: content) }
    if !content.tensors.isEmpty { try target.setDense(content.tensors) }
    // Events count as servable when readers see them; in a process that served nothing before, those of before it
    // began have waited for nobody.
    if commitAt == nil || servedVersion > 0 { arrivals.append(contentsOf: content.arrivals) }
    version = content.number
    if !content.continues {
      if commitAt == nil {
        try target.publish(content.with(takeArrivals()))
        servedVersion = version
        refusal = nil
      } else {
        try commitIfCaughtUp(content)
      }
    }
    return follow(now: now)
  }

  /// False for a part that is not the next one.
  private mutating func takeBase(
    _ received: VersionMessage, _ content: VersionContent, _ place: (index: Int, count: Int)
  ) throws -> Bool {
    if place.index == 0 {
      // The first part of what is here already, or is being taken: it was sent twice.
      if received.store == store, content.number <= version, version > 0, part == 0 { return false }
      if received.store == baseStore, content.number == baseNumber, part > 0 { return false }
      (baseStore, baseNumber, part) = (received.store, content.number, 0)
      baseTensors = []
      arrivals = []
      commitAt = nil
      try target.beginBase()
    }
    guard received.store == baseStore, content.number == baseNumber, place.index == Int(part) else { return false }
    for table in content.tables { try target.apply(table, of: content) }
    baseTensors.append(contentsOf: content.tensors)
    part += 1
    if place.count == Int(part) {
      if !baseTensors.isEmpty { try target.setDense(baseTensors) }
      (store, version, part) = (baseStore, baseNumber, 0)
      commitAt = received.newest
      baseTensors = []
      try commitIfCaughtUp(content)
    }
    return true
  }

  /// A base is served only with every version since its scan began.
  private mutating func commitIfCaughtUp(_ content: VersionContent) throws {
    guard let reach = commitAt, version >= reach else { return }
    try target.commitBase(content.with(takeArrivals()))
    commitAt = nil
    servedVersion = version
    refusal = nil
  }

  private mutating func takeArrivals() -> [ArrivalCount] {
    defer { arrivals = [] }
    return arrivals
  }
}

extension VersionContent {
  /// The same with the arrivals that become servable with it.
  fileprivate func with(_ arrivals: [ArrivalCount]) -> VersionContent {
    var content = self
    content.arrivals = arrivals
    return content
  }
}
