// What a pass remembers between forward and backward. Buffers only grow, so a steady stream of batches allocates
// nothing. Belongs to one thread at a time.

/// Working memory for one model on one thread; any model may use it, but not in the middle of another's batch.
public struct Scratch: Sendable {
  private var buffers: [[Float]] = []

  /// What the next batch's dropout is drawn from; nil, the default, to drop nothing, as a prediction wants.
  ///
  /// A trainer sets it before each forward to a function of the batch and the place in it.
  public var dropoutSeed: UInt64?

  /// Empty scratch; it grows to what its model needs with the first batch.
  public init() {}

  /// Moves a buffer of at least `count` numbers out, so that it can change while others are read; `put` brings it back.
  ///
  /// It holds what it held when it was put back, or anything where it had to grow.
  mutating func take(_ slot: Int, count: Int) -> [Float] {
    while buffers.count <= slot { buffers.append([]) }
    var buffer: [Float] = []
    swap(&buffer, &buffers[slot])
    if buffer.count < count {
      buffer.append(contentsOf: repeatElement(0, count: max(count, buffer.count * 3 / 2) - buffer.count))
    }
    return buffer
  }

  /// A buffer taken out as `take` does, with its first `count` numbers 0.
  mutating func takeCleared(_ slot: Int, count: Int) -> [Float] {
    var buffer = take(slot, count: count)
    var span = buffer.mutableSpan
    Kernel.clear(&span, at: 0, count: count)
    return buffer
  }

  /// Brings a buffer back into its slot.
  mutating func put(_ slot: Int, _ buffer: consuming [Float]) {
    buffers[slot] = buffer
  }
}
