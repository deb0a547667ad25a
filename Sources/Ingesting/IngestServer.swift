// The ingest of a cluster: an event loop takes requests and parses them, the thread "writer" writes and answers. Started
// and stopped from an ordinary thread.

internal import Base
internal import Glibc
internal import Hummingbird
internal import HummingbirdCore
public import Logging
internal import NIOCore
internal import NIOPosix
internal import ServiceLifecycle
public import Streams
internal import Synchronization

/// Why an ingest did not start.
public enum IngestError: Error, Equatable, Sendable, CustomStringConvertible {
  /// Somebody else listens at this port.
  case portBusy(host: String, port: Int)
  /// The address cannot be listened at, in the system's words.
  case cannotListen(host: String, port: Int, reason: String)
  /// The streams cannot be written.
  case streams(StreamError)

  /// What is wrong, with what to do.
  public var description: String {
    switch self {
    case .portBusy(let host, let port):
      "port \(port) of \(host) is in use; stop what listens there, or configure another ingest.port"
    case .cannotListen(let host, let port, let reason): "cannot listen at \(host):\(port): \(reason)"
    case .streams(let error): error.description
    }
  }
}

/// What an ingest writes to; made and used on its writer's thread.
public struct IngestSinks {
  /// The writing ends of the partitions of impressions.
  public var impressions: [any RecordSink]
  /// The writing ends of the partitions of actions, as many.
  public var actions: [any RecordSink]
  /// The file that refused lines are set aside in.
  public var rejectedPath: String
  /// The most bytes of that file.
  public var rejectedByteLimit: Int
  /// Called every few seconds, to delete what nobody asks for again.
  public var upkeep: () -> Void

  /// Sinks from their parts.
  public init(
    impressions: [any RecordSink], actions: [any RecordSink], rejectedPath: String, rejectedByteLimit: Int = 64 << 20,
    upkeep: @escaping () -> Void = {}
  ) {
    self.impressions = impressions
    self.actions = actions
    self.rejectedPath = rejectedPath
    self.rejectedByteLimit = rejectedByteLimit
    self.upkeep = upkeep
  }
}

/// A running ingest.
public final class IngestServer: Sendable {
  /// The port it listens at.
  public let port: Int
  private let state: IngestState
  private let services: ServiceGroup
  private let executor: EventLoopExecutor
  private let running: Task<Void, Never>
  private let ended: Mailbox<Void>
  private let writer: OwnedThread
  /// How long requests in hand may take to finish when the server stops.
  private static let grace = Duration.seconds(2)

  /// Starts an ingest; returns when it listens.
  ///
  /// Blocks, so not to be called from an asynchronous function.
  ///
  /// - Parameters:
  ///   - backlog: asked at each request: why nothing is taken now, in words, nil when it is.
  ///   - open: opens what is written to, on the writer's thread.
  /// - Throws: `IngestError` when it cannot listen or write; nothing is left running then.
  public init(
    options: IngestOptions, logger: Logger, backlog: @escaping @Sendable () -> String? = { nil },
    open: @escaping @Sendable () throws(StreamError) -> IngestSinks
  ) throws(IngestError) {
    let state = IngestState(options)
    self.state = state
    let opened = Mailbox<Result<Void, StreamError>>(bound: 1)
    writer = OwnedThread(named: "writer") { state.runWriter(open, opened) }
    switch opened.waitAll(timeout: .seconds(60)).first {
    case .failure(let error): throw .streams(error)
    case .success, nil: break
    }
    // Never shut down: connections may still be closing when the server has ended, and ending their loop under them
    // traps. The idle thread costs nothing and goes with the process.
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let executor = EventLoopExecutor(group.next())
    self.executor = executor
    var quiet = logger
    quiet.logLevel = max(logger.logLevel, .warning)  // the frameworks' own notes are not the operator's
    let bound = Mailbox<Result<Int, IngestError>>(bound: 2)
    let ended = Mailbox<Void>(bound: 1)
    self.ended = ended
    let router = IngestRouter(
      options: options, inbox: state.inbox, counters: state.counters, backlog: backlog, parser: SharedParser(options))
    let application = Application(
      router: router.build(),
      configuration: .init(
        address: .hostname(options.host, port: options.port),
        availableConnectionsDelegate: MaximumAvailableConnections(options.connectionLimit)),
      onServerRunning: { channel in _ = bound.offer(.success(channel.localAddress?.port ?? options.port)) },
      eventLoopGroupProvider: .shared(group), logger: quiet)
    let services = ServiceGroup(configuration: .init(services: [application], logger: quiet))
    self.services = services
    running = Task(executorPreference: executor) {
      do {
        try await services.run()
      } catch {
        _ = bound.offer(.failure(Self.reason(for: error, options)))
      }
      ended.close()
    }
    let outcome =
      bound.waitAll(timeout: .seconds(30)).first
      ?? .failure(.cannotListen(host: options.host, port: options.port, reason: "no answer within 30 seconds"))
    switch outcome {
    case .success(let port): self.port = port
    case .failure(let error):
      state.inbox.close()
      writer.join()
      throw error
    }
  }

