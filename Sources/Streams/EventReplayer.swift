// The player: sends events as an application would, at their time. Impressions are first asked for a prediction, then
// appended with it; actions follow at their own time. Watermarks say how far event time has come. One thread, the
// caller's; it waits in naps of a millisecond at most, so that records become durable on time while nothing is due.

public import Base

/// What a replica answered for one impression.
public struct ServedPrediction: Equatable, Sendable {
  /// The probability per task of the schema.
  public var probabilities: [Float]
  /// Whether no id of the impression had a row of its own, so that only default rows were used.
  public var defaultRowsOnly: Bool

  /// A prediction from its parts.
  public init(probabilities: [Float], defaultRowsOnly: Bool = false) {
    self.probabilities = probabilities
    self.defaultRowsOnly = defaultRowsOnly
  }
}

/// How a replay is done.
public struct ReplayOptions: Equatable, Sendable {
  /// How fast.
  ///
  /// Default: as fast as the cluster takes it.
  public var speed = ReplaySpeed.maximum
  /// The share of impressions a prediction is asked for, chosen by impression id.
  ///
  /// Default all.
  public var predictedShare = 1.0
  /// The most events taken at a time.
  ///
  /// Their impressions are asked for together, so it bounds how old a prediction is.
  public var chunkEvents = 256
  /// How far behind the latest event time an event may be without being late; 0 for events in time order.
  public var latenessMilliseconds: Int64 = 0
  /// The longest window of any task: how far the last watermark lies behind the last event.
  public var largestWindowMilliseconds: Int64 = 15 * 60 * 1000
  /// The longest time a record waits to be durable; longer when the disk is so slow that syncs would take half the time.
  ///
  /// Default 10 ms.
  public var syncInterval = Duration.milliseconds(10)
  /// The most bytes that wait to be durable.
  ///
  /// Default 256 KiB.
  public var syncBytes = 256 << 10
  /// The longest time between watermarks while event time moves.
  ///
  /// Default 50 ms.
  public var watermarkInterval = Duration.milliseconds(50)

  /// The defaults.
  public init() {}
}

/// How far a replay has come.
public struct ReplayProgress: Equatable, Sendable {
  /// Impressions appended.
  public var impressions = 0
  /// Actions appended.
  public var actions = 0
  /// Predictions asked for.
  public var asked = 0
  /// Predictions answered.
  public var answered = 0
  /// Predictions answered from default rows only.
  public var defaultOnly = 0
  /// Events that came more than the allowed lateness behind the latest.
  public var late = 0
  /// The latest event time appended.
  public var eventTime: Milliseconds = 0
  /// How long the replay waited for the cluster.
  public var waited = Duration.zero
  /// By how many nanoseconds events were sent after their deadline; empty at maximum speed.
  public var lag = Histogram()
  /// Whether it ended because it was told to.
  public var wasCancelled = false

  /// Nothing yet.
  public init() {}
}

/// The clocks and the nap of a replay; tests bring their own.
struct ReplayClock {
  var monotonic: () -> Int64 = { Clocks.monotonic() }
  var wall: () -> Milliseconds = { Clocks.wall() }
  var nap: (Int64) -> Void = { Nap.nanoseconds($0) }
}

/// Replays events into the partitions of two streams.
public struct EventReplayer {
  private let options: ReplayOptions
  private let clock: ReplayClock
  private var writers: ReplayWriters
  private var pacer: ReplayPacer
  private var progress = ReplayProgress()

  /// A replay into as many partitions as there are sinks; both streams have the same number.
  public init(options: ReplayOptions, impressions: [any RecordSink], actions: [any RecordSink]) {
    self.init(options: options, impressions: impressions, actions: actions, clock: ReplayClock())
  }

  init(
    options: ReplayOptions, impressions: [any RecordSink], actions: [any RecordSink], clock: ReplayClock
  ) {
    precondition(!impressions.isEmpty && impressions.count == actions.count, "both streams need the same partitions")
    self.options = options
    self.clock = clock
    writers = ReplayWriters(options: options, impressions: impressions, actions: actions, now: clock.monotonic)
    pacer = ReplayPacer(speed: options.speed, now: clock.monotonic())
  }

