// The frame every message begins with, and the names of the messages (docs/protocol.md).
//
// A message is one frame: 16 bytes of header, then the body. Little-endian; arrays begin at multiples of 8 bytes from the
// start of the frame, so numpy can read them where they lie.

public import Base

/// Protocol constants.
public enum WireProtocol {
  /// "GUIR" in the first four bytes of every message.
  public static let magic: UInt32 = 0x5249_5547
  /// The version this build speaks.
  public static let version: UInt16 = 1
  /// The oldest version this build still reads.
  public static let oldestVersion: UInt16 = 1
  /// The most bytes one message may have; beyond it libzmq closes the connection without a word.
  ///
  /// A shard refuses requests far below it, with a word (`Welcome.byteCredits`).
  public static let frameLimit = 1 << 30
  /// The most ids one table section of a request may have.
  public static let idLimit = 1 << 22
  /// The most table sections or tensors in one request.
  public static let sectionLimit = 4096
}

/// What a message is.
///
/// A reply has the opcode of its request.
public enum Opcode: UInt16, Sendable, CaseIterable {
  /// Opens a conversation: versions, role, schema, chains; also how a client learns where a shard stands.
  case hello = 1
  /// Takes ownership of a partition.
  case claim = 2
  /// Reads rows and dense tensors; changes nothing.
  case pull = 3
  /// Applies one batch's gradients under its stamp.
  case push = 4
  /// Erases ids.
  case forget = 5
  /// Asks for an early epoch close.
  case closeEpoch = 6
  /// Asks for the records of blocks after an epoch.
  case blocksSince = 7
  /// Reads all rows of a table, slice by slice.
  case scan = 8
  /// Asks for a role's status as JSON.
  case status = 9
  /// Asks for the digest of all weights.
  case digest = 10
  /// Reads one row with its metadata.
  case inspect = 11
  /// Asks whether the shard lives; shows that the client does.
  case ping = 12
  /// Asks for a checkpoint; answered when it is on disk.
  case checkpoint = 13
  /// Sent unasked: how far a chain is durable.
  case durable = 16
  /// A replica asks for versions, acknowledges them, and shows it is alive.
  case follow = 32
  /// A version on its way to a replica.
  case version = 33
  /// Asks sync to publish a version at once.
  case publish = 34
  /// Asks sync which versions it keeps.
  case versions = 35
  /// Asks sync to return all replicas to a version and to keep them there.
  case pin = 36
  /// Asks sync to go on from a pinned version to the newest state.
  case resume = 37
  /// Asks a replica for rows by id.
  case rows = 48
  /// Asks the user-modelling platform for user embeddings.
  case embed = 49
  /// Brings events to the ingest; answered when they are in the streams.
  case events = 50
}

/// The 16 bytes a message begins with.
public struct MessageHeader: Equatable, Sendable {
  /// What the message is.
  public var opcode: Opcode
  /// What kind of message it is.
  public var kind: Kind
  /// Chosen by the requester, returned in the reply.
  public var request: UInt64

  /// Request, reply, or a reply that reports an error.
  public enum Kind: UInt8, Sendable {
    /// Asks for something.
    case request = 0
    /// Answers a request.
    case reply = 1
    /// Answers a request that was refused; the body is an `ErrorReply`.
    case error = 2
  }

  /// A header from its parts.
  public init(_ opcode: Opcode, _ kind: Kind = .request, request: UInt64) {
    self.opcode = opcode
    self.kind = kind
    self.request = request
  }

  /// Appends the header.
  public func encode(into writer: inout ByteWriter) {
    writer.append(WireProtocol.magic)
    writer.append(UInt8(WireProtocol.version))
    writer.append(kind.rawValue)
    writer.append(opcode.rawValue)
    writer.append(request)
  }

