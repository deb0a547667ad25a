// n += g²; w -= rate · g / (√n + 1e-10), as in torch.optim.Adagrad. Duchi, Hazan, Singer 2011.
// State: the sums of squares. The kernel is in CKernels.

enum AdaGrad {
  static func stateCount(width: Int) -> Int { width }
}
