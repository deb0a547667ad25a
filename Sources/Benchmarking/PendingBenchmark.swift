// `guira bench join --pending N`: how a joiner does with millions of pending impressions and a bound on its memory.
//
// An impression is shown every millisecond of event time and the window is N milliseconds, so N are pending once the first
// window ends. A thread writes the journals meanwhile; it keeps nothing of what it wrote: which impressions get which
// action, and when, is a function of their number. So the process's memory is the joiner's.

internal import Base
internal import Foundation
internal import Joining
internal import Streams
internal import Synchronization

/// Measures a joiner that has more pending impressions than memory for them.
public struct PendingBenchmark: Sendable {
  /// Pending impressions.
  public var pending = 20_000_000
  /// The bound on the joiner's memory, in bytes.
  public var memory = 1 << 30
  /// Impressions shown after the first window has ended, as a share of the pending ones: as many leave meanwhile.
  public var steadyShare = 0.1
  /// Bytes of features of an impression.
  public var featureBytes = 96
  /// Where the journals are made, and removed again.
  public var directory = "/tmp"

  /// The defaults.
  public init() {}

  private struct Sample {
    var nanoseconds: Int64
    var impressions: UInt64
    var events: UInt64
  }

  /// Fills the joiner, goes on for a while, and tells how it went.
  public func run(progress: (String) -> Void) throws -> BenchmarkReport {
    let root = "\(directory)/guira-bench-pending-\(getpid())"
    try FileManager.default.createDirectory(atPath: root, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: root) }
    let total = pending + Int(Double(pending) * steadyShare)
    let feed = PendingFeed(impressions: total, window: Int64(pending), featureBytes: featureBytes, root: root)
    var options = JoinerOptions(rules: feed.rules, stateDirectory: "\(root)/joiner-0")
    options.memory = memory
    resetResidentPeak()
    let failure = Mutex<StreamError?>(nil)
    let isStopped = Atomic(false)
    let joiner = try Joiner(options, streams: JournalJoinerStreams(root: root))
    let thread = OwnedThread(named: "feed") {
      do throws(StreamError) { try feed.write(until: isStopped) } catch { failure.withLock { $0 = error } }
    }
    defer {
      isStopped.store(true, ordering: .relaxed)
      thread.join()
    }
    var samples: [Sample] = [Sample(nanoseconds: Clocks.monotonic(), impressions: 0, events: 0)]
    var last: JoinerStatus?
    var peak = 0
    var disk: UInt64 = 0
    var isDone = false
    var slowest = Double.infinity
    try joiner.run(until: { isDone || failure.withLock { $0 != nil } }) { status in
      let events = status.counters.impressions + status.counters.actions
      let now = Clocks.monotonic()
      samples.append(Sample(nanoseconds: now, impressions: status.counters.impressions, events: events))
      if samples.count % 20 == 0 {
        let past = samples[samples.count - 20]
        let rate = Double(events - past.events) * 1e9 / Double(now - past.nanoseconds)
        slowest = min(slowest, rate)
        progress(
          "\(status.counters.impressions) shown, \(status.pendingImpressions) pending, \(status.storedImpressions) on disk, "
            + "\(Int(rate)) events/s, \(residentBytes("VmRSS") >> 20) MiB resident")
      }
      peak = max(peak, status.memoryBytes)
      disk = max(disk, status.storedBytes)
      if !isDone { last = status }
      isDone = status.counters.impressions == UInt64(total) && status.inputs.allSatisfy { $0.unread == 0 }
    }
    if let error = failure.withLock({ $0 }) { throw error }
    guard let last, let full = samples.first(where: { $0.impressions >= UInt64(pending) }),
      let end = samples.first(where: { $0.impressions == UInt64(total) })
    else { throw BenchmarkFault("the joiner did not come to the end of its input") }
    guard last.counters.duplicateImpressions == 0, last.counters.lateImpressions == 0 else {
      throw BenchmarkFault("the joiner saw impressions twice or late")
    }
    func rate(_ from: Sample, _ to: Sample) -> Measurement {
      Measurement(
        [Double(to.events - from.events) * 1e9 / Double(max(1, to.nanoseconds - from.nanoseconds))], "events/s")
    }
    return BenchmarkReport(
      name: "join",
      settings: [
        "pending": .number(pending), "memory": .number(memory), "featureBytes": .number(featureBytes),
        "impressions": .number(total), "events": .number(Int(end.events)),
      ],
      results: [
        "pending.fill.eventsPerSecond": rate(samples[0], full),
        "pending.eventsPerSecond": rate(full, end),
        "pending.slowest10s.eventsPerSecond": Measurement([slowest.isFinite ? slowest : 0], "events/s"),
        "pending.residentPeakBytes": Measurement([Double(residentBytes("VmHWM"))], "bytes"),
        "pending.memoryBytes": Measurement([Double(peak)], "bytes"),
        "pending.diskBytes": Measurement([Double(disk)], "bytes"),
        "pending.impressions": Measurement([Double(last.pendingImpressions)], "impressions"),
        "pending.onDisk": Measurement([Double(last.storedImpressions)], "impressions"),
        "pending.checkpointSeconds": Measurement([last.checkpointSeconds], "s"),
      ])
  }
}

