// From published to seen to served: which versions of the upstream model a downstream model has been trained on. Pure; its
// owner keeps it behind a lock (docs/decisions/0013-seen-by-answers-and-watermarks.md).
//
// An answer for event time t counts as trained once the model's watermark has passed t and the longest window of its tasks:
// then the example of an impression at t has been joined and trained. The watermark came with a synced version, so what
// replicas serve has been trained on it, too.

internal import Base

/// A model that reads user embeddings.
public struct DownstreamModel: Sendable, Equatable {
  /// Its name, which is that of its consumer.
  public var name: String
  /// The longest window of its tasks: so long after an impression its last label is due.
  public var windowMilliseconds: Int64

  /// A model from its parts.
  public init(name: String, windowMilliseconds: Int64) {
    self.name = name
    self.windowMilliseconds = windowMilliseconds
  }
}

/// When a downstream model counts as having seen a version.
public struct SeenOptions: Sendable, Equatable {
  /// The models that wait for versions to be seen.
  public var models: [DownstreamModel]
  /// On how many examples a model must have been trained, in the whole cluster.
  public var examples: UInt64
  /// The part of the users who are answered with the newest version before others, above 0 to 1.
  public var share: Double

  /// Options from their parts.
  public init(models: [DownstreamModel], examples: UInt64, share: Double = 0.05) {
    self.models = models
    self.examples = examples
    self.share = share
  }
}

/// What a downstream model has seen and is served, for status.
public struct SeenStatus: Sendable, Equatable {
  /// The model.
  public var model: String
  /// The newest version that it has seen, and so is served; 0 for none of the present store.
  public var served: UInt64
  /// The version that is nearest to be seen next; nil when no answer is of a later one.
  public var candidate: UInt64?
  /// Answers of that version or a later one that it was trained on.
  public var examples: UInt64
  /// Such answers that wait for its watermark.
  public var waiting: UInt64
  /// How many of this process's answers it takes.
  public var needed: UInt64
}

/// The answers of one version for one model, until it is served.
private struct Candidate: Sendable {
  let version: UInt64
  /// Examples that the model had been trained on when the first answer went out, as far as was known; nil until something is.
  var examplesBefore: UInt64?
  /// Answers that are trained.
  var trained: UInt64 = 0
  /// Answers by the watermark that makes them trained, ascending.
  var waiting: [(watermark: Milliseconds, count: UInt64)] = []

  static let waitingLimit = 64

  /// Counts answers; when there are too many times, some count with a later one.
  mutating func add(_ count: UInt64, at watermark: Milliseconds) {
    let place = waiting.firstIndex { $0.watermark >= watermark } ?? waiting.count
    if place < waiting.count, waiting[place].watermark == watermark {
      waiting[place].count += count
      return
    }
    waiting.insert((watermark, count), at: place)
    guard waiting.count > Self.waitingLimit else { return }
    func gap(_ place: Int) -> UInt64 {
      UInt64(bitPattern: waiting[place].watermark &- waiting[place - 1].watermark)
    }
    guard let nearest = (1..<waiting.count).min(by: { gap($0) < gap($1) }) else { return }
    waiting[nearest].count += waiting[nearest - 1].count
    waiting.remove(at: nearest - 1)
  }

  mutating func settle(watermark: Milliseconds) {
    let count = waiting.prefix { $0.watermark < watermark }.count
    trained += waiting[..<count].reduce(0) { $0 + $1.count }
    waiting.removeFirst(count)
  }

  /// Takes over a later version's answers: they count as this one's from now on.
  mutating func merge(_ later: Candidate) {
    trained += later.trained
    for wait in later.waiting { add(wait.count, at: wait.watermark) }
  }
}

/// What each downstream model was answered with, and what it has seen of it.
struct SeenVersions: Sendable {
  fileprivate struct Model: Sendable {
    let options: DownstreamModel
    let consumer: UInt64
    /// Answers are counted by event time in steps of this.
    let step: Int64
    var served: ServedVersions
    var candidates: [Candidate] = []
    /// Nil until a version has told.
    var examples: UInt64?
  }

  /// More versions than these are not told apart.
  static let candidateLimit = 64

  private let options: SeenOptions
  /// How many answers of this process it takes.
  private let needed: UInt64
  private var models: [Model]
  private let place: [String: Int]
  private var store: UInt64 = 0
  /// The newest version of the store.
  private var published: UInt64 = 0

  /// - Parameters:
  ///   - served: what was served before, by model; what was made before `now` counts as served to others.
  ///   - parts: among how many processes the users are dealt out.
  init(_ options: SeenOptions, served: [String: ServedVersions], parts: Int, now: Milliseconds) {
    self.options = options
    let parts = UInt64(max(1, parts))
    needed = max(1, options.examples / parts + (options.examples % parts > 0 ? 1 : 0))
    models = options.models.map { model in
      Model(
        options: model, consumer: Hashing.xxh3(model.name), step: min(60_000, max(1, model.windowMilliseconds / 32)),
        served: served[model.name] ?? ServedVersions(before: now))
    }
    place = Dictionary(options.models.enumerated().map { ($1.name, $0) }) { first, _ in first }
  }

