// Rows on their way from the shards into one array sorted by id. Of every row the id stays in memory; the weights wait in a
// file, in the order in which they came, and are picked from there. Belongs to the calling thread.

internal import Base
internal import Embeddings
internal import Foundation
internal import Glibc

/// The rows of all tables, from all shards.
struct ExportedRows {
  private let widths: [Int]
  private let paths: [String]
  private let files: [ExportFile]
  private var ids: [[UInt64]]
  /// The places of the rows of a table by id, while it is written.
  private var sorted: (table: Int, order: [UInt32])?

  /// No rows yet; weights go into files in `directory`.
  init(_ tables: [TableOptions], in directory: String) throws {
    widths = tables.map { $0.segments.reduce(0) { $0 + $1.width } }
    paths = tables.indices.map { "\(directory)/\($0)" }
    files = try paths.map { try ExportFile($0) }
    ids = tables.map { _ in [] }
  }

  func count(table: Int) -> Int { ids[table].count }

  /// Takes some rows.
  /// - Parameter weights: `[ids × weights per row]`.
  mutating func add(table: Int, ids slice: [UInt64], weights: [Float]) throws {
    ids[table] += slice
    guard ids[table].count <= UInt32.max else {
      throw StateError("a table has more than \(UInt32.max) rows; export checkpoints of fewer shards")
    }
    try files[table].write(weights)
  }

  private mutating func order(of table: Int) -> [UInt32] {
    if let sorted, sorted.table == table { return sorted.order }
    let ids = ids[table]
    let order = (0..<UInt32(ids.count)).sorted { ids[Int($0)] < ids[Int($1)] }
    sorted = (table, order)
    return order
  }

  mutating func writeIDs(table: Int, to output: ExportFile) throws {
    for row in order(of: table) { try output.write(ids[table][Int(row)]) }
  }

  mutating func writeWeights(table: Int, to output: ExportFile) throws {
    _ = try files[table].finish()
    let bytes = widths[table] * MemoryLayout<Float>.size
    // Mapped: what is read is the disk's to keep or to drop.
    let weights = try Data(contentsOf: URL(filePath: paths[table]), options: .alwaysMapped)
    for row in order(of: table) {
      let start = weights.startIndex + Int(row) * bytes
      try output.write(weights[start..<start + bytes])
    }
    sorted = nil
  }
}

/// A file that is written from its beginning to its end, a mebibyte at a time.
final class ExportFile {
  private static let chunk = 1 << 20
  private let path: String
  private let handle: FileHandle
  private var buffer = Data()
  private var written = 0

  /// Makes the file, or empties it.
  init(_ path: String) throws {
    self.path = path
    try Files.replace(path, with: [], durable: false)
    guard let handle = FileHandle(forWritingAtPath: path) else { throw StateError("cannot write \(path)") }
    self.handle = handle
    buffer.reserveCapacity(Self.chunk)
  }

  static func bytes<Value: BitwiseCopyable>(_ values: [Value]) -> Data {
    unsafe values.withUnsafeBytes { unsafe Data($0) }
  }

  func write(_ values: [Float]) throws { try write(Self.bytes(values)) }

  func write(_ id: UInt64) throws {
    unsafe withUnsafeBytes(of: id.littleEndian) { unsafe buffer.append(contentsOf: $0) }
    if buffer.count >= Self.chunk { try flush() }
  }

  func write(_ data: Data) throws {
    buffer.append(data)
    if buffer.count >= Self.chunk { try flush() }
  }

  private func flush() throws {
    try handle.write(contentsOf: buffer)
    written += buffer.count
    buffer.removeAll(keepingCapacity: true)
  }

  /// Writes what is left and gives how many bytes there are.
  func finish() throws -> Int {
    try flush()
    return written
  }

  /// Gives the finished file its name.
  func rename(to name: String) throws {
    try handle.synchronize()
    try handle.close()
    guard unsafe Glibc.rename(path, name) == 0 else { throw FileError(errno, "rename \(path) to \(name)") }
  }
}
