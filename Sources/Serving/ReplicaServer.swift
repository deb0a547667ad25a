// The HTTP server of a replica: the replica's answers (ReplicaRouter.swift) on a host (Hosting/HTTPHost.swift).

public import Hosting
public import Logging

/// Where and how a replica answers over HTTP.
public struct ReplicaServerOptions: Equatable, Sendable {
  /// Where it listens, and its limits.
  public var http: HTTPHostOptions
  /// Not ready when the last version is older than this, by the monotonic clock; nil for never.
  ///
  /// Default nil.
  public var stalenessLimit: Duration?

  /// A server on a port, everything else by default.
  public init(port: Int) { http = HTTPHostOptions(port: port) }
}

/// A running HTTP server for one predictor.
public final class ReplicaServer: Sendable {
  /// The port it listens at.
  public var port: Int { host.port }
  private let host: HTTPHost

  /// Starts a server; returns when it listens.
  ///
  /// Blocks, so not to be called from an asynchronous function.
  /// - Throws: `HTTPHostError` when it cannot listen; nothing is left running then.
  public init(options: ReplicaServerOptions, predictor: Predictor, logger: Logger) throws(HTTPHostError) {
    let service = InferenceService(
      predictor: predictor, metrics: RequestMetrics(), stalenessLimit: options.stalenessLimit)
    host = try HTTPHost(options.http, router: ReplicaRouter(service: service).build(), logger: logger)
  }

  /// Stops listening, lets requests in hand finish, and ends the threads.
  ///
  /// Blocks until then, for some seconds at most. Call it once.
  public func stop() { host.stop() }
}
