// The upstream side of the users experiment: the user model trains on the real cores in data time, and platforms of every
// mode answer for every impression after the first 60 %, as an application would have asked them.

internal import Base
internal import Cluster
internal import Serving
internal import Streams
internal import Synchronization
internal import UserModeling

/// A way to serve user embeddings that is compared with others.
struct VectorWay: Equatable {
  var name: String
  var mode: SoapMode
  var pooling = 3
  /// What has a user worked out beside their requests.
  var recompute: [SoapSettings.Recompute] = []

  /// The way that works a user out once.
  static let frozen = "frozen"
  /// The way whose reads wait for the embedding of their own inputs.
  static let realtime = "real-time"

  /// What the paper compares, and poolings of it; users are worked out as the configuration says.
  static func all(_ recompute: [SoapSettings.Recompute]) -> [VectorWay] {
    [
      VectorWay(name: frozen, mode: .frozen), VectorWay(name: "offline, daily", mode: .offline),
      VectorWay(name: "async", mode: .async, recompute: recompute), VectorWay(name: realtime, mode: .realtime),
      VectorWay(name: "async, pooling 2", mode: .async, pooling: 2, recompute: recompute),
      VectorWay(name: "async, pooling 1", mode: .async, pooling: 1, recompute: recompute),
      VectorWay(name: "real-time, pooling 1", mode: .realtime, pooling: 1),
    ]
  }

  /// Other choices of what has a user worked out: nothing but requests, and one thing beside them.
  ///
  /// - Parameter hasActions: whether actions change a user's features.
  static func choices(beside recompute: [SoapSettings.Recompute], hasActions: Bool) -> [VectorWay] {
    let choices: [(String, [SoapSettings.Recompute])] = [
      ("async, on request", []), ("async, on version", [.onVersion]), ("async, on action", [.onAction]),
    ]
    return choices.filter { $1 != recompute && (hasActions || $1 != [.onAction]) }.map {
      VectorWay(name: $0, mode: .async, recompute: $1)
    }
  }
}

/// What one run of the upstream model gives.
struct UserVectors {
  /// Numbers per vector.
  var width = 0
  /// By way: `[impressions from the first on × width]`.
  var values: [[Float]]
  /// By way: which of them came from no entry.
  var defaults: [Int]
  /// The shift between daily versions of what pooling of 1, 2 and 3 entries serves, and of the tower itself.
  var shifts: [[SnapshotShift]] = [[], [], []]
  /// Versions published.
  var versions = 0

  /// How far daily versions move vectors, on the mean of the days.
  typealias Shift = (cosine: Double, ratio: Double)
  /// How far they move what the tower gives, and what is served of it.
  typealias Moves = (tower: Shift?, served: Shift?)

  /// The shift of what a pooling serves; nil when there was no second day.
  func shift(pooling entries: Int) -> Shift? {
    let days = shifts[entries - 1]
    guard !days.isEmpty else { return nil }
    let count = Double(days.count)
    return (days.reduce(0) { $0 + $1.meanCosine } / count, days.reduce(0) { $0 + $1.l2Ratio } / count)
  }

  /// Of the tower, and of a pooling.
  func moves(pooling entries: Int) -> Moves { (shift(pooling: 1), shift(pooling: entries)) }
}

/// Trains the upstream model over a recording and asks the platforms.
struct UserVectorRun {
  let recording: Recording
  let configuration: ClusterConfiguration
  let ways: [VectorWay]
  /// The first impression that vectors are wanted for.
  let first: Int
  /// How often versions are published, data time.
  let interval: Int64

  private static let day: Int64 = 86_400_000
  private static let sampledUsers = 500

  /// A platform and the clock it reads.
  private final class DataTime: Sendable {
    private let value = Mutex<Milliseconds>(0)
    var now: Milliseconds {
      get { value.withLock { $0 } }
      set { value.withLock { $0 = newValue } }
    }
  }

