// Writes a checkpoint beside what else goes on. Nothing of it counts until its manifest has its name, which happens
// last: a crash before leaves files that the next writer deletes.

public import Base

/// Appends the sections of one checkpoint; what they mean is the caller's.
///
/// One writer per directory at a time: it deletes what earlier ones left unfinished. After any error the checkpoint
/// cannot be finished; `cancel` it and begin another.
public struct CheckpointWriter: ~Copyable, Sendable {
  private let files: CheckpointFiles
  private let fileBytes: Int
  private let durable: Bool
  private let name: String
  private let number: UInt32
  private let identity: JournalIdentity
  private var firsts: [UInt64] = [0]
  private var file: OpenFile
  private var buffer: FrameBuffer
  private var written: UInt64 = 0
  private var sections: UInt64 = 0
  private var isWhole = true

  /// Begins a checkpoint.
  ///
  /// - Parameters:
  ///   - name: 1 to 100 letters, digits, `.`, `_`, `-`; not that of a finished checkpoint.
  ///   - fileBytes: a data file of this many bytes gets no further section.
  ///   - durable: whether `finish` waits for the disk; false is for experiments.
  public init(
    directory: String, name: String, fileBytes: Int = 1 << 30, durable: Bool = true
  ) throws(JournalError) {
    let layer = FileLayers.layer(of: directory)
    do throws(FileError) { try layer.makeDirectory(directory) } catch { throw JournalError(error, directory) }
    try self.init(
      files: CheckpointFiles(directory: directory, layer: layer), name: name, fileBytes: fileBytes, durable: durable)
  }

  init(
    files: CheckpointFiles, name: String, fileBytes: Int, durable: Bool, identity: JournalIdentity = .random()
  ) throws(JournalError) {
    guard isValidName(name) else { throw .invalidName(name) }
    guard try !files.layer.has(files.manifest(name)) else { throw .alreadyThere(path: files.manifest(name)) }
    try files.removeUnfinished()
    // Above the numbers that can be read and the count of those that cannot.
    let listing = try Checkpoints.list(files)
    let newest = listing.checkpoints.last?.number ?? 0
    let file = try Self.makeFile(files, name, index: 0, first: 0, identity: identity)
    self.files = files
    self.name = name
    self.fileBytes = fileBytes
    self.durable = durable
    self.identity = identity
    number = newest + UInt32(listing.damaged.count) + 1
    self.file = file
    buffer = FrameBuffer(capacity: (1 << 20) + (64 << 10))
  }

  private static func makeFile(
    _ files: CheckpointFiles, _ name: String, index: Int, first: UInt64, identity: JournalIdentity
  ) throws(JournalError) -> OpenFile {
    let file = try OpenFile(files.data(name, index) + ".tmp", .create, layer: files.layer)
    let label = Label(.checkpointData, number: UInt32(index), first: first, identity: identity)
    try file.write(label.encoded.bytes, at: 0)
    return file
  }

  private var next: UInt64 { written + UInt64(buffer.count) }
  private var currentFirst: UInt64 { firsts[firsts.count - 1] }

  /// How many bytes the sections take so far, with their frames.
  public var bytes: UInt64 { next }

  /// Appends a section of at most 1 GiB - 1 byte.
  public mutating func append(_ section: RawSpan) throws(JournalError) {
    guard isWhole else { throw .stopped(after: "the checkpoint \(name) met an error; begin another") }
    guard section.byteCount <= Frame.payloadLimit else {
      throw .recordTooLong(bytes: section.byteCount, limit: Frame.payloadLimit)
    }
    isWhole = false
    if buffer.count >= 1 << 20 { try writeOut() }
    let used = Int(next - currentFirst)
    if used > 0, used + Frame.size(payload: section.byteCount) + Label.byteCount > fileBytes { try roll() }
    buffer.append(section, at: next)
    sections += 1
    isWhole = true
  }

  /// Begins to bring what was appended to the disk, without waiting.
  ///
  /// Called now and then, it spreads the load that `finish` would make at once.
  public mutating func startWriteback() throws(JournalError) {
    guard isWhole else { throw .stopped(after: "the checkpoint \(name) met an error; begin another") }
    isWhole = false
    try writeOut()
    if durable { file.startWriteback() }
    isWhole = true
  }

  /// Brings what was appended to the disk.
  public mutating func sync() throws(JournalError) {
    guard isWhole else { throw .stopped(after: "the checkpoint \(name) met an error; begin another") }
    isWhole = false
    try writeOut()
    FaultPoint.checkpointSyncing.passDuring()
    if durable { try file.sync(dataOnly: false) }
    isWhole = true
  }

  /// Makes the checkpoint count: data to the disk, names to the disk, and the manifest last.
  ///
  /// - Parameter manifest: what the caller needs to know before it reads the sections.
  @discardableResult
  public consuming func finish(manifest: Blob) throws(JournalError) -> CheckpointInfo {
    guard manifest.count <= Frame.payloadLimit else {
      throw .recordTooLong(bytes: manifest.count, limit: Frame.payloadLimit)
    }
    try sync()
    for index in 0..<firsts.count {
      let path = files.data(name, index)
      try files.layer.publish(path + ".tmp", as: path, in: files.directory, durable: false)
    }
    FaultPoint.checkpointRenamed.pass()
    if durable { try files.layer.makeNamesDurable(files.directory) }
    let info = CheckpointInfo(name: name, number: number, sections: sections, bytes: next, identity: identity)
    try files.write(info, firsts: firsts, content: manifest, durable: durable)
    return info
  }

  /// Gives up the checkpoint and its space on the disk.
  public consuming func cancel() throws(JournalError) { try files.removeUnfinished() }

  private mutating func writeOut() throws(JournalError) {
    try buffer.write(to: file, at: Label.byteCount + Int(written - currentFirst), counting: &written)
  }

  private mutating func roll() throws(JournalError) {
    try writeOut()
    if durable { try file.sync(dataOnly: false) }
    file = try Self.makeFile(files, name, index: firsts.count, first: next, identity: identity)
    firsts.append(next)
  }
}