  /// Replays all events and closes them with a last watermark; blocks the calling thread until then.
  /// - Parameters:
  ///   - next: the next event, nil at the end.
  ///   - complete: fills in what is known only when an impression is served; called for each chunk.
  ///   - predict: predictions for a chunk of impressions, one per impression, nil where none was answered.
  ///   - mayContinue: asked between chunks; while false the replay waits.
  ///   - isCancelled: asked between chunks; the replay ends without the last watermark when true.
  ///   - report: called with the progress, about ten times a second.
  public mutating func run(
    next: () throws(StreamError) -> Event?, complete: (inout [Event]) -> Void = { _ in },
    predict: ([Impression]) -> [ServedPrediction?],
    mayContinue: () -> Bool = { true }, isCancelled: () -> Bool = { false },
    report: (ReplayProgress) -> Void = { _ in }
  ) throws(StreamError) -> ReplayProgress {
    pacer = ReplayPacer(speed: options.speed, now: clock.monotonic())
    var waiting: (event: Event, deadline: Int64)?
    var chunk: [Event] = []
    var isAtEnd = false
    var nextReport = clock.monotonic()
    while !(isAtEnd && waiting == nil) {
      if isCancelled() {
        progress.wasCancelled = true
        break
      }
      let now = clock.monotonic()
      chunk.removeAll(keepingCapacity: true)
      while chunk.count < options.chunkEvents {
        if waiting == nil {
          guard let event = try next() else {
            isAtEnd = true
            break
          }
          if case .watermark = event { continue }
          waiting = (event, pacer.deadline(of: event))
        }
        guard let due = waiting, due.deadline <= now else { break }
        if options.speed != .maximum { progress.lag.record(now - due.deadline) }
        chunk.append(due.event)
        waiting = nil
      }
      if !chunk.isEmpty {
        let waited = try waitForCluster(mayContinue, isCancelled)
        waiting?.deadline += waited
        if waited > 0, isCancelled() {
          progress.wasCancelled = true
          break
        }
        complete(&chunk)
        try send(chunk, predict)
      }
      let reached = min(pacer.eventTime(at: now) ?? .min, waiting?.event.time ?? .min)
      try writers.tick(reached: reached)
      if now >= nextReport {
        report(progress)
        nextReport = now + 100_000_000
      }
      if let waiting, waiting.deadline > now {
        clock.nap(min(1_000_000, max(0, waiting.deadline - clock.monotonic())))
      }
    }
    try writers.finish(isComplete: !progress.wasCancelled)
    report(progress)
    return progress
  }

  /// Waits until the cluster takes more, and moves all deadlines by the nanoseconds that took.
  private mutating func waitForCluster(
    _ mayContinue: () -> Bool, _ isCancelled: () -> Bool
  ) throws(StreamError) -> Int64 {
    guard !mayContinue() else { return 0 }
    let began = clock.monotonic()
    repeat {
      try writers.tick(reached: .min)
      clock.nap(1_000_000)
    } while !mayContinue() && !isCancelled()
    let waited = clock.monotonic() - began
    pacer.delay(by: waited)
    progress.waited += .nanoseconds(waited)
    return waited
  }

  private mutating func send(_ chunk: [Event], _ predict: ([Impression]) -> [ServedPrediction?]) throws(StreamError) {
    var asked: [Impression] = []
    for case .impression(let impression) in chunk where isPredicted(impression.id) { asked.append(impression) }
    var answers: [ServedPrediction?] = []
    if !asked.isEmpty {
      try writers.syncDueRecords()
      answers = predict(asked)
      precondition(answers.count == asked.count, "\(answers.count) predictions for \(asked.count) impressions")
      progress.asked += asked.count
    }
    var answer = 0
    for event in chunk {
      if event.time < writers.latestTime - options.latenessMilliseconds { progress.late += 1 }
      switch event {
      case .impression(var impression):
        if isPredicted(impression.id) {
          if let prediction = answers[answer] {
            impression.predictions = prediction.probabilities
            progress.answered += 1
            if prediction.defaultRowsOnly { progress.defaultOnly += 1 }
          }
          answer += 1
        }
        impression.arrival = clock.wall()
        try writers.append(impression)
        progress.impressions += 1
      case .action(var action):
        action.arrival = clock.wall()
        try writers.append(action)
        progress.actions += 1
      case .watermark: continue
      }
    }
    progress.eventTime = writers.latestTime
  }

  private func isPredicted(_ id: ImpressionID) -> Bool {
    options.predictedShare >= 1 || Double(id.hash64) * 0x1p-64 < options.predictedShare
  }
}
