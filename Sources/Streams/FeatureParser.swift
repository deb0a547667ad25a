// The "features" object of an impression → feature block. Values are checked in a first pass over the tokens and written
// in a second one, so that a refused line costs no memory and a block is always whole.

internal import Base
internal import Glibc

/// Names and the index each stands for.
package struct NameTable: Sendable {
  package let names: [String]
  private let bytes: [[UInt8]]
  private let indices: [UInt64: Int]

  package init(_ names: [String]) {
    self.names = names
    bytes = names.map { Array($0.utf8) }
    var indices: [UInt64: Int] = [:]
    for (index, name) in names.enumerated() where indices[Hashing.xxh3(name)] == nil {
      indices[Hashing.xxh3(name)] = index
    }
    self.indices = indices
  }

  /// The index of the name a key holds.
  ///
  /// Keys mostly come in schema order, so the `expecting` one is tried first.
  package func index(of key: JSONToken, in json: borrowing JSONText, expecting: Int) -> Int? {
    if expecting < bytes.count, json.text(key, is: bytes[expecting]) { return expecting }
    guard let index = indices[Hashing.xxh3(json.bytes(of: key))], json.text(key, is: bytes[index]) else { return nil }
    return index
  }

  /// The index of the name that some bytes are; the `expecting` one is tried first.
  func index(of name: RawSpan, expecting: Int) -> Int? {
    if expecting < bytes.count, name.equals(bytes[expecting]) { return expecting }
    guard let index = indices[Hashing.xxh3(name)], name.equals(bytes[index]) else { return nil }
    return index
  }
}

