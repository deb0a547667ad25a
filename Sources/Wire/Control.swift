// What operators and the supervisor ask: erasure, digests, one row.

public import Base

/// Ids of one table, for `forget` and `inspect`.
public struct IDsRequest: Equatable, Sendable {
  /// The table's name.
  public var table: String
  /// The ids.
  public var ids: [UInt64]

  /// Ids of a table.
  public init(table: String, ids: [UInt64]) {
    self.table = table
    self.ids = ids
  }

  /// The whole message.
  public func encoded(_ opcode: Opcode, request: UInt64) -> Blob {
    var writer = ByteWriter()
    MessageHeader(opcode, request: request).encode(into: &writer)
    writer.append(string: table)
    writer.append(UInt32(ids.count))
    writer.align()
    writer.append(array: ids)
    return writer.finish()
  }

  /// Reads the body.
  public init(decoding reader: inout ByteReader) throws(DecodeError) {
    table = try reader.string()
    let count = try reader.count("ids", limit: WireProtocol.idLimit)
    try reader.align()
    ids = try reader.view(UInt64.self, count: count).array
    try reader.expectEnd()
  }
}

/// Asks a shard to write a checkpoint while it serves.
public struct CheckpointRequest: Equatable, Sendable {
  /// Its name; empty for one that the shard names and deletes in its time.
  public var name: String
  /// Whether all older checkpoints and blocks are deleted then, so that forgotten rows are nowhere on the disk.
  public var compacts: Bool

  /// A request for a checkpoint.
  public init(name: String = "", compacts: Bool = false) {
    self.name = name
    self.compacts = compacts
  }

  /// The whole message.
  public func encoded(request: UInt64) -> Blob {
    var writer = ByteWriter()
    MessageHeader(.checkpoint, request: request).encode(into: &writer)
    writer.append(UInt32(compacts ? 1 : 0))
    writer.append(string: name)
    return writer.finish()
  }

  /// Reads the body.
  public init(decoding reader: inout ByteReader) throws(DecodeError) {
    compacts = try reader.read(UInt32.self) & 1 == 1
    name = try reader.string(limit: 100)
    try reader.expectEnd()
  }
}

/// The weights a shard or a replica holds, as sums that do not depend on order (DESIGN 3.5).
public struct DigestReply: Equatable, Sendable, Codable {
  /// Per table: its rows and the wrapping sum of its row digests.
  public var tables: [String: Entry]
  /// Per dense tensor: how many numbers and their hash.
  public var tensors: [String: Entry]

  /// A count and a sum.
  public struct Entry: Equatable, Sendable, Codable {
    /// Rows, or numbers.
    public var count: UInt64
    /// The wrapping sum, or the hash.
    public var sum: UInt64

    /// An entry from its parts.
    public init(count: UInt64, sum: UInt64) {
      self.count = count
      self.sum = sum
    }
  }

  /// An empty digest.
  public init() {
    tables = [:]
    tensors = [:]
  }

  /// Adds another part of the cluster: other rows of the same tables, other tensors.
  public mutating func merge(_ other: DigestReply) {
    for (name, entry) in other.tables {
      let own = tables[name] ?? Entry(count: 0, sum: 0)
      tables[name] = Entry(count: own.count + entry.count, sum: own.sum &+ entry.sum)
    }
    tensors.merge(other.tensors) { $1 }
  }

  /// The hash of a dense tensor's numbers.
  public static func tensor(_ values: [Float]) -> Entry {
    Entry(count: UInt64(values.count), sum: unsafe Hashing.xxh3(values.span.bytes))
  }

  /// The whole message.
  public func encoded(request: UInt64) -> Blob {
    var writer = ByteWriter()
    MessageHeader(.digest, .reply, request: request).encode(into: &writer)
    for part in [tables, tensors] {
      writer.append(UInt32(part.count))
      for (name, entry) in part.sorted(by: { $0.key < $1.key }) {
        writer.append(string: name)
        writer.append(entry.count)
        writer.append(entry.sum)
      }
    }
    return writer.finish()
  }

  /// Reads the body.
  public init(decoding reader: inout ByteReader) throws(DecodeError) {
    self.init()
    for isTensor in [false, true] {
      for _ in 0..<(try reader.count("entries", limit: WireProtocol.sectionLimit)) {
        let name = try reader.string()
        let entry = Entry(count: try reader.read(), sum: try reader.read())
        if isTensor { tensors[name] = entry } else { tables[name] = entry }
      }
    }
    try reader.expectEnd()
  }
}
