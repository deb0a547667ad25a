// The dot products of all pairs of vectors: small matrices, one per example, too small to be worth a call of sgemm.
// Source: Naumov et al. 2019, "Deep Learning Recommendation Model", 2.1.3.

/// D[example, (i, j)] = ⟨z_i, z_j⟩ for j < i, from Z `[examples, vectors, dimension]`.
///
/// Pairs go row by row: (1,0), (2,0), (2,1), (3,0), …
package struct DotInteraction: Sendable {
  let vectors: Int
  let dimension: Int
  /// The pairs per example.
  package var pairs: Int { vectors * (vectors - 1) / 2 }
  /// `vectors` rounded up to whole SIMD8 blocks.
  private let padded: Int
  /// Forward one example's Zᵀ `[dimension, padded]`, backward its pair gradients as a symmetric matrix
  /// `[vectors, vectors]` with zeros in the diagonal.
  private let square: Int

  /// Pairs of `vectors` vectors of `dimension` numbers each.
  package init(vectors: Int, dimension: Int, plan: inout Plan) {
    self.vectors = vectors
    self.dimension = dimension
    padded = (vectors + 7) / 8 * 8
    square = plan.slot()
  }

  /// Writes the pairs of each example from `offset` on in the rows of `output`, which are `stride` apart.
  ///
  /// Works on Zᵀ: eight j at a time, so that no sum runs across the lanes of a register.
  package func forward(
    _ z: Span<Float>, examples: Int, scratch: inout Scratch, to output: inout MutableSpan<Float>, stride: Int,
    offset: Int
  ) {
    var buffer = scratch.takeCleared(square, count: max(dimension * padded, vectors * vectors))
    var transposed = buffer.mutableSpan
    Kernel.require(0, examples * vectors * dimension, z.count)
    Kernel.require(0, examples * stride, output.count)
    precondition(offset + pairs <= stride, "\(pairs) pairs from \(offset) on do not fit \(stride)")
    for example in 0..<examples {
      let start = example * vectors * dimension
      for i in 0..<vectors {
        for k in 0..<dimension {
          unsafe transposed[unchecked: k &* padded &+ i] = z[unchecked: start &+ i &* dimension &+ k]
        }
      }
      var place = example * stride + offset
      let columns = transposed.span
      for i in 1..<max(1, vectors) {
        let row = start &+ i &* dimension
        var j = 0
        while j < i {
          var lanes = SIMD8<Float>.zero
          for k in 0..<dimension {
            unsafe lanes += z[unchecked: row &+ k] * Kernel.eight(columns, k &* padded &+ j)
          }
          for lane in 0..<min(8, i &- j) { unsafe output[unchecked: place &+ j &+ lane] = lanes[lane] }
          j &+= 8
        }
        place += i
      }
    }
    scratch.put(square, buffer)
  }

  /// dz_i += Σ_{j ≠ i} dD(i, j) · z_j.
  package func backward(
    _ gradient: Span<Float>, stride: Int, offset: Int, z: Span<Float>, examples: Int, scratch: inout Scratch,
    addingTo dz: inout MutableSpan<Float>
  ) {
    var buffer = scratch.takeCleared(square, count: max(dimension * padded, vectors * vectors))
    var matrix = buffer.mutableSpan
    Kernel.require(0, examples * vectors * dimension, min(z.count, dz.count))
    Kernel.require(0, examples * stride, gradient.count)
    precondition(offset + pairs <= stride, "\(pairs) pairs from \(offset) on do not fit \(stride)")
    for example in 0..<examples {
      let start = example * vectors * dimension
      var place = example * stride + offset
      for i in 0..<vectors {
        for j in 0..<i {
          let value = unsafe gradient[unchecked: place &+ j]
          unsafe matrix[unchecked: i &* vectors &+ j] = value
          unsafe matrix[unchecked: j &* vectors &+ i] = value
        }
        place += i
      }
      for i in 0..<vectors {
        var k = 0
        while k &+ 8 <= dimension {
          var lanes = SIMD8<Float>.zero
          for j in 0..<vectors {
            unsafe lanes +=
              matrix[unchecked: i &* vectors &+ j] * Kernel.eight(z, start &+ j &* dimension &+ k)
          }
          for lane in 0..<8 { unsafe dz[unchecked: start &+ i &* dimension &+ k &+ lane] += lanes[lane] }
          k &+= 8
        }
        while k < dimension {
          var sum: Float = 0
          for j in 0..<vectors {
            unsafe sum += matrix[unchecked: i &* vectors &+ j] * z[unchecked: start &+ j &* dimension &+ k]
          }
          unsafe dz[unchecked: start &+ i &* dimension &+ k] += sum
          k &+= 1
        }
      }
    }
    scratch.put(square, buffer)
  }
}
