// The names of a journal's files, and the making of a segment. A file that has its name is whole: it was written and
// synced under a temporary one.

internal import Base

/// The files of one journal directory.
struct JournalFiles: Sendable {
  let directory: String
  let layer: any FileLayer

  var lock: String { "\(directory)/lock" }
  var manifest: String { "\(directory)/manifest" }
  var head: String { "\(directory)/head" }

  /// The segment whose first frame has the offset `first`.
  func segment(_ first: UInt64) -> String {
    let digits = String(first)
    return "\(directory)/" + String(repeating: "0", count: 20 - digits.count) + digits + ".segment"
  }

  /// The first offsets of all segments, ascending.
  func segments() throws(JournalError) -> [UInt64] {
    try layer.list(directory).compactMap(Self.first(ofSegment:)).sorted()
  }

  private static func first(ofSegment name: String) -> UInt64? {
    guard name.hasSuffix(".segment"), name.utf8.count == 28, let first = UInt64(name.dropLast(8)) else { return nil }
    return first <= Label.offsetLimit ? first : nil
  }

  /// Deletes what a crash left half made.
  ///
  /// The files of consumers are not ours to delete.
  func removeTemporaries() throws(JournalError) {
    for name in try layer.list(directory) where name.hasSuffix(".tmp") && !name.hasPrefix(JournalConsumers.prefix) {
      try layer.remove("\(directory)/\(name)")
    }
  }

  func open(segment first: UInt64, _ mode: FileMode = .read) throws(JournalError) -> OpenFile {
    try OpenFile(segment(first), mode, layer: layer)
  }

  /// A segment's label, checked against its name.
  func label(ofSegment first: UInt64) throws(JournalError) -> Label {
    let path = segment(first)
    let label: Label
    do throws(JournalError) {
      label = try Label(.segment, at: path, layer: layer)
    } catch {
      guard case .damaged(let damage) = error else { throw error }
      throw .damaged(JournalDamage(file: path, fileOffset: 0, offset: first, reason: damage.reason))
    }
    guard label.first == first, label.second <= first else {
      throw .damaged(
        JournalDamage(
          file: path, fileOffset: 0, offset: first,
          reason: "the label says that it begins at \(label.first) after \(label.second)"))
    }
    return label
  }

  /// Makes a segment under a temporary name, brings it to the disk, and gives it its name: a segment that has its name
  /// has a whole label, and all it held then.
  ///
  /// - Parameter copying: frames to begin with, from another segment, which begins at `from`.
  func makeSegment(
    first: UInt64, previousEnd: UInt64, identity: JournalIdentity, durable: Bool,
    copying: (range: Range<UInt64>, from: UInt64)? = nil
  ) throws(JournalError) {
    let path = segment(first)
    let temporary = path + ".tmp"
    do throws(JournalError) {
      let file = try OpenFile(temporary, .create, layer: layer)
      let label = Label(.segment, first: first, second: previousEnd, identity: identity)
      try file.write(label.encoded.bytes, at: 0)
      if let copying { try copy(copying.range, from: copying.from, to: file) }
      if durable { try file.sync(dataOnly: false) }
    } catch {
      try? layer.remove(temporary)
      throw error
    }
    try layer.publish(temporary, as: path, in: directory, durable: durable)
  }

  private func copy(_ range: Range<UInt64>, from first: UInt64, to file: borrowing OpenFile) throws(JournalError) {
    let source = try open(segment: first)
    var at = range.lowerBound
    while at < range.upperBound {
      let count = min(1 << 20, Int(range.upperBound - at))
      let bytes = try source.read(count: count, at: Label.byteCount + Int(at - first))
      guard bytes.count == count else {
        throw .damaged(
          JournalDamage(
            file: source.path, fileOffset: Label.byteCount + Int(at - first) + bytes.count, offset: at,
            reason: "\(bytes.count) bytes are there where there were \(count)"))
      }
      try file.write(bytes.bytes, at: Label.byteCount + Int(at - range.lowerBound))
      at += UInt64(count)
    }
  }
}
