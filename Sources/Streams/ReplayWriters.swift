// The player's side of the streams: appends to partitions, makes records durable on time, writes watermarks. A sync waits
// for the disk, so each tick syncs one partition at most: what is due meanwhile is sent before the next one.

internal import Base
internal import Glibc

/// One partition of a stream, and what waits in it to be durable.
private struct ReplayLane {
  var sink: any RecordSink
  var waitingBytes = 0
  /// When the oldest record that is not durable must be; never while there is none.
  var syncDue: Int64 = .max

  mutating func append(_ event: Event, due: Int64) throws(StreamError) {
    var writer = ByteWriter(capacity: 512)
    event.encode(into: &writer)
    try sink.append(writer.written)
    waitingBytes += writer.count
    syncDue = min(syncDue, due)
  }

  mutating func sync() throws(StreamError) {
    try sink.sync()
    waitingBytes = 0
    syncDue = .max
  }
}

/// The sinks of a replay.
struct ReplayWriters {
  private let options: ReplayOptions
  private let now: () -> Int64
  /// Impressions' partitions, then actions'.
  private var lanes: [ReplayLane]
  private let partitions: Int
  private var nextWatermark: Int64
  private var watermark: Milliseconds = .min
  /// How long the last sync took: a slow disk is asked less often, so that half of the time is left for sending.
  private var syncNanoseconds: Int64 = 0
  /// The latest event time appended; the least there is before the first.
  private(set) var latestTime: Milliseconds = Self.noTime

  /// Far enough from the end of Int64 for a lateness to be taken away.
  private static let noTime: Milliseconds = .min / 2

  init(
    options: ReplayOptions, impressions: [any RecordSink], actions: [any RecordSink], now: @escaping () -> Int64
  ) {
    self.options = options
    self.now = now
    lanes = (impressions + actions).map { ReplayLane(sink: $0) }
    partitions = impressions.count
    nextWatermark = now()
  }

  mutating func append(_ impression: Impression) throws(StreamError) {
    let lane = StreamLocation.partition(of: impression.id, count: partitions)
    try append(.impression(impression), lane: lane)
  }

  mutating func append(_ action: Action) throws(StreamError) {
    let lane = partitions + StreamLocation.partition(of: action.impression, count: partitions)
    try append(.action(action), lane: lane)
  }

  private mutating func append(_ event: Event, lane: Int) throws(StreamError) {
    try lanes[lane].append(event, due: syncDue)
    latestTime = max(latestTime, event.time)
    if lanes[lane].waitingBytes >= options.syncBytes { try sync(lane) }
  }

  /// When a record appended now must be durable.
  private var syncDue: Int64 {
    now() + max(options.syncInterval.nanoseconds, 2 * Int64(lanes.count) * syncNanoseconds)
  }

  /// Writes watermarks when it is time to, and syncs the partition that has waited longest past its time.
  ///
  /// - Parameter reached: event time that has passed though no event came; the least there is when unknown.
  mutating func tick(reached: Milliseconds) throws(StreamError) {
    let now = now()
    if now >= nextWatermark, latestTime > Self.noTime {
      try write(watermark: max(latestTime, reached) - options.latenessMilliseconds)
      nextWatermark = now + options.watermarkInterval.nanoseconds
    }
    var longest = 0
    for lane in lanes.indices where lanes[lane].syncDue < lanes[longest].syncDue { longest = lane }
    if now >= lanes[longest].syncDue { try sync(longest) }
  }

  /// Syncs everything that has waited long enough, before something that takes a while.
  mutating func syncDueRecords() throws(StreamError) {
    let now = now()
    for lane in lanes.indices where now >= lanes[lane].syncDue { try sync(lane) }
  }

  private mutating func write(watermark time: Milliseconds) throws(StreamError) {
    guard time > watermark else { return }
    watermark = time
    let due = syncDue
    for lane in lanes.indices { try lanes[lane].append(.watermark(time: time), due: due) }
  }

  private mutating func sync(_ lane: Int) throws(StreamError) {
    let began = now()
    try lanes[lane].sync()
    syncNanoseconds = now() - began
  }

  /// Syncs all; when the replay is complete a last watermark first closes every window.
  mutating func finish(isComplete: Bool) throws(StreamError) {
    if isComplete, latestTime > Self.noTime {
      let (time, overflow) = latestTime.addingReportingOverflow(options.largestWindowMilliseconds + 1)
      try write(watermark: overflow ? .max : time)
    }
    for lane in lanes.indices { try sync(lane) }
  }
}

/// A pause of the calling thread.
enum Nap {
  static func nanoseconds(_ duration: Int64) {
    guard duration > 0 else { return }
    var time = timespec(tv_sec: Int(duration / 1_000_000_000), tv_nsec: Int(duration % 1_000_000_000))
    _ = unsafe nanosleep(&time, nil)
  }
}
