// The user-modelling platform: which model, when it works, how it stores and pools.

internal import Streams
public import UserModeling

/// `soap`: the processes that keep user embeddings fresh and answer them (docs/user-modelling.md).
public struct SoapSettings: Sendable, Equatable, Settings {
  /// The upstream model, of kind `sum`; nil for no such processes.
  ///
  /// Default nil.
  public var model: String?
  /// The id feature that names the user.
  ///
  /// Default `user_id`.
  public var user = "user_id"
  /// How many processes; users are dealt out among them by their id.
  ///
  /// Default 1. Cannot change later: stored embeddings are where the number puts them.
  public var count = 1
  /// The address they answer HTTP on.
  ///
  /// Default 127.0.0.1.
  public var host = "127.0.0.1"
  /// The HTTP port of process 0; process i answers on `port` + i.
  ///
  /// Default 8701.
  public var port = 8701
  /// Where entries are kept.
  public enum Store: String, Sendable, CaseIterable, Codable {
    /// In the process, with a journal.
    case embedded
    /// In a Redis server.
    case redis
  }

  /// Where entries are kept.
  ///
  /// Default `embedded`.
  public var store = Store.embedded
  /// Where the Redis server is.
  ///
  /// Default 127.0.0.1. It is spoken to without a password: let it be reached by the cluster only.
  public var redisHost = "127.0.0.1"
  /// The port of the Redis server.
  ///
  /// Default 6379.
  public var redisPort = 6379
  /// When embeddings are worked out.
  ///
  /// Default `async`: the answer comes from what is stored, at once, and what is asked about is worked out next.
  public var mode = SoapMode.async
  /// How many entries of a user are averaged: the current one when it is there, and the newest stored ones.
  ///
  /// Default 3, as published: two stored ones and the current one.
  public var pooling = 3
  /// Every number of the answer for a user without entries.
  ///
  /// Default 0.
  public var defaultValue = 0.0
  /// How long after it was made an entry counts, running time; nil for ever.
  ///
  /// Default 30d.
  public var timeToLive: Duration? = .seconds(30 * 86_400)
  /// How many entries of a user are kept.
  ///
  /// Default 4: the pooled ones, and one to look back at.
  public var entriesPerUser = 4
  /// How the numbers are kept.
  ///
  /// Default `float32`; `float16` halves memory and journal, three digits.
  public var precision = Precision.float32
  /// Users that may wait to be worked out; when they are more, the one that has waited longest is dropped.
  ///
  /// With `onVersion` the last inputs of up to as many users are kept in memory besides.
  ///
  /// Default 100000.
  public var queue = 100_000
  /// What has a user worked out beside a request that brings their features.
  public enum Recompute: String, Sendable, CaseIterable, Codable {
    /// An action that a feature of the user counts.
    case onAction
    /// A version that changes the user's row, after a request.
    case onVersion
  }

  /// What has a user worked out beside a request that brings their features; in a file `onRequest` for nothing.
  ///
  /// Default `onVersion`. `onAction` needs a feature of the user that is computed from the stream; `onVersion` takes effect
  /// in mode `async`.
  public var recompute = [Recompute.onVersion]
  /// How often `offline` works out those that asked since, running time.
  ///
  /// Default 24h.
  public var refreshEvery: Duration = .seconds(86_400)
  /// Largest 1 − mean cosine between users under a version and under the one before it; nil for any.
  ///
  /// Default nil. A version that moves users further is held back.
  public var holdAbove: Double?
  /// The dense feature that `guira up --events` fills with the user's embeddings, as an application would.
  ///
  /// Default nil. Its width is that of all embeddings of a user together.
  public var feature: String?
  /// When versions are served to downstream models.
  public var seen = SeenSettings()

  /// The defaults.
  public init() {}

  mutating func bind(_ section: Section) {
    section.value("model", &model, Scalar<String>.name.orWord("none"))
    section.value("user", &user, .name)
    section.value("count", &count, .integer(1...256))
    section.value("host", &host, .host)
    section.value("port", &port, .integer(1...65_000))
    section.value("store", &store, .word)
    section.value("redisHost", &redisHost, .host)
    section.value("redisPort", &redisPort, .integer(1...65_535))
    section.value("mode", &mode, .word)
    section.value("pooling", &pooling, .integer(1...3))
    section.value("defaultValue", &defaultValue, .number(-1000...1000))
    section.value("timeToLive", &timeToLive, Scalar.duration(.seconds(1) ... .seconds(3650 * 86_400)).orWord("never"))
    section.value("entriesPerUser", &entriesPerUser, .integer(1...64))
    section.value("precision", &precision, .word)
    section.value("queue", &queue, .integer(1...100_000_000))
    section.values("recompute", &recompute, .word, atMost: Recompute.allCases.count, all: "onRequest")
    section.value("refreshEvery", &refreshEvery, .duration(.milliseconds(100) ... .seconds(365 * 86_400)))
    section.value("holdAbove", &holdAbove, Scalar.positive(upTo: 2).orWord("none"))
    section.value("feature", &feature, Scalar<String>.name.orWord("none"))
    section.section("seen", &seen)
  }

