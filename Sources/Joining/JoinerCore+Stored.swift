// Pending impressions beyond the memory: which go to the store, and when they come back. The core itself does no I/O: it
// notes what it wants and `settle` does it, between two runs of records.
//
// That changes no example. A label that is due is a fact that no later record changes, so it may leave a little later; and
// nothing is released at or behind the time at which a stored impression may have a label due (`releaseLimit`), so labels
// also leave in the same order.

internal import Base
internal import Streams

/// How much memory pending impressions may take, and how the store is read.
struct PendingBound: Equatable, Sendable {
  /// The bound: what is known of all ids, and of the impressions in memory their bytes.
  ///
  /// A quarter of it at most is for impressions in memory, because every checkpoint writes them anew; an eighth is the
  /// store's own.
  var bytes: Int
  /// Impressions due within it of the watermark are in memory; less when windows are short.
  var aheadMilliseconds: Int64 = 10_000
  /// Impressions read from the store at once.
  var loadLimit = 1024
  /// Impressions read from the store in one `settle`, about.
  var settleLimit = 16_384

  /// What slots may take beside an index of some bytes.
  func slotBytes(besideIndex index: Int) -> Int { max(bytes / 16, min(bytes / 4, bytes - bytes / 8 - index)) }
}

/// What the core keeps for the store.
struct StoredState {
  /// An action of a stored impression, still to be put beside it.
  struct Addition {
    var place: StoreKey
    var action: SeenAction
  }

  /// A stored impression that an action made due earlier than what it is stored under.
  struct Hurried {
    var moment: Milliseconds
    var place: StoreKey
  }

  /// Nil: all are kept in memory.
  var bound: PendingBound?
  /// No stored impression has a smaller due time.
  var nextDue = Milliseconds.max
  var hurried: [Hurried] = []
  var nextHurried = Milliseconds.max
  var additions: [Addition] = []
  /// How tasks and actions were numbered when the store was written; nil when they and all rules are as today.
  var names: (taskPlaces: [Int?], actionNumbers: [UInt16?])?
  /// The sum of the digests of all that are in the store.
  var digest: UInt64 = 0
  /// Slots of pending impressions in the order in which they came or were looked at last; some are gone since.
  private var order: [(slot: UInt32, serial: UInt32)] = []
  private var orderBegin = 0
  private var orderLimit = 4096

  /// The time at which a stored impression may have a label due.
  var next: Milliseconds { min(nextDue, nextHurried) }

  mutating func noteSlot(_ slot: Int, serial: UInt32) {
    if bound != nil { order.append((UInt32(slot), serial)) }
  }

  /// Whether most of the slots that were noted may be gone.
  var isFullOfSlots: Bool { order.count > orderLimit }

  /// Forgets slots that are gone.
  mutating func forgetSlots(where isGone: (Int, UInt32) -> Bool) {
    order = order[orderBegin...].filter { !isGone(Int($0.slot), $0.serial) }
    orderBegin = 0
    orderLimit = 2 * order.count + 4096
  }

  /// The slot that was noted first.
  mutating func takeOldest() -> (slot: Int, serial: UInt32)? {
    guard orderBegin < order.count else { return nil }
    let oldest = order[orderBegin]
    orderBegin += 1
    if orderBegin * 2 > order.count, orderBegin > 1024 {
      order.removeFirst(orderBegin)
      orderBegin = 0
    }
    return (Int(oldest.slot), oldest.serial)
  }
}

extension JoinerCore {
  /// Impressions due before it are in memory.
  private var horizon: Milliseconds {
    watermark.later(by: min(stored.bound?.aheadMilliseconds ?? 0, tasks.shortestWindow / 4))
  }

  /// Keeps only so much in memory from now on; those in memory that were shown first are the first to leave it.
  mutating func limitMemory(to bound: PendingBound) {
    stored.bound = bound
    var pending = table.slots.indices.filter { table.slots[$0].kind == .pending }
    pending.sort { table.slots[$0].time < table.slots[$1].time }
    for slot in pending { stored.noteSlot(slot, serial: table.slots[slot].serial) }
  }

  /// Puts into the store what memory has no room for, and takes out what is due.
  ///
  /// When it throws, the next call goes on where it stopped.
  /// - Returns: how many were taken out, and whether everything due was. If not, no event may be taken before it has been
  ///   called again.
  mutating func settle(_ store: PendingStore) throws(JoinerError) -> (loaded: Int, isDone: Bool) {
    flush(to: store)
    spill(to: store)
    forgetSlots()
    try store.commit()
    var loaded = 0
    while stored.next < watermark {
      guard loaded < stored.bound?.settleLimit ?? .max else { return (loaded, false) }
      if stored.nextHurried < watermark { loaded += try loadHurried(store) }
      if stored.nextDue < watermark { loaded += try loadDue(store) }
      release()
    }
    try store.commit()
    return (loaded, true)
  }