/// A number of this process's `/proc/self/status`, in bytes.
private func residentBytes(_ field: String) -> Int {
  guard let text = try? String(contentsOfFile: "/proc/self/status", encoding: .utf8),
    let line = text.split(separator: "\n").first(where: { $0.hasPrefix("\(field):") }),
    let kilobytes = line.split(whereSeparator: { $0 == " " || $0 == "\t" }).dropFirst().first.flatMap({ Int($0) })
  else { return 0 }
  return kilobytes << 10
}

/// Lets `VmHWM` begin anew.
private func resetResidentPeak() {
  try? Data("5".utf8).write(to: URL(filePath: "/proc/self/clear_refs"))
}

/// Writes impressions and actions to journals, in the order of time.
private struct PendingFeed: Sendable {
  let impressions: Int
  let window: Int64
  let featureBytes: Int
  let root: String
  private static let begin: Milliseconds = 1_700_000_000_000

  var rules: JoinRules {
    JoinRules(tasks: [
      TaskSpec(name: "click", closingActions: ["end"], windowMilliseconds: window),
      TaskSpec(name: "like", closingActions: ["end"], windowMilliseconds: window),
    ])
  }

  init(impressions: Int, window: Int64, featureBytes: Int, root: String) {
    self.impressions = impressions
    self.window = window
    self.featureBytes = featureBytes
    self.root = root
  }

  func write(until isStopped: borrowing Atomic<Bool>) throws(StreamError) {
    let shown = try JournalSink(StreamLocation(root: root, stream: .impressions, partition: 0))
    let done = try JournalSink(StreamLocation(root: root, stream: .actions, partition: 0))
    var writer = ByteWriter(capacity: 1024)
    var features = FeatureBlock(bytes: Array(repeating: 0, count: featureBytes))
    for number in 0..<impressions {
      let now = Self.begin + Int64(number)
      let word = Hashing.mix(UInt64(number))
      for place in stride(from: 0, to: featureBytes, by: 4) {
        features.bytes[place] = UInt8(truncatingIfNeeded: word >> UInt64(place % 61))
      }
      writer.clear()
      Event.impression(
        Impression(
          id: ImpressionID(UInt64(number)), time: now, arrival: now, features: features, predictions: [0.5, 0.1])
      ).encode(into: &writer)
      try shown.append(writer.written)
      try act(number, now, done, &writer)
      guard number % 4096 == 4095 || number == impressions - 1 else { continue }
      writer.clear()
      Event.watermark(time: now).encode(into: &writer)
      try shown.append(writer.written)
      try done.append(writer.written)
      try shown.sync()
      try done.sync()
      if isStopped.load(ordering: .relaxed) { return }
    }
  }

  /// The actions of this moment: two fifths of the impressions are clicked within the minute; a fifth is liked, and one in
  /// twenty closed, at any time of the window.
  private func act(
    _ number: Int, _ now: Milliseconds, _ sink: JournalSink, _ writer: inout ByteWriter
  ) throws(StreamError) {
    for delay in [700, 3000, 11_000, 40_000] {
      let clicked = number - delay
      if clicked >= 0, Hashing.mix(UInt64(clicked) ^ UInt64(delay)) % 10 == 0 {
        try append("click", clicked, now, sink, &writer)
      }
    }
    for step in 0..<16 {
      let other = number - (2 * step + 1) * Int(window) / 32
      guard other >= 0 else { break }
      let word = Hashing.mix(UInt64(other) ^ 77)
      guard word % 16 == UInt64(step) else { continue }
      let chance = word / 16 % 100
      if chance < 20 { try append("like", other, now, sink, &writer) }
      if chance >= 95 { try append("end", other, now, sink, &writer) }
    }
  }

  private func append(
    _ name: String, _ number: Int, _ now: Milliseconds, _ sink: JournalSink, _ writer: inout ByteWriter
  ) throws(StreamError) {
    writer.clear()
    Event.action(Action(impression: ImpressionID(UInt64(number)), name: name, time: now, arrival: now))
      .encode(into: &writer)
    try sink.append(writer.written)
  }
}
