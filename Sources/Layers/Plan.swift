// While a model is put together its layers ask the plan for tensors and scratch slots; so each layer knows its own by
// number, and the model's list of tensors is what its layers asked for, in order.

/// The tensors and scratch slots handed out so far.
package struct Plan {
  /// The model's dense tensors.
  package private(set) var tensors: [DenseTensor] = []
  private var slots = 0

  /// Nothing handed out yet.
  package init() {}

  /// Adds a tensor and gives its number.
  mutating func tensor(_ name: String, _ shape: [Int], _ initial: DenseInitial) -> Int {
    tensors.append(DenseTensor(name: name, shape: shape, initial: initial))
    return tensors.count - 1
  }

  /// A scratch slot no one else has.
  mutating func slot() -> Int {
    defer { slots += 1 }
    return slots
  }
}