/// Reads feature objects of one schema.
package struct FeatureParser {
  private let specs: [FeatureSpec]
  private let number: UInt32
  private let names: NameTable
  private let ignored: NameTable
  private let seeds: [UInt64]
  /// Per feature, the token of its value in this line; 0 where there is none.
  private var found: [Int]

  package init(schema: EventSchema, ignored: Set<String>) {
    specs = schema.features
    number = schema.number
    names = NameTable(schema.features.map(\.name))
    self.ignored = NameTable(ignored.sorted())
    seeds = schema.features.map { Hashing.xxh3($0.name) }
    found = Array(repeating: 0, count: schema.features.count)
  }

  /// The block of the object at token `at`; of no features when `at` is 0.
  package mutating func block(_ json: borrowing JSONText, at: Int) throws(EventFault.Reason) -> FeatureBlock {
    for index in found.indices { found[index] = 0 }
    if at != 0 { try locate(json, at: at) }
    var byteCount = 6 + 2 * specs.count
    for index in specs.indices { byteCount += try measure(json, feature: index) }
    guard byteCount <= EventSchema.featureBytesLimit else {
      throw .featuresTooLarge(bytes: byteCount, limit: EventSchema.featureBytesLimit)
    }
    var writer = BlockWriter(byteCount: byteCount)
    writer.append(number)
    writer.append(UInt16(specs.count))
    for index in specs.indices { write(json, feature: index, into: &writer) }
    return FeatureBlock(bytes: writer.finish())
  }

  private mutating func locate(_ json: borrowing JSONText, at: Int) throws(EventFault.Reason) {
    let object = json[at]
    if object.kind == .null { return }
    guard object.kind == .object else {
      throw .wrongType(field: "features", found: object.kind.words, expected: "an object")
    }
    var next = at + 1
    for expected in 0..<object.count {
      let key = json[next]
      if let index = names.index(of: key, in: json, expecting: expected), specs[index].stream == nil {
        guard found[index] == 0 else { throw .repeated(field: specs[index].name) }
        found[index] = next + 1
      } else if ignored.index(of: key, in: json, expecting: 0) == nil {
        throw .unknownFeature(json.string(of: key), known: specs.filter { $0.stream == nil }.map(\.name))
      }
      next = json[next + 1].end
    }
  }

  /// Checks a feature's value and gives the bytes its values take.
  ///
  /// Null is as good as absent.
  private mutating func measure(_ json: borrowing JSONText, feature index: Int) throws(EventFault.Reason) -> Int {
    let spec = specs[index]
    let token = found[index] == 0 ? nil : json[found[index]]
    if token?.kind == .null { found[index] = 0 }
    switch spec.kind {
    case .id:
      guard let token, token.kind != .null else { return 0 }
      guard Self.isID(token) else {
        throw .wrongType(field: spec.name, found: token.kind.words, expected: "an integer or a text")
      }
      return 8
    case .ids(let limit):
      guard let token, token.kind != .null else { return 0 }
      guard token.kind == .list else {
        throw .wrongType(field: spec.name, found: token.kind.words, expected: "a list of integers or texts")
      }
      guard token.count <= min(limit, Int(UInt16.max)) else {
        throw .tooManyIDs(feature: spec.name, count: token.count, limit: min(limit, Int(UInt16.max)))
      }
      for element in 0..<token.count {
        let value = json[found[index] + 1 + element]
        guard Self.isID(value) else {
          throw .wrongType(
            field: "\(spec.name)[\(element)]", found: value.kind.words, expected: "an integer or a text")
        }
      }
      return 8 * token.count
    case .dense(let width):
      guard let token, token.kind != .null else { return 4 * width }
      if token.number != nil {
        guard width == 1 else { throw .wrongWidth(feature: spec.name, count: 1, width: width) }
        try Self.check(token, spec.name)
        return 4
      }
      guard token.kind == .list else {
        throw .wrongType(
          field: spec.name, found: token.kind.words, expected: "a list of \(width) \(width == 1 ? "number" : "numbers")"
        )
      }
      guard token.count == width else { throw .wrongWidth(feature: spec.name, count: token.count, width: width) }
      for element in 0..<width {
        let value = json[found[index] + 1 + element]
        guard value.number != nil else {
          throw .wrongType(field: "\(spec.name)[\(element)]", found: value.kind.words, expected: "a number")
        }
        try Self.check(value, spec.name)
      }
      return 4 * width
    }
  }

  private static func isID(_ token: JSONToken) -> Bool {
    token.kind == .unsigned || token.kind == .negative || token.kind == .text
  }

  private static func check(_ token: JSONToken, _ feature: String) throws(EventFault.Reason) {
    guard let number = token.number, Float(number).isFinite else { throw .notFinite(feature: feature) }
  }

  private func write(_ json: borrowing JSONText, feature index: Int, into writer: inout BlockWriter) {
    let at = found[index]
    switch specs[index].kind {
    case .id:
      writer.append(UInt16(at == 0 ? 0 : 1))
      if at != 0 { writer.append(id(json, json[at], feature: index)) }
    case .ids:
      let count = at == 0 ? 0 : json[at].count
      writer.append(UInt16(count))
      for element in 0..<count { writer.append(id(json, json[at + 1 + element], feature: index)) }
    case .dense(let width):
      writer.append(UInt16(width))
      let isList = at != 0 && json[at].kind == .list
      for element in 0..<width {
        let value = at == 0 ? 0 : json[isList ? at + 1 + element : at].number ?? 0
        writer.append(Float(value).bitPattern)
      }
    }
  }

  private func id(_ json: borrowing JSONText, _ token: JSONToken, feature index: Int) -> UInt64 {
    token.kind == .text ? Hashing.xxh3(json.bytes(of: token), seed: seeds[index]) : token.bits
  }
}

extension RawSpan {
  /// Whether the bytes are those of `other`.
  fileprivate func equals(_ other: [UInt8]) -> Bool {
    guard byteCount == other.count else { return false }
    return unsafe withUnsafeBytes { mine in
      unsafe other.withUnsafeBytes { unsafe $0.count == 0 || memcmp($0.baseAddress!, mine.baseAddress!, $0.count) == 0 }
    }
  }
}

/// Fills an array of known size.
struct BlockWriter: ~Copyable {
  private var bytes: [UInt8]
  private var at = 0

  init(byteCount: Int) { bytes = Array(repeating: 0, count: byteCount) }

  mutating func append<Word: FixedWidthInteger & BitwiseCopyable>(_ word: Word) {
    let size = MemoryLayout<Word>.size
    precondition(at + size <= bytes.count, "a block of \(bytes.count) bytes was measured too small")
    unsafe bytes.withUnsafeMutableBytes { unsafe $0.storeBytes(of: word.littleEndian, toByteOffset: at, as: Word.self) }
    at += size
  }

  consuming func finish() -> [UInt8] {
    precondition(at == bytes.count, "a block of \(bytes.count) bytes was measured; \(at) were written")
    return bytes
  }
}
