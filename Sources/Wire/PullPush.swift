// Reading and changing rows. Requests name tables by their index in `Welcome`.

public import Base

/// The ids one request wants of one table.
public struct IDSection: Sendable {
  /// The table's index.
  public var table: Int
  /// Distinct ids.
  public var ids: View<UInt64>
  /// How often each id occurs in the batch.
  public var sightings: View<UInt32>
  /// In a push: `[ids × weightCount]` gradients, summed per id.
  ///
  /// In a pull: empty.
  public var gradients: View<Float>
}

/// One dense tensor of a push or a pull reply.
public struct TensorSection: Sendable {
  /// The tensor's index.
  public var tensor: Int
  /// Its values or gradients.
  public var values: View<Float>
}

/// Builds pull requests; the fields follow docs/protocol.md.
public struct PullRequest: Sendable {
  /// The cluster map the request was grouped by.
  public var mapNumber: UInt64
  /// Event time at which rows past their time-to-live count as absent.
  public var eventTime: Milliseconds
  /// Whether the shard's dense tensors are wanted too.
  public var wantsDense: Bool
  /// How the rows are wanted.
  public var numbers: NumberType
  /// Ids per table.
  public var sections: [IDSection]

  /// Encodes a request; `sections` gives (table, ids, sightings).
  public static func encoded(
    request: UInt64, mapNumber: UInt64, eventTime: Milliseconds, wantsDense: Bool, numbers: NumberType = .float32,
    sections: [(table: Int, ids: [UInt64], sightings: [UInt32])]
  ) -> Blob {
    var writer = ByteWriter(capacity: 64 + sections.reduce(0) { $0 + 32 + $1.ids.count * 12 })
    MessageHeader(.pull, request: request).encode(into: &writer)
    writer.append(mapNumber)
    writer.append(eventTime)
    writer.append(UInt32(sections.count))
    writer.append(UInt16(wantsDense ? 1 : 0))
    writer.append(numbers.rawValue)
    for section in sections {
      writer.append(UInt32(section.table))
      writer.append(UInt32(section.ids.count))
      writer.append(array: section.ids)
      writer.append(array: section.sightings)
      writer.align()
    }
    return writer.finish()
  }

  /// Reads the body.
  public init(decoding reader: inout ByteReader) throws(DecodeError) {
    mapNumber = try reader.read()
    eventTime = try reader.read()
    let count = try reader.count("sections", limit: WireProtocol.sectionLimit)
    wantsDense = try reader.read(UInt16.self) & 1 == 1
    numbers = try NumberType(wire: UInt32(reader.read(UInt16.self)))
    sections = []
    for _ in 0..<count {
      let table = Int(try reader.read(UInt32.self))
      let ids = try reader.count("ids", limit: WireProtocol.idLimit)
      let idView = try reader.view(UInt64.self, count: ids)
      let sightings = try reader.view(UInt32.self, count: ids)
      try reader.align()
      sections.append(
        IDSection(
          table: table, ids: idView, sightings: sightings, gradients: try View(reader.blob, byteOffset: 0, count: 0)))
    }
    try reader.expectEnd()
  }
}

/// The answer to a pull: rows per section of the request, then the shard's dense tensors when they were wanted.
public struct PullReply: Sendable {
  /// The shard's incarnation.
  public var incarnation: UInt64
  /// Per section of the request: its rows' weights, `[ids × weightCount]`.
  public var rows: [View<Float>]
  /// The shard's dense tensors.
  public var tensors: [TensorSection]

  /// Begins a reply; the shard then writes each section with `beginNumbers` and its numbers.
  public static func begin(
    request: UInt64, incarnation: UInt64, sections: Int, tensors: Int, numbers: NumberType = .float32,
    into writer: inout ByteWriter
  ) {
    MessageHeader(.pull, .reply, request: request).encode(into: &writer)
    writer.append(incarnation)
    writer.append(UInt16(sections))
    writer.append(numbers.rawValue)
    writer.append(UInt32(tensors))
  }

  /// Writes the head of one section: its number (or tensor index) and how many numbers follow.
  public static func beginNumbers(number: Int, count: Int, into writer: inout ByteWriter) {
    writer.align()
    writer.append(UInt32(number))
    writer.append(UInt32(count))
  }

