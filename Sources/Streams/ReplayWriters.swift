// The player's side of the streams: appends to partitions, makes records durable on time, writes watermarks.

internal import Base
internal import Glibc

/// The sinks of a replay.
struct ReplayWriters {
  private let options: ReplayOptions
  private var impressions: [any RecordSink]
  private var actions: [any RecordSink]
  private var waitingBytes = 0
  /// When the oldest record that is not durable must be.
  private var nextSync: Int64 = .max
  /// How long the last sync took: on a slow disk at least as long is spent sending before the next.
  private var syncNanoseconds: Int64 = 0
  private let now: () -> Int64
  private var nextWatermark: Int64
  private var watermark: Milliseconds = .min
  /// The latest event time appended; the least there is before the first.
  private(set) var latestTime: Milliseconds = Self.noTime

  /// Far enough from the end of Int64 for a lateness to be taken away.
  private static let noTime: Milliseconds = .min / 2

  init(options: ReplayOptions, impressions: [any RecordSink], actions: [any RecordSink], now: @escaping () -> Int64) {
    self.options = options
    self.impressions = impressions
    self.actions = actions
    self.now = now
    nextWatermark = now()
  }

  mutating func append(_ impression: Impression) throws(StreamError) {
    let partition = StreamLocation.partition(of: impression.id, count: impressions.count)
    waitingBytes += try Self.append(.impression(impression), to: &impressions[partition])
    try appended(at: impression.time)
  }

  mutating func append(_ action: Action) throws(StreamError) {
    let partition = StreamLocation.partition(of: action.impression, count: actions.count)
    waitingBytes += try Self.append(.action(action), to: &actions[partition])
    try appended(at: action.time)
  }

  private static func append(_ event: Event, to sink: inout any RecordSink) throws(StreamError) -> Int {
    var writer = ByteWriter(capacity: 512)
    event.encode(into: &writer)
    try sink.append(writer.written)
    return writer.count
  }

  private mutating func appended(at time: Milliseconds) throws(StreamError) {
    latestTime = max(latestTime, time)
    startSyncTimer()
    if waitingBytes >= options.syncBytes { try sync() }
  }

  /// Writes a watermark and syncs when it is time to.
  /// - Parameter reached: event time that has passed though no event came; the least there is when unknown.
  mutating func tick(now: Int64, reached: Milliseconds) throws(StreamError) {
    if now >= nextWatermark, latestTime > Self.noTime {
      try write(watermark: max(latestTime, reached) - options.latenessMilliseconds)
      nextWatermark = now + options.watermarkInterval.nanoseconds
    }
    try syncWaiting(now: now)
  }

  /// Syncs when a record has waited long enough.
  mutating func syncWaiting(now: Int64) throws(StreamError) {
    if now >= nextSync { try sync() }
  }

  private mutating func write(watermark time: Milliseconds) throws(StreamError) {
    guard time > watermark else { return }
    watermark = time
    for partition in impressions.indices {
      waitingBytes += try Self.append(.watermark(time: time), to: &impressions[partition])
    }
    for partition in actions.indices {
      waitingBytes += try Self.append(.watermark(time: time), to: &actions[partition])
    }
    startSyncTimer()
  }

  private mutating func startSyncTimer() {
    if nextSync == .max { nextSync = now() + max(options.syncInterval.nanoseconds, syncNanoseconds) }
  }

  private mutating func sync() throws(StreamError) {
    let began = now()
    for partition in impressions.indices { try impressions[partition].sync() }
    for partition in actions.indices { try actions[partition].sync() }
    waitingBytes = 0
    nextSync = .max
    syncNanoseconds = now() - began
  }

  /// Syncs all; when the replay is complete a last watermark first closes every window.
  mutating func finish(isComplete: Bool) throws(StreamError) {
    if isComplete, latestTime > Self.noTime {
      let (time, overflow) = latestTime.addingReportingOverflow(options.largestWindowMilliseconds + 1)
      try write(watermark: overflow ? .max : time)
    }
    try sync()
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
