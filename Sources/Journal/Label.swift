// The 64 bytes that begin or make up every file of this module (docs/formats.md, "Labels"). One layout for all, so that
// one decoder is checked and fuzzed.

internal import Base

/// The kinds of labelled files; the raw value is the eight bytes of the magic, little-endian.
enum LabelKind: UInt64, Sendable, CaseIterable {
  case segment = 0x4745_5361_7269_7567  // "guiraSEG"
  case head = 0x4445_4861_7269_7567  // "guiraHED"
  case manifest = 0x4E41_4D61_7269_7567  // "guiraMAN"
  case consumer = 0x4E4F_4361_7269_7567  // "guiraCON"
  case checkpointData = 0x4144_4361_7269_7567  // "guiraCDA"
  case checkpointManifest = 0x414D_4361_7269_7567  // "guiraCMA"
}

/// A decoded label.
///
/// What the fields mean depends on the kind.
struct Label: Equatable, Sendable {
  static let byteCount = 64
  static let version: UInt32 = 1
  /// No journal gets so far; keeps sums of offsets from overflowing whatever a file says.
  static let offsetLimit: UInt64 = 1 << 62

  var kind: LabelKind
  var number: UInt32 = 0
  var first: UInt64 = 0
  var second: UInt64 = 0
  var identity = JournalIdentity(high: 0, low: 0)

  var encoded: Blob {
    var writer = ByteWriter(capacity: Self.byteCount)
    writer.append(kind.rawValue)
    writer.append(Self.version)
    writer.append(number)
    writer.append(first)
    writer.append(second)
    writer.append(identity.high)
    writer.append(identity.low)
    writer.append(UInt64(0))
    writer.append(UInt32(0))
    writer.append(Hashing.crc32c(writer.written))
    return writer.finish()
  }

  /// Decodes the label at the beginning of `blob`, which was read from `file`.
  init(_ expected: LabelKind, in blob: Blob, file: String) throws(JournalError) {
    func damage(_ reason: String) -> JournalError {
      .damaged(JournalDamage(file: file, fileOffset: 0, offset: 0, reason: reason))
    }
    guard blob.count >= Self.byteCount else {
      throw damage("it has \(blob.count) bytes; a label of \(Self.byteCount) was expected")
    }
    let bytes = blob.bytes.extracting(0..<Self.byteCount)
    func word(_ at: Int) -> UInt64 { unsafe bytes.unsafeLoadUnaligned(fromByteOffset: at, as: UInt64.self) }
    func half(_ at: Int) -> UInt32 { unsafe bytes.unsafeLoadUnaligned(fromByteOffset: at, as: UInt32.self) }
    guard Self.verifies(blob) else { throw damage("the label's CRC-32C does not match") }
    guard word(0) == expected.rawValue else { throw damage("the label is not that of a \(expected) file") }
    guard half(8) == Self.version else {
      throw .unsupportedVersion(file: file, version: half(8), supported: Self.version...Self.version)
    }
    guard word(48) == 0, half(56) == 0 else { throw damage("reserved bytes are not zero") }
    guard expected == .consumer || max(word(16), word(24)) <= Self.offsetLimit else {
      throw damage("the offsets \(word(16)) and \(word(24)) are above \(Self.offsetLimit)")
    }
    kind = expected
    number = half(12)
    first = word(16)
    second = word(24)
    identity = JournalIdentity(high: word(32), low: word(40))
  }

  /// Whether the bytes are those that somebody once wrote whole.
  static func verifies(_ blob: Blob) -> Bool {
    guard blob.count >= byteCount else { return false }
    let stored = unsafe blob.bytes.unsafeLoadUnaligned(fromByteOffset: 60, as: UInt32.self)
    return Hashing.crc32c(blob.bytes.extracting(0..<60)) == stored
  }

  init(
    _ kind: LabelKind, number: UInt32 = 0, first: UInt64 = 0, second: UInt64 = 0,
    identity: JournalIdentity = JournalIdentity(high: 0, low: 0)
  ) {
    self.kind = kind
    self.number = number
    self.first = first
    self.second = second
    self.identity = identity
  }

  /// Reads the label at the beginning of a file.
  init(_ kind: LabelKind, at path: String, layer: any FileLayer) throws(JournalError) {
    let file = try OpenFile(path, .read, layer: layer)
    try self.init(kind, in: try file.read(count: Self.byteCount, at: 0), file: path)
  }
}
