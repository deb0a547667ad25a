// Where refused events are set aside for people to look at: a file of JSON Lines, up to a size. The ingest, the player and
// the joiner keep one each. Belongs to one thread.

public import Base
internal import Glibc

/// An event that was refused, as it is set aside.
public struct RejectedEvent: Sendable {
  /// The most bytes of it that are kept.
  public static let textLimit = 4096

  /// Where it was.
  public enum Place: Equatable, Sendable {
    /// A line of a file or of a request, or an event of a batch, counted from 1.
    case line(Int)
    /// A record of a stream, by its position.
    case record(stream: String, partition: Int, position: Position)
  }

  /// Where it was.
  public let place: Place
  /// A short stable name to count by.
  public let code: String
  /// What is wrong with it, in words.
  public let reason: String
  /// Its first bytes.
  public let text: [UInt8]

  /// A refused event from its parts; of `text` no more than `textLimit` bytes are kept.
  public init(place: Place, code: String, reason: String, text: [UInt8]) {
    self.place = place
    self.code = code
    self.reason = reason
    self.text = text.count <= Self.textLimit ? text : Array(text.prefix(Self.textLimit))
  }

  /// A refused line.
  public init(_ fault: EventFault, text: [UInt8]) {
    self.init(place: .line(fault.line), code: fault.reason.code, reason: "\(fault.reason)", text: text)
  }
}

/// A file that refused events are appended to until it is full.
public struct RejectedEvents: ~Copyable {
  /// The name of the file in a role's directory.
  public static let fileName = "rejected.jsonl"

  private let path: String
  private let limit: Int
  private var descriptor: Int32
  private var bytes: Int

  /// Opens or makes the file.
  /// - Parameters:
  ///   - limit: the most bytes it may have.
  ///   - isNew: whether what is in it already is dropped.
  public init(path: String, limit: Int, isNew: Bool = false) throws(FileError) {
    let flags = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | (isNew ? O_TRUNC : 0)
    let descriptor = unsafe open(path, flags, 0o644)
    guard descriptor >= 0 else { throw FileError(errno, "open \(path)") }
    var status = stat()
    bytes = unsafe fstat(descriptor, &status) == 0 ? Int(status.st_size) : 0
    self.path = path
    self.limit = limit
    self.descriptor = descriptor
  }

  deinit { close(descriptor) }

  /// Sets events aside that were refused at `arrival`; gives how many found no room.
  public mutating func append(_ events: [RejectedEvent], arrival: Milliseconds) -> Int {
    guard !events.isEmpty else { return 0 }
    var left = 0
    var writer = ByteWriter(capacity: 4096)
    for event in events {
      var line = ByteWriter(capacity: 512 + event.text.count)
      Self.encode(event, arrival: arrival, into: &line)
      guard bytes + writer.count + line.count <= limit else {
        left += 1
        continue
      }
      writer.append(bytes: line.finish().array)
    }
    do throws(FileError) {
      try Files.write(writer.written, to: descriptor, path: path)
      bytes += writer.count
      return left
    } catch {
      // They are counted; that they cannot be kept is no reason to refuse what is right.
      return events.count
    }
  }

  private static func encode(_ event: RejectedEvent, arrival: Milliseconds, into writer: inout ByteWriter) {
    writer.append(text: "{\"arrival\":")
    writer.append(decimal: arrival)
    switch event.place {
    case .line(let line):
      writer.append(text: ",\"line\":")
      writer.append(decimal: UInt64(line))
    case .record(let stream, let partition, let position):
      writer.append(text: ",\"stream\":")
      writer.append(quoted: stream)
      writer.append(text: ",\"partition\":")
      writer.append(decimal: UInt64(partition))
      writer.append(text: ",\"position\":")
      writer.append(decimal: position.low)
    }
    writer.append(text: ",\"code\":")
    writer.append(quoted: event.code)
    writer.append(text: ",\"reason\":")
    writer.append(quoted: event.reason)
    writer.append(text: ",\"text\":")
    switch event.place {
    case .line: writer.append(quoted: String(decoding: event.text, as: UTF8.self))
    case .record: writer.append(quoted: hexadecimal(event.text))
    }
    writer.append(text: "}\n")
  }

  private static func hexadecimal(_ bytes: [UInt8]) -> String {
    let digits = Array("0123456789abcdef".utf8)
    var text: [UInt8] = []
    text.reserveCapacity(2 * bytes.count)
    for byte in bytes {
      text.append(digits[Int(byte >> 4)])
      text.append(digits[Int(byte & 15)])
    }
    return String(decoding: text, as: UTF8.self)
  }
}
