// What a request is answered when it cannot be served. The texts go to whoever sent it: they name the field, what was
// found and what was expected.

/// A request that is refused, with its HTTP status.
struct RequestError: Error, Equatable {
  let status: Int
  let message: String

  static func bad(_ message: String) -> RequestError { RequestError(status: 400, message: message) }
  static func notFound(_ message: String) -> RequestError { RequestError(status: 404, message: message) }
  static func unavailable(_ message: String) -> RequestError { RequestError(status: 503, message: message) }
}

/// The answer to a request.
struct Reply: Sendable {
  var status = 200
  var contentType = "application/json"
  var body: [UInt8]
  /// The bytes of JSON that come before binary tensors; nil when all is JSON.
  var jsonByteCount: Int?
}