  /// Takes an action of a stored impression.
  mutating func add(_ action: SeenAction, to place: StoreKey) {
    counters.hit += 1
    stored.additions.append(StoredState.Addition(place: place, action: action))
    guard tasks.meanings[Int(action.name)].hurrying != 0, action.time < place.due else { return }
    stored.hurried.append(StoredState.Hurried(moment: action.time, place: place))
    stored.nextHurried = min(stored.nextHurried, action.time)
  }

  /// Hands over the actions of stored impressions; the store writes them with its next commit.
  mutating func flush(to store: PendingStore) {
    for addition in stored.additions { store.put(addition.action, of: addition.place) }
    stored.additions.removeAll(keepingCapacity: true)
  }

  // MARK: - Out of memory

  /// Puts the impressions that came first into the store, until the others fit.
  private mutating func spill(to store: PendingStore) {
    guard let bound = stored.bound else { return }
    let limit = bound.slotBytes(besideIndex: table.indexBytes)
    guard table.slotBytes > limit else { return }
    // Down to a little less, so that not every run of records comes back for a few.
    var early = 0
    while table.slotBytes > limit - limit / 32, early < 64, let (slot, serial) = stored.takeOldest() {
      guard table.slots[slot].serial == serial, table.slots[slot].kind == .pending else { continue }
      let due = table.slots[slot].due
      guard due >= horizon, Known.storableDues.contains(due) else { continue }  // it leaves soon
      if let features, table.slots[slot].time >= features.frontier {  // its values have still to be put in
        stored.noteSlot(slot, serial: serial)
        early += 1
        continue
      }
      let impression = storedImpression(slot)
      store.put(impression)
      stored.digest &+= impression.digest
      stored.nextDue = min(stored.nextDue, due)
      table.freeSlot(slot, storedUnder: due)
    }
    dropAppointments()
  }

  func storedImpression(_ slot: Int) -> StoredImpression {
    let entry = table.slots[slot]
    var stored = StoredImpression(
      due: entry.due,
      impression: Impression(
        id: entry.id, time: entry.time, features: entry.features, predictions: entry.predictions),
      ordinal: entry.ordinal, floor: entry.floor, done: entry.done)
    var action = entry.firstAction
    while action >= 0 {
      stored.actions.append(table.actions[Int(action)])
      action = table.actions[Int(action)].next
    }
    return stored
  }

  private mutating func forgetSlots() {
    guard stored.isFullOfSlots else { return }
    let slots = table.slots
    stored.forgetSlots { slots[$0].serial != $1 }
  }

  /// Slots that were emptied leave their appointments behind; when those are the most, they go.
  private mutating func dropAppointments() {
    guard timers.count > 2 * table.slotCount + 1024 else { return }
    let slots = table.slots
    timers.removeAll { slots[Int($0.slot)].serial != $0.serial || slots[Int($0.slot)].due != $0.due }
  }

  // MARK: - Back into memory

  /// Takes impressions out in the order in which they are due: all that are, and some that will be soon.
  private mutating func loadDue(_ store: PendingStore) throws(JoinerError) -> Int {
    let horizon = horizon
    var loaded = 0
    var cursor = try store.cursor()
    while let place = try cursor.peek() {
      guard place.due < horizon, loaded < stored.bound?.loadLimit ?? .max else {
        store.deleteAll(before: place.due < horizon ? place : StoreKey(beginningOf: horizon))
        stored.nextDue = place.due
        return loaded
      }
      guard let found = try cursor.next() else { break }
      try load(found, from: store)
      loaded += 1
    }
    store.deleteAll(before: StoreKey(beginningOf: horizon))
    stored.nextDue = .max
    return loaded
  }

  /// Takes out what actions made due, and what they will soon.
  private mutating func loadHurried(_ store: PendingStore) throws(JoinerError) -> Int {
    let horizon = horizon
    var taken = stored.hurried.filter { $0.moment < horizon }
    taken.sort { ($0.place.due, $0.place.id) < ($1.place.due, $1.place.id) }
    var loaded = 0
    var cursor = try store.cursor()
    for hurried in taken where table.find(hurried.place.id) == .stored(due: hurried.place.due) {
      cursor.seek(to: hurried.place)
      guard let found = try cursor.next(), found.due == hurried.place.due, found.impression.id == hurried.place.id
      else {
        throw .pendingStore(path: store.path, reason: "impression \(hurried.place.id) is not in it")
      }
      try load(found, from: store)
      store.delete(found)
      loaded += 1
    }
    try store.commit()  // before another cursor looks
    stored.hurried.removeAll { $0.moment < horizon }
    stored.nextHurried = stored.hurried.reduce(.max) { min($0, $1.moment) }
    return loaded
  }

  private mutating func load(_ found: StoredImpression, from store: PendingStore) throws(JoinerError) {
    guard table.find(found.impression.id) == .stored(due: found.due) else {
      throw .pendingStore(
        path: store.path, reason: "it holds impression \(found.impression.id), due \(found.due), which was taken out")
    }
    stored.digest &-= found.digest
    let slot = makeSlot(of: found)
    for action in found.actions where !table.addAction(action, to: slot) {
      counters.hit -= 1
      counters.duplicateActions += 1
    }
    let dropped = UInt64(table.dropActions(of: slot, before: found.floor))
    counters.hit -= dropped
    counters.expiredActions += dropped
    var action = table.slots[slot].firstAction
    while action >= 0 {
      bringForward(slot, by: table.actions[Int(action)])
      action = table.actions[Int(action)].next
    }
    arm(slot)
  }

