import Base
import Journal
import Testing

@testable import Streams

/// Keeps records in memory, with the virtual time of each append and sync.
private final class MemorySink: RecordSink {
  let time: VirtualTime
  var events: [(event: Event, appended: Int64)] = []
  var syncs: [Int64] = []
  var syncedCount = 0

  init(_ time: VirtualTime) { self.time = time }

  func append(_ payload: RawSpan) throws(StreamError) -> Position {
    var writer = ByteWriter()
    writer.append(raw: payload)
    var reader = ByteReader(writer.finish())
    do {
      events.append((try Event(decoding: &reader), time.now))
    } catch {
      throw .record(end, error)
    }
    return end
  }

  func sync() throws(StreamError) {
    syncedCount = events.count
    syncs.append(time.now)
  }

  var end: Position { Position(low: UInt64(events.count)) }
  var synced: Position { Position(low: UInt64(syncedCount)) }
}

private final class VirtualTime {
  var now: Int64 = 1_000_000_000
  var clock: ReplayClock {
    ReplayClock(
      monotonic: { self.now }, wall: { self.now / 1_000_000 },
      nap: { self.now += max($0, 1000) })
  }
}

@Suite("Replay") struct ReplayTests {
  private let schema = EventSchema.synthetic

  private func impression(_ id: UInt64, at time: Milliseconds) -> Event {
    .impression(
      Impression(
        id: ImpressionID(id), time: time,
        features: FeatureBlock(schema: schema, values: [.ids([1]), .ids([id]), .ids([]), .ids([])])))
  }

  private func action(_ id: UInt64, at time: Milliseconds) -> Event {
    .action(Action(impression: ImpressionID(id), name: "click", time: time))
  }

  private func replay(
    _ events: [Event], _ options: ReplayOptions, partitions: Int = 1, time: VirtualTime,
    predict: ([Impression]) -> [ServedPrediction?] = { $0.map { _ in nil } },
    mayContinue: () -> Bool = { true }, isCancelled: () -> Bool = { false }
  ) throws -> (ReplayProgress, impressions: [MemorySink], actions: [MemorySink]) {
    let impressions = (0..<partitions).map { _ in MemorySink(time) }
    let actions = (0..<partitions).map { _ in MemorySink(time) }
    var replayer = EventReplayer(
      options: options, impressions: impressions, actions: actions, clock: time.clock)
    var rest = events[...]
    let progress = try replayer.run(
      next: { rest.popFirst() }, predict: predict, mayContinue: mayContinue, isCancelled: isCancelled)
    return (progress, impressions, actions)
  }

