// The ingest: HTTP in, journals out. Main posts the status and waits for the end; the ingest has threads of its own.

internal import Base
internal import Foundation
internal import Ingesting
internal import Journal
internal import Streams
internal import Synchronization

extension RoleProcess {
  func runIngest(_ board: StatusBoard) throws {
    let configuration = plan.configuration
    guard let port = configuration.ingest.port else { throw StateError("ingest.port is none; give it a port") }
    let settings = configuration.ingest
    var options = IngestOptions(schema: configuration.eventSchema, port: port)
    options.partitions = configuration.streams.impressions.partitions
    options.http.host = settings.host
    options.bodyByteLimit = settings.bodyBytes
    options.window = settings.window
    options.allowedSkew = settings.allowedSkew
    options.latenessMilliseconds = configuration.joiner.allowedLateness.milliseconds
    let backlog = IngestBacklog(configuration, root: paths.root)
    let isDurable = configuration.cluster.durability == .epoch
    let server = try IngestServer(options: options, logger: logger, backlog: { backlog.problem }) {
      [paths, directory, options] () throws(StreamError) -> IngestSinks in
      var journal = JournalOptions()
      journal.durable = isDurable
      var sinks: [(sink: JournalSink, location: StreamLocation)] = []
      for stream in [StreamLocation.Stream.impressions, .actions] {
        for partition in 0..<options.partitions {
          let location = StreamLocation(root: paths.root, stream: stream, partition: partition)
          sinks.append((try JournalSink(location, options: journal), location))
        }
      }
      let all = sinks
      return IngestSinks(
        impressions: sinks.prefix(options.partitions).map(\.sink),
        actions: sinks.suffix(options.partitions).map(\.sink), rejectedPath: "\(directory)/rejected.jsonl",
        rejectedByteLimit: settings.rejectedBytes
      ) {
        // What the joiner will not ask for again; a failure is met again at the next append.
        for (sink, location) in all {
          guard let safe = try? JournalConsumers.read(directory: location.directory)["joiner"]?.safe else { continue }
          try? sink.deleteRecords(before: Position(low: safe))
        }
      }
    }
    logger.info("listens", metadata: ["host": "\(settings.host)", "port": "\(server.port)"])
    let asked = Mailbox<Void>(bound: 1)
    StopSignal.onSignal { asked.close() }
    while !asked.isClosed, server.failure == nil {
      _ = asked.waitAll(timeout: .milliseconds(500))
      board.post(status(server.counters, problem: backlog.problem, board))
    }
    server.stop()
    if let failure = server.failure { throw failure }
  }

  private func status(_ counters: IngestCounters, problem: String?, _ board: StatusBoard) -> RoleStatus {
    var report = RoleStatus(
      instance, state: StopSignal.wasSent ? .stopping : problem == nil ? .ready : .waiting, message: problem ?? "")
    report.counters[StatusKey.impressions] = Double(counters.impressions)
    report.counters[StatusKey.impressionsPerSecond] = board.rate("impressions", Double(counters.impressions))
    report.counters["actions"] = Double(counters.actions)
    report.counters["repeatedEvents"] = Double(counters.repeated)
    report.counters["refusedEvents"] = Double(counters.allRefused)
    report.counters["notSetAside"] = Double(counters.notSetAside)
    report.counters["watermarkSeconds"] = Double(counters.watermark) / 1000
    return report
  }
}

/// Whether the joiner is too far behind for more events; looks at its positions a few times a second.
private final class IngestBacklog: Sendable {
  private let locations: [StreamLocation]
  private let limit: UInt64
  private let state = Mutex<(next: Int64, problem: String?)>((0, nil))

  init(_ configuration: ClusterConfiguration, root: String) {
    limit = UInt64(configuration.joiner.backlogBytes)
    locations = [StreamLocation.Stream.impressions, .actions].flatMap { stream in
      (0..<configuration.streams.impressions.partitions).map {
        StreamLocation(root: root, stream: stream, partition: $0)
      }
    }
  }

  var problem: String? {
    state.withLock { state in
      let now = Clocks.monotonic()
      guard now >= state.next else { return state.problem }
      state.next = now + 200_000_000
      state.problem = locations.lazy.compactMap(self.problem).first
      return state.problem
    }
  }

  private func problem(of location: StreamLocation) -> String? {
    guard let end = (try? JournalReader.bounds(directory: location.directory))?.upperBound else { return nil }
    let processed = (try? JournalConsumers.read(directory: location.directory))?["joiner"]?.processed ?? 0
    let behind = end - min(end, processed)
    guard behind > limit else { return nil }
    return "the joiner is \(behind >> 20) MiB of \(location) behind; the limit is \(limit >> 20) MiB"
  }
}