  func run(progress: (Double) -> Void) throws -> UserVectors {
    let cluster = try DataTimeCluster(
      configuration, recording, times: PublicationTimes(sparse: interval, dense: interval))
    guard let upstream = configuration.models.first else { throw ExperimentError("there is no model") }
    let time = DataTime()
    let soaps = try ways.map { way in
      var options = SoapOptions(model: upstream.name, userFeature: configuration.soap.user)
      options.mode = way.mode
      options.pooling.entries = way.pooling
      options.batchSize = 512
      options.queueLimit = recording.impressions
      options.recomputesOnVersion = way.recompute.contains(.onVersion)
      return try Soap(options, store: MemoryStore(), predictor: cluster.predictor, clock: { time.now })
    }
    var result = UserVectors(values: ways.map { _ in [] }, defaults: ways.map { _ in 0 })
    result.width = soaps[0].shape.width
    var triggers = ActionTriggers(
      actions: configuration.userActions, delayMilliseconds: configuration.streamFeatureRules?.delayMilliseconds ?? 0,
      memoryMilliseconds: configuration.streamFeatureRules?.memoryMilliseconds ?? 0)
    let acting = zip(ways, soaps).filter { $0.0.recompute.contains(.onAction) }.map(\.1)
    let learning = zip(ways, soaps).filter { $0.0.recompute.contains(.onVersion) }.map(\.1)
    var probe = try ShiftProbe(recording, soaps[0], model: upstream.name, from: first, users: Self.sampledUsers)
    var index = 0
    var today: Int64 = 0
    for event in recording.events {
      switch event {
      case .watermark: continue
      case .action(let action):
        try cluster.advance(to: action.time, isPublishing: true, score: {}, label: { _ in })
        cluster.act(action)
        triggers.take(event) { soaps[0].user(of: $0) }
      case .impression(let impression):
        try cluster.advance(to: impression.time, isPublishing: true, score: {}, label: { _ in })
        if index < first { remember(impression, soaps) }
        if index == first {
          // The platforms have been there all the time: whoever came has an embedding by the first version.
          try cluster.publish(always: true)
          time.now = impression.time
          for soap in soaps { while soap.workOnce() {} }
        }
        if index >= first {
          time.now = impression.time
          if impression.time / Self.day != today {
            today = impression.time / Self.day
            for (way, soap) in zip(ways, soaps) where way.mode == .offline { while soap.workOnce() {} }
            probe.measure(cluster.predictor, model: upstream.name, at: impression.time, into: &result.shifts)
          }
          for soap in learning { while soap.workOnce() {} }
          if !acting.isEmpty {
            let acted = triggers.due(before: cluster.countedBefore)
            for soap in acting {
              soap.recompute(acted, countedBefore: cluster.countedBefore)
              while soap.workOnce() {}
            }
          }
          try ask(impression, soaps, into: &result)
        }
        cluster.show(impression)
        if !acting.isEmpty { triggers.take(event) { soaps[0].user(of: $0) } }
        index += 1
        if index % 1000 == 0 { progress(Double(index) / Double(recording.impressions)) }
      }
    }
    result.versions = cluster.publications
    return result
  }

  private func remember(_ impression: Impression, _ soaps: [Soap]) {
    guard let user = soaps[0].user(of: impression.features) else { return }
    let request = ComputeRequest(user: user, features: impression.features, eventTime: impression.time)
    for soap in soaps { soap.offer([request]) }
  }

  private func ask(_ impression: Impression, _ soaps: [Soap], into result: inout UserVectors) throws {
    for (place, soap) in soaps.enumerated() {
      guard let user = soap.user(of: impression.features) else {
        result.values[place] += [Float](repeating: 0, count: result.width)
        result.defaults[place] += 1
        continue
      }
      let request = ComputeRequest(user: user, features: impression.features, eventTime: impression.time)
      let vector = try soap.vectors(for: [request])[0]
      result.values[place] += vector.values
      if vector.source == .default { result.defaults[place] += 1 }
      // The compute centre is done before the user comes again; a daily one has its time, and a frozen one had it.
      if ways[place].mode == .async || ways[place].mode == .realtime { soap.workOnce() }
    }
  }
}

/// What consecutive daily versions make of the same users' inputs, pooled over 1, 2 and 3 of them.
private struct ShiftProbe {
  private var blocks: [FeatureBlock] = []
  private var users: [UInt64] = []
  private var served: [[Float]] = [[], [], []]
  private let store = MemoryStore()
  private let shape: EmbeddingShape
  private let schema: EventSchema

  init(_ recording: Recording, _ soap: Soap, model: String, from first: Int, users limit: Int) throws {
    shape = soap.shape
    schema = recording.schema
    var seen: Set<UInt64> = []
    for block in recording.features[..<first].reversed() {
      guard let user = soap.user(of: block), seen.insert(user).inserted else { continue }
      users.append(user)
      blocks.append(block)
      if users.count == limit { break }
    }
  }

  mutating func measure(
    _ predictor: Predictor, model: String, at time: Milliseconds, into shifts: inout [[SnapshotShift]]
  ) {
    guard !users.isEmpty, let embedder = UserEmbedder(predictor, model: model) else { return }
    var columns = FeatureColumns(schema: schema)
    for block in blocks where (try? block.append(to: &columns, schema: schema)) == nil { return }
    guard let made = embedder.embed(columns) else { return }
    store.write(
      users.indices.map { index in
        EmbeddingWrite(
          user: users[index],
          entry: EmbeddingEntry(
            version: made.version.number, eventTime: time, madeAt: time, shape: shape,
            values: Array(made.values[index * shape.width..<(index + 1) * shape.width])))
      })
    for pooled in 1...3 {
      var pooling = EmbeddingPooling()
      pooling.entries = pooled
      let vectors = store.entries(of: users, asOf: nil).flatMap {
        pooling.vector(of: $0, isCurrent: true, shape: shape, now: time).values
      }
      if !served[pooled - 1].isEmpty {
        shifts[pooled - 1].append(SnapshotShift(old: served[pooled - 1], new: vectors, width: shape.width))
      }
      served[pooled - 1] = vectors
    }
  }
}
