// Why a joiner cannot start or go on.

public import Base
internal import Glibc
internal import Journal
public import Streams

/// A joiner that stopped, and what to do about it.
public enum JoinerError: Error, Equatable, Sendable, CustomStringConvertible {
  /// A stream could not be opened, read or written.
  case stream(name: String, StreamError)
  /// The state directory could not be used.
  case file(FileError)
  /// The checkpoint does not read.
  case badCheckpoint(path: String, DecodeError)
  /// The checkpoint was made with more output partitions than there are now.
  case fewerOutputs(stored: Int, configured: Int)
  /// An output ends before the place the checkpoint says it had reached.
  case outputTooShort(output: JoinOutput, end: Position, expected: Position)
  /// An output holds something that is not an example.
  case badOutput(output: JoinOutput, position: Position, DecodeError)
  /// The store of pending impressions failed.
  case pendingStore(path: String, reason: String)
  /// The store that the checkpoint counts on is not there, or not as it was.
  case pendingLost(path: String, checkpoint: String, impressions: UInt64, reason: String)

  /// Whether the same call goes on where it stopped, once there is space on the disk or a server is back.
  public var isForNow: Bool {
    switch self {
    case .pendingStore(_, let reason): unsafe reason.contains(String(cString: strerror(ENOSPC)))
    case .stream(_, let error): error.isForNow
    case .file(let error): error.code == ENOSPC || error.code == EDQUOT
    default: false
    }
  }

  /// What happened, and what to do.
  public var description: String {
    switch self {
    case .stream(let name, let error): "the joiner cannot use the stream \(name): \(error)"
    case .file(let error): "the joiner cannot use its state directory: \(error)"
    case .badCheckpoint(let path, let error):
      "the joiner's checkpoint \(path) does not read: \(error). Without it (move it away) the joiner reads its inputs "
        + "and outputs from their beginning, which works while they are kept whole"
    case .fewerOutputs(let stored, let configured):
      "the examples had \(stored) partitions and are to have \(configured): the joiner would lose sight of what it wrote "
        + "to the others; keep at least \(stored)"
    case .outputTooShort(let output, let end, let expected):
      "\(output) ends at \(end), before \(expected), where the joiner's checkpoint says it had come: records were lost, "
        + "or the checkpoint belongs to other streams"
    case .badOutput(let output, let position, let error):
      "the record of \(output) that ends at \(position) is not what the joiner writes: \(error)"
    case .pendingStore(let path, let reason): "the joiner's store of pending impressions \(path) failed: \(reason)"
    case .pendingLost(let path, let checkpoint, let impressions, let reason):
      "the joiner's store of pending impressions \(path) cannot be used: \(reason). \(impressions) pending impressions are "
        + "in it, and their labels would be lost: put the directory back as it was. Without it (move \(checkpoint) away) "
        + "the joiner reads its inputs and outputs from their beginning, which works while they are kept whole"
    }
  }
}
