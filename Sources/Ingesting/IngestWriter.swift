// The writing side of the ingest: takes parsed requests from a mailbox, appends what is new to the journals, syncs once for
// all that wait, and only then answers. Watermarks are written here. Belongs to the thread "writer".

internal import Base
internal import Streams
internal import Synchronization

/// The counters of an ingest; any thread may add to them.
final class SharedCounters: Sendable {
  private let state = Mutex(IngestCounters())
  func update(_ change: (inout IngestCounters) -> Void) { state.withLock { change(&$0) } }
  var now: IngestCounters { state.withLock { $0 } }
}

/// What became of a request.
enum IngestOutcome: Sendable {
  case taken(accepted: Int, repeated: Int)
  /// The journal could not be written.
  case failed(String)
}

/// A parsed request that waits to be written.
struct WaitingBatch: Sendable {
  let batch: IngestBatch
  let arrival: Milliseconds
  let answer: @Sendable (IngestOutcome) -> Void
}

/// Appends events to the partitions of two streams.
struct IngestWriter: ~Copyable {
  private let options: IngestOptions
  /// Impressions' partitions, then actions'.
  private var sinks: [any RecordSink]
  private var dirty: [Bool]
  private var recent: RecentEvents
  private var rejected: RejectedEvents
  private let counters: SharedCounters
  /// The newest event time, no later than the clock said when it came, and when that was.
  private var newest: (time: Milliseconds, at: Int64)?
  private var watermark: Milliseconds = .min
  private var nextWatermark: Int64 = 0
  private var lastEvent: Int64 = longAgo
  /// Appended and not counted yet: only what is in the journal is.
  private var newImpressions: UInt64 = 0
  private var newActions: UInt64 = 0
  private var newestTime: Milliseconds = 0

  init(
    _ options: IngestOptions, impressions: [any RecordSink], actions: [any RecordSink],
    rejected: consuming RejectedEvents, counters: SharedCounters, now: Int64
  ) {
    precondition(impressions.count == options.partitions && actions.count == options.partitions)
    self.options = options
    sinks = impressions + actions
    dirty = Array(repeating: false, count: sinks.count)
    recent = RecentEvents(limit: options.rememberedLimit, window: options.window, now: now)
    self.rejected = rejected
    self.counters = counters
  }

  /// Appends all of `waiting`, syncs, and answers.
  /// - Throws: when a journal cannot be written; all of them were told then.
  mutating func write(_ waiting: [WaitingBatch], now: Int64, wall: Milliseconds) throws(StreamError) {
    var outcomes: [IngestOutcome] = []
    do throws(StreamError) {
      for request in waiting {
        var accepted = 0
        for record in request.batch.records where recent.insert(record.key, now: now) {
          try append(record, of: request.batch, now: now, wall: wall)
          accepted += 1
        }
        outcomes.append(.taken(accepted: accepted, repeated: request.batch.records.count - accepted))
      }
      try sync()
    } catch {
      for request in waiting { request.answer(.failed("\(error)")) }
      throw error
    }
    counters.update { [newImpressions, newActions, newestTime] counters in
      counters.impressions += newImpressions
      counters.actions += newActions
      counters.newestTime = max(counters.newestTime, newestTime)
    }
    (newImpressions, newActions) = (0, 0)
    for (request, outcome) in zip(waiting, outcomes) {
      let refused = request.batch.refused.map { RejectedEvent($0.fault, text: $0.text) }
      let left = rejected.append(refused, arrival: request.arrival)
      counters.update { counters in
        if case .taken(_, let repeated) = outcome { counters.repeated += UInt64(repeated) }
        for line in request.batch.refused { counters.refused[line.fault.reason.code, default: 0] += 1 }
        counters.notSetAside += UInt64(left)
      }
      request.answer(outcome)
    }
  }

  private mutating func append(
    _ record: IngestedRecord, of batch: IngestBatch, now: Int64, wall: Milliseconds
  ) throws(StreamError) {
    let bytes = batch.bytes.span
    try unsafe sinks[record.lane].append(bytes.bytes.extracting(record.bytes))
    dirty[record.lane] = true
    lastEvent = now
    // A clock that is ahead does not hurry the others along.
    let time = min(record.time, wall)
    if time > newest?.time ?? .min { newest = (time, now) }
    if record.isImpression { newImpressions += 1 } else { newActions += 1 }
    newestTime = max(newestTime, record.time)
  }

  /// Writes a watermark when it is time to.
  ///
  /// While no event comes, event time goes on as the clock does, so that windows close.
  mutating func tick(now: Int64) throws(StreamError) {
    guard let newest, now >= nextWatermark else { return }
    let isIdle = now - lastEvent > options.watermarkInterval.nanoseconds * 10
    nextWatermark = now + options.watermarkInterval.nanoseconds * (isIdle ? 10 : 1)
    let time = newest.time + (now - newest.at) / 1_000_000 - options.latenessMilliseconds
    guard time > watermark else { return }
    watermark = time
    var writer = ByteWriter(capacity: 16)
    Event.watermark(time: time).encode(into: &writer)
    for lane in sinks.indices {
      try sinks[lane].append(writer.written)
      dirty[lane] = true
    }
    try sync()
    counters.update { $0.watermark = time }
  }

  private mutating func sync() throws(StreamError) {
    for lane in sinks.indices where dirty[lane] {
      try sinks[lane].sync()
      dirty[lane] = false
      counters.update { $0.syncs += 1 }
    }
  }
}
