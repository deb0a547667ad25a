// Versions and bases on disk. A version is one file, written whole before it is sent; a base is a directory of parts that
// counts when its `complete` file is there. Belongs to the sync thread.

public import Base

/// The directory of versions.
public struct VersionStore: ~Copyable {
  private let directory: String
  private let keep: Duration
  private var store: UInt64 = 0
  /// Recent versions in memory, so that sending one does not read the disk.
  private var recent: [UInt64: Blob] = [:]
  private var recentOrder: [UInt64] = []
  private static let recentCount = 64

  /// Opens or makes the directory.
  public init(directory: String, keep: Duration) throws(FileError) {
    self.directory = directory
    self.keep = keep
    try Files.makeDirectory(directory)
  }

  private func versionPath(_ number: UInt64) -> String { "\(directory)/\(number).version" }
  private func basePath(_ number: UInt64) -> String { "\(directory)/base-\(number)" }

  /// What an earlier run left, when it is whole; nil to begin anew.
  public mutating func load() throws(FileError) -> StoredState? {
    guard Files.exists("\(directory)/store") else { return nil }
    guard let id = UInt64(String(decoding: try Files.read("\(directory)/store"), as: UTF8.self)) else { return nil }
    var versions: [UInt64] = []
    var bases: [UInt64] = []
    for name in try Files.names(in: directory) {
      if name.hasSuffix(".version"), let number = UInt64(name.dropLast(8)) { versions.append(number) }
      if name.hasPrefix("base-"), let number = UInt64(name.dropFirst(5)),
        Files.exists("\(directory)/\(name)/complete")
      {
        bases.append(number)
      }
    }
    guard let base = bases.max(), let newest = versions.max(), newest > base else { return nil }
    // Every version behind the base must be there, and the newest must read.
    guard Set(versions).isSuperset(of: (base + 1)...newest) else { return nil }
    let blob = Blob(try Files.read(versionPath(newest)))
    guard let content = try? VersionContent(decoding: ByteReader(blob)) else { return nil }
    let text = String(decoding: try Files.read("\(basePath(base))/complete"), as: UTF8.self)
    guard let parts = Int(text) else { return nil }
    store = id
    return StoredState(store: id, newest: content, base: (base, parts))
  }

  /// Forgets everything and begins a store of another number.
  public mutating func begin(_ id: UInt64) throws(FileError) {
    for name in try Files.names(in: directory) { try Files.remove("\(directory)/\(name)") }
    try Files.replace("\(directory)/store", with: Array("\(id)".utf8))
    store = id
    recent = [:]
    recentOrder = []
  }

  /// Stores a version durably.
  public mutating func store(_ number: UInt64, _ blob: Blob) throws(FileError) {
    try Files.replace(versionPath(number), with: blob.array)
    recent[number] = blob
    recentOrder.append(number)
    if recentOrder.count > Self.recentCount { recent[recentOrder.removeFirst()] = nil }
  }

  /// Stores one part of a base; part 0 begins it anew.
  public mutating func store(base: UInt64, part: Int, _ blob: Blob) throws(FileError) {
    let path = basePath(base)
    if part == 0, Files.exists(path) { try Files.remove(path) }
    try Files.makeDirectory(path)
    try Files.replace("\(path)/\(part)", with: blob.array, durable: false)
  }

  /// Makes a base count, and removes older bases and the versions before it that are older than the set time.
  public mutating func finish(base: UInt64, parts: Int) throws(FileError) {
    try Files.syncDirectory(of: "\(basePath(base))/0")
    try Files.replace("\(basePath(base))/complete", with: Array("\(parts)".utf8))
    let cutoff = Clocks.wall() - keep.milliseconds
    for name in try Files.names(in: directory) {
      if name.hasPrefix("base-"), let number = UInt64(name.dropFirst(5)), number < base {
        try Files.remove("\(directory)/\(name)")
      }
      if name.hasSuffix(".version"), let number = UInt64(name.dropLast(8)), number <= base,
        try Files.modified("\(directory)/\(name)") < cutoff
      {
        try Files.remove("\(directory)/\(name)")
      }
    }
  }

  /// A stored version's bytes; nil when it is no longer there.
  public func version(_ number: UInt64) -> Blob? {
    if let blob = recent[number] { return blob }
    return (try? Files.read(versionPath(number))).map { Blob($0) }
  }

  /// A stored part of a base.
  public func part(_ part: Int, ofBase base: UInt64) -> Blob? {
    (try? Files.read("\(basePath(base))/\(part)")).map { Blob($0) }
  }
}
