// The bridge between serving, which can evaluate a version, and training, which wants to be pulled towards one. The trainer's
// thread alone asks it.

public import Serving
public import Streams
public import Training

/// The version that a predictor's store holds, as the teacher of a user model.
public struct VersionTeacher: Teacher {
  private let reading: UserModelReading

  /// The teacher of a model; nil when there is no such model, or it has no user embeddings.
  public init?(_ predictor: Predictor, model: String) {
    guard let reading = UserModelReading(predictor, model: model) else { return nil }
    self.reading = reading
  }

  /// What the version makes of a batch; nil while there is none.
  public func lesson(on columns: FeatureColumns) -> Lesson? {
    reading.output(of: columns).map {
      Lesson(version: $0.version.number, embeddings: $0.embeddings, logits: $0.logits)
    }
  }
}
