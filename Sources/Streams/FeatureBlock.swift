// An impression's feature values as bytes. They are frozen when the impression is served and pass through journal, joiner
// and example untouched; only the trainer and the predictor look inside.
//
// Layout, little-endian: UInt32 schema number, UInt16 feature count, then for each feature in schema order a UInt16 count
// and its values: UInt64 ids, or Float32 numbers for dense features. Nothing is aligned.

public import Base

/// Encoded feature values of one impression.
public struct FeatureBlock: Equatable, Hashable, Sendable {
  /// The encoded bytes.
  public var bytes: [UInt8]

  /// A block from bytes encoded earlier; `values(of:)` checks them.
  public init(bytes: [UInt8]) { self.bytes = bytes }

  /// Encodes values given in schema order; counts must fit the schema (a precondition: callers check first).
  public init(schema: EventSchema, values: [FeatureValue]) {
    precondition(values.count == schema.features.count, "\(values.count) values for \(schema.features.count) features")
    var bytes: [UInt8] = []
    bytes.reserveCapacity(8 + values.count * 10)
    Self.append(schema.number, to: &bytes)
    Self.append(UInt16(values.count), to: &bytes)
    for value in values {
      switch value {
      case .ids(let ids):
        Self.append(UInt16(ids.count), to: &bytes)
        for id in ids { Self.append(id, to: &bytes) }
      case .numbers(let numbers):
        Self.append(UInt16(numbers.count), to: &bytes)
        for number in numbers { Self.append(number.bitPattern, to: &bytes) }
      }
    }
    self.bytes = bytes
  }

  private static func append<Word: FixedWidthInteger>(_ word: Word, to bytes: inout [UInt8]) {
    var rest = word
    for _ in 0..<MemoryLayout<Word>.size {
      bytes.append(UInt8(truncatingIfNeeded: rest))
      rest = MemoryLayout<Word>.size == 1 ? 0 : rest >> 8
    }
  }

  /// Appends every feature's values to `columns`, one column per feature of the schema, as one more example.
  /// - Throws: `DecodeError` when the block is of another schema or damaged; the columns are then as before.
  public func append(to columns: inout FeatureColumns, schema: EventSchema) throws(DecodeError) {
    try columns.append(bytes, schema: schema)
  }

  /// The values, one per feature of the schema.
  public func values(of schema: EventSchema) throws(DecodeError) -> [FeatureValue] {
    var columns = FeatureColumns(schema: schema)
    try columns.append(bytes, schema: schema)
    return schema.features.indices.map { index in
      if case .dense = schema.features[index].kind { return .numbers(columns.numbers[index]) }
      return .ids(columns.ids[index])
    }
  }
}

/// The value of one feature.
public enum FeatureValue: Equatable, Sendable {
  /// One id, or a list of them.
  case ids([UInt64])
  /// Dense numbers.
  case numbers([Float])
}

/// The decoded features of a batch, one column per feature, in CSR form.
public struct FeatureColumns: Sendable {
  /// Per feature: all ids of the batch, example after example; empty for dense features.
  public private(set) var ids: [[UInt64]]
  /// Per feature: `[examples + 1]` offsets into `ids`.
  public private(set) var offsets: [[Int32]]
  /// Per feature: `[examples × width]` numbers; empty for id features.
  public private(set) var numbers: [[Float]]
  /// How many examples were appended.
  public private(set) var exampleCount = 0
  private let schemaNumber: UInt32
  /// Per feature: the most ids of an example, or the negated width of its numbers.
  private let limits: [Int]

  /// Empty columns for a schema.
  public init(schema: EventSchema) {
    ids = Array(repeating: [], count: schema.features.count)
    offsets = Array(repeating: [0], count: schema.features.count)
    numbers = Array(repeating: [], count: schema.features.count)
    schemaNumber = schema.number
    limits = schema.features.map { feature in
      switch feature.kind {
      case .id: 1
      case .ids(let limit): limit
      case .dense(let width): -width
      }
    }
  }

  /// Forgets the examples and keeps the memory.
  public mutating func clear() {
    for index in ids.indices {
      ids[index].removeAll(keepingCapacity: true)
      numbers[index].removeAll(keepingCapacity: true)
      offsets[index].removeAll(keepingCapacity: true)
      offsets[index].append(0)
    }
    exampleCount = 0
  }

  mutating func append(_ bytes: [UInt8], schema: EventSchema) throws(DecodeError) {
    do throws(DecodeError) {
      var at = 0
      let number = try Self.read(UInt32.self, bytes, &at)
      guard number == schemaNumber else {
        throw .invalid(field: "schema number", value: "\(number)", expected: "\(schemaNumber)")
      }
      let count = Int(try Self.read(UInt16.self, bytes, &at))
      guard count == schema.features.count else {
        throw .invalid(field: "feature count", value: "\(count)", expected: "\(schema.features.count)")
      }
      for index in limits.indices {
        let values = Int(try Self.read(UInt16.self, bytes, &at))
        let limit = limits[index]
        if limit >= 0 {
          guard values <= limit else {
            let name = schema.features[index].name
            throw .overLimit(field: "ids of \(name)", value: UInt64(values), limit: UInt64(limit))
          }
          for _ in 0..<values { ids[index].append(try Self.read(UInt64.self, bytes, &at)) }
          offsets[index].append(Int32(ids[index].count))
        } else {
          guard values == -limit else {
            let name = schema.features[index].name
            throw .invalid(field: "numbers of \(name)", value: "\(values)", expected: "\(-limit)")
          }
          for _ in 0..<values {
            numbers[index].append(Float(bitPattern: try Self.read(UInt32.self, bytes, &at)))
          }
        }
      }
      guard at == bytes.count else { throw .trailing(bytes: bytes.count - at) }
      exampleCount += 1
    } catch {
      rollBack(schema: schema)
      throw error
    }
  }

  /// Undoes a half-appended example.
  private mutating func rollBack(schema: EventSchema) {
    for (index, feature) in schema.features.enumerated() {
      if case .dense(let width) = feature.kind {
        numbers[index].removeLast(numbers[index].count - exampleCount * width)
      } else {
        offsets[index].removeLast(offsets[index].count - exampleCount - 1)
        ids[index].removeLast(ids[index].count - Int(offsets[index][exampleCount]))
      }
    }
  }

  private static func read<Word: FixedWidthInteger & BitwiseCopyable>(
    _ type: Word.Type, _ bytes: [UInt8], _ at: inout Int
  ) throws(DecodeError) -> Word {
    let size = MemoryLayout<Word>.size
    guard bytes.count - at >= size else {
      throw .truncated(offset: at, needed: size, available: bytes.count - at)
    }
    let word = unsafe bytes.span.bytes.unsafeLoadUnaligned(fromByteOffset: at, as: Word.self)
    at += size
    return word
  }
}
