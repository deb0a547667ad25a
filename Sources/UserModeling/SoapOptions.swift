// What a platform is told, and what it refuses.

public import Base

/// When embeddings are worked out.
public enum SoapMode: String, Sendable, CaseIterable, Codable {
  /// A request with features queues its user; the answer comes from the store at once.
  case async
  /// A request with features waits for its embedding.
  case realtime
  /// As async, but the queue is worked off at an interval.
  case offline
  /// A user's embedding is worked out once.
  case frozen
}

/// How a platform works.
public struct SoapOptions: Sendable {
  /// The upstream model.
  public var model: String
  /// The feature that names the user.
  public var userFeature: String
  /// When embeddings are worked out; default `async`.
  public var mode = SoapMode.async
  /// How stored entries become an answer.
  public var pooling = EmbeddingPooling()
  /// Whether `async` works users out again when a version changed their row; default true.
  public var recomputesOnVersion = true
  /// Users that may wait for the compute centre, and users whose inputs are remembered for versions; default 100,000.
  public var queueLimit = 100_000
  /// Users worked out together; default 64.
  public var batchSize = 64
  /// How often `offline` works, monotonic clock; default a day.
  public var refreshEvery = Duration.seconds(86_400)
  /// Largest 1 − mean cosine to the last version with which a version is used; nil for any.
  public var holdAbove: Double?
  /// Which part of the users is this process's, and how many parts there are; default all of one.
  public var part = (index: 0, count: 1)
  /// How far ahead of the wall clock the event time of a request may be; default five minutes, as for events.
  public var allowedSkew = Duration.seconds(300)
  /// The models that requests may say an answer is for.
  public var downstream: [String] = []
  /// When versions are served to which of them; nil for at once and to all.
  public var seen: SeenOptions?
  /// What every batch takes longer, for experiments; default 0.
  public var computeDelay = Duration.zero

  /// Options with everything at its default.
  public init(model: String, userFeature: String) {
    self.model = model
    self.userFeature = userFeature
  }
}

/// Which process has a user.
public enum UserPart {
  /// The part of a user among `count`.
  public static func index(of user: UInt64, count: Int) -> Int {
    Int(truncatingIfNeeded: Hashing.mix(user) >> 32) % max(1, count)
  }
}

/// Why a platform cannot be made, or a request not be answered.
public enum SoapError: Error, Equatable, Sendable, CustomStringConvertible {
  /// There is no model of this name with a user tower.
  case noUserTower(model: String)
  /// The feature is not one of the events' id features.
  case unknownUserFeature(String)
  /// An entry of the model would be wider than stores take.
  case tooWide(model: String, shape: EmbeddingShape)
  /// Another process has the user.
  case elsewhere(user: UInt64, part: Int)
  /// No model of this name reads user embeddings.
  case unknownDownstream(model: String, known: [String])
  /// The file that says what is served cannot be read or written.
  case servedFile(path: String, problem: String)
  /// The event time of a request is too far ahead of the clock here.
  case ahead(eventTime: Milliseconds, now: Milliseconds, allowed: Duration)

  /// What is wrong.
  public var description: String {
    switch self {
    case .noUserTower(let model): "model '\(model)' has no user tower; name a model of kind sum"
    case .unknownUserFeature(let name): "feature '\(name)' is not an id feature of the events"
    case .tooWide(let model, let shape):
      "model '\(model)' gives \(shape) numbers per user; use at most \(EmbeddingShape.widthLimit) together"
    case .unknownDownstream(let model, let known):
      "there is no downstream model '\(model)'; "
        + (known.isEmpty ? "no model is configured beside the upstream one" : "use: \(known.joined(separator: ", "))")
    case .servedFile(let path, let problem): "\(path): \(problem)"
    case .ahead(let eventTime, let now, let allowed):
      "the event time \(eventTime) is more than \(allowed) after now, \(now); give UTC milliseconds"
    case .elsewhere(let user, let part): "user \(user) is kept by soap \(part); ask there"
    }
  }
}
