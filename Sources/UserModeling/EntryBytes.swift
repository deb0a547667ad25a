// The bytes of an entry, the same in the journal and in Redis (docs/formats.md, "User embeddings"). Little-endian:
// UInt16 format, UInt16 number type (0 float32, 1 float16), UInt32 K, UInt32 D, UInt32 flags (1: the model had a row of the
// user's), UInt64 model version, Int64 event time, Int64 made at, then K × D numbers.

package import Base
internal import Wire

/// Entries to bytes and back.
package enum EntryBytes {
  static let formatVersion: UInt16 = 1
  private static let headerBytes = 40

  static func append(_ entry: EmbeddingEntry, half: Bool, to writer: inout ByteWriter) {
    writer.append(formatVersion)
    let numbers = half ? NumberType.float16 : .float32
    writer.append(numbers.rawValue)
    writer.append(UInt32(entry.shape.count))
    writer.append(UInt32(entry.shape.dimension))
    writer.append(UInt32(entry.hadRow ? 1 : 0))
    writer.append(entry.version)
    writer.append(entry.eventTime)
    writer.append(entry.madeAt)
    writer.append(numbers: numbers, count: entry.values.count) { target in
      for index in entry.values.indices { target[index] = entry.values[index] }
    }
  }

  package static func encode(_ entry: EmbeddingEntry, half: Bool) -> [UInt8] {
    var writer = ByteWriter(capacity: headerBytes + entry.values.count * 4)
    append(entry, half: half, to: &writer)
    return writer.finish().array
  }

  package static func decode(_ reader: inout ByteReader) throws(DecodeError) -> EmbeddingEntry {
    let format = try reader.read(UInt16.self)
    guard format == formatVersion else {
      throw .invalid(field: "entry format", value: "\(format)", expected: "\(formatVersion)")
    }
    let numbers = try NumberType(wire: UInt32(try reader.read(UInt16.self)))
    let count = try reader.count("embeddings", limit: EmbeddingShape.widthLimit)
    let dimension = try reader.count("numbers in an embedding", limit: EmbeddingShape.widthLimit)
    let flags = try reader.read(UInt32.self)
    guard flags <= 1 else { throw .invalid(field: "flags", value: "\(flags)", expected: "0 or 1") }
    let shape = EmbeddingShape(count: count, dimension: dimension)
    guard count > 0, dimension > 0, shape.width <= EmbeddingShape.widthLimit else {
      throw .invalid(field: "shape", value: "\(shape)", expected: "1 to \(EmbeddingShape.widthLimit) numbers")
    }
    let version = try reader.read(UInt64.self)
    let eventTime = try reader.read(Milliseconds.self)
    let madeAt = try reader.read(Milliseconds.self)
    let values = try reader.numbers(numbers, count: shape.width).array
    return EmbeddingEntry(
      version: version, eventTime: eventTime, madeAt: madeAt, shape: shape, values: values, hadRow: flags == 1)
  }

  static func decode(_ bytes: [UInt8]) throws(DecodeError) -> EmbeddingEntry {
    var reader = ByteReader(Blob(bytes))
    let entry = try decode(&reader)
    try reader.expectEnd()
    return entry
  }
}
