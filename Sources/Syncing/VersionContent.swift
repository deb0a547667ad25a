// A version: what changed since the one before, as it lies on disk and travels to replicas (docs/formats.md). A base is
// cut into parts of the same format; it replaces all a replica had.
//
// Layout, little-endian, arrays at multiples of 8: magic "GUIV", UInt16 format, UInt16 flags, UInt64 number, the sections
// below, and at the end a CRC-32C of all before it. Ids are sorted and delta-coded as varints; rows follow their ids.

public import Base
public import Wire

/// The weights of some rows of one table, and the ids that are gone.
public struct TableChange: Sendable {
  /// The table's name.
  public var table: String
  /// Weights per row.
  public var weightCount: Int
  /// Ids that are gone, ascending.
  public var tombstones: [UInt64]
  /// Ids with new weights, ascending.
  public var ids: [UInt64]
  /// `[ids × weightCount]`.
  public var weights: View<Float>

  /// A change from its parts.
  public init(table: String, weightCount: Int, tombstones: [UInt64], ids: [UInt64], weights: View<Float>) {
    self.table = table
    self.weightCount = weightCount
    self.tombstones = tombstones
    self.ids = ids
    self.weights = weights
  }
}

/// The new values of one dense tensor.
public struct TensorChange: Equatable, Sendable {
  /// Its name.
  public var name: String
  /// Its values.
  public var values: [Float]

  /// A change from its parts.
  public init(name: String, values: [Float]) {
    self.name = name
    self.values = values
  }
}

/// Everything a version says.
public struct VersionContent: Sendable {
  /// Its number; versions follow each other without gaps.
  public var number: UInt64
  /// For a base: which part this is, and how many there are.
  ///
  /// Nil for a version.
  public var basePart: (index: Int, count: Int)?
  /// Whether the next version belongs to it: what is in both becomes visible with the last of them.
  public var continues = false
  /// Whether its tombstones only lead back to an earlier state, so that they erase nothing.
  public var isReturn = false
  /// The version whose state this is while replicas are pinned to it; 0 while they follow the shards.
  public var pinned: UInt64 = 0
  /// When it was made, UTC milliseconds.
  public var created: Milliseconds
  /// The newest event time in it or before.
  public var newestEventTime: Milliseconds
  /// Examples applied on every shard so far, over all chains.
  public var exampleCount: UInt64
  /// Versions, rows, tombstones and bytes published up to and with this version.
  public var totals: Totals
  /// Per shard: the last epoch that is in it or before.
  public var epochs: [UInt64]
  /// Per shard: the identity of its journal.
  public var identities: [UInt64]
  /// How far each consumer's training is in it or before, by consumer.
  public var progress: [ConsumerProgress]
  /// Arrivals of actions whose examples are whole in this version and were not in the one before.
  public var arrivals: [ArrivalCount]
  /// Changed tables.
  public var tables: [TableChange]
  /// Dense tensors, when this version carries them.
  public var tensors: [TensorChange]
  /// The random number of the store it is of, as the message that brought it says; 0 where none did.
  ///
  /// Numbers begin anew with each store. Not part of the bytes.
  public var store: UInt64 = 0

  /// Running sums over all versions of a store.
  public struct Totals: Equatable, Sendable, BitwiseCopyable, Codable {
    /// Versions published.
    public var versions: UInt64 = 0
    /// Rows in them.
    public var rows: UInt64 = 0
    /// Tombstones in them.
    public var tombstones: UInt64 = 0
    /// Bytes of those before this one.
    public var bytes: UInt64 = 0
  }

  static let magic: UInt32 = 0x5649_5547
  /// As many as a shard keeps chains.
  static let consumerLimit = 1 << 16
  /// The format written; the one before it is read too.
  static let format: UInt16 = 3

  package init(
    number: UInt64, basePart: (index: Int, count: Int)?, created: Milliseconds, newestEventTime: Milliseconds,
    exampleCount: UInt64, totals: Totals = Totals(), epochs: [UInt64], identities: [UInt64],
    progress: [ConsumerProgress] = [],
    arrivals: [ArrivalCount], tables: [TableChange], tensors: [TensorChange]
  ) {
    self.number = number
    self.basePart = basePart
    self.created = created
    self.newestEventTime = newestEventTime
    self.exampleCount = exampleCount
    self.totals = totals
    self.epochs = epochs
    self.identities = identities
    self.progress = progress
    self.arrivals = arrivals
    self.tables = tables
    self.tensors = tensors
  }