  @Test func `speeds are read from what users write`() {
    #expect(ReplaySpeed("max") == .maximum)
    #expect(ReplaySpeed("60") == .factor(60))
    #expect(ReplaySpeed("1000/s") == .impressionsPerSecond(1000))
    for text in ["", "0", "-1", "fast", "0/s", "inf", "nan"] { #expect(ReplaySpeed(text) == nil, "\(text)") }
  }

  @Test func `a pacer maps event time or counts to deadlines`() {
    var pacer = ReplayPacer(speed: .factor(100), now: 5_000)
    #expect(pacer.deadline(of: impression(1, at: 2000)) == 5_000)
    #expect(pacer.deadline(of: action(1, at: 2100)) == 5_000 + 1_000_000)
    #expect(pacer.deadline(of: action(1, at: 1000)) == 5_000)
    #expect(pacer.eventTime(at: 5_000 + 2_000_000) == 2200)
    pacer.delay(by: 1_000_000)
    #expect(pacer.deadline(of: action(1, at: 2100)) == 5_000 + 2_000_000)
    #expect(pacer.eventTime(at: 5_000 + 2_000_000) == 2100)

    var rate = ReplayPacer(speed: .impressionsPerSecond(1000), now: 0)
    let events = [impression(1, at: 0), action(1, at: 9), impression(2, at: 9), impression(3, at: 90_000)]
    #expect(events.map { rate.deadline(of: $0) } == [0, 1_000_000, 1_000_000, 2_000_000])
    #expect(rate.eventTime(at: 0) == nil)
  }

  @Test func `events keep their order and values, with arrival stamped and predictions written in`() throws {
    let time = VirtualTime()
    let events = [
      impression(1, at: 1000), action(1, at: 1001), impression(2, at: 1002), impression(3, at: 1002),
      action(3, at: 1005), .watermark(time: 999_999), action(2, at: 1006),
    ]
    var asked: [[UInt64]] = []
    let (progress, impressions, actions) = try replay(
      events, ReplayOptions(), time: time,
      predict: { chunk in
        asked.append(chunk.map(\.id.low))
        return chunk.map {
          $0.id.low == 2 ? nil : ServedPrediction(probabilities: [0.5, 0.25], defaultRowsOnly: $0.id.low == 3)
        }
      })
    #expect(asked == [[1, 2, 3]])
    #expect(progress.impressions == 3)
    #expect(progress.actions == 3)
    #expect((progress.asked, progress.answered, progress.defaultOnly) == (3, 2, 1))
    #expect(progress.late == 0)
    var shown: [Impression] = []
    for case (.impression(let impression), _) in impressions[0].events { shown.append(impression) }
    #expect(shown.map(\.id.low) == [1, 2, 3])
    #expect(shown.map(\.predictions) == [[0.5, 0.25], [], [0.5, 0.25]])
    #expect(shown.allSatisfy { $0.arrival == 1000 })
    let done = actions[0].events.compactMap { if case .action(let action) = $0.event { action } else { nil } }
    #expect(done.map(\.impression.low) == [1, 3, 2])
    #expect(done.allSatisfy { $0.arrival == 1000 })
    #expect(impressions[0].synced == impressions[0].end)
    #expect(actions[0].synced == actions[0].end)
  }

  @Test func `the last watermark closes every window in every partition of both streams`() throws {
    var options = ReplayOptions()
    options.largestWindowMilliseconds = 60_000
    let (_, impressions, actions) = try replay(
      [impression(1, at: 1000), action(1, at: 5000)], options, partitions: 3, time: VirtualTime())
    for sink in impressions + actions { #expect(sink.events.last?.event == .watermark(time: 65_001)) }
  }

  @Test func `an impression and its actions go to one partition`() throws {
    var events: [Event] = []
    for id in 1...100 { events += [impression(UInt64(id), at: 1000), action(UInt64(id), at: 1000)] }
    let (_, impressions, actions) = try replay(events, ReplayOptions(), partitions: 4, time: VirtualTime())
    for partition in 0..<4 {
      var shown: Set<UInt64> = []
      for case (.impression(let impression), _) in impressions[partition].events { shown.insert(impression.id.low) }
      var done: Set<UInt64> = []
      for case (.action(let action), _) in actions[partition].events { done.insert(action.impression.low) }
      #expect(shown == done)
      #expect(shown.count > 10)
    }
  }

  @Test func `at 1,000 impressions a second every event is sent within 5 ms, durable 10 ms later`() throws {
    let time = VirtualTime()
    var events: [Event] = []
    for id in 0..<3000 {
      events += [impression(UInt64(id), at: 1000 + Int64(id) * 5000), action(UInt64(id), at: 1000 + Int64(id) * 5000)]
    }
    var options = ReplayOptions()
    options.speed = .factor(5000)
    let start = time.now
    let (progress, impressions, _) = try replay(events, options, time: time)
    #expect(progress.lag.maximum <= 1_100_000)
    #expect(progress.impressions == 3000)
    let elapsed = Double(time.now - start) / 1e9
    #expect((2.99...3.01).contains(elapsed))
    var syncs = impressions[0].syncs[...]
    for (_, appended) in impressions[0].events {
      while let first = syncs.first, first < appended { syncs.removeFirst() }
      guard let sync = syncs.first, sync - appended <= 11_100_000 else {
        return #expect(Bool(false), "a record waited longer than 10 ms")
      }
    }
  }

  @Test func `watermarks follow event time every 50 ms, also while nothing is due, and pass no event`() throws {
    let time = VirtualTime()
    var options = ReplayOptions()
    options.speed = .factor(1)
    let events = [impression(1, at: 1000), action(1, at: 1010), impression(2, at: 2000), action(2, at: 2700)]
    let (progress, impressions, actions) = try replay(events, options, time: time)
    #expect(progress.late == 0)
    for sink in [impressions[0], actions[0]] {
      var watermark = Milliseconds.min
      var last: Int64 = 1_000_000_000
      for (event, appended) in sink.events {
        guard case .watermark(let time) = event else {
          #expect(event.time >= watermark)
          continue
        }
        #expect(time > watermark)
        #expect(appended - last <= 53_000_000)
        (watermark, last) = (time, appended)
      }
    }
    let early = impressions[0].events.filter { $0.appended < 1_500_000_000 }.map(\.event.time).max()
    #expect((1400...1500).contains(try #require(early)))
  }

  @Test func `events out of order keep the watermark back, and later ones count as late`() throws {
    var options = ReplayOptions()
    options.latenessMilliseconds = 100
    options.chunkEvents = 1
    options.watermarkInterval = .zero
    let events = [impression(1, at: 1000), impression(2, at: 900), impression(3, at: 899), action(1, at: 1500)]
    let (progress, impressions, _) = try replay(events, options, time: VirtualTime())
    #expect(progress.late == 1)
    let watermarks = impressions[0].events.compactMap { if case .watermark(let time) = $0.event { time } else { nil } }
    #expect(watermarks == [900, 1400, 1500 + 900_001])
  }

  @Test func `the replay waits while the cluster says so, and then goes on without a burst`() throws {
    let time = VirtualTime()
    var options = ReplayOptions()
    options.speed = .impressionsPerSecond(100)
    options.chunkEvents = 1
    let pause: ClosedRange<Int64> = 1_050_000_000...1_450_000_000
    let (progress, impressions, _) = try replay(
      (0..<20).map { impression($0, at: 1000) }, options, time: time, mayContinue: { !pause.contains(time.now) })
    #expect(progress.waited >= .milliseconds(390))
    let times = impressions[0].events.compactMap { if case .impression = $0.event { $0.appended } else { nil } }
    #expect(times.allSatisfy { !pause.contains($0) })
    let gaps = zip(times.dropFirst(), times).map { $0 - $1 }
    #expect(gaps.allSatisfy { $0 >= 8_000_000 }, "\(gaps)")
  }

  @Test func `a cancelled replay syncs what it sent and writes no last watermark`() throws {
    let time = VirtualTime()
    var asked = 0
    var options = ReplayOptions()
    options.chunkEvents = 2
    let (progress, impressions, _) = try replay(
      (0..<10).map { impression($0, at: 1000) }, options, time: time,
      isCancelled: {
        asked += 1
        return asked > 3
      })
    #expect(progress.wasCancelled)
    #expect(progress.impressions == 6)
    #expect(impressions[0].synced == impressions[0].end)
    #expect(impressions[0].events.allSatisfy { $0.event.time == 1000 })
  }

  @Test func `a replay can be cancelled while it waits for the cluster`() throws {
    let time = VirtualTime()
    let (progress, impressions, _) = try replay(
      [impression(1, at: 1000)], ReplayOptions(), time: time, mayContinue: { false },
      isCancelled: { time.now > 1_020_000_000 })
    #expect(progress.wasCancelled)
    #expect(impressions[0].events.isEmpty)
  }

  @Test func `a share of impressions is asked for, the same ones each time`() throws {
    var options = ReplayOptions()
    options.predictedShare = 0.3
    let events = (0..<2000).map { impression($0, at: 1000) }
    var asked: [Set<UInt64>] = [[], []]
    for round in 0..<2 {
      let (progress, _, _) = try replay(
        events, options, time: VirtualTime(),
        predict: { chunk in
          asked[round].formUnion(chunk.map(\.id.low))
          return chunk.map { _ in nil }
        })
      #expect(progress.asked == asked[round].count)
    }
    #expect(asked[0] == asked[1])
    #expect((500...700).contains(asked[0].count))
  }

  @Test func `synthetic traffic goes through journals whole`() throws {
    let directory = try TemporaryDirectory()
    var traffic = TrafficOptions()
    traffic.impressions = 500
    var generator = TrafficGenerator(traffic)
    var options = ReplayOptions()
    options.latenessMilliseconds = generator.latenessMilliseconds
    func sinks(_ stream: StreamLocation.Stream) throws -> [JournalSink] {
      try (0..<2).map { try JournalSink(StreamLocation(root: directory.path, stream: stream, partition: $0)) }
    }
    var replayer = EventReplayer(options: options, impressions: try sinks(.impressions), actions: try sinks(.actions))
    let progress = try replayer.run(next: { generator.next()?.event }, predict: { $0.map { _ in nil } })
    var counts = (impressions: 0, actions: 0, last: 0)
    for stream in [StreamLocation.Stream.impressions, .actions] {
      for partition in 0..<2 {
        let source = try JournalSource(
          StreamLocation(root: directory.path, stream: stream, partition: partition), consumer: "test")
        while let record = try source.next() {
          var reader = record.reader
          switch try Event(decoding: &reader) {
          case .impression: counts.impressions += 1
          case .action: counts.actions += 1
          case .watermark(let time): if time == progress.eventTime + 900_001 { counts.last += 1 }
          }
        }
      }
    }
    #expect(counts == (progress.impressions, progress.actions, 4))
    #expect(progress.impressions >= 500)
  }
}
