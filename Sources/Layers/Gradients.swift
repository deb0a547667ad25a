// What a trainer does to gradients before it sends them: the guard against NaN and the clip by norm.
// Pure functions of their arguments, on any thread.

/// Checks and clips of gradients, or of any numbers.
public enum Gradients {
  /// The first number that is NaN or infinite, or nil; divided by the row width it names the row.
  ///
  /// One pass at the memory's speed when there is none.
  public static func firstNonFinite(in values: [Float]) -> Int? {
    Kernel.isFinite(values.span) ? nil : values.firstIndex { !$0.isFinite }
  }

  /// The Euclidean norm of all the arrays taken as one vector.
  public static func norm(_ arrays: [[Float]]) -> Float {
    var sum = 0.0
    for array in arrays { sum += Double(Kernel.dot(array.span, at: 0, array.span, at: 0, count: array.count)) }
    return Float(sum.squareRoot())
  }

  /// Multiplies all numbers.
  public static func scale(_ arrays: inout [[Float]], by factor: Float) {
    for index in arrays.indices {
      var span = arrays[index].mutableSpan
      for i in 0..<span.count { unsafe span[unchecked: i] *= factor }
    }
  }
}
