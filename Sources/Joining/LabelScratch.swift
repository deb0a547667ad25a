// Works out the labels of one impression from its actions: per task the closing, whether it is positive, when it is due.

internal import Base
internal import Streams

/// Room to work in, one element per task; kept between impressions so that nothing is allocated.
struct LabelScratch {
  private struct Moment: BitwiseCopyable {
    var time = Milliseconds.max
    var arrival = Milliseconds.max

    /// Of two actions the earlier counts, of equal ones the one that arrived first.
    mutating func keepEarlier(_ other: SeenAction) {
      if other.time < time || other.time == time && other.arrival < arrival {
        time = other.time
        arrival = other.arrival
      }
    }
  }

  private var closings: [Moment]
  private var firsts: [Moment]
  /// When each task's label is due.
  private(set) var due: [Milliseconds]
  /// When the newest action that decided each label arrived; 0 when none did.
  private(set) var arrival: [Milliseconds]
  /// The tasks whose label is positive.
  private(set) var positives: UInt64 = 0

  init(tasks: Int) {
    closings = Array(repeating: Moment(), count: tasks)
    firsts = closings
    due = Array(repeating: 0, count: tasks)
    arrival = due
  }

  /// Fills in due, arrival and positives for a slot's impression as far as its actions are known.
  mutating func read(_ table: PendingTable, slot: Int, tasks: TaskTable) {
    for task in closings.indices {
      closings[task] = Moment()
      firsts[task] = Moment()
    }
    var next = table.slots[slot].firstAction
    while next >= 0 {
      let action = table.actions[Int(next)]
      let meaning = tasks.meanings[Int(action.name)]
      for task in Bits(meaning.closing) { closings[task].keepEarlier(action) }
      for task in Bits(meaning.positive) { firsts[task].keepEarlier(action) }
      next = action.next
    }
    positives = 0
    for task in closings.indices {
      let window = table.slots[slot].time.later(by: tasks.windows[task])
      let isClosedByAction = closings[task].time <= window && closings[task].time != .max
      let close = isClosedByAction ? closings[task].time : window
      let isPositive = firsts[task].time <= close && firsts[task].time != .max
      let isEarly = isPositive && tasks.eager >> UInt64(task) & 1 == 1
      due[task] = isEarly ? firsts[task].time : close
      arrival[task] = max(
        isPositive ? firsts[task].arrival : 0, isClosedByAction && !isEarly ? closings[task].arrival : 0)
      if isPositive { positives |= 1 << UInt64(task) }
    }
  }
}

/// The numbers of the bits set in a word, lowest first.
struct Bits: Sequence, IteratorProtocol {
  private var rest: UInt64

  init(_ word: UInt64) { rest = word }

  mutating func next() -> Int? {
    guard rest != 0 else { return nil }
    defer { rest &= rest - 1 }
    return rest.trailingZeroBitCount
  }
}
