// Versions and bases on disk. A version is one file, written whole before it is sent; a base is a directory of parts that
// counts when its `complete` file is there. What was kept long enough goes, and with it the base it began from, once
// nothing that may still be returned to needs it. Belongs to the sync thread.

public import Base

/// The directory of versions.
public final class VersionStore {
  /// A whole base.
  private struct Base {
    var number: UInt64
    var parts: Int
    /// Per shard the last epoch it may have read from.
    var epochs: [UInt64]
  }

  private let directory: String
  private let keep: Duration
  private var store: UInt64 = 0
  /// The heads of all versions on the disk, and their bytes, by number.
  private var heads: [UInt64: (content: VersionContent, bytes: Int)] = [:]
  private var newest: UInt64 = 0
  /// Ascending.
  private var bases: [Base] = []
  /// Recent versions in memory, so that sending one does not read the disk.
  private var recent: [(number: UInt64, blob: Blob)] = []
  private var recentBytes = 0
  private static let recentCount = 64
  private static let recentByteLimit = 256 << 20

  /// Opens or makes the directory.
  public init(directory: String, keep: Duration) throws(FileError) {
    self.directory = directory
    self.keep = keep
    try Files.makeDirectory(directory)
  }

  private func versionPath(_ number: UInt64) -> String { "\(directory)/\(number).version" }
  private func basePath(_ number: UInt64) -> String { "\(directory)/base-\(number)" }

  // MARK: Beginning

  /// What an earlier run left, when it is whole; nil to begin anew.
  public func load() throws(FileError) -> StoredState? {
    guard Files.exists("\(directory)/store"),
      let id = UInt64(String(decoding: try Files.read("\(directory)/store"), as: UTF8.self))
    else { return nil }
    var lastDamaged: UInt64 = 0
    for name in try Files.names(in: directory) {
      if name.hasSuffix(".version"), let number = UInt64(name.dropLast(8)) {
        guard let head = try head(versionPath(number)), head.content.number == number else {
          lastDamaged = max(lastDamaged, number)
          continue
        }
        heads[number] = head
      }
      if name.hasPrefix("base-"), let number = UInt64(name.dropFirst(5)), let base = try wholeBase(number) {
        bases.append(base)
      }
    }
    bases.sort { $0.number < $1.number }
    // A base that no version follows yet does not say where the shards are to be read on; the one before it does.
    guard let newest = heads.keys.max(), let base = bases.last(where: { $0.number < newest }) else { return nil }
    // A replica may have the damaged one, so no other version may get its number.
    guard lastDamaged < newest else { return nil }
    // Every version behind the base must be there, and the newest must read.
    guard (base.number + 1...newest).allSatisfy({ heads[$0] != nil }) else { return nil }
    guard let blob = version(newest), let content = try? VersionContent(decoding: ByteReader(blob)) else { return nil }
    // Sync ended in the middle of a return, or of going on after one: what replicas have is neither state.
    if content.continues, content.pinned > 0 { return nil }
    self.newest = newest
    store = id
    return StoredState(
      store: id, newest: content, base: (base.number, base.parts), baseEpochs: base.epochs)
  }

  private func head(_ path: String) throws(FileError) -> (content: VersionContent, bytes: Int)? {
    let (bytes, size) = try Files.readPrefix(path, count: VersionContent.headBytes)
    guard let content = try? VersionContent(head: ByteReader(Blob(bytes))) else { return nil }
    return (content, size)
  }

  private func wholeBase(_ number: UInt64) throws(FileError) -> Base? {
    let path = "\(basePath(number))/complete"
    guard Files.exists(path), let parts = Int(String(decoding: try Files.read(path), as: UTF8.self)), parts > 0,
      Files.exists("\(basePath(number))/\(parts - 1)"), let last = try head("\(basePath(number))/\(parts - 1)")
    else { return nil }
    return Base(number: number, parts: parts, epochs: last.content.epochs)
  }

  /// Forgets everything and begins a store of another number.
  public func begin(_ id: UInt64) throws(FileError) {
    // The number goes first: without it nothing that is left counts.
    if Files.exists("\(directory)/store") {
      try Files.remove("\(directory)/store")
      try Files.syncDirectory(of: "\(directory)/store")
    }
    for name in try Files.names(in: directory) { try Files.remove("\(directory)/\(name)") }
    try Files.replace("\(directory)/store", with: Array("\(id)".utf8))
    store = id
    newest = 0
    heads = [:]
    bases = []
    recent = []
    recentBytes = 0
  }

  // MARK: Storing

