// The dot products of all pairs of vectors: small matrices, one per example, too small to be worth a call of sgemm.
// Source: Naumov et al. 2019, "Deep Learning Recommendation Model", 2.1.3.

internal import CKernels

/// D[example, (i, j)] = ⟨z_i, z_j⟩ for j < i, from Z `[examples, vectors, dimension]`.
///
/// Pairs go row by row: (1,0), (2,0), (2,1), (3,0), …
package struct DotInteraction: Sendable {
  let vectors: Int
  let dimension: Int
  /// The pairs per example.
  package var pairs: Int { vectors * (vectors - 1) / 2 }
  /// Working memory of one example.
  private let square: Int

  /// Pairs of `vectors` vectors of `dimension` numbers each.
  package init(vectors: Int, dimension: Int, plan: inout Plan) {
    self.vectors = vectors
    self.dimension = dimension
    square = plan.slot()
  }

  /// Writes the pairs of each example from `offset` on in the rows of `output`, which are `stride` apart.
  package func forward(
    _ z: Span<Float>, examples: Int, scratch: inout Scratch, to output: inout MutableSpan<Float>, stride: Int,
    offset: Int
  ) {
    requireShape(z.count, output.count, examples: examples, stride: stride, offset: offset)
    guard examples > 0, vectors > 0 else { return }
    var columns = scratch.take(square, count: dimension * ((vectors + 15) / 16 * 16))
    unsafe z.withUnsafeBufferPointer { z in
      unsafe output.withUnsafeMutableBufferPointer { output in
        unsafe guira_dot_pairs(
          z.baseAddress, examples, vectors, dimension, &columns, output.baseAddress! + offset, stride)
      }
    }
    scratch.put(square, columns)
  }

  /// dz_i += Σ_{j ≠ i} dD(i, j) · z_j.
  package func backward(
    _ gradient: Span<Float>, stride: Int, offset: Int, z: Span<Float>, examples: Int, scratch: inout Scratch,
    addingTo dz: inout MutableSpan<Float>
  ) {
    requireShape(min(z.count, dz.count), gradient.count, examples: examples, stride: stride, offset: offset)
    guard examples > 0, vectors > 0 else { return }
    let padded = (vectors + 7) / 8 * 8
    var matrix = scratch.take(square, count: padded * padded)
    unsafe gradient.withUnsafeBufferPointer { gradient in
      unsafe z.withUnsafeBufferPointer { z in
        unsafe dz.withUnsafeMutableBufferPointer { dz in
          unsafe guira_dot_pairs_backward(
            gradient.baseAddress! + offset, stride, z.baseAddress, examples, vectors, dimension, &matrix,
            dz.baseAddress)
        }
      }
    }
    scratch.put(square, matrix)
  }

  private func requireShape(_ z: Int, _ products: Int, examples: Int, stride: Int, offset: Int) {
    Kernel.require(0, examples * vectors * dimension, z)
    Kernel.require(0, examples * stride, products)
    precondition(offset >= 0 && offset + pairs <= stride, "\(pairs) pairs from \(offset) on do not fit \(stride)")
  }
}
