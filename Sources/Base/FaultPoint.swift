// Places where a process can be told to die, so that tests hit the moments that matter and not only the likely ones.
// Off unless the environment names a place: then one process, at one passage, kills itself as `kill -9` would.

internal import Glibc
internal import Synchronization

/// A named moment in the life of a shard, a trainer or a joiner.
///
/// `GUIRA_FAULT=push.half:3` makes the process that has it in its environment send itself SIGKILL at the third passage of
/// that moment. For tests (docs/chaos.md); without the variable a passage costs a comparison.
public enum FaultPoint: String, CaseIterable, Sendable {
  /// A shard has applied some of a push's tables and tensors, not all.
  case pushHalf = "push.half"
  /// A shard has applied a push and not answered.
  case pushApplied = "push.applied"
  /// A shard has handed the first records of a block to its journal, not the last.
  case blockHalf = "block.half"
  /// A block's last records wait in memory, and nothing of them is in the file.
  case blockWaiting = "block.waiting"
  /// Half of the bytes of a journal's write are in the file.
  case blockTorn = "block.torn"
  /// A block is written and not synced.
  case blockWritten = "block.written"
  /// The disk is syncing a block.
  case blockSyncing = "block.syncing"
  /// A block is on the disk and nobody has been told.
  case blockSynced = "block.synced"
  /// Some of those who wait for a block were told that it is durable.
  case acknowledgeHalf = "acknowledge.half"
  /// A shard has taken a claim and not written it down.
  case claimTaken = "claim.taken"
  /// Some of a checkpoint's sections are in its temporary files, not all.
  case checkpointHalf = "checkpoint.half"
  /// The disk is syncing a checkpoint's data.
  case checkpointSyncing = "checkpoint.syncing"
  /// A checkpoint's data is handed to its temporary files.
  case checkpointWritten = "checkpoint.written"
  /// A checkpoint's data has its name; the manifest is not there yet.
  case checkpointRenamed = "checkpoint.renamed"
  /// A checkpoint's manifest is on the disk under a temporary name.
  case checkpointUnnamed = "checkpoint.unnamed"
  /// A checkpoint's manifest is there; what it replaces has not been deleted.
  case checkpointPublished = "checkpoint.published"
  /// An older checkpoint has lost its manifest; its data is still there.
  case checkpointUnlisted = "checkpoint.unlisted"
  /// Older checkpoints are deleted; the blocks before them are not.
  case checkpointPruned = "checkpoint.pruned"
  /// A journal no longer names its oldest segments, whose files are still there.
  case segmentUnnamed = "segment.unnamed"
  /// A joiner has put impressions into its store or taken some out, and no checkpoint knows of it.
  case pendingStored = "pending.stored"
  /// A snapshot of a joiner's store is made, and no checkpoint names it.
  case pendingSnapshot = "pending.snapshot"
  /// A joiner's checkpoint names a new snapshot; the old one is still there.
  case pendingNamed = "pending.named"
  /// A trainer has sent a message to one shard, and the others of its kind not yet.
  case sendHalf = "send.half"

  /// The environment variable that arms a place.
  public static let variable = "GUIRA_FAULT"

  /// What the environment of this process asks for; read once.
  private static let armed: Armed? = {
    guard let text = unsafe getenv(variable).map({ unsafe String(cString: $0) }) else { return nil }
    let parts = text.split(separator: ":")
    guard parts.count == 2, let point = FaultPoint(rawValue: String(parts[0])), let passage = Int(parts[1]) else {
      let known = allCases.map(\.rawValue).joined(separator: ", ")
      say("\(variable)=\(text) is not understood; use one of \(known), a colon and the number of the passage\n")
      exit(2)
    }
    return Armed(point: point, passage: passage)
  }()

  private final class Armed: Sendable {
    let point: FaultPoint
    let passage: Int
    let passed = Atomic<Int>(0)

    init(point: FaultPoint, passage: Int) {
      self.point = point
      self.passage = passage
    }
  }

  /// Whether this is the passage to die at; for places where something must be done by halves first.
  public var isDue: Bool {
    guard let armed = Self.armed, armed.point == self else { return false }
    return armed.passed.add(1, ordering: .relaxed).newValue == armed.passage
  }

  /// Dies here when this is the passage to die at.
  public func pass() {
    if isDue { die() }
  }

  /// Dies while what follows is under way, which blocks this thread in the kernel: another thread strikes.
  public func passDuring() {
    if isDue { _ = OwnedThread(named: "fault") { die() } }
  }

  /// Dies as `kill -9` would.
  ///
  /// - Parameter pause: how long other threads go on first. They send what a socket was given; and were something
  ///   promised before it is on the disk, the promise would get out.
  public func die(after pause: Duration = .zero) {
    if pause > .zero { usleep(useconds_t(pause.nanoseconds / 1000)) }
    Self.say("fault point \(rawValue)\n")
    kill(getpid(), SIGKILL)
    // Another thread may run on for a moment; this one does not.
    while true { _ = Glibc.pause() }
  }

  private static func say(_ text: String) {
    var bytes = Array(text.utf8)
    _ = unsafe write(STDERR_FILENO, &bytes, bytes.count)
  }
}
