// Plain gradient descent: w -= rate · g.
// State: no state. The kernel is in CKernels.

enum SGD {
  static func stateCount(width: Int) -> Int { 0 }
}
