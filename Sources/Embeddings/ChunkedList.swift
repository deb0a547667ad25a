// A list that grows without ever moving what it holds, so that no append stalls; its chunks are kept for the next
// epoch. Owned by the table's thread.

/// An append-only list in chunks of 8,192 elements.
@safe struct ChunkedList<Element: BitwiseCopyable>: ~Copyable {
  private static var chunkCount: Int { 8192 }
  private var chunks: [UnsafeMutablePointer<Element>] = unsafe []
  private(set) var count = 0

  init() {}

  deinit {
    for place in unsafe chunks.indices { unsafe chunks[place].deallocate() }
  }

  @inline(__always) mutating func append(_ element: Element) {
    let chunk = count / Self.chunkCount
    if unsafe chunk == chunks.count { unsafe chunks.append(.allocate(capacity: Self.chunkCount)) }
    unsafe (chunks[chunk] + count % Self.chunkCount).initialize(to: element)
    count += 1
  }

  @inline(__always) subscript(index: Int) -> Element {
    precondition(index >= 0 && index < count, "element \(index) of \(count)")
    return unsafe chunks[index / Self.chunkCount][index % Self.chunkCount]
  }

  /// Appends the elements of a range to an array.
  func copy(_ range: Range<Int>, to array: inout [Element]) {
    precondition(range.lowerBound >= 0 && range.upperBound <= count, "elements \(range) of \(count)")
    var next = range.lowerBound
    while next < range.upperBound {
      let (chunk, place) = next.quotientAndRemainder(dividingBy: Self.chunkCount)
      let part = min(Self.chunkCount - place, range.upperBound - next)
      unsafe array.append(contentsOf: UnsafeBufferPointer(start: chunks[chunk] + place, count: part))
      next += part
    }
  }

  /// Forgets the elements; keeps the chunks a next epoch of the same size needs.
  mutating func clear() {
    let needed = (count + Self.chunkCount - 1) / Self.chunkCount
    while unsafe chunks.count > max(needed, 1) { unsafe chunks.removeLast().deallocate() }
    count = 0
  }

  var bytes: Int { unsafe chunks.count * Self.chunkCount * MemoryLayout<Element>.stride }
}
