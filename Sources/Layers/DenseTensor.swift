// Dense parameters: named tensors that live on the shards, with first values that depend on seed and name alone, so
// that every shard, replica and rerun begins with the same bits.

internal import Base
internal import Glibc

/// How a dense tensor begins.
public enum DenseInitial: Sendable, Equatable {
  /// All 0.
  case zeros
  /// All 1.
  case ones
  /// Uniform between −bound and bound.
  case uniform(bound: Float)
  /// Normal around 0.
  case normal(deviation: Float)
}

/// A named array of trained numbers that is not a table.
public struct DenseTensor: Sendable, Equatable {
  /// Its name, unique in the model, stable over versions.
  public var name: String
  /// Its shape, row-major.
  public var shape: [Int]
  /// How it begins.
  public var initial: DenseInitial

  /// A tensor.
  public init(name: String, shape: [Int], initial: DenseInitial) {
    self.name = name
    self.shape = shape
    self.initial = initial
  }

  /// How many numbers it has.
  public var count: Int { shape.reduce(1, *) }

  /// Its first values: a pure function of `seed`, name and shape.
  public func initialValues(seed: UInt64) -> [Float] {
    var random = SeededRandom(seed: Hashing.xxh3(name, seed: seed))
    switch initial {
    case .zeros: return [Float](repeating: 0, count: count)
    case .ones: return [Float](repeating: 1, count: count)
    case .uniform(let bound):
      return (0..<count).map { _ in bound * Float(2 * random.uniform() - 1) }
    case .normal(let deviation):
      // Box and Muller 1958; 1 − uniform is never 0.
      return (0..<count).map { _ in
        let radius = (-2 * log(1 - random.uniform())).squareRoot()
        return deviation * Float(radius * cos(2 * .pi * random.uniform()))
      }
    }
  }
}
