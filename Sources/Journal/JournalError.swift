// What can go wrong with a journal or a checkpoint, with the numbers an operator needs. Damage always names the file
// and the place; nothing read from a file traps.

public import Base
internal import Glibc

/// Damage found in a stored file: where it is and what it would cost to go on.
public struct JournalDamage: Error, Equatable, Sendable, CustomStringConvertible {
  /// The path of the damaged file.
  public let file: String
  /// Where in the file, in bytes: the beginning of the frame or header that does not verify.
  public let fileOffset: Int
  /// The journal offset of that place.
  public let offset: UInt64
  /// What was found and what was expected.
  public let reason: String
  /// The journal offsets that are given up when the loss is accepted; nil where that is not known or does not apply.
  public internal(set) var lost: Range<UInt64>?

  /// The file, the place, the reason, and what would be lost.
  public var description: String {
    var text = "\(file) is damaged at byte \(fileOffset) (journal offset \(offset)): \(reason)"
    if let lost {
      text += "; going on with accepted loss gives up the journal offsets \(lost.lowerBound)..<\(lost.upperBound)"
      text += " (\(lost.upperBound - lost.lowerBound) bytes); copy the directory first"
    }
    return text
  }
}

/// Why an operation on a journal or checkpoint failed.
public enum JournalError: Error, Equatable, Sendable, CustomStringConvertible {
  /// There is no journal or checkpoint at that path (yet).
  case notThere(path: String)
  /// There is already a checkpoint of that name.
  case alreadyThere(path: String)
  /// Another process writes this journal.
  case locked(directory: String)
  /// A file does not hold what was written to it.
  case damaged(JournalDamage)
  /// A file was written by another version of Guira.
  case unsupportedVersion(file: String, version: UInt32, supported: ClosedRange<UInt32>)
  /// The disk, or a quota, is full. Nothing is lost: free space and call again.
  case diskFull(file: String)
  /// An fsync failed: what was not synced may not be on disk. Drop the writer and open anew, or exit.
  case syncFailed(file: String, code: Int32)
  /// The writer refuses to go on after an earlier failure; open the journal anew.
  case stopped(after: String)
  /// A record is longer than the limit.
  case recordTooLong(bytes: Int, limit: Int)
  /// The records from `offset` on were deleted; the oldest kept begins at `first`.
  case deleted(offset: UInt64, first: UInt64)
  /// A reader asks for an offset the journal has not reached.
  case beyondEnd(offset: UInt64, syncedEnd: UInt64)
  /// The journal lost records or was restored since the reader began; begin anew.
  case identityChanged(was: JournalIdentity, now: JournalIdentity)
  /// A consumer or checkpoint name with characters other than letters, digits, `.`, `_` and `-`, or too long.
  case invalidName(String)
  /// The system refused an operation.
  case system(FileError)

  init(_ error: FileError, _ path: String) {
    switch error.code {
    case ENOSPC, EDQUOT: self = .diskFull(file: path)
    case ENOENT: self = .notThere(path: path)
    default: self = .system(FileError(error.code, "\(error.operation) in \(path)"))
    }
  }

  var isNotThere: Bool {
    if case .notThere = self { true } else { false }
  }

  /// What happened, and what to do.
  public var description: String {
    switch self {
    case .notThere(let path): "\(path) is not there"
    case .alreadyThere(let path): "\(path) is already there; use another name or delete it"
    case .locked(let directory): "another process writes the journal \(directory); stop it first"
    case .damaged(let damage): damage.description
    case .unsupportedVersion(let file, let version, let supported):
      "\(file) has format version \(version); this program reads \(supported.lowerBound) to \(supported.upperBound)"
    case .diskFull(let file): "no space is left to write \(file); free some, nothing is lost"
    case .syncFailed(let file, let code):
      "\(FileError(code, "bring \(file) to the disk")); it is not tried again on this file: start anew to recover"
    case .stopped(let reason): "the journal's writer stopped: \(reason)"
    case .recordTooLong(let bytes, let limit): "a record has \(bytes) bytes; the limit is \(limit)"
    case .deleted(let offset, let first): "journal offset \(offset) was deleted; the oldest kept is \(first)"
    case .beyondEnd(let offset, let syncedEnd):
      "journal offset \(offset) is asked for; the journal ends at \(syncedEnd)"
    case .identityChanged(let was, let now):
      "the journal's identity changed from \(was) to \(now): records were lost or an older state restored"
    case .invalidName(let name): "'\(name)' is no name: use 1 to 100 letters, digits, '.', '_' and '-', not '.' first"
    case .system(let error): error.description
    }
  }
}

extension FileError {
  /// Whether a lock is held by someone else.
  var isWouldBlock: Bool { code == EWOULDBLOCK }
}
