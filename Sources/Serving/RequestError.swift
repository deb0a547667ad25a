// What a request is answered when it cannot be served. The texts go to whoever sent it: they name the field, what was
// found and what was expected.

/// A request that is refused, with its HTTP status.
package struct RequestError: Error, Equatable {
  package let status: Int
  package let message: String

  package init(status: Int, message: String) {
    self.status = status
    self.message = message
  }

  package static func bad(_ message: String) -> RequestError { RequestError(status: 400, message: message) }
  package static func notFound(_ message: String) -> RequestError { RequestError(status: 404, message: message) }
  package static func unavailable(_ message: String) -> RequestError { RequestError(status: 503, message: message) }
}

/// The answer to a request.
package struct Reply: Sendable {
  package var status = 200
  package var contentType = "application/json"
  package var body: [UInt8]
  /// The bytes of JSON that come before binary tensors; nil when all is JSON.
  package var jsonByteCount: Int?

  package init(
    status: Int = 200, contentType: String = "application/json", body: [UInt8], jsonByteCount: Int? = nil
  ) {
    self.status = status
    self.contentType = contentType
    self.body = body
    self.jsonByteCount = jsonByteCount
  }
}
