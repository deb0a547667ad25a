// Asks replicas for predictions as an application would: HTTP/1.1 with JSON over a few kept-alive connections, one request
// per impression, one in flight per connection. It runs on the caller's thread, which waits in one `poll` for all of
// them. A replica that does not answer costs time-outs, never an error: what could not be answered is nil.

public import Base
internal import Glibc
public import Streams

/// Where replicas are and how patiently to ask them.
public struct PredictionClientOptions: Equatable, Sendable {
  /// One replica's address.
  public struct Replica: Equatable, Sendable {
    /// A name or address.
    public var host: String
    /// Its HTTP port.
    public var port: Int

    /// An address from its parts.
    public init(host: String = "127.0.0.1", port: Int) {
      self.host = host
      self.port = port
    }
  }

  /// The replicas to ask; requests are spread over all of them.
  public var replicas: [Replica]
  /// Connections, and so requests in flight, per replica.
  ///
  /// Default 4.
  public var connectionsPerReplica = 4
  /// How long one replica may take to answer one request.
  ///
  /// Default 1 s.
  public var timeout = Duration.seconds(1)
  /// How many replicas are asked for one impression before it goes without.
  ///
  /// Default 2.
  public var attempts = 2
  /// How long a replica that failed is left alone.
  ///
  /// Default 250 ms.
  public var rest = Duration.milliseconds(250)

  /// A client of some replicas, everything else by default.
  public init(replicas: [Replica]) { self.replicas = replicas }
}

/// Counts of a client's requests.
public struct PredictionClientCounts: Equatable, Sendable {
  /// Impressions asked for.
  public var asked = 0
  /// Impressions answered.
  public var answered = 0
  /// Requests that were sent again, to another replica or over a new connection.
  public var retried = 0
  /// Microseconds from sending a request to its answer.
  public var latency = Histogram()
  /// Why the last request that failed did, in words.
  public var lastProblem: String?
}

/// A blocking client of one model; belongs to one thread.
public final class PredictionClient {
  private let options: PredictionClientOptions
  private var format: PredictionFormat
  private var replicas: [ReplicaAddress]
  private var connections: [ClientConnection]
  /// What has been asked and answered so far.
  public private(set) var counts = PredictionClientCounts()

  private var times: [Milliseconds] = []

  /// One impression on its way.
  private struct Request {
    var attempts = 0
    /// The replica that failed last.
    var avoid = -1
  }

  /// A client that asks `model` about impressions of `schema`.
  ///
  /// Connects when first asked.
  public init(options: PredictionClientOptions, model: String, schema: EventSchema) {
    self.options = options
    format = PredictionFormat(model: model, schema: schema)
    replicas = options.replicas.map { ReplicaAddress($0) }
    connections = options.replicas.indices.flatMap { replica in
      (0..<max(1, options.connectionsPerReplica)).map { _ in ClientConnection(replica: replica) }
    }
  }

  /// One answer per impression, in order; nil where no replica answered in time.
  ///
  /// Blocks until all are settled.
  ///
  /// - Parameter times: when each is shown, for features that are computed from the stream; empty: now.
  public func predict(_ impressions: [FeatureBlock], times: [Milliseconds] = []) -> [ServedPrediction?] {
    precondition(times.isEmpty || times.count == impressions.count, "\(times.count) times for \(impressions.count)")
    self.times = times
    var answers = [ServedPrediction?](repeating: nil, count: impressions.count)
    var requests = [Request](repeating: Request(), count: impressions.count)
    var waiting = Array(impressions.indices.reversed())
    counts.asked += impressions.count
    while true {
      let now = Clocks.monotonic()
      start(&waiting, &requests, &answers, impressions, now: now)
      if !connections.contains(where: { $0.request != nil }) { break }  // all settled, or nobody to ask
      wait(now: now)
      advance(&waiting, &requests, &answers)
    }
    return answers
  }

