// Reads CSV as RFC 4180 has it: quoted fields may hold commas, newlines and doubled quotes; lines end in LF or CRLF. A
// damaged record is reported alone and the next line is read on; no bytes trap. Belongs to one thread.

internal import Base

/// Why a record of a CSV file is refused.
enum CSVFault: Error, Equatable, CustomStringConvertible {
  case strayQuote(field: Int)
  case unclosedQuote(field: Int, limit: Int)
  case oversized(limit: Int)

  var description: String {
    switch self {
    case .strayQuote(let field): "field \(field) has a quote in the middle; quote the whole field and double the quote"
    case .unclosedQuote(let field, let limit): "the quote of field \(field) is not closed within \(limit) bytes"
    case .oversized(let limit): "the record has more than \(limit) bytes"
    }
  }
}

/// The records of a CSV file.
struct CSVReader: ~Copyable {
  enum Outcome: Equatable {
    /// The fields are those of the next record.
    case record
    /// The next record is damaged; `raw` is its first line.
    case fault(CSVFault)
    /// The file has no more records.
    case end
  }

  private enum State { case fieldStart, plain, quoted, quoteInQuoted }

  private(set) var buffer: FileBuffer
  private let limit: Int
  private let delimiter: UInt8
  private var fields: [UInt8] = []
  private var ends: [Int] = []
  private var rawBytes = 0
  private var toConsume = 0
  private var nextLine = 1
  /// The line on which the newest record begins, from 1.
  private(set) var line = 0

  init(path: String, recordByteLimit: Int = 1 << 16, delimiter: UInt8 = 0x2C) throws(FileError) {
    buffer = try FileBuffer(path: path, skippingMark: true)
    limit = recordByteLimit
    self.delimiter = delimiter
  }

  /// How many fields the newest record has.
  var count: Int { ends.count }

  /// The content of field `index`, unquoted.
  @_lifetime(borrow self)
  func field(_ index: Int) -> RawSpan {
    unsafe fields.span.bytes.extracting((index == 0 ? 0 : ends[index - 1])..<ends[index])
  }

  /// Field `index` as text; bytes that are not UTF-8 are replaced.
  func text(_ index: Int) -> String { Self.text(field(index)) }

  /// The newest record as it is in the file, without its line end.
  var raw: RawSpan {
    @_lifetime(borrow self) get { buffer.unread.extracting(0..<rawBytes) }
  }

  static func text(_ bytes: RawSpan) -> String {
    unsafe bytes.withUnsafeBytes { unsafe String(decoding: $0, as: UTF8.self) }
  }

  /// Goes to the next record; empty lines are skipped.
  mutating func next() throws(FileError) -> Outcome {
    try buffer.skipMark()
    while true {
      buffer.consume(toConsume)
      toConsume = 0
      rawBytes = 0
      line = nextLine
      fields.removeAll(keepingCapacity: true)
      ends.removeAll(keepingCapacity: true)
      let outcome = try scan()
      if outcome == .record, rawBytes == 0 { continue }
      return outcome
    }
  }

  private mutating func scan() throws(FileError) -> Outcome {
    var state = State.fieldStart
    var at = 0
    var lines = 1
    while true {
      if at == buffer.count, try !buffer.fill() {
        guard at > 0 else { return .end }
        guard state != .quoted else { return try refuse(.unclosedQuote(field: ends.count + 1, limit: limit)) }
        ends.append(fields.count)
        nextLine += lines
        toConsume = at
        rawBytes = at
        return .record
      }
      guard at < limit else {
        let fault: CSVFault =
          state == .quoted ? .unclosedQuote(field: ends.count + 1, limit: limit) : .oversized(limit: limit)
        return try refuse(fault)
      }
      let byte = buffer[at]
      switch (state, byte) {
      case (.quoted, 0x22): state = .quoteInQuoted
      case (.quoted, _):
        if byte == 0x0A { lines += 1 }
        fields.append(byte)
      case (.quoteInQuoted, 0x22):
        fields.append(byte)
        state = .quoted
      case (_, delimiter):
        ends.append(fields.count)
        state = .fieldStart
      case (_, 0x0A):
        rawBytes = at
        if at > 0, buffer[at - 1] == 0x0D {
          rawBytes -= 1
          if state == .plain { fields.removeLast() }
        }
        ends.append(fields.count)
        nextLine += lines
        toConsume = at + 1
        return .record
      case (.fieldStart, 0x22): state = .quoted
      case (.quoteInQuoted, 0x0D): break
      case (.quoteInQuoted, _), (.plain, 0x22): return try refuse(.strayQuote(field: ends.count + 1))
      default:
        fields.append(byte)
        state = .plain
      }
      at += 1
    }
  }

  /// Gives up the first line of the record; what follows it is read on as usual.
  private mutating func refuse(_ fault: CSVFault) throws(FileError) -> Outcome {
    fields.removeAll(keepingCapacity: true)
    ends.removeAll(keepingCapacity: true)
    nextLine += 1
    while true {
      if let end = buffer.newline(from: 0) {
        rawBytes = end > 0 && buffer[end - 1] == 0x0D ? end - 1 : end
        toConsume = end + 1
        return .fault(fault)
      }
      let searched = buffer.count
      guard searched < limit * 16, try buffer.fill() else { break }
    }
    rawBytes = buffer.count
    toConsume = buffer.count
    return .fault(fault)
  }
}