  private static func reason(for error: any Error, _ options: IngestOptions) -> IngestError {
    if let error = error as? IOError, error.errnoCode == EADDRINUSE {
      return .portBusy(host: options.host, port: options.port)
    }
    return .cannotListen(host: options.host, port: options.port, reason: "\(error)")
  }

  /// What it has done.
  public var counters: IngestCounters { state.counters.now }

  /// Why it can write no more; nil while it can.
  public var failure: StreamError? { state.failure.withLock { $0 } }

  /// Stops listening, lets requests in hand finish, and ends the threads.
  ///
  /// Blocks until then, for some seconds at most. Call it once.
  public func stop() {
    Task(executorPreference: executor) { [services] in await services.triggerGracefulShutdown() }
    if !ended.isClosed { _ = ended.waitAll(timeout: Self.grace) }
    state.inbox.close()
    writer.join()
    running.cancel()  // ends what a request still holds open
    // The frameworks' last steps run on threads that the whole process shares; when those are all blocked, nobody waits.
    if !ended.isClosed { _ = ended.waitAll(timeout: Self.grace) }
  }
}

/// What the threads of an ingest share.
private final class IngestState: Sendable {
  let options: IngestOptions
  let inbox: Mailbox<WaitingBatch>
  let counters = SharedCounters()
  let failure = Mutex<StreamError?>(nil)

  init(_ options: IngestOptions) {
    self.options = options
    inbox = Mailbox(bound: options.waitingLimit)
  }

  /// The body of the thread "writer".
  func runWriter(
    _ open: @Sendable () throws(StreamError) -> IngestSinks, _ opened: Mailbox<Result<Void, StreamError>>
  ) {
    do throws(StreamError) {
      let sinks = try open()
      let rejected: RejectedLines
      do throws(FileError) {
        rejected = try RejectedLines(path: sinks.rejectedPath, limit: sinks.rejectedByteLimit)
      } catch {
        throw .file(error)
      }
      var writer = IngestWriter(
        options, impressions: sinks.impressions, actions: sinks.actions, rejected: rejected, counters: counters,
        now: Clocks.monotonic())
      _ = opened.offer(.success(()))
      try write(&writer, upkeep: sinks.upkeep)
    } catch {
      failure.withLock { $0 = error }
      _ = opened.offer(.failure(error))
    }
    // Nobody is left without an answer.
    inbox.close()
    for request in inbox.takeAll() { request.answer(.failed("the ingest is stopping")) }
  }

  private func write(_ writer: inout IngestWriter, upkeep: () -> Void) throws(StreamError) {
    var nextUpkeep: Int64 = 0
    while true {
      let waiting = inbox.waitAll(timeout: options.watermarkInterval)
      let now = Clocks.monotonic()
      if !waiting.isEmpty { try writer.write(waiting, now: now, wall: Clocks.wall()) }
      if waiting.isEmpty && inbox.isClosed { return }
      try writer.tick(now: now)
      if now >= nextUpkeep {
        upkeep()
        nextUpkeep = now + 5_000_000_000
      }
    }
  }
}

/// Runs tasks on an event loop's thread.
private final class EventLoopExecutor: TaskExecutor {
  private let loop: any EventLoop

  init(_ loop: any EventLoop) { self.loop = loop }

  func enqueue(_ job: consuming ExecutorJob) {
    let job = UnownedJob(job)
    let executor = unsafe asUnownedTaskExecutor()
    loop.execute { unsafe job.runSynchronously(on: executor) }
  }
}
