// The join itself, without files, clocks or threads: events in, examples out. docs/joining.md explains the rules.
//
// Everything that decides a label is a fact of one record and its own partition (is it late? is it too old?), so the
// examples are the same for every interleaving of the partitions. A label leaves only when the joint watermark has passed
// its due time; from then on no record that counts could change it.

public import Base
public import Streams

/// An example and the output partition it belongs to.
public struct JoinedExample: Equatable, Sendable {
  /// `impression.hash64 % outputPartitions`.
  public var partition: Int
  /// The example.
  public var example: Example
}

/// Joins impressions and actions into examples.
public struct JoinerCore: ~Copyable {
  /// The settings.
  public let rules: JoinRules
  /// What was counted since the stream began.
  public internal(set) var counters: JoinCounters
  /// The smallest watermark over all input partitions; `Int64.min` until every partition has one.
  public internal(set) var watermark = Milliseconds.min

  let tasks: TaskTable
  /// Watermark and position per input, in the order of `rules.inputs`.
  var watermarks: [Milliseconds]
  var positions: [Position]
  var table = PendingTable()
  var timers = Timers()
  /// Labels that are in the output already, found there after a restart.
  var withheld: [ImpressionID: UInt64] = [:]
  /// Impressions that memory has no room for.
  var stored = StoredState()

  /// Computes what the rules want computed from the stream.
  public internal(set) var features: StreamFeatures?
  private var valued: [StreamFeatures.Valued] = []

  private var examples: [JoinedExample] = []
  private var lateActions: [Action] = []
  private var taken: [Timers.Entry] = []
  private var scratch: LabelScratch

  /// A core that has read nothing.
  public init(rules: JoinRules) {
    let problems = rules.problems()
    precondition(problems.isEmpty, "the rules of the join: \(problems.joined(separator: "; "))")
    self.rules = rules
    tasks = TaskTable(rules)
    counters = JoinCounters(tasks: tasks.names)
    watermarks = Array(repeating: .min, count: rules.impressionPartitions + rules.actionPartitions)
    positions = Array(repeating: .start, count: watermarks.count)
    scratch = LabelScratch(tasks: tasks.names.count)
    features = rules.features.map { StreamFeatures($0) }
  }

  // MARK: - Input

  /// Takes the next record of an input partition.
  ///
  /// One at or before the input's position was taken already and is skipped.
  public mutating func take(_ event: Event, from input: JoinInput, at position: Position) {
    let index = rules.index(of: input)
    guard position > positions[index] else { return }
    positions[index] = position
    let own = watermarks[index]
    switch event {
    case .impression(let impression):
      take(impression, ordinal: position, own: own)
      advance(index, to: impression.time.earlier(by: rules.allowedLatenessMilliseconds))
    case .action(let action):
      take(action, own: own)
      advance(index, to: action.time.earlier(by: rules.allowedLatenessMilliseconds))
    case .watermark(let time):
      advance(index, to: time)
    }
    if timers.next < releaseLimit { release() }
  }

  /// Steps over a record that could not be decoded.
  public mutating func skip(from input: JoinInput, at position: Position) {
    let index = rules.index(of: input)
    guard position > positions[index] else { return }
    positions[index] = position
    counters.malformed += 1
  }

  private mutating func advance(_ index: Int, to time: Milliseconds) {
    let own = watermarks[index]
    guard time > own else { return }
    watermarks[index] = time
    guard own == watermark else { return }
    let joint = watermarks.min() ?? .min
    guard joint > watermark else { return }
    watermark = joint
    table.forget(before: joint)
    if features != nil { giveValues() }
  }

  /// Freezes the stream features of impressions that the watermark has passed, before any of their labels leaves.
  private mutating func giveValues() {
    features?.advance(to: watermark, into: &valued)
    for given in valued {
      guard case .slot(let slot) = table.find(given.id), table.slots[slot].kind == .pending else { continue }
      guard let block = features?.filled(table.slots[slot].features, with: given.values) else {
        counters.unfilledImpressions += 1
        continue
      }
      table.setFeatures(block, of: slot)
    }
    valued.removeAll(keepingCapacity: true)
  }

