// Initial values, by kernels whose results depend on the seed and the place alone.

internal import CKernels

extension Initializer {
  /// Fills the weights of one segment.
  func fill(_ weights: UnsafeMutablePointer<Float>, count: Int, seed: UInt64) {
    switch self {
    case .zeros: unsafe weights.update(repeating: 0, count: count)
    case .constant(let value): unsafe weights.update(repeating: value, count: count)
    case .uniform(let bound): unsafe guira_fill_uniform(weights, count, seed, bound)
    case .normal(let deviation): unsafe guira_fill_normal(weights, count, seed, deviation)
    }
  }
}
