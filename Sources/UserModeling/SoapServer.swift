// The platform's HTTP server: all routes and their limits are here.

internal import Base
public import Hosting
internal import Hummingbird
public import Logging
public import Serving

/// A running HTTP server for one platform.
public final class SoapServer: Sendable {
  private let server: HTTPHost
  /// The port it listens at.
  public var port: Int { server.port }

  /// Starts a server; returns when it listens.
  ///
  /// Blocks, so not to be called from an asynchronous function.
  public init(options: ReplicaServerOptions, soap: Soap, logger: Logger) throws(HTTPHostError) {
    let service = SoapService(soap: soap, stalenessLimit: options.stalenessLimit)
    server = try HTTPHost(options.http, router: Self.router(service), logger: logger)
  }

  /// Stops listening, lets requests in hand finish, and ends the threads.
  ///
  /// Blocks until then, for some seconds at most. Call it once.
  public func stop() { server.stop() }

  private static func router(_ service: SoapService) -> Router<BasicRequestContext> {
    let router = Router()
    router.add(middleware: Accounting(metrics: service.metrics))
    router.get("/healthz") { _, _ in response(service.liveness()) }
    router.get("/readyz") { _, _ in response(service.readiness()) }
    router.get("/status") { _, _ in response(service.statusReply()) }
    router.get("/metrics") { _, _ in
      response(Reply(contentType: "text/plain; version=0.0.4", body: Array(service.exposition().utf8)))
    }
    router.get("/v1/models/:model/users/:user") { request, context in
      try response(
        service.user(
          model: context.parameters.require("model"), name: context.parameters.require("user"),
          readers: request.uri.queryParameters[values: "for"].flatMap { $0.split(separator: ",").map(String.init) }))
    }
    router.post("/v1/models/{model}:embed") { request, context in
      let model = try context.parameters.require("model")
      let body = try await request.plainBody(limit: service.soap.predictor.bodyByteLimit)
      return try response(service.embed(model: model, body: body.readableBytesSpan))
    }
    return router
  }
}
