// The factorization machine's pair term as a vector: what DeepFM feeds its heads beside the perceptron.
// It remembers the sum over features in scratch.

/// P[example, k] = Σ_{f<g} x_f[k] · x_g[k] = ½ ((Σ_f x_f)² − Σ_f x_f²), from X, whose first
/// numbers per example are `[features, dimension]`.
///
/// Its sum over k is the pair term of a factorization machine. Source: He and Chua 2017, "Neural Factorization
/// Machines", bi-interaction pooling.
struct PairInteraction: Sendable {
  let features: Int
  let dimension: Int
  /// Floats per example in X.
  private let width: Int
  /// Σ_f x_f, shape `[examples, dimension]`.
  private let sums: Int

  init(features: Int, dimension: Int, width: Int, plan: inout Plan) {
    self.features = features
    self.dimension = dimension
    self.width = width
    sums = plan.slot()
  }

  func forward(_ x: Span<Float>, examples: Int, scratch: inout Scratch, to p: inout MutableSpan<Float>) {
    var kept = scratch.take(sums, count: examples * dimension)
    var sum = kept.mutableSpan
    Kernel.clear(&sum, at: 0, count: examples * dimension)
    Kernel.clear(&p, at: 0, count: examples * dimension)
    Kernel.require(0, examples * width, x.count)
    for example in 0..<examples {
      let place = example * dimension
      for feature in 0..<features {
        let start = example * width + feature * dimension
        // The pairs (earlier features, this one): the same sum, without squares that cancel.
        for k in 0..<dimension {
          let value = unsafe x[unchecked: start &+ k]
          unsafe p[unchecked: place &+ k] += value * sum[unchecked: place &+ k]
          unsafe sum[unchecked: place &+ k] += value
        }
      }
    }
    scratch.put(sums, kept)
  }

  /// dX += dP ⊙ (Σ_g x_g − x_f).
  func backward(
    _ dp: Span<Float>, x: Span<Float>, examples: Int, scratch: inout Scratch, addingTo dx: inout MutableSpan<Float>
  ) {
    let kept = scratch.take(sums, count: examples * dimension)
    let sum = kept.span
    Kernel.require(0, examples * dimension, min(dp.count, sum.count))
    Kernel.require(0, examples * width, min(x.count, dx.count))
    for example in 0..<examples {
      let place = example * dimension
      for feature in 0..<features {
        let start = example * width + feature * dimension
        for k in 0..<dimension {
          unsafe dx[unchecked: start &+ k] +=
            dp[unchecked: place &+ k] * (sum[unchecked: place &+ k] - x[unchecked: start &+ k])
        }
      }
    }
    scratch.put(sums, kept)
  }
}
