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

  /// One array: its name, type and shape, and where its little-endian bytes come from.
  struct NamedArray {
    enum Kind: String {
      case float32 = "F32"
      case uint64 = "U64"
      var numpy: String { self == .float32 ? "<f4" : "<u8" }
      var size: Int { self == .float32 ? 4 : 8 }
    }
    enum Content {
      case ids(table: Int)
      case weights(table: Int)
      case values([Float])
    }

    var name: String
    var kind: Kind
    var shape: [Int]
    var content: Content
    var byteCount: Int { shape.reduce(kind.size, *) }
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

  private let shards: [(options: ShardOptions, files: ShardFiles)]
  private let checkpoint: String?
  private var arrays: [NamedArray] = []
  private var notes: [String: String] = ["format": "guira 1"]
  /// What was written.
  public private(set) var summary = Summary()

  /// The parameters of all shards; nothing is read yet.
  ///
  /// - Parameters:
  ///   - shards: by shard what it is told and where its files are.
  ///   - checkpoint: the checkpoint to read; nil for the newest state.
  public init(shards: [(options: ShardOptions, files: ShardFiles)], checkpoint: String? = nil) {
    self.shards = shards
    self.checkpoint = checkpoint
  }

  /// Writes a safetensors file, or a directory of .npy files.
  ///
  /// One shard is in memory at a time, and of all rows their ids; weights wait in a file beside `path` for their order.
  /// - Parameter progress: called with the share read, 0…1.
  /// - Throws: what `ShardContents` throws, and errors of files; a safetensors file appears whole or not at all.
  public mutating func write(
    _ format: Format, to path: String, progress: (Double) -> Void = { _ in }
  ) throws {
    guard let tables = shards.first?.options.tables else { return }
    let parts = "\(path).parts"
    try Files.remove(parts)
    try Files.makeDirectory(parts)
    defer { try? Files.remove(parts) }
    var rows = try ExportedRows(tables, in: parts)
    var tensors: [NamedArray] = []
    for (number, shard) in shards.enumerated() {
      let contents = try ShardContents(shard.options, files: shard.files, checkpoint: checkpoint)
      for table in tables.indices {
        try contents.forEachSlice(table: table) { try rows.add(table: table, ids: $0, weights: $1) }
      }
      for (tensor, values) in contents.tensors {
        tensors.append(
          NamedArray(name: tensor.name, kind: .float32, shape: tensor.shape, content: .values(values)))
      }
      progress(Double(number + 1) / Double(shards.count + 1))
    }
    for (table, options) in tables.enumerated() {
      describe(options, table: table, rows: rows.count(table: table))
    }
    arrays += tensors.sorted { $0.name < $1.name }
    summary.tensors = tensors.count
    switch format {
    case .safetensors: try writeSafetensors(to: path, &rows)
    case .npy: try writeArrays(to: path, &rows)
    }
    progress(1)
  }

  private mutating func describe(_ table: TableOptions, table number: Int, rows: Int) {
    let width = table.segments.reduce(0) { $0 + $1.width }
    arrays.append(NamedArray(name: "\(table.name).ids", kind: .uint64, shape: [rows], content: .ids(table: number)))
    arrays.append(
      NamedArray(
        name: "\(table.name).weights", kind: .float32, shape: [rows, width], content: .weights(table: number)))
    var column = 0
    notes["\(table.name).columns"] = table.segments.map { segment in
      defer { column += segment.width }
      return "\(segment.name) \(column)..<\(column + segment.width)"
    }.joined(separator: ", ")
    notes["\(table.name).default"] = "\(table.defaultWeight)"
    summary.rows.append((table.name, rows))
  }

  private mutating func writeSafetensors(to path: String, _ rows: inout ExportedRows) throws {
    let temporary = "\(path).tmp"
    do {
      let output = try ExportFile(temporary)
      try output.write(try header())
      for array in arrays { try Self.write(array, rows: &rows, to: output) }
      summary.bytes = try output.finish()
      try output.rename(to: path)
    } catch {
      try? Files.remove(temporary)
      throw error
    }
  }

  private mutating func writeArrays(to path: String, _ rows: inout ExportedRows) throws {
    try Files.makeDirectory(path)
    for array in arrays {
      let name = array.name.replacingOccurrences(of: "/", with: ".")
      let output = try ExportFile("\(path)/\(name).npy.tmp")
      try output.write(Self.numpyHeader(array))
      try Self.write(array, rows: &rows, to: output)
      summary.bytes += try output.finish()
      try output.rename(to: "\(path)/\(name).npy")
    }
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
    try encoder.encode(notes).write(to: URL(filePath: "\(path)/columns.json"), options: .atomic)
  }

  private static func write(_ array: NamedArray, rows: inout ExportedRows, to output: ExportFile) throws {
    switch array.content {
    case .ids(let table): try rows.writeIDs(table: table, to: output)
    case .weights(let table): try rows.writeWeights(table: table, to: output)
    case .values(let values): try output.write(values)
    }
  }

  /// Eight bytes of header length, and the header as JSON; the arrays come one after the other.
  private func header() throws -> Data {
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
      defer { offset += array.byteCount }
      let entry = Entry(
        dtype: array.kind.rawValue, shape: array.shape, offsets: [offset, offset + array.byteCount])
      return (array.name, entry)
    }
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    var header = try encoder.encode(Header(notes: notes, entries: entries))
    // Arrays begin at a multiple of eight.
    header.append(contentsOf: [UInt8](repeating: 0x20, count: (8 - header.count % 8) % 8))
    return ExportFile.bytes([UInt64(header.count).littleEndian]) + header
  }

  private static func numpyHeader(_ array: NamedArray) -> Data {
    let shape = array.shape.map { "\($0)," }.joined(separator: " ")
    var header = "{'descr': '\(array.kind.numpy)', 'fortran_order': False, 'shape': (\(shape)), }"
    // Ten bytes stand before the header; with them, and the line's end, it fills multiples of 64.
    header += String(repeating: " ", count: (64 - (header.utf8.count + 11) % 64) % 64) + "\n"
    var content = Data([0x93] + Array("NUMPY".utf8) + [1, 0])
    content.append(ExportFile.bytes([UInt16(header.utf8.count).littleEndian]))
    content.append(contentsOf: Array(header.utf8))
    return content
  }
}
