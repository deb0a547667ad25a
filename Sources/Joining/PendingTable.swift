// Impressions that wait for labels, actions that wait for their impression, and ids that are remembered or stored: one map
// from id to what is known, slots in one array, actions of all slots in another. Slots and actions are reused; a slot's
// serial tells an old appointment from a new one.

internal import Base
internal import Streams

/// An action as far as labels need it.
struct SeenAction: BitwiseCopyable {
  var time: Milliseconds
  var arrival: Milliseconds
  /// The next action of the same slot, or of the free list; −1 ends it.
  var next: Int32
  /// Its name's number in the task table.
  var name: UInt16
}

/// What is known under one impression id.
struct Slot {
  enum Kind: UInt8 { case free, orphans, pending }
  var kind = Kind.free
  /// Tasks whose label has left (or was dropped by sampling).
  var done: UInt64 = 0
  var id = ImpressionID(0)
  var time: Milliseconds = 0
  /// Actions before it may have expired before the impression was read, so none of them counts.
  var floor: Milliseconds = .min
  /// When to look again: a pending impression's earliest due label, an orphan's expiry.
  var due: Milliseconds = .max
  var ordinal = Position.start
  var features = FeatureBlock(bytes: [])
  var predictions: [Float] = []
  var serial: UInt32 = 0
  var firstAction: Int32 = -1

  /// What a slot takes beside its features, predictions and actions: itself, two array headers, its appointment, and the
  /// slack of arrays that double.
  static let bytes = 256
}

/// The joiner's memory.
struct PendingTable {
  /// Remembered ids are forgotten a minute at a time.
  private static let bucketMilliseconds: Int64 = 60_000

  var slots: [Slot] = []
  private(set) var actions: [SeenAction] = []
  private(set) var map = ImpressionIndex()
  private var freeSlots: [UInt32] = []
  private var firstFreeAction: Int32 = -1
  private var usedActions = 0
  /// Remembered ids by the minute they are to be forgotten after: the first of a chain through the map's entries.
  private var rememberedByMinute: [Int64: (first: UInt32?, count: Int)] = [:]
  private var earliestMinute = Int64.max
  /// Impressions with a slot; the others are in the store.
  private(set) var pendingCount = 0
  /// Impressions in the store.
  private(set) var storedCount = 0
  private(set) var waitingCount = 0
  private(set) var rememberedCount = 0
  /// Bytes of features and predictions of pending impressions.
  private(set) var payloadBytes = 0

  init() {}

  /// What is known of an id.
  func find(_ id: ImpressionID) -> Known? { map[id] }

  /// Slots in use.
  var slotCount: Int { slots.count - freeSlots.count }

  /// About the memory of slots, their actions, features and predictions: what moving impressions to the store gives back.
  var slotBytes: Int { slotCount * Slot.bytes + usedActions * MemoryLayout<SeenAction>.stride + payloadBytes }

  /// The memory of what is known of ids.
  var indexBytes: Int { map.bytes }

  mutating func makeSlot(_ id: ImpressionID, _ kind: Slot.Kind) -> Int {
    let index: Int
    if let free = freeSlots.popLast() {
      index = Int(free)
    } else {
      index = slots.count
      precondition(index < Int(UInt32.max), "2^32 impressions are in memory")
      slots.append(Slot())
    }
    slots[index].id = id
    slots[index].kind = kind
    map[id] = .slot(index)
    if kind == .pending { pendingCount += 1 }
    return index
  }

  /// Makes an impression of a slot that was just made, or that holds waiting actions.
  mutating func fill(_ index: Int, _ impression: Impression, ordinal: Position, floor: Milliseconds) {
    if slots[index].kind == .orphans {
      waitingCount -= actionCount(of: index)
      pendingCount += 1
      slots[index].kind = .pending
      slots[index].serial &+= 1
    }
    payloadBytes += impression.features.bytes.count + 4 * impression.predictions.count
    slots[index].time = impression.time
    slots[index].ordinal = ordinal
    slots[index].floor = floor
    slots[index].features = impression.features
    slots[index].predictions = impression.predictions
  }

  /// Puts other features in the place of a pending impression's.
  mutating func setFeatures(_ features: FeatureBlock, of index: Int) {
    payloadBytes += features.bytes.count - slots[index].features.bytes.count
    slots[index].features = features
  }

  /// Frees a slot and its actions; the id is remembered until `forgetAfter`, or forgotten at once.
  mutating func freeSlot(_ index: Int, rememberUntil forgetAfter: Milliseconds?) {
    let id = empty(index)
    if let forgetAfter { remember(id, until: forgetAfter) } else { map[id] = nil }
  }

  /// Frees the slot of an impression that has been put in the store under `due`.
  mutating func freeSlot(_ index: Int, storedUnder due: Milliseconds) {
    map[empty(index)] = .stored(due: due)
    storedCount += 1
  }