  /// A slot for an impression from the store, still without its actions.
  private mutating func makeSlot(of found: StoredImpression) -> Int {
    let slot = table.makeSlot(ofStored: found.impression, ordinal: found.ordinal, floor: found.floor)
    table.slots[slot].done = found.done
    table.slots[slot].due = found.due
    return slot
  }

  // MARK: - After a restart

  /// What a checkpoint says of the store.
  func storeState(snapshot: UInt64) -> JoinerCheckpoint.Store {
    JoinerCheckpoint.Store(
      number: snapshot, impressions: UInt64(table.storedCount), digest: stored.digest, rules: tasks.fingerprint)
  }

  /// Makes the store what a checkpoint says it was, and notes what is in it.
  mutating func restore(
    _ state: JoinerCheckpoint.Store, from store: PendingStore, checkpoint: String
  ) throws(JoinerError) {
    let path = store.snapshotPath(state.number)
    func lost(_ reason: String) -> JoinerError {
      .pendingLost(path: path, checkpoint: checkpoint, impressions: state.impressions, reason: reason)
    }
    guard state.impressions > 0 else {
      try store.begin(with: 0)
      stored.names = nil
      return
    }
    guard Files.exists(path) else { throw lost("it is not there") }
    if state.rules == tasks.fingerprint { stored.names = nil }
    let found: (count: Int, digest: UInt64)
    do throws(JoinerError) {
      try store.begin(with: state.number)
      found = try restore(from: store)
    } catch {
      if case .pendingStore(_, let reason) = error { throw lost(reason) }
      throw error
    }
    guard UInt64(found.count) == state.impressions, found.digest == state.digest else {
      throw lost("it holds \(found.count) impressions, not the \(state.impressions) that the checkpoint left in it")
    }
  }

  /// Notes every impression of a store that is as it was when this core's state was encoded.
  ///
  /// Those that are due at another time than they are stored under, because of actions or of other rules, move.
  private mutating func restore(from store: PendingStore) throws(JoinerError) -> (count: Int, digest: UInt64) {
    var count = 0
    var digest: UInt64 = 0
    var changes = 0
    var scratch = LabelScratch(tasks: tasks.names.count)
    var cursor = try store.cursor(isWhole: true)
    while let found = try cursor.next() {
      count += 1
      digest &+= found.digest
      guard table.addStored(found.impression.id, due: found.due) else {
        throw .pendingStore(
          path: store.path, reason: "impression \(found.impression.id) is in it twice, or in memory too")
      }
      if stored.names == nil, !found.actions.contains(where: { tasks.meanings[Int($0.name)].hurrying != 0 }) {
        stored.nextDue = min(stored.nextDue, found.due)
        stored.digest &+= found.digest
        continue
      }
      changes += try move(found, store, &scratch) ? 1 : 0
      if changes % 4096 == 4095 { try store.commit() }
    }
    try store.commit()
    stored.names = nil
    return (count, digest)
  }

  /// Puts an impression where it belongs by today's rules; false when that is where it is.
  private mutating func move(
    _ found: StoredImpression, _ store: PendingStore, _ scratch: inout LabelScratch
  ) throws(JoinerError) -> Bool {
    let slot = makeSlot(of: found)
    if let names = stored.names {
      do throws(DecodeError) {
        table.slots[slot].done = try PendingTable.mask(found.done, names.taskPlaces)
      } catch {
        throw .pendingStore(path: store.path, reason: "impression \(found.impression.id): \(error)")
      }
    }
    for action in found.actions {
      var action = action
      if let names = stored.names {
        guard Int(action.name) < names.actionNumbers.count, let number = names.actionNumbers[Int(action.name)] else {
          continue
        }
        action.name = number
      }
      _ = table.addAction(action, to: slot)
    }
    _ = table.dropActions(of: slot, before: found.floor)
    scratch.read(table, slot: slot, tasks: tasks)
    guard let earliest = Bits(tasks.all & ~table.slots[slot].done).map({ scratch.due[$0] }).min() else {
      store.delete(found)  // every task that was still open is gone
      table.freeSlot(slot, rememberUntil: table.slots[slot].time.later(by: tasks.memory))
      return true
    }
    let due = moment(ofDue: earliest, slot)
    table.slots[slot].due = due
    let isMoved = due != found.due || stored.names != nil
    if isMoved { store.delete(found) }
    guard Known.storableDues.contains(due) else {
      arm(slot)
      return true
    }
    let impression = storedImpression(slot)
    if isMoved { store.put(impression) }
    stored.nextDue = min(stored.nextDue, due)
    stored.digest &+= impression.digest
    table.freeSlot(slot, storedUnder: due)
    return isMoved
  }
}
