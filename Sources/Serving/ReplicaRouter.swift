// HTTP around the inference service: paths, bodies and headers in, replies out. All routes and their limits are here.

internal import Base
internal import HTTPTypes
package import Hummingbird
package import NIOCore

extension HTTPField.Name {
  static let inferenceHeaderLength = HTTPField.Name("Inference-Header-Content-Length")!
}

/// The routes of a replica.
struct ReplicaRouter: Sendable {
  let service: InferenceService

  func build() -> Router<BasicRequestContext> {
    let router = Router()
    router.add(middleware: Accounting(metrics: service.metrics))
    router.get("/healthz") { _, _ in response(service.liveness()) }
    router.get("/readyz") { _, _ in response(service.readiness()) }
    router.get("/status") { _, _ in response(service.status()) }
    router.get("/metrics") { _, _ in
      let text = service.metrics.exposition(
        service.predictor.store.statistics(), isReady: service.unreadiness == nil)
      return response(Reply(contentType: "text/plain; version=0.0.4", body: Array(text.utf8)))
    }
    router.get("/v2") { _, _ in response(service.serverMetadata()) }
    router.get("/v2/health/live") { _, _ in response(service.liveness()) }
    router.get("/v2/health/ready") { _, _ in response(service.readiness()) }
    router.get("/v2/models/:model") { _, context in
      try response(service.metadata(model: context.parameters.require("model")))
    }
    router.get("/v2/models/:model/ready") { _, context in
      try response(service.readiness(model: context.parameters.require("model")))
    }
    router.post("/v2/models/:model/infer") { request, context in
      let model = try context.parameters.require("model")
      let body = try await body(of: request)
      let jsonByteCount = try jsonByteCount(request)
      return try response(
        service.infer(model: model, body: body.readableBytesSpan, jsonByteCount: jsonByteCount))
    }
    router.post("/v2/models/:model/explain") { request, context in
      let model = try context.parameters.require("model")
      let body = try await body(of: request)
      let jsonByteCount = try jsonByteCount(request)
      return try response(
        service.explain(model: model, body: body.readableBytesSpan, jsonByteCount: jsonByteCount))
    }
    router.get("/v1/models/:model") { _, context in
      try response(service.status(model: context.parameters.require("model")))
    }
    router.post("/v1/models/{model}:predict") { request, context in
      let model = try context.parameters.require("model")
      let body = try await body(of: request)
      return try response(service.predict(model: model, body: body.readableBytesSpan))
    }
    return router
  }

  private func jsonByteCount(_ request: Request) throws(RequestError) -> Int? {
    guard let text = request.headers[.inferenceHeaderLength] else { return nil }
    guard let count = Int(text), count >= 0 else {
      throw .bad("Inference-Header-Content-Length is '\(text)'; expected a number of bytes")
    }
    return count
  }

  private func body(of request: Request) async throws -> ByteBuffer {
    try await request.plainBody(limit: service.predictor.bodyByteLimit)
  }
}

extension Request {
  /// The body, which must not be compressed and not larger than the limit.
  package func plainBody(limit: Int) async throws -> ByteBuffer {
    let request = self
    if let encoding = request.headers[.contentEncoding], encoding != "identity" {
      throw RequestError(status: 415, message: "Content-Encoding is '\(encoding)'; send the body uncompressed")
    }
    let tooLarge = RequestError(status: 413, message: "the body is larger than the limit of \(limit) bytes")
    if let announced = request.headers[.contentLength].flatMap({ Int($0) }), announced > limit { throw tooLarge }
    do {
      return try await request.body.collect(upTo: limit)
    } catch is NIOTooManyBytesError {
      throw tooLarge
    }
  }
}

/// A reply as Hummingbird wants it.
package func response(_ reply: Reply) -> Response {
  var headers: HTTPFields = [.contentType: reply.contentType]
  if let count = reply.jsonByteCount { headers[.inferenceHeaderLength] = "\(count)" }
  return Response(
    status: .init(code: reply.status), headers: headers, body: .init(byteBuffer: ByteBuffer(bytes: reply.body)))
}

/// Turns every error into a reply, and counts what was answered.
package struct Accounting: RouterMiddleware {
  let metrics: RequestMetrics

  package init(metrics: RequestMetrics) { self.metrics = metrics }

  package func handle(
    _ request: Request, context: BasicRequestContext,
    next: (Request, BasicRequestContext) async throws -> Response
  ) async throws -> Response {
    let begin = Clocks.monotonic()
    let answer: Response
    do {
      answer = try await next(request, context)
    } catch let error as RequestError {
      answer = response(.error(error.status, error.message))
    } catch let error as any HTTPResponseError {
      let known = error.status == .notFound ? "there is nothing at \(request.uri.path)" : "\(error)"
      answer = response(.error(error.status.code, known))
    }
    let route = context.endpointPath ?? "none"
    metrics.answered(
      route: route, status: answer.status.code, nanoseconds: Clocks.monotonic() - begin,
      isPrediction: route.hasSuffix("/infer") || route.hasSuffix(":predict") || route.hasSuffix(":embed"))
    return answer
  }
}
