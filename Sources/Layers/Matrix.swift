// Matrix products by OpenBLAS: the one place that knows it.
// Matrices are row-major runs of floats. A product is computed by the thread that asks for it.

internal import Base
internal import COpenBLAS

/// Products of dense matrices.
public enum Matrix {
  /// Takes OpenBLAS' own threads, one per core, out of use.
  ///
  /// Between products they spin for milliseconds, on cores that readers and other models wait for. Work is shared among our
  /// own threads (`ParallelPass`), by example.
  private static let isSingleThreaded: Void = openblas_set_num_threads(1)

  /// Lets OpenBLAS use more threads for as long as `body` runs, which nobody else may multiply in.
  static func withThreads<Result>(_ count: Int, _ body: () -> Result) -> Result {
    isSingleThreaded
    openblas_set_num_threads(Int32(clamping: max(1, count)))
    defer { openblas_set_num_threads(1) }
    return body()
  }

  /// C = A · B, or C += A · B, with either factor transposed as asked.
  ///
  /// - Parameters:
  ///   - a: `[m, k]`, or `[k, m]` when `aTransposed`.
  ///   - b: `[k, n]`, or `[n, k]` when `bTransposed`.
  ///   - c: `[m, n]`.
  static func multiply(
    _ a: Span<Float>, _ b: Span<Float>, aTransposed: Bool = false, bTransposed: Bool = false, m: Int, n: Int, k: Int,
    adding: Bool = false, to c: inout MutableSpan<Float>
  ) {
    precondition(
      m * k <= a.count && k * n <= b.count && m * n <= c.count,
      "[\(m), \(k)] · [\(k), \(n)] does not fit \(a.count), \(b.count) and \(c.count) floats")
    guard m > 0, n > 0, k > 0 else { return }
    isSingleThreaded
    unsafe a.withUnsafeBufferPointer { a in
      unsafe b.withUnsafeBufferPointer { b in
        unsafe c.withUnsafeMutableBufferPointer { c in
          unsafe cblas_sgemm(
            CblasRowMajor, aTransposed ? CblasTrans : CblasNoTrans, bTransposed ? CblasTrans : CblasNoTrans,
            Int32(m), Int32(n), Int32(k), 1, a.baseAddress, Int32(aTransposed ? m : k), b.baseAddress,
            Int32(bTransposed ? k : n), adding ? 1 : 0, c.baseAddress, Int32(n))
        }
      }
    }
  }
}

/// What matrix products alone reach on this machine: the limit of every model with wide layers.
public enum MatrixLimit {
  /// Floating-point operations per second of square products of 1,536 rows, the best of some.
  public static func operationsPerSecond(threads: Int, seconds: Double) -> Double {
    let size = 1536
    let a = (0..<size * size).map { Float($0 % 7) }
    let b = (0..<size * size).map { Float($0 % 5) }
    var c = [Float](repeating: 0, count: size * size)
    let end = Clocks.monotonic() + Int64(seconds * 1e9)
    var best = Int64.max
    Matrix.withThreads(threads) {
      repeat {
        let began = Clocks.monotonic()
        var target = c.mutableSpan
        Matrix.multiply(a.span, b.span, m: size, n: size, k: size, to: &target)
        best = min(best, Clocks.monotonic() - began)
      } while Clocks.monotonic() < end
    }
    return 2 * Double(size * size) * Double(size) / (Double(best) / 1e9)
  }
}
