// What the platform answers over ZeroMQ, on the thread that calls `run`: user embeddings, for applications.

internal import Base
internal import Streams
internal import Synchronization
public import Wire

/// Answers at an endpoint.
public final class SoapMessages: Sendable {
  private let server: AnsweringServer
  private let soap: Soap
  private let requests = Atomic<UInt64>(0)

  /// A server that is not running yet.
  public init(endpoint: String, security: LinkSecurity?, soap: Soap) {
    server = AnsweringServer(endpoint: endpoint, security: security)
    self.soap = soap
  }

  /// Asks `run` to return.
  public func stop() { server.stop() }

  /// Requests that were answered.
  public var answered: UInt64 { requests.load(ordering: .relaxed) }

  /// Who was refused, by the names that status shows.
  public var refused: [String: UInt64] { server.refused }

  /// Answers until `stop`.
  ///
  /// Blocks the calling thread.
  public func run() throws {
    try server.run { header, body, _ in
      switch header.opcode {
      case .embed: return try embed(EmbedRequest(decoding: &body), header.request)
      case .forget: return try forget(IDsRequest(decoding: &body), header.request)
      default:
        throw ErrorReply(
          .malformed, "the user-modelling platform answers 'embed' and 'forget' here, not '\(header.opcode)'")
      }
    }
  }

  /// Forgets those of the users that this process has; the table's name is the shards' concern.
  private func forget(_ question: IDsRequest, _ request: UInt64) throws(ErrorReply) -> Blob {
    do throws(FeatureStoreError) { try soap.forget(question.ids) } catch { throw ErrorReply(.busy, "\(error)") }
    return PlainMessage.text(.forget, "{}", request: request)
  }

  private func embed(_ question: EmbedRequest, _ request: UInt64) throws(ErrorReply) -> Blob {
    guard question.model == soap.options.model else {
      throw ErrorReply(.mismatch, "there is no model '\(question.model)' here; it is '\(soap.options.model)'")
    }
    let isShaped = question.count > 0 && question.dimension > 0
    let shape = isShaped ? EmbeddingShape(count: question.count, dimension: question.dimension) : soap.shape
    let bytes = question.users.count * shape.width * question.numbers.byteCount
    guard shape.width <= EmbeddingShape.widthLimit, bytes <= EmbedReply.byteLimit else {
      throw ErrorReply(
        .malformed, "\(question.users.count) users of \(shape) numbers are more than \(EmbedReply.byteLimit) bytes")
    }
    let users = question.users.array
    let vectors: [UserVector]
    do {
      try soap.requireOwn(users)
      let audience = try soap.audience(question.models)
      if question.features.isEmpty {
        vectors = try soap.vectors(of: users, shape: shape, for: audience)
      } else {
        guard !isShaped || shape == soap.shape else {
          throw ErrorReply(.mismatch, "features give embeddings of \(soap.shape), not \(shape)")
        }
        try soap.requirePast(question.eventTime)
        vectors = try soap.vectors(for: try requests(question, users), audience: audience)
      }
    } catch let error as ErrorReply {
      throw error
    } catch let error as SoapError {
      if case .ahead = error { throw ErrorReply(.malformed, "\(error)") }
      throw ErrorReply(.mismatch, "\(error)")
    } catch {
      throw ErrorReply(.busy, "\(error)")
    }
    requests.add(1, ordering: .relaxed)
    let origins = vectors.map {
      EmbedReply.Origin(
        version: $0.version, eventTime: $0.eventTime, age: $0.age, source: UInt32($0.source.rawValue),
        pooled: UInt32($0.pooled))
    }
    return EmbedReply.encoded(
      request: request, count: shape.count, dimension: shape.dimension, numbers: question.numbers, origins: origins
    ) { target in
      var place = 0
      for vector in vectors {
        copy(vector.values, to: &target, at: place)
        place += vector.values.count
      }
    }
  }

  private func requests(_ question: EmbedRequest, _ users: [UInt64]) throws(ErrorReply) -> [ComputeRequest] {
    var requests: [ComputeRequest] = []
    requests.reserveCapacity(users.count)
    for (user, bytes) in zip(users, question.features) {
      let block = FeatureBlock(bytes: bytes)
      do throws(DecodeError) { _ = try block.values(of: soap.predictor.schema) } catch {
        throw ErrorReply(.malformed, "the features of user \(user): \(error)")
      }
      requests.append(ComputeRequest(user: user, features: block, eventTime: question.eventTime))
    }
    return requests
  }
}

private func copy(_ values: [Float], to target: inout MutableSpan<Float>, at place: Int) {
  let source = values.span
  for index in source.indices { target[place + index] = source[index] }
}
