// KuaiRand's tables as they lie on disk: which columns are needed, one row of a log, the video table. Columns are found by
// header, so slices with more, fewer or reordered columns read alike.

internal import Base

/// Column numbers by name.
struct CSVHeader {
  let names: [String]

  init(_ reader: borrowing CSVReader) { names = (0..<reader.count).map { reader.text($0) } }

  func column(_ name: String) -> Int? { names.firstIndex(of: name) }
}

/// A CSV file with its header read.
struct CSVTable: ~Copyable {
  let header: CSVHeader
  var reader: CSVReader

  /// Opens a table and checks that it has the columns.
  init(path: String, needs columns: [String]) throws(StreamError) {
    var reader = try Self.open(path)
    let first: CSVReader.Outcome
    do { first = try reader.next() } catch { throw .file(error) }
    guard first == .record else { throw .missingColumns(file: path, missing: columns, found: []) }
    let header = CSVHeader(reader)
    let missing = columns.filter { header.column($0) == nil }
    guard missing.isEmpty else { throw .missingColumns(file: path, missing: missing, found: header.names) }
    self.header = header
    self.reader = reader
  }

  private static func open(_ path: String) throws(StreamError) -> CSVReader {
    do { return try CSVReader(path: path) } catch { throw .file(error) }
  }

  mutating func next() throws(StreamError) -> CSVReader.Outcome {
    do { return try reader.next() } catch { throw .file(error) }
  }
}

/// Why a row is set aside.
enum RowFault: Error, CustomStringConvertible {
  case csv(CSVFault)
  case fieldCount(Int, expected: Int)
  case field(String, value: String, expected: String)
  case json(JSONFault)

  var description: String {
    switch self {
    case .csv(let fault): fault.description
    case .fieldCount(let count, let expected): "\(count) fields; the header has \(expected)"
    case .field(let name, let value, let expected): "\(name) is '\(value)'; expected \(expected)"
    case .json(.notUTF8): "not UTF-8"
    case .json(.malformed(let problem)): "not a JSON object: \(problem)"
    }
  }
}

extension CSVReader {
  /// An integer in field `column`: digits, a sign, or a float with nothing behind the point (as table tools write them).
  func integer(_ column: Int, _ name: String) throws(RowFault) -> Int64 {
    guard let value = optionalInteger(column) else {
      throw .field(name, value: text(column), expected: "an integer")
    }
    return value
  }

  /// The integer in field `column`, or nil when it holds none.
  func optionalInteger(_ column: Int) -> Int64? {
    let bytes = field(column)
    var value: Int64 = 0
    var at = 0
    let isNegative = bytes.byteCount > 0 && bytes[0] == 0x2D
    if isNegative { at = 1 }
    let first = at
    while at < bytes.byteCount, case let digit = bytes[at], digit >= 0x30, digit <= 0x39 {
      let (product, over) = value.multipliedReportingOverflow(by: 10)
      let (sum, more) = product.addingReportingOverflow(Int64(digit - 0x30))
      guard !over, !more else { return nil }
      value = sum
      at += 1
    }
    guard at > first else { return nil }
    if at < bytes.byteCount {
      guard bytes[at] == 0x2E else { return nil }
      at += 1
      while at < bytes.byteCount {
        guard bytes[at] == 0x30 else { return nil }
        at += 1
      }
    }
    return isNegative ? -value : value
  }

  /// A number that is not an outcome but a property, such as a duration; nil when the field is empty or no number.
  func optionalNumber(_ column: Int) -> Double? {
    if let integer = optionalInteger(column) { return Double(integer) }
    guard let number = Double(text(column)), number.isFinite else { return nil }
    return number
  }
}

extension RawSpan {
  subscript(index: Int) -> UInt8 { unsafe unsafeLoad(fromByteOffset: index, as: UInt8.self) }
}

/// What the video table knows of a video.
struct KuaiRandVideo {
  var author: UInt64?
  var tag: Int32
  var durationBucket: UInt8
}

/// Distinct tags, each rendered once as JSON: an integer, or a quoted text.
struct TagTable {
  private(set) var rendered: [String] = []
  private var numbers: [String: Int32] = [:]

  /// The number of a tag field's first tag; "unknown" for an empty one.
  mutating func number(_ field: String) -> Int32 {
    if let known = numbers[field] { return known }
    let first = field.split(separator: ",", omittingEmptySubsequences: false).first.map(String.init) ?? ""
    let tag = first.isEmpty ? "unknown" : first
    let json: String
    if let integer = UInt64(tag) {
      json = "\(integer)"
    } else {
      var writer = ByteWriter()
      writer.append(quoted: tag)
      json = String(decoding: writer.finish().array, as: UTF8.self)
    }
    let number = Int32(rendered.firstIndex(of: json) ?? rendered.count)
    if Int(number) == rendered.count { rendered.append(json) }
    numbers[field] = number
    return number
  }
}

/// `floor(log2(max(duration, 1000) / 1000))`, the duration in milliseconds.
func durationBucket(_ milliseconds: Double?) -> UInt8 {
  let seconds = UInt64(min(max(milliseconds ?? 0, 1000), 1e15)) / 1000
  return UInt8(63 - seconds.leadingZeroBitCount)
}

/// One usable row of a log.
struct KuaiRandRow {
  /// What a repeated line has in common with its first occurrence.
  var lineHash: SIMD2<UInt64>
  var id: UInt64
  var time: Milliseconds
  var play: Int64
  var user: UInt64
  var video: UInt64
  var author: UInt64?
  var tag: Int32
  var tab: Int64
  var durationBucket: UInt8
  /// Bit i: the label of task i of `EventSchema.kuairand`.
  var labels: UInt8
}