  /// The place of a model; nil for one that does not wait for versions to be seen.
  func index(of model: String) -> Int? { place[model] }

  /// What is served, by model.
  var served: [String: ServedVersions] {
    Dictionary(models.map { ($0.options.name, $0.served) }) { first, _ in first }
  }

  /// What is served to all of some models, which are given by place.
  func served(toAll places: [Int]) -> ServedVersions {
    var result = models[places[0]].served
    for place in places.dropFirst() { result = result.intersected(with: models[place].served) }
    return result
  }

  /// What is served to some model, each state once.
  var states: [ServedVersions] { ServedVersions.states(models.map(\.served)) }

  /// Whether a user is answered with the newest version before others.
  func isEarly(_ user: UInt64) -> Bool {
    // Salted, so that the part is one of each process's users, and always the same.
    Double(Hashing.mix(user ^ 0x5eed_0f5e_e0b5_e55e) >> 11) < options.share * 0x1p53
  }

  /// A version is about to be used; it may be the first of another store.
  mutating func comes(_ version: UInt64, of store: UInt64, at now: Milliseconds) {
    if store != self.store {
      for index in models.indices {
        models[index].candidates = []
        models[index].served.begin(store: store, at: now)
        models[index].examples = nil
      }
      self.store = store
      published = 0
    }
    published = max(published, version)
  }

  /// Answers were given for some models.
  ///
  /// - Parameter version: of the newest entry of each, which was made under the present numbering.
  mutating func answered(_ places: [Int], version: UInt64, eventTime: Milliseconds, count: UInt64) {
    guard version <= published else { return }
    for place in places where version > models[place].served.current.version {
      let step = models[place].step
      // The end of the step the event time is in: no later than any answer in it, and a step at most.
      let end = eventTime.later(by: step - 1 - ((eventTime % step) + step) % step)
      let due = end.later(by: models[place].options.windowMilliseconds)
      models[place].count(version, count, trainedAt: due)
    }
  }

  /// A version says how far a model has been trained.
  mutating func progressed(_ consumer: UInt64, examples: UInt64, watermark: Milliseconds) {
    for index in models.indices where models[index].consumer == consumer {
      models[index].examples = examples
      for candidate in models[index].candidates.indices {
        let before = models[index].candidates[candidate].examplesBefore
        models[index].candidates[candidate].examplesBefore = before ?? examples
        models[index].candidates[candidate].settle(watermark: watermark)
      }
    }
  }

  /// By model the newest version that it has seen and is not served yet.
  func seen() -> [(place: Int, version: UInt64)] {
    models.indices.compactMap { place in
      var sum: UInt64 = 0
      for candidate in models[place].candidates.reversed() {
        sum += candidate.trained
        guard let examples = models[place].examples, let before = candidate.examplesBefore else { continue }
        if sum >= needed, examples >= before, examples - before >= options.examples {
          return (place, candidate.version)
        }
      }
      return nil
    }
  }

  /// Serves a version, and those before it, to a model.
  mutating func serve(_ version: UInt64, to place: Int) {
    models[place].served.serve(version)
    models[place].candidates.removeAll { $0.version <= version }
  }

  var status: [SeenStatus] {
    models.map { model in
      SeenStatus(
        model: model.options.name, served: model.served.current.version, candidate: model.candidates.first?.version,
        examples: model.candidates.reduce(0) { $0 + $1.trained },
        waiting: model.candidates.reduce(0) { $0 + $1.waiting.reduce(0) { $0 + $1.count } }, needed: needed)
    }
  }
}

extension SeenVersions.Model {
  fileprivate mutating func count(_ version: UInt64, _ count: UInt64, trainedAt watermark: Milliseconds) {
    var place = candidates.firstIndex { $0.version >= version } ?? candidates.count
    if place == candidates.count || candidates[place].version != version {
      // It comes after one that went into an older one: there its answers count, too.
      candidates.insert(Candidate(version: version, examplesBefore: examples), at: place)
      if candidates.count > SeenVersions.candidateLimit {
        thin()
        place = (candidates.firstIndex { $0.version > version } ?? candidates.count) - 1
      }
    }
    candidates[place].add(count, at: watermark)
  }

  /// Half of the versions count as the one before them, so that none counts too early.
  private mutating func thin() {
    var kept: [Candidate] = []
    for (place, candidate) in candidates.enumerated() {
      if place % 2 == 0 { kept.append(candidate) } else { kept[kept.count - 1].merge(candidate) }
    }
    candidates = kept
  }
}