  /// Reads a header.
  public init(decoding reader: inout ByteReader) throws(DecodeError) {
    let magic = try reader.read(UInt32.self)
    guard magic == WireProtocol.magic else {
      throw .invalid(field: "magic", value: String(magic, radix: 16), expected: String(WireProtocol.magic, radix: 16))
    }
    let version = UInt16(try reader.read(UInt8.self))
    guard (WireProtocol.oldestVersion...WireProtocol.version).contains(version) else {
      throw .invalid(
        field: "protocol version", value: "\(version)",
        expected: "\(WireProtocol.oldestVersion)...\(WireProtocol.version)")
    }
    let rawKind = try reader.read(UInt8.self)
    guard let kind = Kind(rawValue: rawKind) else {
      throw .invalid(field: "message kind", value: "\(rawKind)", expected: "0, 1 or 2")
    }
    let raw = try reader.read(UInt16.self)
    request = try reader.read(UInt64.self)
    guard let opcode = Opcode(rawValue: raw) else {
      throw .invalid(field: "opcode", value: "\(raw)", expected: "one of docs/protocol.md")
    }
    self.opcode = opcode
    self.kind = kind
  }
}

/// Why a request was refused.
public enum ErrorCode: UInt16, Sendable {
  /// The bytes do not follow the format.
  case malformed = 1
  /// A table, tensor, dimension or data type is not the shard's.
  case mismatch = 2
  /// The request was made with another cluster map.
  case staleMap = 3
  /// The push does not follow what was applied; `position` says what was.
  case gap = 4
  /// Another owner holds the partition.
  case fenced = 5
  /// A limit is reached; try again later.
  case busy = 6
  /// The blocks asked for are no longer there.
  case gone = 7
  /// This peer may not ask for that.
  case forbidden = 8
}

/// The body of an error reply.
public struct ErrorReply: Error, Equatable, Sendable, CustomStringConvertible {
  /// What kind of refusal.
  public var code: ErrorCode
  /// Where the shard stands in the chain, for `gap` and `fenced`.
  public var position: Position
  /// The generation that owns the chain, for `fenced`.
  public var generation: UInt64
  /// What is wrong, with what was expected.
  public var message: String

  /// A refusal from its parts.
  public init(_ code: ErrorCode, _ message: String, position: Position = .start, generation: UInt64 = 0) {
    self.code = code
    self.message = message
    self.position = position
    self.generation = generation
  }

  /// The message.
  public var description: String { message }

  /// The whole message as bytes.
  public func encoded(opcode: Opcode, request: UInt64) -> Blob {
    var writer = ByteWriter()
    MessageHeader(opcode, .error, request: request).encode(into: &writer)
    writer.append(code.rawValue)
    writer.append(UInt16(0))
    writer.append(UInt32(0))
    writer.append(position)
    writer.append(generation)
    // Counted in bytes: a character may have any number of them.
    writer.append(string: String(decoding: message.utf8.prefix(1000), as: UTF8.self))
    return writer.finish()
  }

  /// Reads the body.
  public init(decoding reader: inout ByteReader) throws(DecodeError) {
    let raw = try reader.read(UInt16.self)
    guard let code = ErrorCode(rawValue: raw) else {
      throw .invalid(field: "error code", value: "\(raw)", expected: "1...8")
    }
    self.code = code
    _ = try reader.read(UInt16.self)
    _ = try reader.read(UInt32.self)
    position = try reader.read()
    generation = try reader.read()
    message = try reader.string()
  }
}

/// A message with only a header and, perhaps, a text.
public enum PlainMessage {
  /// A request or reply with no body.
  public static func empty(_ opcode: Opcode, _ kind: MessageHeader.Kind = .request, request: UInt64) -> Blob {
    var writer = ByteWriter(capacity: 16)
    MessageHeader(opcode, kind, request: request).encode(into: &writer)
    return writer.finish()
  }

  /// A request whose body is one number.
  static func number(_ opcode: Opcode, _ number: UInt64, request: UInt64) -> Blob {
    var writer = ByteWriter(capacity: 24)
    MessageHeader(opcode, request: request).encode(into: &writer)
    writer.append(number)
    return writer.finish()
  }

  /// A reply whose body is a text of at most 16 MiB.
  public static func text(_ opcode: Opcode, _ text: String, request: UInt64) -> Blob {
    var writer = ByteWriter(capacity: 64 + text.utf8.count)
    MessageHeader(opcode, .reply, request: request).encode(into: &writer)
    writer.append(string: text)
    return writer.finish()
  }

  /// Reads the text of such a reply.
  public static func text(decoding reader: inout ByteReader) throws(DecodeError) -> String {
    try reader.string(limit: 1 << 24)
  }
}
