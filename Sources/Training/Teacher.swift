// What keeps a user model's output steady from version to version: the trainer is pulled towards what an earlier version makes
// of the same batch. Who evaluates that version is not this module's; a trainer asks on its own thread.

internal import Layers
public import Streams

/// How strongly a user model's trainer is pulled towards its teacher (docs/user-modelling.md, "Stabilisation").
public struct Stabilization: Sendable, Equatable {
  /// λ: what the mean square of the embeddings' distance to the teacher's counts beside an example's loss.
  ///
  /// Default 0.
  public var regularization: Float = 0
  /// α: the share of the teacher's prediction in a label.
  ///
  /// Default 0.
  public var distillation: Float = 0

  /// None.
  public init() {}

  /// Whether a teacher is needed.
  public var isOn: Bool { regularization > 0 || distillation > 0 }
}

/// What an earlier version of a user model makes of a batch.
public struct Lesson: Sendable, Equatable {
  /// The version's number.
  public var version: UInt64
  /// Shape `[examples × embeddings × embeddingDimension]`.
  public var embeddings: [Float]
  /// As the model gives them, without any correction for sampled negatives; shape `[examples × tasks]`.
  public var logits: [Float]

  /// A lesson from its parts.
  public init(version: UInt64, embeddings: [Float], logits: [Float]) {
    self.version = version
    self.embeddings = embeddings
    self.logits = logits
  }

  /// Whether all its numbers are.
  var isFinite: Bool { embeddings.allSatisfy(\.isFinite) && logits.allSatisfy(\.isFinite) }

  /// That of some of the examples, of so many.
  func slice(_ range: Range<Int>, of examples: Int) -> Lesson {
    func part(_ values: [Float]) -> [Float] {
      let width = values.count / max(1, examples)
      return Array(values[range.lowerBound * width..<range.upperBound * width])
    }
    return Lesson(version: version, embeddings: part(embeddings), logits: part(logits))
  }
}

/// What a trainer says of its teacher.
public struct TeacherStatus: Sendable, Equatable {
  /// The version that taught the last batch; 0 for none yet.
  public var version: UInt64
  /// The mean square of the distance between the embeddings and its own, over about the last 10,000 examples.
  public var distance: Double
  /// Batches trained on without a lesson.
  public var untaughtBatches: UInt64

  init(_ counters: TrainerCore.Counters) {
    (version, distance, untaughtBatches) = (
      counters.teacherVersion, counters.teacherDistance, counters.untaughtBatches
    )
  }
}

/// The newest version of a model that is published, as its trainer sees it.
public protocol Teacher: Sendable {
  /// What it makes of a batch; nil while there is no version.
  func lesson(on columns: FeatureColumns) -> Lesson?
}

extension TrainerCore.Counters {
  /// Takes note of a batch's lesson and how far from it the batch was, summed over examples.
  mutating func note(_ lesson: Lesson, distance: Double, examples: Int) {
    teacherVersion = lesson.version
    taughtExamples += UInt64(examples)
    let mean = distance / Double(max(1, examples))
    teacherDistance += (mean - teacherDistance) * min(1, Double(examples) / Double(min(taughtExamples, 10_000)))
  }
}

extension TrainerOptions {
  /// The model; lessons are for those with user embeddings.
  func makeModel() throws(ModelError) -> any Model {
    let model = try Layers.makeModel(self.model)
    guard stabilization.isOn, !(model is any UserModel) else { return model }
    throw ModelError(problems: [
      "model.users.regularization or distillation is given for kind \(self.model.kind), which has no user embeddings; "
        + "leave it out, or use kind sum"
    ])
  }
}
