// Counts before admission in bounded memory: a counting sketch whose four cells for an id lie in one cache line, raised
// together (conservative update), so that it never counts too little. Cells are as wide as the threshold needs. With
// ageing every line halves its cells once per period, when it is next touched.
// Owned by the table's thread.

internal import Base

/// A blocked count-min sketch.
///
/// A line is 64 bytes: the ageing period it is at (16 bits), then cells.
@safe struct Sketch: ~Copyable {
  static let lineBytes = 64
  private static let bytesPerID = 6
  private static let cellBytes = 62

  let lineCount: Int
  private let cellBits: Int
  private let cellsPerLine: UInt64
  private let salt: UInt64
  private var store: PageStore

  init(threshold: Int, ids: Int, salt: UInt64) {
    cellBits = threshold <= 16 ? 4 : threshold <= 256 ? 8 : 16
    cellsPerLine = UInt64(Self.cellBytes * 8 / cellBits)
    lineCount = max(1, (ids * Self.bytesPerID + Self.cellBytes - 1) / Self.cellBytes)
    self.salt = salt
    store = PageStore(pieceBytes: lineCount * Self.lineBytes)
    store.append()
  }

  var bytes: Int { lineCount * Self.lineBytes }

  /// How often an id was seen at most, before the present period's halvings are taken into account, at least.
  func estimate(_ id: UInt64, generation: UInt16) -> Int {
    let hash = Hashing.mix(id ^ salt)
    let line = unsafe line(of: hash)
    let halvings = unsafe Self.halvings(line, generation)
    var least = Int.max
    let cells = cells(of: hash)
    for index in cells.indices { least = min(least, unsafe read(line, cells[index]) >> halvings) }
    return least
  }

  /// Raises an id's cells to at least `count` as of a period.
  mutating func raise(_ id: UInt64, to count: Int, generation: UInt16) {
    let hash = Hashing.mix(id ^ salt)
    let line = unsafe line(of: hash)
    unsafe age(line, to: generation)
    // The line may be ahead when an older block is replayed over a newer scan: then the count is aged instead.
    let ahead = max(0, Int(Int16(bitPattern: unsafe line.load(as: UInt16.self) &- generation)))
    let count = min(count, (1 << cellBits) - 1) >> min(ahead, 16)
    let cells = cells(of: hash)
    for index in cells.indices where unsafe read(line, cells[index]) < count {
      unsafe write(line, cells[index], count)
    }
  }

  /// The bytes of one line, for a scan.
  @_lifetime(borrow self) func bytes(ofLine line: Int) -> RawSpan {
    precondition(line >= 0 && line < lineCount, "sketch line \(line) of \(lineCount)")
    let span = unsafe RawSpan(_unsafeStart: store.pieces[0]! + line * Self.lineBytes, byteCount: Self.lineBytes)
    return unsafe _overrideLifetime(span, borrowing: self)
  }

  /// Takes a line's bytes over from a scan.
  mutating func setLine(_ line: Int, _ bytes: Span<UInt8>) {
    precondition(line >= 0 && line < lineCount && bytes.count == Self.lineBytes, "sketch line \(line) of \(lineCount)")
    let to = unsafe store.pieces[0]! + line * Self.lineBytes
    for index in 0..<Self.lineBytes { unsafe to.storeBytes(of: bytes[index], toByteOffset: index, as: UInt8.self) }
  }

  private func line(of hash: UInt64) -> UnsafeMutableRawPointer {
    let number = Int(hash.multipliedFullWidth(by: UInt64(lineCount)).high)
    return unsafe store.pieces[0]! + number * Self.lineBytes
  }

  /// An id's cells within its line, by a second hash.
  private func cells(of hash: UInt64) -> InlineArray<4, Int> {
    let second = Hashing.mix(hash)
    return InlineArray { Int((((second >> UInt64($0 * 16)) & 0xFFFF) * cellsPerLine) >> 16) }
  }

  private static func halvings(_ line: UnsafeMutableRawPointer, _ generation: UInt16) -> Int {
    min(16, max(0, Int(Int16(bitPattern: generation &- (unsafe line.load(as: UInt16.self))))))
  }

  private func age(_ line: UnsafeMutableRawPointer, to generation: UInt16) {
    let halvings = unsafe Self.halvings(line, generation)
    guard halvings > 0 else { return }
    for cell in 0..<Int(cellsPerLine) { unsafe write(line, cell, read(line, cell) >> halvings) }
    unsafe line.storeBytes(of: generation, as: UInt16.self)
  }

  private func read(_ line: UnsafeMutableRawPointer, _ cell: Int) -> Int {
    switch cellBits {
    case 4: Int(unsafe line.load(fromByteOffset: 2 + cell / 2, as: UInt8.self) >> (cell % 2 * 4)) & 15
    case 8: Int(unsafe line.load(fromByteOffset: 2 + cell, as: UInt8.self))
    default: Int(unsafe line.load(fromByteOffset: 2 + cell * 2, as: UInt16.self))
    }
  }

  private func write(_ line: UnsafeMutableRawPointer, _ cell: Int, _ value: Int) {
    switch cellBits {
    case 4:
      let byte = unsafe line.load(fromByteOffset: 2 + cell / 2, as: UInt8.self)
      let shift = cell % 2 * 4
      let changed = byte & ~(15 << shift) | UInt8(value) << shift
      unsafe line.storeBytes(of: changed, toByteOffset: 2 + cell / 2, as: UInt8.self)
    case 8: unsafe line.storeBytes(of: UInt8(value), toByteOffset: 2 + cell, as: UInt8.self)
    default: unsafe line.storeBytes(of: UInt16(value), toByteOffset: 2 + cell * 2, as: UInt16.self)
    }
  }
}
