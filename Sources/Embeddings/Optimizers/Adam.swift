// As torch.optim.Adam, with steps counted per row, so that a rare id is corrected for its own few steps. Kingma and Ba 2015.
// State: first moments, second moments, step count. The kernel is in CKernels.

enum Adam {
  static func stateCount(width: Int) -> Int { 2 * width + 1 }
}
