// Heavy-ball momentum: v = beta · v + g; w -= rate · v, as in torch.optim.SGD(momentum:).
// State: the velocities. The kernel is in CKernels.

enum Momentum {
  static func stateCount(width: Int) -> Int { width }
}
