// The values that go in and out of a journal. All are plain and may cross threads; a record is a slice of the chunk it
// was read in and is never copied here.

public import Base

/// How a journal is kept.
public struct JournalOptions: Sendable, Equatable {
  /// A segment of this many bytes gets no further record.
  ///
  /// Default 64 MiB: what one deletion frees and what a recovery may have to copy.
  public var segmentBytes = 64 << 20
  /// Whether `sync` waits for the disk.
  ///
  /// False is for experiments only: a power failure then loses records readers have seen, and the journal refuses to
  /// open until the loss is accepted. Default true.
  public var durable = true
  /// The longest record accepted, in bytes.
  ///
  /// Default 256 MiB; the format itself ends at 1 GiB.
  public var recordLimit = 256 << 20
  /// Whether opening verifies every kept record, or only the last segment's and what the others' labels say.
  ///
  /// Default true; several GB/s from the page cache. Readers verify what they read in either case.
  public var verifiesAllWhenOpening = true
  /// Where the first record that is still needed begins, the end of another: what is before is not verified, and damage
  /// there costs nothing.
  ///
  /// Default 0: all are needed. A checkpoint that holds what the older ones did says where.
  public var neededFrom: UInt64 = 0

  /// The defaults.
  public init() {}
}

/// What tells a journal apart from all others, and from itself before it lost records or an older state was restored.
public struct JournalIdentity: Hashable, Sendable, CustomStringConvertible {
  /// The more significant half.
  public let high: UInt64
  /// The less significant half.
  public let low: UInt64

  /// An identity from its halves.
  public init(high: UInt64, low: UInt64) {
    self.high = high
    self.low = low
  }

  /// A new random identity.
  public static func random() -> JournalIdentity {
    var system = SystemRandomNumberGenerator()
    return JournalIdentity(high: system.next(), low: system.next())
  }

  /// 32 hexadecimal digits.
  public var description: String {
    [high, low].map { half in
      let digits = String(half, radix: 16)
      return String(repeating: "0", count: 16 - digits.count) + digits
    }.joined()
  }
}

/// A record read from a journal, or a section of a checkpoint.
///
/// It keeps the bytes it lies in alive, which are up to 256 KiB of its neighbours: copy what is kept for long.
public struct JournalRecord: Sendable {
  /// The journal offset of the record's end, which is its position.
  public let end: UInt64
  /// The bytes the record lies in.
  public let blob: Blob
  /// Where in `blob` the record lies; begins at a multiple of 8.
  public let range: Range<Int>

  /// The record as a blob, which keeps its neighbours alive too.
  public var content: Blob { Blob(slicing: blob, range) }

  /// A cursor over the record.
  public var payload: ByteReader { ByteReader(blob, range: range) }

  /// The record's bytes, valid while the record is borrowed.
  public var bytes: RawSpan {
    @_lifetime(borrow self) get {
      let span = blob.bytes.extracting(range)
      return unsafe _overrideLifetime(span, borrowing: self)
    }
  }
}

/// What opening a journal found and did.
public struct RecoveryReport: Sendable, Equatable {
  /// The journal was made.
  public internal(set) var isNew = false
  /// Bytes after the last whole record that were cut: a write the crash interrupted.
  ///
  /// Never acknowledged, never read.
  public internal(set) var tornTail: JournalDamage?
  /// How many bytes `tornTail` had.
  public internal(set) var tornBytes = 0
  /// Bytes of whole records that were written but not known to be synced; they were kept, and are synced now.
  public internal(set) var keptUnsyncedBytes: UInt64 = 0
  /// The published end of the journal could not be read; it was found anew from the segments.
  public internal(set) var headUnreadable: JournalDamage?
  /// The losses that were accepted, in the order they were found.
  public internal(set) var acceptedLosses: [JournalDamage] = []
}
