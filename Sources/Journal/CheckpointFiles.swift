// The names of a directory's checkpoints, and their manifests. A checkpoint is there when its manifest is; data files
// without one are what a crash left.

internal import Base

/// A finished checkpoint.
public struct CheckpointInfo: Sendable, Equatable {
  /// The name its maker gave it.
  public let name: String
  /// Its place in the order in which the directory's checkpoints were finished.
  public let number: UInt32
  /// How many sections it has.
  public let sections: UInt64
  /// How many bytes its sections take, with their frames.
  public let bytes: UInt64
  /// Random; binds the data files to the manifest.
  public let identity: JournalIdentity
}

/// The files of one directory of checkpoints.
struct CheckpointFiles: Sendable {
  static let manifestSuffix = ".checkpoint"
  static let dataSuffix = ".data"

  let directory: String
  let layer: any FileLayer

  func manifest(_ name: String) -> String { "\(directory)/\(name)\(Self.manifestSuffix)" }

  func data(_ name: String, _ index: Int) -> String {
    let digits = String(index)
    let zeros = String(repeating: "0", count: max(0, 6 - digits.count))
    return "\(directory)/\(name)-\(zeros)\(digits)\(Self.dataSuffix)"
  }

  /// The name of the checkpoint a data file belongs to; nil for other files.
  static func owner(ofData file: String) -> String? {
    guard file.hasSuffix(dataSuffix) else { return nil }
    let stem = file.dropLast(dataSuffix.count)
    guard let dash = stem.lastIndex(of: "-") else { return nil }
    let digits = stem[stem.index(after: dash)...]
    guard digits.utf8.count >= 6, digits.utf8.allSatisfy({ (0x30...0x39).contains($0) }) else { return nil }
    return String(stem[..<dash])
  }

  /// The names of the finished checkpoints.
  func finished() throws(JournalError) -> [String] {
    try layer.list(directory).filter { $0.hasSuffix(Self.manifestSuffix) }
      .map { String($0.dropLast(Self.manifestSuffix.count)) }
  }

  /// Deletes what crashes and failures left behind: temporary files, and data files without a manifest.
  func removeUnfinished() throws(JournalError) {
    let finished = Set(try finished())
    for file in try layer.list(directory) {
      let isOrphan = Self.owner(ofData: file).map { !finished.contains($0) } ?? false
      let isTemporary = file.hasSuffix(Self.dataSuffix + ".tmp") || file.hasSuffix(Self.manifestSuffix + ".tmp")
      if isOrphan || isTemporary { try layer.remove("\(directory)/\(file)") }
    }
  }

  /// What a manifest says: the checkpoint, the offsets its data files begin with, and what the maker put in.
  struct Manifest {
    let info: CheckpointInfo
    let firsts: [UInt64]
    let content: Blob
  }

  func write(_ info: CheckpointInfo, firsts: [UInt64], content: Blob, durable: Bool) throws(JournalError) {
    let label = Label(
      .checkpointManifest, number: info.number, first: info.bytes, second: info.sections, identity: info.identity)
    var table = ByteWriter(capacity: 8 + firsts.count * 8)
    table.append(UInt64(firsts.count))
    table.append(array: firsts)
    var frames = FrameBuffer(capacity: 1 << 10)
    let size = frames.append(table.written, at: 0)
    frames.append(content.bytes, at: UInt64(size))
    var file = ByteWriter(capacity: Label.byteCount + frames.count)
    file.append(raw: label.encoded.bytes)
    file.append(raw: frames.waiting)
    try layer.replace(
      manifest(info.name), with: file.finish(), in: directory, durable: durable, passing: .checkpointUnnamed)
  }

  func read(_ name: String) throws(JournalError) -> Manifest {
    let path = manifest(name)
    let label = try Label(.checkpointManifest, at: path, layer: layer)
    let file = try OpenFile(path, .read, layer: layer)
    let end = UInt64(try file.size() - Label.byteCount)
    var cursor = FrameCursor(file, first: 0, at: 0)
    guard let table = try cursor.next(limit: end), let content = try cursor.next(limit: end), !table.isMark else {
      throw cursor.damage("two frames were expected before the end of the file")
    }
    guard cursor.offset == end else { throw cursor.damage("\(end - cursor.offset) bytes follow the last frame") }
    let firsts = try firsts(of: table, path: path)
    guard firsts.first == 0, zip(firsts, firsts.dropFirst()).allSatisfy({ $0 < $1 }),
      firsts[firsts.count - 1] <= label.first
    else {
      throw .damaged(
        JournalDamage(
          file: path, fileOffset: Label.byteCount, offset: 0, reason: "the data files' beginnings do not ascend"))
    }
    let info = CheckpointInfo(
      name: name, number: label.number, sections: label.second, bytes: label.first, identity: label.identity)
    return Manifest(info: info, firsts: firsts, content: Blob(slicing: content.blob, content.payload))
  }

  private func firsts(of table: DecodedFrame, path: String) throws(JournalError) -> [UInt64] {
    var reader = ByteReader(table.blob, range: table.payload)
    do throws(DecodeError) {
      let count = try reader.read(UInt64.self)
      let firsts = try reader.view(UInt64.self, count: Int(clamping: count)).array
      try reader.expectEnd()
      return firsts
    } catch {
      throw .damaged(
        JournalDamage(file: path, fileOffset: Label.byteCount, offset: 0, reason: "the table of data files: \(error)"))
    }
  }
}
