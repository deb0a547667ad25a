// Memory for the table's big arrays: pieces of a fixed size straight from the kernel, which never move and are given
// back when they are empty. Huge pages are asked for from the second piece on, so that a small table stays small.
// Owned by the table's thread.

internal import Glibc

/// Pieces of `pieceBytes` bytes each, aligned to two mebibytes and zero at first.
@safe struct PageStore: ~Copyable {
  static let hugePage = 2 << 20
  let pieceBytes: Int
  /// The pieces' addresses.
  ///
  /// Moves when `append` is called, the pieces do not.
  private(set) var pieces: UnsafeMutablePointer<UnsafeMutableRawPointer?>
  private var capacity = 8
  private(set) var count = 0

  init(pieceBytes: Int) {
    self.pieceBytes = (pieceBytes + Self.hugePage - 1) / Self.hugePage * Self.hugePage
    unsafe pieces = .allocate(capacity: capacity)
  }

  deinit {
    for piece in 0..<count { unsafe munmap(pieces[piece], pieceBytes) }
    unsafe pieces.deallocate()
  }

  mutating func append() {
    if count == capacity {
      let larger = UnsafeMutablePointer<UnsafeMutableRawPointer?>.allocate(capacity: capacity * 2)
      unsafe larger.update(from: pieces, count: count)
      unsafe pieces.deallocate()
      unsafe pieces = unsafe larger
      capacity *= 2
    }
    unsafe pieces[count] = unsafe Self.map(pieceBytes, huge: count > 0)
    if count == 1 { unsafe madvise(pieces[0], pieceBytes, MADV_HUGEPAGE) }
    count += 1
  }

  mutating func removeLast() {
    count -= 1
    unsafe munmap(pieces[count], pieceBytes)
  }

  private static func map(_ bytes: Int, huge: Bool) -> UnsafeMutableRawPointer {
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
    guard let wide = unsafe mmap(nil, bytes + hugePage, PROT_READ | PROT_WRITE, flags, -1, 0), unsafe wide != MAP_FAILED
    else { preconditionFailure("out of memory: \(bytes) bytes for a table") }
    let before = (hugePage - Int(bitPattern: wide) % hugePage) % hugePage
    if before > 0 { unsafe munmap(wide, before) }
    let piece = unsafe wide + before
    if before < hugePage { unsafe munmap(piece + bytes, hugePage - before) }
    if huge { unsafe madvise(piece, bytes, MADV_HUGEPAGE) }
    return unsafe piece
  }
}