  private mutating func take(_ impression: Impression, ordinal: Position, own: Milliseconds) {
    counters.impressions += 1
    if impression.time < own {
      // Later than this its id may be forgotten and its actions expired: it could be emitted twice, or wrongly negative.
      guard impression.time.later(by: tasks.memory) >= own else {
        counters.refusedImpressions += 1
        return
      }
      counters.lateImpressions += 1
    }
    var orphans: Int?
    switch table.find(impression.id) {
    case .slot(let slot) where table.slots[slot].kind == .orphans: orphans = slot
    case nil: break
    default:
      counters.duplicateImpressions += 1
      return
    }
    // No action at or after the floor can have expired yet, however far the other partitions have been read:
    // its expiry is at or after both this time and this partition's watermark.
    let floor = max(impression.time, own).earlier(by: tasks.memory)
    let slot = orphans ?? table.makeSlot(impression.id, .pending)
    table.fill(slot, impression, ordinal: ordinal, floor: floor)
    table.slots[slot].due = impression.time.later(by: tasks.shortestWindow)
    if orphans != nil {
      counters.expiredActions += UInt64(table.dropActions(of: slot, before: floor))
      counters.hit += UInt64(table.actionCount(of: slot))
      var action = table.slots[slot].firstAction
      while action >= 0 {
        bringForward(slot, by: table.actions[Int(action)])
        action = table.actions[Int(action)].next
      }
    }
    arm(slot)
    stored.noteSlot(slot, serial: table.slots[slot].serial)
    // What a late impression would have seen has been counted past; it goes without values.
    if impression.time >= own { features?.take(impression, isValued: true) }
  }

  private mutating func take(_ action: Action, own: Milliseconds) {
    counters.actions += 1
    guard action.time >= own else {
      counters.lateActions += 1
      if rules.emitsLateActions { lateActions.append(action) }
      return
    }
    features?.take(action)
    guard let name = tasks.actionNumbers[action.name] else {
      counters.unusedActions += 1
      return
    }
    let seen = SeenAction(time: action.time, arrival: action.arrival, next: -1, name: name)
    let slot: Int
    switch table.find(action.impression) {
    case .slot(let known): slot = known
    case .remembered:
      counters.hit += 1
      return
    case .stored(let due): return add(seen, to: StoreKey(due: due, id: action.impression))
    case nil:
      let slot = table.makeSlot(action.impression, .orphans)
      _ = table.addAction(seen, to: slot)
      table.slots[slot].due = action.time.later(by: tasks.memory)
      arm(slot)
      return
    }
    let isPending = table.slots[slot].kind == .pending
    guard !isPending || action.time >= table.slots[slot].floor else {
      counters.expiredActions += 1
      return
    }
    guard table.addAction(seen, to: slot) else {
      counters.duplicateActions += 1
      return
    }
    guard isPending else { return }
    counters.hit += 1
    let due = table.slots[slot].due
    bringForward(slot, by: seen)
    if table.slots[slot].due < due { arm(slot) }
  }

  /// A closing action, or an eager task's positive one, makes a label due no later than itself.
  mutating func bringForward(_ slot: Int, by action: SeenAction) {
    let moment = moment(ofDue: action.time, slot)
    guard moment < table.slots[slot].due else { return }
    guard tasks.meanings[Int(action.name)].hurrying & ~table.slots[slot].done != 0 else { return }
    table.slots[slot].due = moment
  }

  /// When a label due at `due` may leave: not before the impression's values are frozen, which is at its own time.
  ///
  /// Only a clock that is wrong puts an action, and so a due time, before its impression.
  func moment(ofDue due: Milliseconds, _ slot: Int) -> Milliseconds {
    features == nil ? due : max(due, table.slots[slot].time)
  }

  mutating func arm(_ slot: Int) {
    timers.add(Timers.Entry(due: table.slots[slot].due, slot: UInt32(slot), serial: table.slots[slot].serial))
  }

  // MARK: - Release

  /// Labels due before it may leave: the watermark has passed them, and no stored impression has one due earlier.
  private var releaseLimit: Milliseconds { min(watermark, stored.next) }

  /// Emits every label whose due time the watermark has passed, ordered by due time and impression id.
  mutating func release() {
    while timers.next < releaseLimit {
      timers.takeEarliest(into: &taken)
      if taken.count > 1 {
        taken.sort { left, right in
          left.due == right.due
            ? table.slots[Int(left.slot)].id < table.slots[Int(right.slot)].id : left.due < right.due
        }
      }
      for entry in taken {
        let slot = Int(entry.slot)
        guard table.slots[slot].serial == entry.serial, table.slots[slot].due == entry.due else { continue }
        switch table.slots[slot].kind {
        case .pending: releaseLabels(of: slot)
        case .orphans: expireActions(of: slot)
        case .free: break
        }
      }
    }
  }

  private mutating func expireActions(of slot: Int) {
    counters.expiredActions += UInt64(table.dropActions(of: slot, before: watermark.earlier(by: tasks.memory)))
    let first = table.slots[slot].firstAction
    if first < 0 {
      table.freeSlot(slot, rememberUntil: nil)
    } else {
      table.slots[slot].due = table.actions[Int(first)].time.later(by: tasks.memory)
      arm(slot)
    }
  }