  /// The version's bytes; rows are rounded to float16 when asked.
  public func encoded(halfPrecision: Bool) -> Blob {
    let rows = tables.reduce(0) { $0 + $1.ids.count * (4 * $1.weightCount + 4) }
    var writer = ByteWriter(capacity: 4096 + rows)
    writer.append(Self.magic)
    writer.append(Self.format)
    writer.append(UInt16((basePart == nil ? 0 : 1) | (continues ? 2 : 0) | (isReturn ? 4 : 0)))
    writer.append(number)
    writer.append(pinned)
    writer.append(UInt32(basePart?.index ?? 0))
    writer.append(UInt32(basePart?.count ?? 0))
    writer.append(created)
    writer.append(newestEventTime)
    writer.append(exampleCount)
    writer.append(totals)
    writer.append(UInt32(epochs.count))
    writer.append(UInt32(arrivals.count))
    writer.append(UInt32(tables.count))
    writer.append(UInt32(tensors.count))
    writer.append(UInt32(progress.count))
    writer.append(UInt32(0))
    writer.append(array: epochs)
    writer.append(array: identities)
    writer.append(array: progress)
    writer.append(array: arrivals)
    for table in tables { Self.append(table, halfPrecision: halfPrecision, into: &writer) }
    for tensor in tensors {
      writer.append(string: tensor.name)
      writer.append(UInt32(tensor.values.count))
      writer.align()
      writer.append(array: tensor.values)
    }
    writer.align()
    writer.append(Hashing.crc32c(writer.written))
    return writer.finish()
  }

  private static func append(_ table: TableChange, halfPrecision: Bool, into writer: inout ByteWriter) {
    writer.append(string: table.table)
    writer.append(UInt32(table.weightCount))
    writer.append(UInt32(table.tombstones.count))
    writer.append(UInt32(table.ids.count))
    writer.append(UInt32(halfPrecision ? 2 : 4))
    for ids in [table.tombstones, table.ids] {
      let coded = Varint.encode(sorted: ids)
      writer.append(UInt32(coded.count))
      writer.append(bytes: coded)
    }
    guard halfPrecision else {
      unsafe append(rows: table.weights.span.bytes, into: &writer)
      return
    }
    var halves = ByteWriter(capacity: table.weights.count * 2)
    let values = table.weights.span
    halves.append(UInt16.self, count: values.count) { target in
      for index in 0..<values.count { target[index] = Float16(values[index]).bitPattern }
    }
    append(rows: halves.written, into: &writer)
  }

  private static func append(rows: RawSpan, into writer: inout ByteWriter) {
    let compressed = Snappy.compress(rows)
    writer.append(UInt32(rows.byteCount))
    writer.append(UInt32(compressed?.count ?? 0))
    writer.align()
    if let compressed { writer.append(bytes: compressed) } else { writer.append(raw: rows) }
    writer.align()
  }

  /// Reads a version's bytes.
  /// - Throws: `DecodeError` for any bit that is not as written.
  public init(decoding content: ByteReader) throws(DecodeError) {
    var reader = content
    let start = reader.offset
    guard reader.remaining >= 8 else { throw .truncated(offset: 0, needed: 8, available: reader.remaining) }
    var tail = ByteReader(reader.blob, range: (start + reader.remaining - 4)..<(start + reader.remaining))
    let (stored, computed) = (try tail.read(UInt32.self), content.checksumOfAllBut(last: 4))
    guard stored == computed else {
      throw .invalid(field: "checksum", value: String(computed, radix: 16), expected: String(stored, radix: 16))
    }
    reader = ByteReader(reader.blob, range: start..<(start + reader.remaining - 4))
    var counts = SectionCounts()
    try self.init(headOf: &reader, counts: &counts)
    progress = try reader.view(ConsumerProgress.self, count: counts.progress).array
    arrivals = try reader.view(ArrivalCount.self, count: counts.arrivals).array
    for _ in 0..<counts.tables { tables.append(try Self.readTable(&reader)) }
    for _ in 0..<counts.tensors {
      let name = try reader.string()
      let count = Int(try reader.read(UInt32.self))
      try reader.align()
      tensors.append(TensorChange(name: name, values: try reader.view(Float.self, count: count).array))
    }
  }

  /// Whether some bytes are a version's as they were written.
  static func isWhole(_ blob: Blob) -> Bool {
    guard blob.count >= 8 else { return false }
    var tail = ByteReader(blob, range: blob.count - 4..<blob.count)
    return (try? tail.read(UInt32.self)) == ByteReader(blob).checksumOfAllBut(last: 4)
  }

  /// The most bytes that can come before the progress.
  static let headBytes = 128 + 16 * 4096

  /// Reads only what comes before the progress, arrivals, tables and tensors, from the beginning of a version's bytes.
  ///
  /// The checksum is not looked at: for lists, not for what is applied.
  init(head bytes: ByteReader) throws(DecodeError) {
    var reader = bytes
    var counts = SectionCounts()
    try self.init(headOf: &reader, counts: &counts)
  }

  private struct SectionCounts {
    var progress = 0
    var arrivals = 0
    var tables = 0
    var tensors = 0
  }

