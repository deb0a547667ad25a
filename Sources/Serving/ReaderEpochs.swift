// Epoch-based reclamation: how memory that readers can reach is used again without making them wait. Readers mark when
// they are inside a read section; what the writer took out of sight is released once every section that was open then
// has closed. Any thread may read; one thread at a time retires.

internal import Synchronization

/// Knows which readers are inside a read section, and since when.
///
/// unchecked because: the slots are atomics in memory that lives as long as the object, and never moves.
@safe final class ReaderEpochs: @unchecked Sendable {
  /// The most readers that can be registered at once.
  static let readerLimit = 1024
  /// The value of a slot whose reader is outside a read section.
  private static let outside = UInt64.max
  /// One slot per cache line, so that readers do not disturb each other.
  private static let slotStride = 8

  private let epoch = Atomic<UInt64>(1)
  private let slots: UnsafeMutablePointer<Atomic<UInt64>>
  /// Slots `0..<used` have had a reader at some time; the writer looks at no others.
  private let used = Atomic<Int>(0)
  private let freeSlots: Mutex<[Int]>

  init() {
    let words = Self.readerLimit * Self.slotStride
    unsafe slots = .allocate(capacity: words)
    for word in 0..<words { unsafe (slots + word).initialize(to: Atomic(Self.outside)) }
    freeSlots = Mutex((0..<Self.readerLimit).reversed())
  }

  deinit {
    unsafe slots.deinitialize(count: Self.readerLimit * Self.slotStride)
    unsafe slots.deallocate()
  }

  fileprivate func takeSlot() -> Int {
    let slot = freeSlots.withLock { $0.popLast() }
    guard let slot else { preconditionFailure("more than \(Self.readerLimit) readers of one store") }
    used.max(slot + 1, ordering: .sequentiallyConsistent)
    return slot
  }

  fileprivate func giveBack(_ slot: Int) {
    freeSlots.withLock { $0.append(slot) }
  }

  fileprivate func enter(_ slot: Int) {
    unsafe slots[slot * Self.slotStride].store(epoch.load(ordering: .acquiring), ordering: .relaxed)
    // Either the writer sees this section open, or this section sees all that the writer did before it looked.
    atomicMemoryFence(ordering: .sequentiallyConsistent)
  }

  fileprivate func leave(_ slot: Int) {
    unsafe slots[slot * Self.slotStride].store(Self.outside, ordering: .releasing)
  }

  /// Ends the current epoch, after the writer has taken something out of sight; gives the epoch that ended.
  func advance() -> UInt64 {
    epoch.wrappingAdd(1, ordering: .sequentiallyConsistent).oldValue
  }

  /// The last epoch that no reader can still be in; what was taken out of sight in it, or before, has no reader left.
  func lastQuiet() -> UInt64 {
    let now = epoch.load(ordering: .relaxed)
    atomicMemoryFence(ordering: .sequentiallyConsistent)
    var oldest = now
    for slot in 0..<used.load(ordering: .sequentiallyConsistent) {
      oldest = unsafe min(oldest, slots[slot * Self.slotStride].load(ordering: .acquiring))
    }
    return oldest - 1
  }
}

/// The right to read: one per thread, or handed from thread to thread, never used by two at once.
final class EpochReader: Sendable {
  private let epochs: ReaderEpochs
  private let slot: Int

  init(_ epochs: ReaderEpochs) {
    self.epochs = epochs
    slot = epochs.takeSlot()
  }

  deinit { epochs.giveBack(slot) }

  /// A read section: what `body` reaches stays as long as it runs.
  ///
  /// Sections of one reader do not nest.
  func read<Result, Failure: Error>(_ body: () throws(Failure) -> Result) throws(Failure) -> Result {
    epochs.enter(slot)
    defer { epochs.leave(slot) }
    return try body()
  }
}