  /// Gives waiting requests to idle connections.
  private func start(
    _ waiting: inout [Int], _ requests: inout [Request], _ answers: inout [ServedPrediction?],
    _ impressions: [FeatureBlock], now: Int64
  ) {
    for connection in connections where connection.request == nil {
      guard let next = waiting.last else { return }
      if replicas[connection.replica].restsUntil > now { continue }
      // The replica that just failed is asked again only when there is no other.
      if requests[next].avoid == connection.replica, hasOther(than: connection.replica, now: now) { continue }
      waiting.removeLast()
      let time = times.isEmpty ? nil : times[next]
      let host = replicas[connection.replica].host
      guard format.encode(impressions[next], time: time, host: host, into: &connection.output) else {
        counts.lastProblem = "the impression's features are not of the schema"
        continue
      }
      connection.begin(next, at: now, deadline: now + options.timeout.nanoseconds)
      if !connection.open(replicas[connection.replica]) {
        fail(connection, "cannot connect", &waiting, &requests)
      } else if connection.isReused {
        settle(connection, next, connection.advance(), &waiting, &requests, &answers)
      }
    }
  }

  private func hasOther(than replica: Int, now: Int64) -> Bool {
    replicas.indices.contains { $0 != replica && replicas[$0].restsUntil <= now }
  }

  /// Waits until a connection can go on, or the first deadline.
  private func wait(now: Int64) {
    var polled: [pollfd] = []
    var first = Int64.max
    for connection in connections where connection.request != nil {
      let events = connection.isSending ? POLLOUT : POLLIN
      polled.append(pollfd(fd: connection.descriptor, events: Int16(events), revents: 0))
      first = min(first, connection.deadline)
    }
    let milliseconds = max(0, (first - now) / 1_000_000 + 1)
    _ = unsafe poll(&polled, nfds_t(polled.count), Int32(clamping: milliseconds))
    var place = 0
    for connection in connections where connection.request != nil {
      connection.isRunnable = polled[place].revents != 0
      place += 1
    }
  }

  private func advance(_ waiting: inout [Int], _ requests: inout [Request], _ answers: inout [ServedPrediction?]) {
    let now = Clocks.monotonic()
    for connection in connections {
      guard let request = connection.request else { continue }
      guard connection.isRunnable else {
        if now >= connection.deadline { fail(connection, "no answer in time", &waiting, &requests) }
        continue
      }
      settle(connection, request, connection.advance(), &waiting, &requests, &answers)
    }
  }

  private func settle(
    _ connection: ClientConnection, _ request: Int, _ step: ConnectionStep, _ waiting: inout [Int],
    _ requests: inout [Request], _ answers: inout [ServedPrediction?]
  ) {
    switch step {
    case .pending: return
    case .failed(let problem, let isStale):
      // A kept-alive connection that the server has closed meanwhile says nothing about the replica.
      guard isStale else { return fail(connection, problem, &waiting, &requests) }
      counts.retried += 1
      connection.close()
      waiting.append(request)
    case .answered(let head):
      if let prediction = format.decode(head, connection.input) {
        answers[request] = prediction
        counts.answered += 1
        counts.latency.record((Clocks.monotonic() - connection.startedAt) / 1000)
        connection.finish(keepsAlive: head.keepsAlive)
      } else if head.status >= 500 {
        fail(connection, "status \(head.status)", &waiting, &requests)
      } else {
        counts.lastProblem = "status \(head.status): \(format.text(head, connection.input))"
        connection.finish(keepsAlive: head.keepsAlive)
      }
    }
  }

  /// Closes a connection whose replica has failed a request, and lets the request try another.
  private func fail(
    _ connection: ClientConnection, _ problem: String, _ waiting: inout [Int], _ requests: inout [Request]
  ) {
    let replica = options.replicas[connection.replica]
    counts.lastProblem = "\(replica.host):\(replica.port): \(problem)"
    replicas[connection.replica].restsUntil = Clocks.monotonic() + options.rest.nanoseconds
    if let request = connection.request {
      requests[request].attempts += 1
      requests[request].avoid = connection.replica
      if requests[request].attempts < options.attempts {
        counts.retried += 1
        waiting.append(request)
      }
    }
    connection.close()
  }
}