  private init(headOf reader: inout ByteReader, counts: inout SectionCounts) throws(DecodeError) {
    let magic = try reader.read(UInt32.self)
    let format = try reader.read(UInt16.self)
    guard magic == Self.magic, (Self.format - 1...Self.format).contains(format) else {
      throw .invalid(
        field: "version format", value: "\(format)", expected: "\(Self.format - 1) or \(Self.format)")
    }
    let flags = try reader.read(UInt16.self)
    let isBase = flags & 1 != 0
    continues = flags & 2 != 0
    isReturn = flags & 4 != 0
    number = try reader.read()
    pinned = try reader.read()
    let (part, parts) = (Int(try reader.read(UInt32.self)), Int(try reader.read(UInt32.self)))
    basePart = isBase ? (part, parts) : nil
    created = try reader.read()
    newestEventTime = try reader.read()
    exampleCount = try reader.read()
    totals = try reader.read()
    let shardCount = try reader.count("shards", limit: 4096)
    counts.arrivals = try reader.count("arrivals", limit: 1 << 24)
    counts.tables = try reader.count("tables", limit: WireProtocol.sectionLimit)
    counts.tensors = try reader.count("tensors", limit: WireProtocol.sectionLimit)
    if format > 2 {
      counts.progress = try reader.count("consumers", limit: Self.consumerLimit)
      _ = try reader.read(UInt32.self)
    }
    epochs = try reader.view(UInt64.self, count: shardCount).array
    identities = try reader.view(UInt64.self, count: shardCount).array
    progress = []
    arrivals = []
    tables = []
    tensors = []
  }

  private static func readTable(_ reader: inout ByteReader) throws(DecodeError) -> TableChange {
    let name = try reader.string()
    let weightCount = Int(try reader.read(UInt32.self))
    let tombstoneCount = Int(try reader.read(UInt32.self))
    let idCount = Int(try reader.read(UInt32.self))
    let bytesPerWeight = Int(try reader.read(UInt32.self))
    let tombstones = try Varint.decode(&reader, count: tombstoneCount)
    let ids = try Varint.decode(&reader, count: idCount)
    let rawBytes = Int(try reader.read(UInt32.self))
    let storedBytes = Int(try reader.read(UInt32.self))
    let (weights, overflow) = ids.count.multipliedReportingOverflow(by: weightCount)
    guard !overflow, bytesPerWeight == 2 || bytesPerWeight == 4, rawBytes == weights * bytesPerWeight else {
      throw .invalid(
        field: "rows of \(name)", value: "\(rawBytes) bytes", expected: "\(ids.count) × \(weightCount) weights")
    }
    try reader.align()
    var source = reader
    if storedBytes > 0 {
      source = ByteReader(try Snappy.decompress(reader.view(UInt8.self, count: storedBytes), count: rawBytes))
    } else {
      source = try reader.sub(count: rawBytes)
    }
    try reader.align()
    if bytesPerWeight == 4 {
      return TableChange(
        table: name, weightCount: weightCount, tombstones: tombstones, ids: ids,
        weights: try source.view(Float.self, count: weights))
    }
    let halves = try source.view(UInt16.self, count: weights)
    let values = halves.span
    var floats = ByteWriter(capacity: weights * 4)
    floats.append(Float.self, count: weights) { target in
      for index in 0..<values.count { target[index] = Float(Float16(bitPattern: values[index])) }
    }
    return TableChange(
      table: name, weightCount: weightCount, tombstones: tombstones, ids: ids,
      weights: try View<Float>(floats.finish(), byteOffset: 0, count: weights))
  }
}

extension ByteReader {
  /// CRC-32C of what is left but for the last bytes.
  fileprivate func checksumOfAllBut(last: Int) -> UInt32 {
    Hashing.crc32c(blob.bytes.extracting(offset..<(offset + remaining - last)))
  }
}

/// Sorted ids as the varints of their differences: 1.5 to 6.6 bytes per id, better than any general codec.
enum Varint {
  static func encode(sorted ids: [UInt64]) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(ids.count * 4)
    var previous: UInt64 = 0
    for id in ids {
      var rest = id &- previous
      previous = id
      while rest >= 0x80 {
        bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
        rest >>= 7
      }
      bytes.append(UInt8(rest))
    }
    return bytes
  }

  static func decode(_ reader: inout ByteReader, count: Int) throws(DecodeError) -> [UInt64] {
    let length = Int(try reader.read(UInt32.self))
    let bytes = try reader.view(UInt8.self, count: length)
    guard count <= length else { throw .truncated(offset: reader.offset, needed: count, available: length) }
    let span = bytes.span
    var ids: [UInt64] = []
    ids.reserveCapacity(count)
    var at = 0
    var previous: UInt64 = 0
    for _ in 0..<count {
      var value: UInt64 = 0
      var shift: UInt64 = 0
      while true {
        guard at < span.count, shift < 64 else {
          throw .truncated(offset: at, needed: 1, available: 0)
        }
        let byte = span[at]
        at += 1
        value |= UInt64(byte & 0x7F) << shift
        shift += 7
        if byte & 0x80 == 0 { break }
      }
      previous = previous &+ value
      ids.append(previous)
    }
    guard at == span.count else { throw .trailing(bytes: span.count - at) }
    return ids
  }
}
