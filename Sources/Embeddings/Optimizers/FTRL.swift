// FTRL-proximal with its own learning rate per weight. McMahan et al. 2013, algorithm 1.
// State: z, n. The kernel is in CKernels.

enum FTRL {
  static func stateCount(width: Int) -> Int { 2 * width }

  /// The z for which the rule's closed form gives back the weight a row begins with, so that it is not lost at the first
  /// step.
  static func initialZ(of weight: Float, alpha: Float, beta: Float, l1: Float, l2: Float) -> Float {
    guard weight != 0 else { return 0 }
    return -weight * (beta / alpha + l2) - (weight > 0 ? l1 : -l1)
  }
}
