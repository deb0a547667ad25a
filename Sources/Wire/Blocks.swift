// How sync reads what changed: records of blocks after an epoch, and scans of whole tables.

public import Base

/// Asks for the records of synced blocks after an epoch; answered when there are some or the wait is over.
public struct BlocksRequest: Equatable, Sendable {
  /// The last epoch the asker has whole; 0 for none.
  public var afterEpoch: UInt64
  /// How many records of the epoch after it the asker already has.
  public var skipRecords: UInt32
  /// How long the shard may wait for a new block before it answers with none, milliseconds.
  public var waitMilliseconds: UInt32
  /// The last epoch the asker has made durable: blocks up to it need not be kept for it.
  public var persistedEpoch: UInt64
  /// About how many bytes the answer may have.
  public var maximumBytes: UInt64

  /// A request from its parts.
  public init(
    afterEpoch: UInt64, skipRecords: UInt32, waitMilliseconds: UInt32, persistedEpoch: UInt64,
    maximumBytes: UInt64 = 16 << 20
  ) {
    self.afterEpoch = afterEpoch
    self.skipRecords = skipRecords
    self.waitMilliseconds = waitMilliseconds
    self.persistedEpoch = persistedEpoch
    self.maximumBytes = maximumBytes
  }

  /// The whole message.
  public func encoded(request: UInt64) -> Blob {
    var writer = ByteWriter()
    MessageHeader(.blocksSince, request: request).encode(into: &writer)
    writer.append(afterEpoch)
    writer.append(skipRecords)
    writer.append(waitMilliseconds)
    writer.append(persistedEpoch)
    writer.append(maximumBytes)
    return writer.finish()
  }

  /// Reads the body.
  public init(decoding reader: inout ByteReader) throws(DecodeError) {
    afterEpoch = try reader.read()
    skipRecords = try reader.read()
    waitMilliseconds = try reader.read()
    persistedEpoch = try reader.read()
    maximumBytes = try reader.read()
    try reader.expectEnd()
  }
}

/// One record of a block as it travels: which block, its place in it, its bytes.
public struct BlockRecordEntry: Sendable {
  /// The block's epoch.
  public var epoch: UInt64
  /// The record's place in the block.
  public var index: UInt32
  /// The record's bytes, at a multiple of 8 in the frame.
  public var payload: ByteReader

  /// An entry from its parts.
  public init(epoch: UInt64, index: UInt32, payload: ByteReader) {
    self.epoch = epoch
    self.index = index
    self.payload = payload
  }
}

/// The answer to `BlocksRequest`.
public struct BlocksReply: Sendable {
  /// The shard's incarnation.
  public var incarnation: UInt64
  /// The identity of the shard's journal; a new one means: take a new base.
  public var identityHigh: UInt64
  /// Its lower half.
  public var identityLow: UInt64
  /// The last epoch whose block is synced.
  public var durableEpoch: UInt64
  /// Records in order.
  public var records: [BlockRecordEntry]

  /// A reply from its parts.
  public init(
    incarnation: UInt64, identityHigh: UInt64, identityLow: UInt64, durableEpoch: UInt64, records: [BlockRecordEntry]
  ) {
    self.incarnation = incarnation
    self.identityHigh = identityHigh
    self.identityLow = identityLow
    self.durableEpoch = durableEpoch
    self.records = records
  }

  /// The whole message.
  public func encoded(request: UInt64) -> Blob {
    var writer = ByteWriter(capacity: 128 + records.reduce(0) { $0 + 32 + $1.payload.remaining })
    MessageHeader(.blocksSince, .reply, request: request).encode(into: &writer)
    writer.append(incarnation)
    writer.append(identityHigh)
    writer.append(identityLow)
    writer.append(durableEpoch)
    writer.append(UInt32(records.count))
    writer.append(UInt32(0))
    for record in records {
      writer.align()
      writer.append(record.epoch)
      writer.append(record.index)
      writer.append(UInt32(record.payload.remaining))
      writer.append(
        raw: record.payload.blob.bytes.extracting(
          record.payload.offset..<(record.payload.offset + record.payload.remaining)))
    }
    return writer.finish()
  }

  /// Reads the body.
  public init(decoding reader: inout ByteReader) throws(DecodeError) {
    incarnation = try reader.read()
    identityHigh = try reader.read()
    identityLow = try reader.read()
    durableEpoch = try reader.read()
    let count = try reader.count("records", limit: 1 << 20)
    _ = try reader.read(UInt32.self)
    records = []
    for _ in 0..<count {
      try reader.align()
      let epoch = try reader.read(UInt64.self)
      let index = try reader.read(UInt32.self)
      let length = Int(try reader.read(UInt32.self))
      records.append(BlockRecordEntry(epoch: epoch, index: index, payload: try reader.sub(count: length)))
    }
    try reader.expectEnd()
  }
}

/// Asks for one slice of a table's rows.
///
/// The rows are read as they are now; later blocks bring what changes meanwhile.
public struct ScanRequest: Equatable, Sendable {
  /// The table's index.
  public var table: UInt32
  /// About how many rows.
  public var rows: UInt32
  /// 0 at first, then what the last answer said.
  public var cursor: UInt64

  /// A request from its parts.
  public init(table: Int, rows: Int, cursor: UInt64) {
    self.table = UInt32(table)
    self.rows = UInt32(rows)
    self.cursor = cursor
  }

  /// The whole message.
  public func encoded(request: UInt64) -> Blob {
    var writer = ByteWriter()
    MessageHeader(.scan, request: request).encode(into: &writer)
    writer.append(table)
    writer.append(rows)
    writer.append(cursor)
    return writer.finish()
  }

  /// Reads the body.
  public init(decoding reader: inout ByteReader) throws(DecodeError) {
    table = try reader.read()
    rows = try reader.read()
    cursor = try reader.read()
    try reader.expectEnd()
  }
}

/// One slice of a scan.
public struct ScanReply: Sendable {
  /// The shard's incarnation.
  public var incarnation: UInt64
  /// Where the next slice begins.
  public var cursor: UInt64
  /// Whether this was the last slice.
  public var isLast: Bool
  /// The epoch that holds the newest change in the rows: once it is durable, a crash of the shard cannot undo them.
  public var epoch: UInt64
  /// The rows as a section of `Embeddings` (empty at the end).
  public var section: ByteReader

  /// The whole message around a section written by `body`.
  public static func encoded(
    request: UInt64, incarnation: UInt64, epoch: UInt64,
    writing body: (inout ByteWriter) -> (cursor: UInt64, isLast: Bool)
  ) -> Blob {
    var writer = ByteWriter(capacity: 1 << 16)
    MessageHeader(.scan, .reply, request: request).encode(into: &writer)
    writer.append(incarnation)
    writer.append(UInt64(0))
    writer.append(UInt64(0))
    writer.append(epoch)
    let (cursor, isLast) = body(&writer)
    writer.patch(cursor, at: 24)
    writer.patch(UInt64(isLast ? 1 : 0), at: 32)
    return writer.finish()
  }

  /// Reads the body.
  public init(decoding reader: inout ByteReader) throws(DecodeError) {
    incarnation = try reader.read()
    cursor = try reader.read()
    isLast = try reader.read(UInt64.self) != 0
    epoch = try reader.read()
    section = try reader.sub(count: reader.remaining)
  }
}
