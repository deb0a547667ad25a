// The dense tensors of one shard, with their optimizers. Belongs to the shard's thread.

internal import Base
internal import Layers

/// Values and optimizer state of the tensors one shard owns.
struct DenseStore {
  struct Entry {
    let options: DenseTensorOptions
    let optimizer: DenseOptimizer
    var values: [Float]
    var state: [Float]
    var isChanged = false
  }

  /// By tensor index; nil for tensors of other shards.
  private(set) var entries: [Entry?]

  init(_ options: ShardOptions) {
    entries = options.tensors.map { tensor in
      guard options.map.shard(ofTensor: tensor.tensor.name) == options.index else { return nil }
      let optimizer = DenseOptimizer(tensor.optimizer)
      let values = tensor.tensor.initialValues(seed: options.seed)
      return Entry(
        options: tensor, optimizer: optimizer, values: values,
        state: optimizer.initialState(parameters: values.count))
    }
  }

  /// A tensor is one record of a block.
  ///
  /// - Throws: `RecoveryError` when one would be longer than the journal takes.
  func check(recordLimit limit: Int) throws(RecoveryError) {
    for entry in entries.compactMap({ $0 }) {
      let bytes = 64 + 4 * (entry.values.count + entry.state.count)
      guard bytes <= limit else {
        throw RecoveryError(
          description:
            "tensor '\(entry.options.tensor.name)' takes \(bytes) bytes with the state of its optimizer, a record "
            + "of the journal at most \(limit); make the model's layers smaller")
      }
    }
  }

  /// Takes one gradient; false, and nothing changed, when it is not finite.
  mutating func apply(gradient: Span<Float>, to tensor: Int, rateFactor: Float) -> Bool {
    guard var entry = entries[tensor] else { preconditionFailure("tensor \(tensor) lives on another shard") }
    entries[tensor] = nil  // so that the arrays inside are changed in place
    let isTaken = entry.optimizer.apply(
      gradient: gradient, values: &entry.values, state: &entry.state, rateFactor: rateFactor)
    if isTaken { entry.isChanged = true }
    entries[tensor] = entry
    return isTaken
  }

  /// - Throws: `RecoveryError` when the configuration has another shape or optimizer for the tensor.
  mutating func restore(tensor: Int, values: [Float], state: [Float]) throws(RecoveryError) {
    guard var entry = entries[tensor] else { return }
    guard entry.values.count == values.count, entry.state.count == state.count else {
      throw RecoveryError(
        description: "tensor '\(entry.options.tensor.name)' holds \(values.count) numbers and \(state.count) of its "
          + "optimizer in the files, \(entry.values.count) and \(entry.state.count) in the configuration; compare "
          + "the model's layers and denseOptimizer, or use another state directory")
    }
    entry.values = values
    entry.state = state
    entries[tensor] = entry
  }

  /// Records of all tensors, as they are.
  func all(epoch: UInt64) -> [Blob] {
    entries.indices.compactMap { index in
      entries[index].map {
        BlockRecord.encodeTensor(index: index, epoch: epoch, values: $0.values, state: $0.state)
      }
    }
  }

  /// Records of the tensors changed since the last call.
  mutating func takeChanges(epoch: UInt64) -> [Blob] {
    var records: [Blob] = []
    for index in entries.indices {
      guard let entry = entries[index], entry.isChanged else { continue }
      records.append(
        BlockRecord.encodeTensor(index: index, epoch: epoch, values: entry.values, state: entry.state))
      entries[index]?.isChanged = false
    }
    return records
  }
}
