// Between sync and its replicas: a replica says what it has, sync sends what comes next. Both carry a checksum of their
// own, so that a damaged number is never believed: not as an acknowledgement, not as how far a replica has to go.

public import Base

/// A replica asks for versions after the one it has; the same message acknowledges and shows it is alive.
public struct Follow: Equatable, Sendable {
  /// Which replica.
  public var replica: UInt32
  /// How many parts of base `version` it has, while it takes one; 0 otherwise.
  public var part: UInt32
  /// Drawn at random when the replica's process started.
  public var incarnation: UInt64
  /// The version store its content came from; 0 for none.
  public var store: UInt64
  /// The last version it has applied, to what it serves or beside it; 0 for none.
  public var version: UInt64
  /// The version its readers see; below `version` while it catches up with a base, 0 before the first.
  public var served: UInt64

  /// A message from its parts; `served` is the version unless it is said.
  public init(
    replica: Int, incarnation: UInt64, store: UInt64, version: UInt64, part: UInt32 = 0, served: UInt64? = nil
  ) {
    self.replica = UInt32(replica)
    self.part = part
    self.incarnation = incarnation
    self.store = store
    self.version = version
    self.served = served ?? (part == 0 ? version : 0)
  }

  /// The whole message.
  public func encoded(request: UInt64) -> Blob {
    var writer = ByteWriter()
    MessageHeader(.follow, request: request).encode(into: &writer)
    writer.append(replica)
    writer.append(part)
    writer.append(incarnation)
    writer.append(store)
    writer.append(version)
    writer.append(served)
    writer.append(UInt64(Hashing.crc32c(writer.written)))
    return writer.finish()
  }

  /// Reads the body; all of the message before the checksum counts for it.
  public init(decoding reader: inout ByteReader) throws(DecodeError) {
    replica = try reader.read()
    part = try reader.read()
    incarnation = try reader.read()
    store = try reader.read()
    version = try reader.read()
    served = try reader.read()
    try reader.expectChecksum()
    try reader.expectEnd()
  }
}

/// One version, or one piece of a base, on its way to a replica.
public struct VersionMessage: Sendable {
  /// The version store it is from.
  public var store: UInt64
  /// The version's number.
  ///
  /// For a base: the version after which the following ones apply.
  public var number: UInt64
  /// The newest version there is: how far behind the replica still is.
  public var newest: UInt64
  /// The piece's bytes: a version file (docs/formats.md).
  public var content: ByteReader

  /// A message from its parts.
  public init(store: UInt64, number: UInt64, newest: UInt64, content: ByteReader) {
    self.store = store
    self.number = number
    self.newest = newest
    self.content = content
  }

  /// The whole message.
  public func encoded(request: UInt64) -> Blob {
    var writer = ByteWriter(capacity: content.remaining + 64)
    MessageHeader(.version, request: request).encode(into: &writer)
    writer.append(store)
    writer.append(number)
    writer.append(newest)
    writer.append(UInt64(Hashing.crc32c(writer.written)))
    writer.append(
      raw: content.blob.bytes.extracting(content.offset..<(content.offset + content.remaining)))
    return writer.finish()
  }

  /// Reads the body.
  public init(decoding reader: inout ByteReader) throws(DecodeError) {
    store = try reader.read()
    number = try reader.read()
    newest = try reader.read()
    try reader.expectChecksum()
    content = try reader.sub(count: reader.remaining)
  }
}

/// Asks sync to publish at once.
public struct PublishRequest: Equatable, Sendable {
  /// Whether dense tensors go with it.
  public var dense: Bool

  /// A request.
  public init(dense: Bool) { self.dense = dense }

  /// The whole message.
  public func encoded(request: UInt64) -> Blob {
    var writer = ByteWriter()
    MessageHeader(.publish, request: request).encode(into: &writer)
    writer.append(UInt32(dense ? 1 : 0))
    return writer.finish()
  }

  /// Reads the body.
  public init(decoding reader: inout ByteReader) throws(DecodeError) {
    dense = try reader.read(UInt32.self) != 0
    try reader.expectEnd()
  }
}

/// Asks sync what versions it keeps, or what is in one.
public struct VersionsRequest: Equatable, Sendable {
  /// The version to tell all of; 0 for a list.
  public var number: UInt64

  /// A request.
  public init(number: UInt64 = 0) { self.number = number }

  /// The whole message.
  public func encoded(request: UInt64) -> Blob { PlainMessage.number(.versions, number, request: request) }

  /// Reads the body.
  public init(decoding reader: inout ByteReader) throws(DecodeError) {
    number = try reader.read()
    try reader.expectEnd()
  }
}

/// Asks sync to return all replicas to the state of a version and to keep them there.
public struct PinRequest: Equatable, Sendable {
  /// The version; 0 for the newest: what is served stays.
  public var version: UInt64

  /// A request.
  public init(version: UInt64) { self.version = version }

  /// The whole message.
  public func encoded(request: UInt64) -> Blob { PlainMessage.number(.pin, version, request: request) }

  /// Reads the body.
  public init(decoding reader: inout ByteReader) throws(DecodeError) {
    version = try reader.read()
    try reader.expectEnd()
  }
}

extension ByteReader {
  /// Reads a checksum that covers the message up to it.
  fileprivate mutating func expectChecksum() throws(DecodeError) {
    let computed = UInt64(Hashing.crc32c(blob.bytes.extracting(0..<offset)))
    let stored = try read(UInt64.self)
    guard stored == computed else {
      throw .invalid(field: "checksum", value: String(stored, radix: 16), expected: String(computed, radix: 16))
    }
  }
}
