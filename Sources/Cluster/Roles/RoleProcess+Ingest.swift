// The ingest: HTTP and ZeroMQ in, streams out. Main posts the status and waits for the end; the ingest has threads of its own.

internal import Base
internal import Foundation
internal import Ingesting
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
    options.endpoint = endpoints.ingest
    options.security = security
    options.bodyByteLimit = settings.bodyBytes
    options.window = settings.window
    options.allowedSkew = settings.allowedSkew
    options.latenessMilliseconds = configuration.joiner.allowedLateness.milliseconds
    let streams = ClusterStreams(configuration, root: paths.root)
    let backlog = IngestBacklog(configuration, streams)
    let stopping = Mailbox<Void>(bound: 1)
    StopSignal.onSignal { stopping.close() }
    let server = try IngestServer(options: options, logger: logger, backlog: { backlog.problem }) {
      [directory] () throws(StreamError) -> IngestSinks in
      let shouldStop: @Sendable () -> Bool = { stopping.isClosed }
      let impressions = try streams.sinks(.impressions, shouldStop: shouldStop, report: backlog.tell)
      let actions = try streams.sinks(.actions, shouldStop: shouldStop, report: backlog.tell)
      return IngestSinks(
        impressions: impressions, actions: actions, rejectedPath: "\(directory)/\(RejectedEvents.fileName)",
        rejectedByteLimit: settings.rejectedBytes
      ) {
        // What the joiner will not ask for again; a failure is met again at the next append.
        for (stream, sinks) in [(StreamLocation.Stream.impressions, impressions), (.actions, actions)] {
          for (partition, sink) in sinks.enumerated() {
            var sink = sink
            guard let safe = try? streams[stream].consumers(partition: partition)["joiner"]?.safe else { continue }
            try? sink.deleteRecords(before: safe, keeping: 0)
          }
        }
      }
    }
    logger.info("listens", metadata: ["host": "\(settings.host)", "port": "\(server.port)"])
    while !stopping.isClosed, server.failure == nil {
      _ = stopping.waitAll(timeout: .milliseconds(500))
      board.post(status(server.counters, server.refused, problem: backlog.problem, board))
    }
    server.stop()
    if let failure = server.failure { throw failure }
  }

  private func status(
    _ counters: IngestCounters, _ refused: [String: UInt64], problem: String?, _ board: StatusBoard
  ) -> RoleStatus {
    var report = RoleStatus(
      instance, state: StopSignal.wasSent ? .stopping : problem == nil ? .ready : .waiting, message: problem ?? "")
    report.counters[StatusKey.impressions] = Double(counters.impressions)
    report.counters[StatusKey.impressionsPerSecond] = board.rate("impressions", Double(counters.impressions))
    report.counters["actions"] = Double(counters.actions)
    report.counters["repeatedEvents"] = Double(counters.repeated)
    report.counters["refusedEvents"] = Double(counters.allRefused)
    for (name, count) in refused { report.counters[name] = Double(count) }
    for (code, count) in counters.refused { report.counters["refused_\(code)"] = Double(count) }
    report.counters["notSetAside"] = Double(counters.notSetAside)
    report.counters["watermarkSeconds"] = Double(counters.watermark) / 1000
    return report
  }
}

/// Whether there is a reason to take no events: the joiner is too far behind, or a stream's server is away.
///
/// Looks at the joiner's positions a few times a second.
private final class IngestBacklog: Sendable {
  private let streams: ClusterStreams
  private let limit: UInt64
  private let state = Mutex<(next: Int64, problem: String?)>((0, nil))
  private let trouble = Mutex<String?>(nil)

  init(_ configuration: ClusterConfiguration, _ streams: ClusterStreams) {
    limit = UInt64(configuration.joiner.backlogBytes)
    self.streams = streams
  }

  /// Notes what the writer waits for.
  func tell(_ problem: String?) { trouble.withLock { $0 = problem } }

  var problem: String? {
    if let waiting = trouble.withLock({ $0 }) { return waiting }
    return state.withLock { state in
      let now = Clocks.monotonic()
      guard now >= state.next else { return state.problem }
      state.next = now + 200_000_000
      state.problem = [StreamLocation.Stream.impressions, .actions].lazy.compactMap(self.problem).first
      return state.problem
    }
  }

  private func problem(of stream: StreamLocation.Stream) -> String? {
    for partition in 0..<(streams.partitions[stream] ?? 0) {
      // What cannot be asked is met by the writer.
      guard let behind = try? streams[stream].backlog(partition: partition, of: "joiner"), behind > limit else {
        continue
      }
      let place = "\(stream.rawValue)/\(partition)"
      return "the joiner is \(behind >> 20) MiB of \(place) behind; the limit is \(limit >> 20) MiB"
    }
    return nil
  }
}