  /// What the platform of process `index` is told.
  func options(model: String, index: Int) -> SoapOptions {
    var options = SoapOptions(model: model, userFeature: user)
    options.mode = mode
    options.pooling.entries = pooling
    options.pooling.defaultValue = Float(defaultValue)
    options.pooling.timeToLive = timeToLive
    options.queueLimit = queue
    options.recomputesOnVersion = recompute.contains(.onVersion)
    options.refreshEvery = refreshEvery
    options.holdAbove = holdAbove
    options.part = (index, count)
    return options
  }

  /// How the store keeps entries.
  var storeOptions: FeatureStoreOptions {
    var options = FeatureStoreOptions()
    options.entriesPerUser = entriesPerUser
    options.halfPrecision = precision == .float16
    options.timeToLive = timeToLive
    return options
  }
}

extension ClusterConfiguration {
  func checkSoap(_ binding: Binding) {
    guard let name = soap.model else {
      if soap.feature != nil {
        binding.report("soap.feature", "is given without soap.model", "name the upstream model, or leave it out")
      }
      return
    }
    guard let model = models.first(where: { $0.name == name }), model.kind == .sum else {
      let sums = models.filter { $0.kind == .sum }.map(\.name)
      binding.report(
        "soap.model", "is '\(name)', which is not a model of kind sum",
        sums.isEmpty ? "add one to models, or use none" : "use one of: \(sums.joined(separator: ", "))")
      return
    }
    if !features.contains(where: { $0.name == soap.user && $0.kind == .id }) {
      binding.report(
        "soap.user", "is '\(soap.user)', which is not a feature of kind id", "name the feature of the user")
    }
    if soap.port + soap.count - 1 > 65_535 {
      binding.report("soap.port", "is too high for \(soap.count) processes", "use at most \(65_536 - soap.count)")
    }
    if soap.host == replicas.host,
      (soap.port..<soap.port + soap.count).overlaps(replicas.port..<replicas.port + replicas.count)
    {
      binding.report("soap.port", "is one of the replicas' ports", "move it, or replicas.port")
    }
    if soap.recompute.contains(.onAction), userActions.isEmpty {
      binding.report(
        "soap.recompute",
        "has onAction, and no feature of the user counts or lists actions: none would change anything",
        "add one with `stream` to models.\(name).users.features, or leave onAction out")
    }
    let width = model.users.embeddings * model.users.embeddingDimension
    if width > EmbeddingShape.widthLimit {
      binding.report(
        "models.\(name).users.embeddingDimension",
        "is \(model.users.embeddingDimension), \(width) numbers per user with \(model.users.embeddings) embeddings",
        "use at most \(EmbeddingShape.widthLimit) numbers together")
    }
    checkSeen(binding, upstream: name)
    guard let feature = soap.feature else { return }
    guard let target = features.first(where: { $0.name == feature }), target.kind == .dense(width: width) else {
      binding.report(
        "soap.feature", "is '\(feature)', which is not a dense feature of width \(width)",
        "add '- {name: \(feature), kind: dense, width: \(width)}' to features")
      return
    }
    if self.features(of: model).contains(where: { $0.name == feature }) {
      binding.report(
        "soap.feature", "is '\(feature)', which the upstream model reads itself",
        "list models.\(name).features without it: the model cannot learn from its own output")
    }
  }
}

extension ClusterConfiguration {
  /// The features of the upstream model's user side that are computed from the stream.
  var userStreamFeatures: [StreamFeatureSpec] {
    guard let model = models.first(where: { $0.name == soap.model }) else { return [] }
    return features.filter { model.users.features.contains($0.name) }.compactMap { $0.stream?.spec }
  }

  /// The actions that these count or list.
  public var userActions: Set<String> {
    var events: Set<String> = []
    for spec in userStreamFeatures {
      events.insert(spec.event)
      if case .share(let over) = spec.value { events.insert(over) }
    }
    return events.subtracting([StreamFeatureSpec.impression])
  }
}