  /// Notes an impression that a restart found in the store; false when its id is known already.
  mutating func addStored(_ id: ImpressionID, due: Milliseconds) -> Bool {
    guard map[id] == nil else { return false }
    map[id] = .stored(due: due)
    storedCount += 1
    return true
  }

  /// Makes a slot for an impression that was in the store.
  mutating func makeSlot(ofStored impression: Impression, ordinal: Position, floor: Milliseconds) -> Int {
    storedCount -= 1
    let index = makeSlot(impression.id, .pending)
    fill(index, impression, ordinal: ordinal, floor: floor)
    return index
  }

  private mutating func empty(_ index: Int) -> ImpressionID {
    var action = slots[index].firstAction
    while action >= 0 {
      let next = actions[Int(action)].next
      freeAction(action)
      if slots[index].kind == .orphans { waitingCount -= 1 }
      action = next
    }
    if slots[index].kind == .pending {
      pendingCount -= 1
      payloadBytes -= slots[index].features.bytes.count + 4 * slots[index].predictions.count
    }
    let id = slots[index].id
    slots[index] = Slot(serial: slots[index].serial &+ 1)
    freeSlots.append(UInt32(index))
    return id
  }

  private mutating func freeAction(_ action: Int32) {
    actions[Int(action)].next = firstFreeAction
    firstFreeAction = action
    usedActions -= 1
  }

  mutating func remember(_ id: ImpressionID, until forgetAfter: Milliseconds) {
    remember(id, inMinute: forgetAfter / PendingTable.bucketMilliseconds)
  }

  mutating func remember(_ id: ImpressionID, inMinute minute: Int64) {
    let chain = rememberedByMinute[minute] ?? (nil, 0)
    rememberedByMinute[minute] = (map.set(id, .remembered(next: chain.first)), chain.count + 1)
    rememberedCount += 1
    earliestMinute = min(earliestMinute, minute)
  }

  /// Forgets ids whose time is over, give or take a minute.
  mutating func forget(before watermark: Milliseconds) {
    let now = watermark / PendingTable.bucketMilliseconds
    while earliestMinute < now {
      for id in remembered(inMinute: earliestMinute) { map[id] = nil }
      rememberedCount -= rememberedByMinute.removeValue(forKey: earliestMinute)?.count ?? 0
      earliestMinute = rememberedByMinute.keys.min() ?? .max
    }
  }

  var rememberedMinutes: [Int64] { Array(rememberedByMinute.keys) }

  /// The ids to be forgotten after a minute.
  func remembered(inMinute minute: Int64) -> [ImpressionID] {
    guard let chain = rememberedByMinute[minute] else { return [] }
    var ids: [ImpressionID] = []
    ids.reserveCapacity(chain.count)
    var next = chain.first
    while let entry = next {
      ids.append(map.id(of: entry))
      guard case .remembered(let further) = map.known(of: entry) else { break }
      next = further
    }
    return ids
  }

  /// Adds an action to a slot; false when the slot has one of that name and time.
  ///
  /// Of the two the earlier arrival stays.
  mutating func addAction(_ action: SeenAction, to index: Int) -> Bool {
    var known = slots[index].firstAction
    while known >= 0 {
      if actions[Int(known)].name == action.name, actions[Int(known)].time == action.time {
        actions[Int(known)].arrival = min(actions[Int(known)].arrival, action.arrival)
        return false
      }
      known = actions[Int(known)].next
    }
    var action = action
    action.next = slots[index].firstAction
    if firstFreeAction >= 0 {
      let place = firstFreeAction
      firstFreeAction = actions[Int(place)].next
      actions[Int(place)] = action
      slots[index].firstAction = place
    } else {
      slots[index].firstAction = Int32(actions.count)
      actions.append(action)
    }
    usedActions += 1
    if slots[index].kind == .orphans { waitingCount += 1 }
    return true
  }

  func actionCount(of index: Int) -> Int {
    var count = 0
    var action = slots[index].firstAction
    while action >= 0 {
      count += 1
      action = actions[Int(action)].next
    }
    return count
  }

  /// Drops the actions of a slot that are before `time`, and tells how many.
  mutating func dropActions(of index: Int, before time: Milliseconds) -> Int {
    var dropped = 0
    var action = slots[index].firstAction
    var kept: Int32 = -1
    while action >= 0 {
      let next = actions[Int(action)].next
      if actions[Int(action)].time < time {
        if kept < 0 { slots[index].firstAction = next } else { actions[Int(kept)].next = next }
        freeAction(action)
        dropped += 1
      } else {
        kept = action
      }
      action = next
    }
    if slots[index].kind == .orphans { waitingCount -= dropped }
    return dropped
  }
}
