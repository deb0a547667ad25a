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
  /// Where the pages end that `prepare` has seen to.
  private var ready = 0

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
    ready = min(ready, count * pieceBytes)
    unsafe munmap(pieces[count], pieceBytes)
  }

  /// Has the kernel make one page that is to be written soon, so that its clearing does not fall on a batch that has
  /// others to wait for: the first that is missing from the byte `next` on to `lead` bytes further.
  /// - Returns: whether there was one.
  mutating func prepare(next: Int, lead: Int) -> Bool {
    ready = max(ready, next / Self.hugePage * Self.hugePage)
    guard count > 1, ready < next + lead else { return false }
    if ready >= count * pieceBytes { append() }
    unsafe Self.makePage(pieces[ready / pieceBytes]! + ready % pieceBytes)
    ready += Self.hugePage
    return true
  }

  /// The same for the first page of a piece, for those who do not write from the first piece to the last.
  func preparePiece(_ piece: Int) { unsafe Self.makePage(pieces[piece]!) }

  private static func makePage(_ page: UnsafeMutableRawPointer) {
    // Kernels before 5.14 do not know it: there the first write makes the page.
    unsafe madvise(page, hugePage, 23)  // MADV_POPULATE_WRITE
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