  /// Stores a version durably.
  public func store(_ number: UInt64, _ blob: Blob) throws(FileError) {
    try Files.replace(versionPath(number), with: blob.bytes)
    guard let head = try? VersionContent(head: ByteReader(blob)) else {
      preconditionFailure("version \(number) was just written")
    }
    heads[number] = (head, blob.count)
    newest = number
    recent.append((number, blob))
    recentBytes += blob.count
    while recent.count > Self.recentCount || (recentBytes > Self.recentByteLimit && recent.count > 1) {
      recentBytes -= recent.removeFirst().blob.count
    }
    if number % 64 == 0 { try prune() }
  }

  /// Stores one part of a base; part 0 begins it anew.
  public func store(base: UInt64, part: Int, _ blob: Blob) throws(FileError) {
    let path = basePath(base)
    if part == 0, Files.exists(path) { try Files.remove(path) }
    try Files.makeDirectory(path)
    try Files.replace("\(path)/\(part)", with: blob.bytes, durable: false)
  }

  /// Makes a base count, and removes what is no longer needed.
  public func finish(base: UInt64, parts: Int) throws(FileError) {
    try Files.syncDirectory(of: "\(basePath(base))/0")
    try Files.replace("\(basePath(base))/complete", with: Array("\(parts)".utf8))
    bases.removeAll { $0.number == base }
    if let whole = try wholeBase(base) { bases.append(whole) }
    try prune()
  }

  /// Removes the bases before the one that the oldest kept state begins from, and the versions up to it.
  private func prune() throws(FileError) {
    // What is pinned may be returned from to anything since.
    guard heads[newest]?.content.pinned ?? 0 == 0, bases.count > 1 else { return }
    let cutoff = Clocks.wall() - keep.milliseconds
    let oldest = heads.values.lazy.filter { $0.content.created >= cutoff }.map(\.content.number).min() ?? newest
    guard let first = bases.last(where: { isExact(oldest, after: $0) }) ?? bases.last, first.number > bases[0].number
    else { return }
    for base in bases where base.number < first.number { try Files.remove(basePath(base.number)) }
    bases.removeAll { $0.number < first.number }
    for number in heads.keys where number <= first.number {
      try Files.remove(versionPath(number))
      heads[number] = nil
    }
  }

  // MARK: Reading

  /// A stored version's bytes; nil when it is no longer there, or not whole.
  public func version(_ number: UInt64) -> Blob? {
    if let known = recent.last(where: { $0.number == number }) { return known.blob }
    return whole(versionPath(number))
  }

  /// A stored part of a base; nil when it is no longer there, or not whole.
  public func part(_ part: Int, ofBase base: UInt64) -> Blob? { whole("\(basePath(base))/\(part)") }

  private func whole(_ path: String) -> Blob? {
    guard let blob = (try? Files.read(path)).map({ Blob($0) }), VersionContent.isWhole(blob) else { return nil }
    return blob
  }

  /// Whether a version's state can be read from a base on: nothing the base read came later.
  private func isExact(_ number: UInt64, after base: Base) -> Bool {
    guard number > base.number, let epochs = heads[number]?.content.epochs, epochs.count == base.epochs.count else {
      return false
    }
    return zip(epochs, base.epochs).allSatisfy { $0 >= $1 }
  }

  /// The newest base a version's state can be read from.
  private func base(for number: UInt64) -> Base? { bases.last { isExact(number, after: $0) } }

  /// The state of an earlier version, as far as it differs from the newest; nil when it cannot be returned to.
  public func state(of number: UInt64) -> VersionState? {
    guard let head = heads[number], !head.content.continues, let base = base(for: number) else { return nil }
    func read(_ blob: Blob?) -> VersionContent? {
      blob.flatMap { try? VersionContent(decoding: ByteReader($0)) }
    }
    let source = VersionState.Source(
      base: (base.number, base.parts), version: { read(self.version($0)) },
      part: { read(self.part($0, ofBase: base.number)) })
    return VersionState(of: number, newest: newest, from: source)
  }

  /// Every version on the disk, oldest first.
  public var list: [VersionSummary] {
    heads.keys.sorted().compactMap { number in
      guard let head = heads[number] else { return nil }
      let before = heads[number - 1]?.content.totals
      return VersionSummary(
        head.content, bytes: head.bytes, before: before, canReturn: !head.content.continues && base(for: number) != nil)
    }
  }

  /// Everything about one version; nil when it is not there, or not whole.
  public func details(of number: UInt64) -> VersionDetails? {
    guard let head = heads[number], let blob = version(number),
      let content = try? VersionContent(decoding: ByteReader(blob))
    else { return nil }
    let summary = VersionSummary(
      content, bytes: head.bytes, before: heads[number - 1]?.content.totals,
      canReturn: !content.continues && base(for: number) != nil)
    return VersionDetails(summary, content)
  }
}
