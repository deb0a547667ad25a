// `guira export`: rows and dense tensors for other programs, as safetensors (https://huggingface.co/docs/safetensors) or as
// NumPy arrays (.npy, format 1.0). Rows are sorted by id, so equal parameters make equal files.

internal import Base
internal import Embeddings
internal import Foundation
internal import Layers
public import Sharding

/// A cluster's parameters on their way into files.
public struct ModelExport {
  /// What is written.
  public enum Format: String, Sendable, CaseIterable {
    /// One file with everything.
    case safetensors
    /// A directory with a file for each array.
    case npy
  }

  /// One array: its name, type, shape and little-endian bytes.
  struct NamedArray {
    enum Kind: String {
      case float32 = "F32"
      case uint64 = "U64"
      var numpy: String { self == .float32 ? "<f4" : "<u8" }
    }

    var name: String
    var kind: Kind
    var shape: [Int]
    var bytes: Data
  }

  /// What was written.
  public struct Summary: Sendable, Equatable {
    /// Rows by table.
    public var rows: [(table: String, rows: Int)] = []
    /// Dense tensors.
    public var tensors = 0
    /// Bytes in all.
    public var bytes = 0

    /// Compares all parts.
    public static func == (left: Self, right: Self) -> Bool {
      left.tensors == right.tensors && left.bytes == right.bytes && left.rows.elementsEqual(right.rows, by: ==)
    }
  }

  private var arrays: [NamedArray] = []
  private var notes: [String: String] = [:]
  /// What was read so far.
  public private(set) var summary = Summary()

  /// Reads the parameters of all shards.
  ///
  /// - Parameters:
  ///   - shards: by shard what it is told and where its files are.
  ///   - checkpoint: the checkpoint to read; nil for the newest state.
  ///   - progress: called with the share read, 0…1.
  /// - Throws: what `ShardContents` throws.
  public init(
    shards: [(options: ShardOptions, files: ShardFiles)], checkpoint: String? = nil,
    progress: (Double) -> Void = { _ in }
  ) throws {
    guard let tables = shards.first?.options.tables else { return }
    var ids: [[UInt64]] = Array(repeating: [], count: tables.count)
    var weights: [[Float]] = Array(repeating: [], count: tables.count)
    var tensors: [NamedArray] = []
    for (number, shard) in shards.enumerated() {
      let contents = try ShardContents(shard.options, files: shard.files, checkpoint: checkpoint)
      for table in tables.indices {
        try contents.forEachSlice(table: table) { slice, values in
          ids[table] += slice
          weights[table] += values
        }
      }
      for (tensor, values) in contents.tensors {
        tensors.append(NamedArray(name: tensor.name, kind: .float32, shape: tensor.shape, bytes: Self.bytes(values)))
      }
      progress(Double(number + 1) / Double(shards.count + 1))
    }
    for (table, options) in tables.enumerated() {
      add(options, ids: ids[table], weights: weights[table])
      (ids[table], weights[table]) = ([], [])
    }
    arrays += tensors.sorted { $0.name < $1.name }
    summary.tensors = tensors.count
    notes["format"] = "guira 1"
    progress(1)
  }

  private mutating func add(_ table: TableOptions, ids: [UInt64], weights: [Float]) {
    let width = table.segments.reduce(0) { $0 + $1.width }
    let order = ids.indices.sorted { ids[$0] < ids[$1] }
    var sorted: [Float] = []
    sorted.reserveCapacity(weights.count)
    for row in order { sorted += weights[row * width..<(row + 1) * width] }
    arrays.append(
      NamedArray(name: "\(table.name).ids", kind: .uint64, shape: [ids.count], bytes: Self.bytes(order.map { ids[$0] }))
    )
    arrays.append(
      NamedArray(name: "\(table.name).weights", kind: .float32, shape: [ids.count, width], bytes: Self.bytes(sorted)))
    var column = 0
    notes["\(table.name).columns"] = table.segments.map { segment in
      defer { column += segment.width }
      return "\(segment.name) \(column)..<\(column + segment.width)"
    }.joined(separator: ", ")
    notes["\(table.name).default"] = "\(table.defaultWeight)"
    summary.rows.append((table.name, ids.count))
  }

  private static func bytes<Value: BitwiseCopyable>(_ values: [Value]) -> Data {
    unsafe values.withUnsafeBytes { unsafe Data($0) }
  }

  /// Writes a safetensors file, or a directory of .npy files.
  /// - Throws: errors of files; a safetensors file appears whole or not at all.
  public mutating func write(_ format: Format, to path: String) throws {
    switch format {
    case .safetensors:
      let content = try safetensors()
      summary.bytes = content.count
      try content.write(to: URL(filePath: path), options: .atomic)
    case .npy:
      try Files.makeDirectory(path)
      for array in arrays {
        let content = Self.npy(array)
        summary.bytes += content.count
        let name = array.name.replacingOccurrences(of: "/", with: ".")
        try content.write(to: URL(filePath: "\(path)/\(name).npy"), options: .atomic)
      }
      let encoder = JSONEncoder()
      encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
      try encoder.encode(notes).write(to: URL(filePath: "\(path)/columns.json"), options: .atomic)
    }
  }

  /// Eight bytes of header length, the header as JSON, the arrays one after the other.
  private func safetensors() throws -> Data {
    struct Entry: Encodable {
      var dtype: String
      var shape: [Int]
      var offsets: [Int]
      enum CodingKeys: String, CodingKey {
        case dtype, shape
        case offsets = "data_offsets"
      }
    }
    struct Name: CodingKey {
      var stringValue: String
      var intValue: Int? { nil }
      init(stringValue: String) { self.stringValue = stringValue }
      init?(intValue: Int) { nil }
    }
    struct Header: Encodable {
      var notes: [String: String]
      var entries: [(String, Entry)]
      func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: Name.self)
        try container.encode(notes, forKey: Name(stringValue: "__metadata__"))
        for (name, entry) in entries { try container.encode(entry, forKey: Name(stringValue: name)) }
      }
    }
    var offset = 0
    let entries = arrays.map { array -> (String, Entry) in
      defer { offset += array.bytes.count }
      let entry = Entry(
        dtype: array.kind.rawValue, shape: array.shape, offsets: [offset, offset + array.bytes.count])
      return (array.name, entry)
    }
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    var header = try encoder.encode(Header(notes: notes, entries: entries))
    // Arrays begin at a multiple of eight.
    header.append(contentsOf: [UInt8](repeating: 0x20, count: (8 - header.count % 8) % 8))
    var content = Self.bytes([UInt64(header.count).littleEndian])
    content.append(header)
    for array in arrays { content.append(array.bytes) }
    return content
  }

  private static func npy(_ array: NamedArray) -> Data {
    let shape = array.shape.map { "\($0)," }.joined(separator: " ")
    var header = "{'descr': '\(array.kind.numpy)', 'fortran_order': False, 'shape': (\(shape)), }"
    // Ten bytes stand before the header; with them, and the line's end, it fills multiples of 64.
    header += String(repeating: " ", count: (64 - (header.utf8.count + 11) % 64) % 64) + "\n"
    var content = Data([0x93] + Array("NUMPY".utf8) + [1, 0])
    content.append(bytes([UInt16(header.utf8.count).littleEndian]))
    content.append(contentsOf: Array(header.utf8))
    content.append(array.bytes)
    return content
  }
}