  /// Reads the body.
  public init(decoding reader: inout ByteReader) throws(DecodeError) {
    incarnation = try reader.read()
    let sectionCount = Int(try reader.read(UInt16.self))
    guard sectionCount <= WireProtocol.sectionLimit else {
      throw .overLimit(field: "sections", value: UInt64(sectionCount), limit: UInt64(WireProtocol.sectionLimit))
    }
    let type = try NumberType(wire: UInt32(reader.read(UInt16.self)))
    let tensorCount = try reader.count("tensors", limit: WireProtocol.sectionLimit)
    rows = []
    tensors = []
    for index in 0..<(sectionCount + tensorCount) {
      try reader.align()
      let number = Int(try reader.read(UInt32.self))
      let count = Int(try reader.read(UInt32.self))
      let floats = try reader.numbers(index < sectionCount ? type : .float32, count: count)
      if index < sectionCount {
        rows.append(floats)
      } else {
        tensors.append(TensorSection(tensor: number, values: floats))
      }
    }
    try reader.expectEnd()
  }
}

/// One batch's gradients for one shard.
public struct PushRequest: Sendable {
  /// The stamp.
  public var stamp: Stamp
  /// The cluster map the request was grouped by.
  public var mapNumber: UInt64
  /// Gradients per table.
  public var sections: [IDSection]
  /// Gradients of dense tensors.
  public var tensors: [TensorSection]
  /// When the actions behind the batch arrived.
  public var arrivals: View<ArrivalCount>

  /// Begins a push; sections, tensors and arrivals follow in that order.
  public static func begin(
    request: UInt64, stamp: Stamp, mapNumber: UInt64, sections: Int, tensors: Int, arrivals: [ArrivalCount],
    numbers: NumberType = .float32, into writer: inout ByteWriter
  ) {
    MessageHeader(.push, request: request).encode(into: &writer)
    writer.append(stamp)
    writer.append(mapNumber)
    writer.append(UInt32(sections))
    writer.append(UInt32(tensors))
    writer.append(UInt32(arrivals.count))
    writer.append(UInt32(numbers.rawValue))
    writer.append(array: arrivals)
  }

  /// Writes the head of one section: ids and sightings; `ids × weightCount` gradients follow, as
  /// `append(numbers:count:fill:)` writes them.
  public static func beginSection(
    table: Int, ids: [UInt64], sightings: [UInt32], floats: Int, into writer: inout ByteWriter
  ) {
    writer.align()
    writer.append(UInt32(table))
    writer.append(UInt32(ids.count))
    writer.append(UInt64(floats))
    writer.append(array: ids)
    writer.append(array: sightings)
    writer.align()
  }

  /// Writes one dense tensor's gradients.
  public static func append(tensor: Int, gradients: [Float], into writer: inout ByteWriter) {
    writer.align()
    writer.append(UInt32(tensor))
    writer.append(UInt32(gradients.count))
    writer.append(array: gradients)
  }

  /// Reads the body.
  public init(decoding reader: inout ByteReader) throws(DecodeError) {
    stamp = try reader.read()
    mapNumber = try reader.read()
    let sectionCount = try reader.count("sections", limit: WireProtocol.sectionLimit)
    let tensorCount = try reader.count("tensors", limit: WireProtocol.sectionLimit)
    let arrivalCount = try reader.count("arrivals", limit: 1 << 16)
    let type = try NumberType(wire: reader.read(UInt32.self))
    arrivals = try reader.view(ArrivalCount.self, count: arrivalCount)
    sections = []
    for _ in 0..<sectionCount {
      try reader.align()
      let table = Int(try reader.read(UInt32.self))
      let ids = try reader.count("ids", limit: WireProtocol.idLimit)
      let floats = try reader.read(UInt64.self)
      let idView = try reader.view(UInt64.self, count: ids)
      let sightings = try reader.view(UInt32.self, count: ids)
      try reader.align()
      let gradients = try reader.numbers(type, count: Int(clamping: floats))
      sections.append(IDSection(table: table, ids: idView, sightings: sightings, gradients: gradients))
    }
    tensors = []
    for _ in 0..<tensorCount {
      try reader.align()
      let tensor = Int(try reader.read(UInt32.self))
      let count = Int(try reader.read(UInt32.self))
      tensors.append(TensorSection(tensor: tensor, values: try reader.view(Float.self, count: count)))
    }
    try reader.expectEnd()
  }

  /// Gives an encoded push a new request number, for sending it again.
  public static func renumbered(_ message: Blob, request: UInt64) -> Blob {
    var writer = ByteWriter(capacity: message.count)
    writer.append(raw: message.bytes)
    writer.patch(request, at: 8)
    return writer.finish()
  }
}
