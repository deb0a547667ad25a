// `guira bench join`: events in, examples out, journal to journal, on this machine's cores; and events over HTTP. Synthetic
// traffic is made and rendered first and is not timed. Threads: "feed" parses and appends, the caller's joins; for HTTP
// those of the ingest, and one for each connection of the client.

internal import Base
internal import Foundation
internal import Ingesting
internal import Joining
internal import Logging
internal import Streams
internal import Synchronization

/// Measures how many events a second are taken and joined.
public struct JoinBenchmark: Sendable {
  /// Impressions of a run; about two and a half events each.
  public var impressions = 200_000
  /// Runs of each kind, taken in turns.
  public var runs = 5
  /// Events of a request over HTTP.
  public var batch = 500
  /// Connections of the client, each with one request under way.
  public var connections = 4
  /// The seed of the traffic.
  public var seed: UInt64 = 1
  /// Where the journals are made, and removed again.
  public var directory = "/tmp"

  /// The defaults.
  public init() {}

  /// Runs everything.
  public func run(progress: (String) -> Void) throws -> BenchmarkReport {
    progress("making \(impressions) impressions")
    let traffic = try BenchTraffic(self)
    var json: [Double] = []
    var protobuf: [Double] = []
    var joiner: [Double] = []
    var http: [Double] = []
    for run in 1...max(1, runs) {
      json.append(try scratch { try joined(traffic, .json, in: $0, isWrittenBefore: false) })
      protobuf.append(try scratch { try joined(traffic, .protobuf, in: $0, isWrittenBefore: false) })
      joiner.append(try scratch { try joined(traffic, .protobuf, in: $0, isWrittenBefore: true) })
      http.append(try scratch { try overHTTP(traffic, in: $0) })
      progress(
        "run \(run): json \(Int(json[run - 1])), protobuf \(Int(protobuf[run - 1])), joiner alone "
          + "\(Int(joiner[run - 1])), http \(Int(http[run - 1]))")
    }
    return BenchmarkReport(
      name: "join",
      settings: [
        "impressions": .number(impressions), "events": .number(traffic.events), "runs": .number(runs),
        "batch": .number(batch), "connections": .number(connections), "seed": .number(Int(clamping: seed)),
        "bytes": .number(traffic.text.count),
      ],
      results: [
        "json.eventsPerSecond": Measurement(json, "events/s"),
        "protobuf.eventsPerSecond": Measurement(protobuf, "events/s"),
        "joiner.eventsPerSecond": Measurement(joiner, "events/s"),
        "http.eventsPerSecond": Measurement(http, "events/s"),
      ])
  }

  private func scratch(_ body: (String) throws -> Double) throws -> Double {
    let path = "\(directory)/guira-bench-join-\(getpid())"
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: path) }
    return try body(path)
  }

  /// Events a second from the first line to the last example on disk.
  private func joined(
    _ traffic: BenchTraffic, _ format: BenchTraffic.Format, in root: String, isWrittenBefore: Bool
  ) throws -> Double {
    let rules = JoinRules(
      tasks: EventSchema.synthetic.tasks, impressionPartitions: 1, actionPartitions: 1, outputPartitions: 1,
      allowedLatenessMilliseconds: traffic.latenessMilliseconds)
    let failure = Mutex<StreamError?>(nil)
    let feed: @Sendable () -> Void = {
      do throws(StreamError) { try traffic.feed(root, format) } catch { failure.withLock { $0 = error } }
    }
    if isWrittenBefore { feed() }
    let began = Clocks.monotonic()
    let thread = isWrittenBefore ? nil : OwnedThread(named: "feed", feed)
    let joiner = try Joiner(
      JoinerOptions(rules: rules, stateDirectory: "\(root)/joiner-0"), streams: CarriedJoinerStreams(journalsIn: root))
    let examples = ExampleCount(root: root)
    try joiner.run(until: { failure.withLock { $0 != nil } || examples.count >= impressions }, report: { _ in })
    let seconds = Double(Clocks.monotonic() - began) / 1e9
    thread?.join()
    if let error = failure.withLock({ $0 }) { throw error }
    return Double(traffic.events) / seconds
  }

  /// Events a second that are acknowledged.
  private func overHTTP(_ traffic: BenchTraffic, in root: String) throws -> Double {
    let server = try IngestServer(
      options: IngestOptions(schema: .synthetic, port: 0),
      logger: Logger(label: "bench") { _ in SwiftLogNoOpLogHandler() }
    ) { () throws(StreamError) in
      IngestSinks(
        impressions: [try JournalSink(StreamLocation(root: root, stream: .impressions, partition: 0))],
        actions: [try JournalSink(StreamLocation(root: root, stream: .actions, partition: 0))],
        rejectedPath: "\(root)/rejected.jsonl")
    }
    defer { server.stop() }
    let bodies = traffic.bodies(of: batch)
    let next = Atomic(0)
    let wrong = Atomic(0)
    let port = server.port
    let began = Clocks.monotonic()
    let threads = (0..<connections).map { index in
      OwnedThread(named: "client-\(index)") {
        guard let connection = PostConnection(port: port) else { return wrong.store(-1, ordering: .relaxed) }
        while case let turn = next.add(1, ordering: .relaxed).oldValue, turn < bodies.count {
          let status = connection.post(traffic.text[bodies[turn]])
          if status != 200 { return wrong.store(status, ordering: .relaxed) }
        }
      }
    }
    for thread in threads { thread.join() }
    let seconds = Double(Clocks.monotonic() - began) / 1e9
    let status = wrong.load(ordering: .relaxed)
    guard status == 0 else { throw BenchmarkFault("the ingest answered \(status) to a request") }
    return Double(traffic.events) / seconds
  }
}

/// Why a benchmark did not come to its end.
struct BenchmarkFault: Error, CustomStringConvertible {
  let description: String
  init(_ description: String) { self.description = description }
}

/// Counts what is in the journal of examples, every few milliseconds.
private final class ExampleCount {
  private let location: StreamLocation
  private var source: JournalSource?
  private var seen = 0
  private var nextLook: Int64 = 0

  init(root: String) { location = StreamLocation(root: root, stream: .examples, partition: 0) }

  var count: Int {
    let now = Clocks.monotonic()
    guard now >= nextLook else { return seen }
    nextLook = now + 10_000_000
    if source == nil { source = try? JournalSource(location, consumer: "bench") }
    while (try? source?.next()) as StreamRecord? != nil { seen += 1 }
    return seen
  }
}
