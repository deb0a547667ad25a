// The rows of one column of a batch, added up per example without attention, and back. Whether the column fits its table
// is checked once, when this is made; the loops are C.

internal import CKernels

/// A column whose row numbers are known to lie in their table.
struct ColumnRows {
  private let column: FeatureColumn
  private let width: Int
  private let isMean: Bool
  private var examples: Int { column.offsets.count - 1 }

  /// - Parameter floats: of the table's rows, `width` each.
  init(_ column: FeatureColumn, _ floats: Int, width: Int, isMean: Bool) {
    self.column = column
    self.width = width
    self.isMean = isMean
    precondition(!column.offsets.isEmpty, "a column without offsets")
    let fits = unsafe guira_column_fits(
      column.offsets, column.offsets.count - 1, column.rows, column.rows.count, floats / max(1, width))
    precondition(fits != 0, "a column's rows leave its table of \(floats / max(1, width))")
  }

  /// x[example] += scale · Σ row over the example's occurrences, `count` numbers of each row from `from` on.
  ///
  /// - Parameters:
  ///   - place: where the first example's x begins; the others follow `stride` apart.
  func add(
    _ table: Span<Float>, from: Int, count: Int, to x: inout MutableSpan<Float>, at place: Int, stride: Int
  ) {
    guard examples > 0, count > 0, !column.rows.isEmpty else { return }
    Kernel.require(from, count, width)
    Kernel.require(place, (examples - 1) * stride + count, x.count)
    unsafe table.withUnsafeBufferPointer { table in
      unsafe x.withUnsafeMutableBufferPointer { x in
        unsafe guira_pool_rows(
          table.baseAddress! + from, width, count, column.offsets, column.rows, examples, isMean ? 1 : 0,
          x.baseAddress! + place, stride)
      }
    }
  }

  /// The way back: each row gets scale · dx of every example it occurs in.
  func addBack(
    _ dx: Span<Float>, at place: Int, stride: Int, to table: inout MutableSpan<Float>, from: Int, count: Int
  ) {
    guard examples > 0, count > 0, !column.rows.isEmpty else { return }
    Kernel.require(from, count, width)
    Kernel.require(place, (examples - 1) * stride + count, dx.count)
    unsafe dx.withUnsafeBufferPointer { dx in
      unsafe table.withUnsafeMutableBufferPointer { table in
        unsafe guira_pool_rows_backward(
          dx.baseAddress! + place, stride, count, column.offsets, column.rows, examples, isMean ? 1 : 0,
          table.baseAddress! + from, width)
      }
    }
  }
}
