// n += mean(g²) over the segment; w -= rate · g / (√n + 1e-10), as in DLRM and FBGEMM.
// State: one sum. The kernel is in CKernels.

enum RowWiseAdaGrad {
  static func stateCount(width: Int) -> Int { 1 }
}