  private mutating func releaseLabels(of slot: Int) {
    scratch.read(table, slot: slot, tasks: tasks)
    var mask: UInt64 = 0
    var due = Milliseconds.max
    var next = Milliseconds.max
    let open = tasks.all & ~table.slots[slot].done
    for task in Bits(open) where scratch.due[task] < due { due = scratch.due[task] }
    guard moment(ofDue: due, slot) < watermark else {  // the slot only promises a time no later than the true one
      table.slots[slot].due = moment(ofDue: due, slot)
      stored.noteSlot(slot, serial: table.slots[slot].serial)
      return arm(slot)
    }
    for task in Bits(open) {
      if scratch.due[task] == due { mask |= 1 << UInt64(task) } else { next = min(next, scratch.due[task]) }
    }
    emit(mask, of: slot, due: due)
    table.slots[slot].done |= mask
    if table.slots[slot].done == tasks.all {
      table.freeSlot(slot, rememberUntil: table.slots[slot].time.later(by: tasks.memory))
    } else {
      table.slots[slot].due = moment(ofDue: next, slot)
      stored.noteSlot(slot, serial: table.slots[slot].serial)
      arm(slot)
    }
  }

  private mutating func emit(_ mask: UInt64, of slot: Int, due: Milliseconds) {
    let id = table.slots[slot].id
    var kept = mask
    for task in Bits(mask & tasks.sampled & ~scratch.positives) where !tasks.keepsNegative(of: task, id) {
      kept &= ~(1 << UInt64(task))
      counters.labels[task].sampled += 1
    }
    guard kept != 0 else { return }
    for task in Bits(kept) {
      counters.labels[task].emitted += 1
      if scratch.positives >> UInt64(task) & 1 == 1 { counters.labels[task].positive += 1 }
    }
    counters.examples += 1
    if !withheld.isEmpty, let present = withheld[id] {
      let left = present & ~kept
      withheld[id] = left == 0 ? nil : left
      kept &= ~present
      guard kept != 0 else { return }
    }
    var labels = [Label](repeating: .masked, count: tasks.names.count)
    var arrival: Milliseconds = 0
    for task in Bits(kept) {
      labels[task] = scratch.positives >> UInt64(task) & 1 == 1 ? .positive : .negative
      arrival = max(arrival, scratch.arrival[task])
    }
    let example = Example(
      impression: id, time: table.slots[slot].time, ordinal: table.slots[slot].ordinal, due: due, arrival: arrival,
      labels: labels, rates: tasks.rates, predictions: table.slots[slot].predictions,
      features: table.slots[slot].features)
    examples.append(
      JoinedExample(partition: Int(id.hash64 % UInt64(rules.outputPartitions)), example: example))
  }

  // MARK: - Output

  /// Hands over the examples that are due, in the order in which they became so, and forgets them.
  public mutating func takeExamples() -> [JoinedExample] {
    defer { examples = [] }
    return examples
  }

  /// Hands over the late actions, when the rules want them, and forgets them.
  public mutating func takeLateActions() -> [Action] {
    defer { lateActions = [] }
    return lateActions
  }

  /// Nothing waits to be taken.
  var isDrained: Bool { examples.isEmpty && lateActions.isEmpty }
}

// MARK: - What one may ask

extension JoinerCore {
  /// How far an input has been taken.
  public func position(of input: JoinInput) -> Position { positions[rules.index(of: input)] }

  /// An input's own watermark; `Int64.min` until it has one.
  public func watermark(of input: JoinInput) -> Milliseconds { watermarks[rules.index(of: input)] }

  /// Impressions with labels still to leave.
  public var pendingImpressions: Int { table.pendingCount + table.storedCount }

  /// Those of them that are in the store.
  public var storedImpressions: Int { table.storedCount }

  /// About the memory of pending impressions, waiting actions and all ids that are known.
  public var memoryBytes: Int { table.slotBytes + table.indexBytes }

  /// Actions that wait for their impression.
  public var waitingActions: Int { table.waitingCount }

  /// Impressions that are done and whose ids are remembered.
  public var rememberedImpressions: Int { table.rememberedCount }

  /// Bytes of features and predictions of pending impressions that are in memory.
  public var pendingPayloadBytes: Int { table.payloadBytes }

  // MARK: After a restart

  /// Notes that an example is in the output already, so that its labels are counted but not handed over again.
  public mutating func withhold(_ example: Example) {
    var mask: UInt64 = 0
    for (task, label) in example.labels.enumerated() where label != .masked && task < tasks.names.count {
      mask |= 1 << UInt64(task)
    }
    withheld[example.impression, default: 0] |= mask
  }

  /// How many impressions have labels noted by `withhold` and not yet made again.
  public var withheldImpressions: Int { withheld.count }

  /// Forgets what is still withheld: the inputs are past the place where it was made.
  public mutating func endWithholding() { withheld = [:] }
}
