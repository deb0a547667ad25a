// The values of one feature for all candidates of a request, on their way into the workspace's columns.

internal import Base
internal import Streams

/// Values of one feature, candidate after candidate, the same number for each.
struct ColumnValues {
  var width = 0
  var ids: [UInt64] = []
  var numbers: [Float] = []

  mutating func reserve(_ count: Int, isDense: Bool) {
    if isDense { numbers.reserveCapacity(count) } else { ids.reserveCapacity(count) }
  }
}

/// Reads the `data` of a JSON tensor: a flat list, or lists in lists.
struct DataReader {
  let name: String
  let seed: UInt64
  let expected: Int
  private(set) var read = 0

  init(name: String, seed: UInt64, expected: Int) {
    self.name = name
    self.seed = seed
    self.expected = expected
  }

  mutating func read(
    _ json: borrowing JSONText, at: Int, isDense: Bool, isText: Bool, into values: inout ColumnValues
  ) throws(RequestError) {
    // A flat walk: what is inside nested lists follows in the token order of the values.
    var next = at + 1
    while next < json[at].end {
      let token = json[next]
      next += 1
      if token.kind == .list { continue }
      guard read < expected else {
        throw .bad("'data' of input '\(name)' has more than the \(expected) values of its shape")
      }
      if isDense {
        guard let number = token.number, Float(number).isFinite else { throw wrong(token, "a float32 number") }
        values.numbers.append(Float(number))
      } else if isText {
        guard token.kind == .text else { throw wrong(token, "a text, as its datatype is BYTES") }
        values.ids.append(Hashing.xxh3(json.bytes(of: token), seed: seed))
      } else {
        guard token.kind == .unsigned || token.kind == .negative else { throw wrong(token, "an integer") }
        values.ids.append(token.bits)
      }
      read += 1
    }
  }

  private func wrong(_ token: JSONToken, _ wanted: String) -> RequestError {
    .bad("value \(read) of input '\(name)' is \(token.kind.words); expected \(wanted)")
  }
}

extension Workspace {
  /// The most candidates of one request.
  static let candidateLimit = 100_000
  /// The most values of one feature and candidate.
  static let valueLimit = Int(UInt16.max)

  /// Parses a JSON text.
  func parse(_ bytes: RawSpan) throws(RequestError) {
    do throws(JSONFault) {
      try json.parse(bytes)
    } catch {
      switch error {
      case .notUTF8: throw .bad("the body is not UTF-8")
      case .malformed(let problem): throw .bad("the body is not JSON: \(problem)")
      }
    }
  }

  /// Makes the columns of candidates from the values of each feature; features without values stay empty or zero.
  ///
  /// - Parameter complete: puts in what a request does not give.
  func fillColumns(
    _ values: [ColumnValues], candidates: Int, schema: EventSchema, complete: (FeatureBlock) -> FeatureBlock
  ) throws(RequestError) {
    columns.clear()
    for candidate in 0..<candidates {
      block.removeAll(keepingCapacity: true)
      append(schema.number)
      append(UInt16(schema.features.count))
      for (column, feature) in schema.features.enumerated() {
        if case .dense(let width) = feature.kind {
          append(UInt16(width))
          for place in 0..<width {
            append(values[column].width == 0 ? 0 : values[column].numbers[candidate * width + place].bitPattern)
          }
        } else {
          let width = values[column].width
          append(UInt16(width))
          for place in 0..<width { append(values[column].ids[candidate * width + place]) }
        }
      }
      try add(complete(FeatureBlock(bytes: block)), schema: schema)
    }
  }

  /// Appends one more candidate.
  func add(_ features: FeatureBlock, schema: EventSchema) throws(RequestError) {
    do throws(DecodeError) {
      try features.append(to: &columns, schema: schema)
    } catch {
      throw .bad("\(error)")
    }
  }

  private func append<Word: FixedWidthInteger & BitwiseCopyable>(_ word: Word) {
    unsafe withUnsafeBytes(of: word.littleEndian) { unsafe block.append(contentsOf: $0) }
  }
}
