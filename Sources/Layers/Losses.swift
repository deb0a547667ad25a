// From logits to loss and its gradient.
// Tasks are independent: each has its own weights and masks, and a masked label is never looked at.

internal import Glibc

/// Losses of a batch.
public enum Losses {
  /// The probability of a logit, exact to float precision at both ends.
  @inlinable
  public static func sigmoid(_ logit: Float) -> Float {
    logit >= 0 ? 1 / (1 + exponential(-logit)) : exponential(logit) / (1 + exponential(logit))
  }

  /// Fills `probabilities` with the sigmoid of each logit.
  public static func probabilities(logits: [Float], into probabilities: inout [Float]) {
    probabilities.setCount(logits.count)
    for index in logits.indices { probabilities[index] = sigmoid(logits[index]) }
  }

  /// Weighted log-loss, summed per task, and its gradient by the logits.
  ///
  /// - Parameters:
  ///   - logits: `[examples × tasks]`.
  ///   - batch: labels and weights of the same shape; a weight of 0 masks its label, whatever the label holds.
  ///   - gradients: becomes weight × (sigmoid(logit) − label), 0 where masked.
  /// - Returns: per task Σ weight × log-loss; not clipped, so a certain and wrong prediction costs its logit.
  public static func weightedLogLoss(logits: [Float], batch: Batch, gradients: inout [Float]) -> [Double] {
    precondition(
      batch.labels.count == logits.count && batch.weights.count == logits.count && batch.exampleCount > 0
        ? logits.count % batch.exampleCount == 0 : logits.isEmpty,
      "\(logits.count) logits, \(batch.labels.count) labels and \(batch.weights.count) weights do not belong together")
    gradients.setCount(logits.count)
    guard batch.exampleCount > 0 else { return [] }
    let tasks = logits.count / batch.exampleCount
    var losses = [Double](repeating: 0, count: tasks)
    var task = 0
    for index in logits.indices {
      let weight = batch.weights[index]
      if weight == 0 {
        gradients[index] = 0
      } else {
        let logit = logits[index]
        let label = batch.labels[index]
        // One exponential serves both: with e = exp(−|z|), sigmoid(|z|) = 1 / (1 + e) and the loss is
        // max(z, 0) − z·y + log(1 + e).
        let small = exponential(-abs(logit))
        let upper = 1 / (1 + small)
        let probability = logit >= 0 ? upper : small * upper
        gradients[index] = weight * (probability - label)
        losses[task] += Double(weight * (max(logit, 0) - logit * label + log1pf(small)))
      }
      task = task + 1 == tasks ? 0 : task + 1
    }
    return losses
  }

  /// Turns the gradients of labels into those of labels that lean towards what a teacher predicts.
  ///
  /// A known label y counts as (1 − share) · y + share · sigmoid(teacher's logit), so the gradient becomes
  /// weight × (sigmoid(logit) − that).
  ///
  /// - Parameters:
  ///   - teacher: its logits `[examples × tasks]`.
  ///   - share: 0 for the labels alone, 1 for the teacher alone.
  ///   - gradients: what `weightedLogLoss` made of the same batch; where it is masked nothing changes.
  public static func distill(teacher: [Float], share: Float, batch: Batch, gradients: inout [Float]) {
    precondition(
      teacher.count == gradients.count && batch.labels.count == gradients.count,
      "\(teacher.count) logits of a teacher for \(batch.labels.count) labels and \(gradients.count) gradients")
    for index in gradients.indices where batch.weights[index] != 0 {
      gradients[index] += batch.weights[index] * share * (batch.labels[index] - sigmoid(teacher[index]))
    }
  }

  /// Fills the gradient of weight × the mean over an example's numbers of (e − e')², summed over examples.
  ///
  /// - Parameters:
  ///   - embeddings: e, `[examples × width]`.
  ///   - teacher: e', of the same shape.
  ///   - weight: λ.
  ///   - gradients: becomes 2 · λ / width × (e − e').
  /// - Returns: the mean of (e − e')², summed over examples and without the weight.
  public static func pull(
    _ embeddings: [Float], towards teacher: [Float], width: Int, weight: Float, gradients: inout [Float]
  ) -> Double {
    precondition(
      embeddings.count == teacher.count && width > 0 && embeddings.count % width == 0,
      "\(embeddings.count) numbers are pulled towards \(teacher.count), in rows of \(width)")
    gradients.setCount(embeddings.count)
    let scale = 2 * weight / Float(width)
    var squares = 0.0
    for index in embeddings.indices {
      let distance = embeddings[index] - teacher[index]
      gradients[index] = scale * distance
      squares += Double(distance) * Double(distance)
    }
    return squares / Double(width)
  }

  /// exp of a float; its own function because inlinable code cannot name Glibc.
  @usableFromInline
  static func exponential(_ x: Float) -> Float { expf(x) }
}
