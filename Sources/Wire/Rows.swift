// Row look-ups on replicas, for applications that want embeddings and no predictions.

public import Base

/// Asks a replica for the rows of some ids of one table; they may repeat.
public struct RowsRequest: Sendable {
  /// The most ids one request may name.
  public static let idLimit = 65_536
  /// The most bytes of rows one answer may have.
  public static let byteLimit = 64 << 20

  /// The table's name.
  public var table: String
  /// How the rows are to travel.
  public var numbers: NumberType
  /// The ids.
  public var ids: View<UInt64>

  /// The whole message.
  public static func encoded(table: String, ids: [UInt64], numbers: NumberType = .float32, request: UInt64) -> Blob {
    var writer = ByteWriter(capacity: 64 + table.utf8.count + 8 * ids.count)
    MessageHeader(.rows, request: request).encode(into: &writer)
    writer.append(UInt32(numbers.rawValue))
    writer.append(UInt32(ids.count))
    writer.append(string: table)
    writer.align()
    writer.append(array: ids)
    return writer.finish()
  }

  /// Reads the body.
  public init(decoding reader: inout ByteReader) throws(DecodeError) {
    numbers = try NumberType(wire: reader.read())
    let count = try reader.count("ids", limit: Self.idLimit)
    table = try reader.string()
    try reader.align()
    ids = try reader.view(count: count)
    try reader.expectEnd()
  }
}

/// The rows a replica has; the default row where it has none.
public struct RowsReply: Sendable {
  /// The version that is served.
  public var version: UInt64
  /// The newest event time in it.
  public var newestEventTime: Milliseconds
  /// How old it is, in milliseconds.
  public var lag: Int64
  /// Weights per row.
  public var width: Int
  /// By id: 1 when it has a row.
  public var found: View<UInt8>
  /// `[ids × width]`.
  public var weights: View<Float>

  /// The whole message.
  public static func encoded(
    request: UInt64, version: UInt64, newestEventTime: Milliseconds, lag: Int64, width: Int, numbers: NumberType,
    found: [UInt8], weights: [Float]
  ) -> Blob {
    var writer = ByteWriter(capacity: 80 + found.count + 4 * weights.count)
    MessageHeader(.rows, .reply, request: request).encode(into: &writer)
    writer.append(version)
    writer.append(newestEventTime)
    writer.append(lag)
    writer.append(UInt32(found.count))
    writer.append(UInt32(width))
    writer.append(UInt32(numbers.rawValue))
    writer.append(UInt32(0))
    writer.append(array: found)
    writer.align()
    if numbers == .float32 {
      writer.append(array: weights)
    } else {
      writer.append(numbers: numbers, count: weights.count) { target in
        for place in weights.indices { target[place] = weights[place] }
      }
    }
    return writer.finish()
  }

  /// Reads the body.
  public init(decoding reader: inout ByteReader) throws(DecodeError) {
    version = try reader.read()
    newestEventTime = try reader.read()
    lag = try reader.read()
    let count = try reader.count("ids", limit: RowsRequest.idLimit)
    width = try reader.count("weights per row", limit: 1 << 20)
    let numbers = try NumberType(wire: reader.read())
    _ = try reader.read(UInt32.self)
    found = try reader.view(count: count)
    try reader.align()
    let (total, overflow) = count.multipliedReportingOverflow(by: width)
    guard !overflow else { throw .invalid(field: "weights", value: "\(count) × \(width)", expected: "fewer") }
    weights = try reader.numbers(numbers, count: total)
    try reader.expectEnd()
  }
}
