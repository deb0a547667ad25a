// Pins: an operator returns all replicas to an earlier version, or stops them where they are, until told to go on. A
// return is a version like any other: it holds the earlier rows of every id that changed since, so it reaches replicas as
// fast as what differs can be sent. Going on is a return too, to the last version before the pin, with what came since.
//
// Invariant: ids removed after the earlier version are removed in the return too, and what is removed while replicas are
// pinned is published at once; so no pin brings an erased id back.

internal import Base
internal import Foundation
internal import Wire

/// What replicas are pinned to.
struct Pin {
  /// The version whose state they serve.
  var version: UInt64
  /// The last version before they were pinned.
  var from: UInt64
  /// Whether all that changed since is in memory; else going on takes a new store.
  var isComplete: Bool
  var newestEventTime: Milliseconds
  var exampleCount: UInt64
  var progress: [ConsumerProgress]
}

/// An operator's order that waits to be carried out.
struct ReturnOrder {
  var peer: PeerID
  var request: UInt64
  /// The version to return to; 0 for the newest.
  var target: UInt64
  var isResume: Bool
  var opcode: Opcode { isResume ? .resume : .pin }
}

/// What an operator is told when the order has been carried out.
public struct PinReply: Codable, Equatable, Sendable {
  /// The version that carries it to the replicas; 0 when a new store is begun instead.
  public var version: UInt64
  /// The version whose state they serve from then on; 0 for the newest.
  public var pinned: UInt64

  /// Reads the JSON text; nil when it is not such an answer.
  public init?(json: String) {
    guard let value = try? JSONDecoder().decode(Self.self, from: Data(json.utf8)) else { return nil }
    self = value
  }

  init(version: UInt64, pinned: UInt64) {
    self.version = version
    self.pinned = pinned
  }
}

extension SyncCore {
  mutating func take(_ new: ReturnOrder, into actions: inout [SyncAction]) {
    func refuse(_ code: ErrorCode, _ reason: String) { self.refuse(new, code, reason, into: &actions) }
    guard order == nil else { return refuse(.busy, "another order to pin or to go on is being carried out") }
    guard store != 0, base != nil else { return refuse(.busy, "sync has no base yet") }
    guard new.isResume || new.target <= newest else {
      return refuse(.mismatch, "there is no version \(new.target) yet; the newest is \(newest)")
    }
    if new.isResume {
      guard let pin else { return refuse(.mismatch, "replicas are not pinned") }
      guard pin.isComplete else {
        // What changed meanwhile is not kept: everything is read from the shards.
        restart()
        return answer(new, PinReply(version: 0, pinned: 0), into: &actions)
      }
    }
    order = new
    // A base holds the newest rows: none may be made of pinned ones.
    building = nil
  }

  private func refuse(_ order: ReturnOrder, _ code: ErrorCode, _ reason: String, into actions: inout [SyncAction]) {
    let refusal = ErrorReply(code, reason)
    actions.append(.send(order.peer, refusal.encoded(opcode: order.opcode, request: order.request)))
  }

  private func answer(_ order: ReturnOrder, _ reply: PinReply, into actions: inout [SyncAction]) {
    actions.append(.send(order.peer, PlainMessage.text(order.opcode, reply.jsonText, request: order.request)))
  }

  /// Asks for the earlier state once the versions hold all that the newest base has read.
  mutating func stepOrder(now: Int64, into actions: inout [SyncAction]) {
    guard let waiting = order, !isReadingState else { return }
    if pin == nil, zip(shards, baseEpochs).contains(where: { $0.shipped < $1 }) {
      wantsPublish = true
      publishIfDue(now: now, into: &actions)
      if zip(shards, baseEpochs).contains(where: { $0.shipped < $1 }) { return }
    }
    isReadingState = true
    let target = waiting.isResume ? pin?.from ?? newest : waiting.target == 0 ? newest : waiting.target
    actions.append(.readState(of: target))
  }

  /// Takes what the shell has read of an earlier state; nil when it is no longer kept.
  public mutating func read(_ earlier: VersionState?, now: Int64, into actions: inout [SyncAction]) {
    guard let waiting = order, isReadingState else { return }
    isReadingState = false
    guard var state = earlier else {
      order = nil
      if waiting.isResume {
        restart()
        return answer(waiting, PinReply(version: 0, pinned: 0), into: &actions)
      }
      let reason = "version \(waiting.target) is not kept, or older than the oldest base that is"
      return refuse(waiting, .gone, reason, into: &actions)
    }
    if waiting.isResume {
      goOn(from: &state, now: now, into: &actions)
    } else {
      for (name, table) in tables { state.remove(removedIn: table, name) }
      pin = Pin(
        version: state.pinned == 0 ? state.number : state.pinned, from: pin?.from ?? newest,
        isComplete: pin?.isComplete ?? true, newestEventTime: state.newestEventTime, exampleCount: state.exampleCount,
        progress: state.progress)
      let changes = state.takeChanges()
      emit(changes, state.tensors, isReturn: true, now: now, into: &actions)
      for shard in shards.indices { shards[shard].persisted = shards[shard].cursor }
      count("pins")
    }
    order = nil
    answer(waiting, PinReply(version: newest, pinned: pin?.version ?? 0), into: &actions)
  }

  private mutating func goOn(from state: inout VersionState, now: Int64, into actions: inout [SyncAction]) {
    for (name, table) in state.tables {
      tables[name, default: MergedTable(name: name, weightCount: table.weightCount)].setUnknown(table)
    }
    for tensor in state.tensors where !changedTensors.contains(tensor.name) {
      tensors[tensor.name] = tensor.values
      changedTensors.insert(tensor.name)
    }
    pin = nil
    publish(dense: true)
    hasProgress = true
    publishIfDue(now: now, into: &actions)
    count("resumes")
  }

  /// A version that should be on the disk is not, or not whole.
  public mutating func missing(version number: UInt64, now: Int64, into actions: inout [SyncAction]) {
    count("missingVersions")
    oldestKept = max(oldestKept, number + 1)
    guard let base, base.number < number else { return }
    // No base can be made of a pinned state, and replicas that lack the version must not be left behind.
    if pin != nil { return restart() }
    if let waiting = order {
      (order, isReadingState) = (nil, false)
      refuse(waiting, .busy, "version \(number) is damaged and a new base is being made; ask again", into: &actions)
    }
    if building == nil { beginBase(now: now, into: &actions) }
  }

  /// A part of the newest base is not on the disk, or not whole.
  public mutating func missing(base number: UInt64, now: Int64, into actions: inout [SyncAction]) {
    guard base?.number == number else { return }
    count("missingBases")
    base = nil
    if pin != nil { restart() }
  }
}
