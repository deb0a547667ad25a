// The bytes of changed rows: what blocks and checkpoints hold of a table. A section explains itself: a header of
// counts, then arrays, each aligned to 8 bytes from the section's start. Applied in order: removed ids, counts, rows,
// sketch lines. Rows are absolute values, so applying sections again in order is harmless.

public import Base

/// Which counts of ids without a row a section holds.
public enum CountKind: UInt16, Sendable {
  /// None.
  case none = 0
  /// Exact counts.
  case exact = 1
  /// Raised estimates of a sketch.
  case sketch = 2
}

/// A parsed section, for sync and recovery: what changed, without applying it.
public struct CutSection: Sendable {
  static let magic: UInt32 = 0x4354_5247  // "GRTC"
  static let version: UInt16 = 1
  static let headerBytes = 64

  /// Ids of the rows in this section.
  public let ids: View<UInt64>
  /// Seconds each row was last seen at.
  public let seen: View<UInt32>
  /// How often each row was seen; empty when the table does not count it.
  public let frequencies: View<UInt32>
  /// `[rows × floatCount]`: weights, then optimizer state.
  public let floats: View<Float>
  /// Floats per row.
  public let floatCount: Int
  /// How many of them are weights.
  public let weightCount: Int
  /// Removed ids.
  ///
  /// They come before everything else in this section.
  public let tombstones: View<UInt64>
  /// Ids that have a count but no row.
  public let countedIDs: View<UInt64>
  /// Their counts, as the table encodes them.
  public let countedValues: View<UInt32>
  /// What the counts are.
  public let countKind: CountKind
  /// The number of the first sketch line here.
  public let firstSketchLine: UInt64
  /// Whole sketch lines of 64 bytes.
  public let sketchLines: View<UInt8>
  /// The table's watermark then, if it had one.
  public let watermark: Milliseconds?

  /// Reads one section at the reader's next multiple of eight bytes; refuses another number of weights than expected.
  public init(_ reader: inout ByteReader, weightCount expected: Int? = nil) throws(DecodeError) {
    try reader.align()
    let magic = try reader.read(UInt32.self)
    guard magic == Self.magic else { throw Self.invalid("section magic", magic, "\(Self.magic)") }
    let version = try reader.read(UInt16.self)
    guard version == Self.version else { throw Self.invalid("section version", version, "\(Self.version)") }
    let flags = try reader.read(UInt16.self)
    guard flags >> 3 == 0, let kind = CountKind(rawValue: flags >> 1) else {
      throw Self.invalid("section flags", flags, "0 to 5")
    }
    countKind = kind
    weightCount = try reader.count("weights per row", limit: TableOptions.largestWidth)
    floatCount = try reader.count("floats per row", limit: 4 * TableOptions.largestWidth)
    guard weightCount >= 1, floatCount >= weightCount else {
      throw Self.invalid("floats per row", floatCount, "at least the \(weightCount) weights, of which there is one")
    }
    if let expected, expected != weightCount { throw Self.invalid("weights per row", weightCount, "\(expected)") }
    let rows = try reader.count("rows", limit: Int(Int32.max))
    let removed = try reader.count("tombstones", limit: Int(Int32.max))
    let counted = try reader.count("counts", limit: Int(Int32.max))
    let lines = try reader.count("sketch lines", limit: Int(Int32.max))
    let time = try reader.read(Int64.self)
    watermark = time == .min ? nil : time
    firstSketchLine = try reader.read(UInt64.self)
    _ = try reader.view(UInt8.self, count: Self.headerBytes - 48)
    tombstones = try reader.view(count: removed)
    countedIDs = try reader.view(count: counted)
    countedValues = try reader.view(count: counted)
    try reader.align()
    ids = try reader.view(count: rows)
    seen = try reader.view(count: rows)
    try reader.align()
    frequencies = try reader.view(count: flags & 1 == 0 ? 0 : rows)
    try reader.align()
    floats = try reader.view(count: rows * floatCount)
    try reader.align()
    sketchLines = try reader.view(count: lines * Sketch.lineBytes)
  }

  private static func invalid(_ field: String, _ value: some BinaryInteger, _ expected: String) -> DecodeError {
    .invalid(field: field, value: "\(value)", expected: expected)
  }

  /// The weights of row `index`.
  ///
  /// Shape `[weightCount]`.
  @_lifetime(borrow self)
  public func weights(_ index: Int) -> Span<Float> {
    let all = floats.span
    let row = all.extracting(index * floatCount..<index * floatCount + weightCount)
    return unsafe _overrideLifetime(row, borrowing: self)
  }
}

/// The counts of a section about to be written.
struct SectionHeader {
  var weightCount: Int
  var floatCount: Int
  var rows = 0
  var tombstones = 0
  var counted = 0
  var countKind = CountKind.none
  var hasFrequencies: Bool
  var sketchLines = 0
  var firstSketchLine = 0
  var watermark: Milliseconds?

  /// Aligns the writer and writes the header; the arrays follow in the order of `CutSection.init`.
  func write(into writer: inout ByteWriter) {
    writer.align()
    let rowBytes = floatCount * 4 + 16
    writer.reserve(CutSection.headerBytes + rows * rowBytes + tombstones * 8 + counted * 12 + sketchLines * 64 + 64)
    writer.append(CutSection.magic)
    writer.append(CutSection.version)
    writer.append(countKind.rawValue << 1 | (hasFrequencies ? 1 : 0))
    for count in [weightCount, floatCount, rows, tombstones, counted, sketchLines] { writer.append(UInt32(count)) }
    writer.append(watermark ?? .min)
    writer.append(UInt64(firstSketchLine))
    writer.append(UInt64(0))
    writer.append(UInt64(0))
  }
}
