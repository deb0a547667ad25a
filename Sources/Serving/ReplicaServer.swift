// The HTTP server of a replica: started and stopped from an ordinary thread, it runs on event-loop threads of its own.

internal import Base
package import Hummingbird
internal import HummingbirdCore
public import Logging
internal import NIOCore
internal import NIOPosix
internal import ServiceLifecycle
internal import Glibc

/// Where and how a replica answers over HTTP.
public struct ReplicaServerOptions: Equatable, Sendable {
  /// The address to listen at.
  ///
  /// Default loopback.
  public var host: String = "127.0.0.1"
  /// The port to listen at; 0 lets the system choose.
  public var port: Int
  /// Not ready when the last version is older than this, by the monotonic clock; nil for never.
  ///
  /// Default nil.
  public var stalenessLimit: Duration?
  /// The most connections at a time; further ones wait to be accepted.
  ///
  /// Default 1024.
  public var connectionLimit = 1024
  /// A connection on which nothing came for so long is closed.
  ///
  /// Default 60 s.
  public var idleTimeout = Duration.seconds(60)

  /// A server on a port, everything else by default.
  public init(port: Int) { self.port = port }
}

/// Why a server did not start.
public enum ReplicaServerError: Error, Equatable, Sendable, CustomStringConvertible {
  /// Somebody else listens at this port.
  case portBusy(host: String, port: Int)
  /// The address cannot be listened at, in the system's words.
  case cannotListen(host: String, port: Int, reason: String)

  /// What is wrong, with what to do.
  public var description: String {
    switch self {
    case .portBusy(let host, let port):
      "port \(port) of \(host) is in use; stop what listens there, or configure another port"
    case .cannotListen(let host, let port, let reason): "cannot listen at \(host):\(port): \(reason)"
    }
  }
}

/// A running HTTP server for one predictor.
public final class ReplicaServer: Sendable {
  /// The port it listens at.
  public let port: Int
  private let services: ServiceGroup
  private let executor: EventLoopExecutor
  /// How long requests in hand may take to finish when the server stops.
  private static let grace = Duration.seconds(1)
  private let running: Task<Void, Never>
  private let ended: Mailbox<Void>

  /// Starts a server; returns when it listens.
  ///
  /// Blocks, so not to be called from an asynchronous function.
  /// - Throws: `ReplicaServerError` when it cannot listen; nothing is left running then.
  public convenience init(
    options: ReplicaServerOptions, predictor: Predictor, logger: Logger
  ) throws(ReplicaServerError) {
    let service = InferenceService(
      predictor: predictor, metrics: RequestMetrics(), stalenessLimit: options.stalenessLimit)
    try self.init(options: options, router: ReplicaRouter(service: service).build(), logger: logger)
  }

  /// Starts a server of any routes.
  package init(
    options: ReplicaServerOptions, router: Router<BasicRequestContext>, logger: Logger
  ) throws(ReplicaServerError) {
    // Never shut down: connections may still be closing when the server has ended, and ending their loop under them
    // traps. The idle thread costs nothing and goes with the process.
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let bound = Mailbox<Result<Int, ReplicaServerError>>(bound: 2)
    let ended = Mailbox<Void>(bound: 1)
    var quiet = logger
    quiet.logLevel = max(logger.logLevel, .warning)  // the frameworks' own notes are not the operator's
    let application = Application(
      router: router,
      server: .http1(configuration: .init(idleTimeout: .nanoseconds(options.idleTimeout.nanoseconds))),
      configuration: .init(
        address: .hostname(options.host, port: options.port),
        availableConnectionsDelegate: MaximumAvailableConnections(options.connectionLimit)),
      onServerRunning: { channel in _ = bound.offer(.success(channel.localAddress?.port ?? options.port)) },
      eventLoopGroupProvider: .shared(group), logger: quiet)
    self.ended = ended
    // Handlers run on the event loop's own thread: a prediction is shorter than the hop to another thread and back.
    let executor = EventLoopExecutor(group.next())
    self.executor = executor
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
    do throws(ReplicaServerError) {
      port = try outcome.get()
    } catch {
      throw error
    }
  }

  private static func reason(for error: any Error, _ options: ReplicaServerOptions) -> ReplicaServerError {
    if let error = error as? IOError, error.errnoCode == EADDRINUSE {
      return .portBusy(host: options.host, port: options.port)
    }
    return .cannotListen(host: options.host, port: options.port, reason: "\(error)")
  }

  /// Stops listening, lets requests in hand finish, and ends the threads.
  ///
  /// Blocks until then, for some seconds at most. Call it once.
  public func stop() {
    Task(executorPreference: executor) { [services] in await services.triggerGracefulShutdown() }
    if !ended.isClosed { _ = ended.waitAll(timeout: Self.grace) }
    running.cancel()  // ends what a request still holds open
    // The frameworks' last steps run on threads that the whole process shares; when those are all blocked, nobody waits.
    if !ended.isClosed { _ = ended.waitAll(timeout: Self.grace) }
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
