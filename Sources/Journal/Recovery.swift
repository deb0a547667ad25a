// What a writer does before its first record: make the journal, or find out where it ends.
//
// A file is never mended in place. What a crash left behind the last known sync is copied, as far as it verifies, into
// a new segment that replaces the rest of the old one: so a torn tail goes, and so do pages that an earlier failed
// fsync left clean in the page cache but not on the disk. A segment ends where its successor's label says, whatever
// bytes follow there.

internal import Base

/// A segment as its label tells.
struct Segment: Equatable, Sendable {
  let first: UInt64
  /// Where the segment before it ends; less than `first` only after an accepted loss.
  let previousEnd: UInt64
}

/// What recovery hands to the writer.
struct RecoveredJournal: Sendable {
  var identity: JournalIdentity
  var start: UInt64
  var segments: [Segment]
  var end: UInt64
  var generation: UInt32
  var report: RecoveryReport
}

struct Recovery {
  let files: JournalFiles
  let options: JournalOptions
  let acceptLoss: Bool
  private var report = RecoveryReport()
  private var layer: any FileLayer { files.layer }

  init(files: JournalFiles, options: JournalOptions, acceptLoss: Bool) {
    self.files = files
    self.options = options
    self.acceptLoss = acceptLoss
  }

  /// Recovers the journal; each accepted loss changes it and looks again from the beginning.
  mutating func run() throws(JournalError) -> RecoveredJournal {
    try files.removeTemporaries()
    // A name that a killed process gave is in the cache and perhaps not on the disk; from here on we build on it.
    if options.durable { try layer.makeNamesDurable(files.directory) }
    let head = try readHead()
    if let made = try makeWhenNew(head) { return made }
    while true {
      do throws(JournalError) {
        return try recover(head)
      } catch {
        guard case .damaged(var damage) = error else { throw error }
        if damage.lost == nil { damage.lost = try lossBehind(damage.offset, head: head) }
        guard acceptLoss, report.acceptedLosses.last != damage else { throw .damaged(damage) }
        try accept(damage)
        report.acceptedLosses.append(damage)
      }
    }
  }

  // MARK: the head and the manifest

  private mutating func readHead() throws(JournalError) -> Label? {
    do throws(JournalError) {
      return try Label(.head, at: files.head, layer: layer)
    } catch {
      switch error {
      case .notThere: return nil
      case .damaged(let damage):
        report.headUnreadable = damage
        return nil
      default: throw error
      }
    }
  }

  /// Makes the journal when there is none, or when a crash stopped its making before the manifest was there.
  private mutating func makeWhenNew(_ head: Label?) throws(JournalError) -> RecoveredJournal? {
    guard try !layer.has(files.manifest), head.map({ $0.first == 0 }) ?? true else { return nil }
    let segments = try files.segments()
    if segments == [0] {
      let file = try files.open(segment: 0)
      guard try file.size() <= Label.byteCount else { return nil }
    } else if !segments.isEmpty {
      return nil
    }
    let identity = JournalIdentity.random()
    try files.makeSegment(first: 0, previousEnd: 0, identity: identity, durable: options.durable)
    let newHead = Label(.head, number: 1, identity: identity)
    try layer.replace(files.head, with: newHead.encoded, in: files.directory, durable: options.durable)
    try writeManifest(identity: identity, start: 0)
    report.isNew = true
    return RecoveredJournal(
      identity: identity, start: 0, segments: [Segment(first: 0, previousEnd: 0)], end: 0, generation: 1,
      report: report)
  }

  private func writeManifest(identity: JournalIdentity, start: UInt64) throws(JournalError) {
    let label = Label(.manifest, first: start, identity: identity)
    try layer.replace(files.manifest, with: label.encoded, in: files.directory, durable: options.durable)
  }

  private func readManifest() throws(JournalError) -> Label {
    do throws(JournalError) {
      return try Label(.manifest, at: files.manifest, layer: layer)
    } catch {
      var reason: String
      switch error {
      case .notThere: reason = "the manifest is missing"
      case .damaged(let damage): reason = damage.reason
      default: throw error
      }
      reason += "; the journal's identity is lost"
      var damage = JournalDamage(file: files.manifest, fileOffset: 0, offset: 0, reason: reason)
      damage.lost = 0..<0
      throw .damaged(damage)
    }
  }

  // MARK: the segments

  private mutating func recover(_ head: Label?) throws(JournalError) -> RecoveredJournal {
    let manifest = try readManifest()
    var segments = try keptSegments(manifest)
    try checkFull(segments)
    let last = segments[segments.count - 1]
    let tail = try scanTail(last, head: head)
    var end = tail.recordEnd
    if tail.hasMore {
      // Nothing behind `synced` is trusted to be on the disk, even where it reads well.
      let kept = tail.synced..<max(tail.synced, tail.recordEnd)
      end = kept.upperBound
      let renewed = Segment(
        first: tail.synced, previousEnd: tail.synced == last.first ? last.previousEnd : tail.synced)
      try files.makeSegment(
        first: renewed.first, previousEnd: renewed.previousEnd, identity: manifest.identity, durable: options.durable,
        copying: (kept, last.first))
      if renewed.first == last.first {
        segments[segments.count - 1] = renewed
      } else {
        segments.append(renewed)
        try cut(last, to: renewed.previousEnd)
      }
      report.keptUnsyncedBytes = UInt64(kept.count)
    }
    return RecoveredJournal(
      identity: manifest.identity, start: manifest.first, segments: segments, end: end,
      generation: head.map { $0.number &+ 1 } ?? UInt32.random(in: 1...UInt32.max), report: report)
  }

  /// The segments that count, after deleting those that retention or an accepted loss had done away with.
  private func keptSegments(_ manifest: Label) throws(JournalError) -> [Segment] {
    var segments: [Segment] = []
    var limit = UInt64.max
    for first in try files.segments().reversed() {
      if first < manifest.first || (first >= limit && !segments.isEmpty) {
        try layer.remove(files.segment(first))
        continue
      }
      let segment = Segment(first: first, previousEnd: try files.label(ofSegment: first).second)
      limit = segment.previousEnd
      segments.append(segment)
    }
    segments.reverse()
    guard let oldest = segments.first, oldest.first == manifest.first else {
      let present = segments.first.map { "the oldest begins at \($0.first)" } ?? "there is none"
      var damage = JournalDamage(
        file: files.segment(manifest.first), fileOffset: 0, offset: manifest.first,
        reason: "the segment is missing; \(present)")
      if let oldest = segments.first { damage.lost = manifest.first..<max(manifest.first, oldest.first) }
      throw .damaged(damage)
    }
    return segments
  }

  /// Verifies all segments but the last, which were synced before their successors were made.
  private func checkFull(_ segments: [Segment]) throws(JournalError) {
    for (segment, next) in zip(segments, segments.dropFirst()) {
      let end = next.previousEnd
      if end <= options.neededFrom { continue }
      guard options.verifiesAllWhenOpening else {
        let file = try files.open(segment: segment.first)
        let there = try file.size() - Label.byteCount
        guard there >= Int(end - segment.first) else {
          let cursor = FrameCursor(file, first: segment.first, at: segment.first + UInt64(there & ~7))
          throw cursor.damage("the file ends here; its successor says it goes to offset \(end)")
        }
        continue
      }
      let begin = max(segment.first, options.neededFrom)
      var cursor = FrameCursor(try files.open(segment: segment.first), first: segment.first, at: begin)
      while try cursor.next(limit: end) != nil {}
    }
  }

  private struct Tail {
    /// Where the bytes known to be synced end.
    var synced: UInt64
    /// Where the last record ends.
    var recordEnd: UInt64
    /// Whether the file has bytes behind `synced`.
    var hasMore: Bool
  }

  /// Reads the last segment and finds where it was synced to and where its records end.
  private mutating func scanTail(_ last: Segment, head: Label?) throws(JournalError) -> Tail {
    let file = try files.open(segment: last.first)
    let fileEnd = last.first + UInt64(max(0, try file.size() - Label.byteCount))
    // Where the file does not reach it, the whole file is looked at to say where it ends.
    let begin = options.neededFrom <= fileEnd ? max(last.first, options.neededFrom) : last.first
    var tail = Tail(synced: max(begin, head?.first ?? 0), recordEnd: begin, hasMore: false)
    var cursor = FrameCursor(file, first: last.first, at: begin)
    var fault: JournalDamage?
    do throws(JournalError) {
      while true {
        let begin = cursor.offset
        guard let frame = try cursor.next(limit: fileEnd) else { break }
        if frame.isMark { tail.synced = max(tail.synced, begin) } else { tail.recordEnd = cursor.offset }
      }
    } catch {
      guard case .damaged(let damage) = error else { throw error }
      fault = damage
    }
    let valid = cursor.offset
    if valid < tail.synced {
      if let fault { throw .damaged(fault) }
      throw cursor.damage("the file ends here; records were synced to offset \(tail.synced)")
    }
    if let fault {
      if let mark = try firstMark(in: last, after: valid, before: fileEnd) {
        throw .damaged(
          JournalDamage(
            file: fault.file, fileOffset: fault.fileOffset, offset: fault.offset,
            reason: fault.reason + "; a mark at offset \(mark) says that this place was synced"))
      }
      report.tornTail = fault
      report.tornBytes = Int(fileEnd - valid)
    }
    tail.hasMore = fileEnd > tail.synced
    return tail
  }

  /// The offset of the first mark in a segment at or behind `offset`.
  private func firstMark(in segment: Segment, after offset: UInt64, before end: UInt64) throws(JournalError) -> UInt64?
  {
    let file = try files.open(segment: segment.first)
    var at = offset
    while at + 8 <= end {
      let count = Int(min(1 << 20, (end - at) & ~7))
      let chunk = try file.read(count: count, at: Label.byteCount + Int(at - segment.first))
      let bytes = chunk.bytes
      var position = 0
      while position + 8 <= chunk.count {
        let candidate = bytes.extracting(position..<(position + 8))
        if Frame.isMark(candidate, offset: at + UInt64(position)) { return at + UInt64(position) }
        position += 8
      }
      guard chunk.count == count else { return nil }
      at += UInt64(count)
    }
    return nil
  }

  /// Gives the bytes of a segment behind its successor's beginning back to the disk.
  ///
  /// Only tidying: they do not count.
  private func cut(_ segment: Segment, to end: UInt64) throws(JournalError) {
    let file = try files.open(segment: segment.first, .write)
    let size = Label.byteCount + Int(end - segment.first)
    if try file.size() > size { try file.truncate(to: size) }
  }

  // MARK: accepted loss

  /// What is given up when a journal ends at `offset`.
  private func lossBehind(_ offset: UInt64, head: Label?) throws(JournalError) -> Range<UInt64> {
    var highest = max(offset, head?.first ?? 0)
    for first in try files.segments() {
      let file = try files.open(segment: first)
      highest = max(highest, first + UInt64(max(0, try file.size() - Label.byteCount)))
    }
    if let consumers = try? JournalConsumers.read(directory: files.directory, layer: layer) {
      for place in consumers.values where place.processed <= Label.offsetLimit {
        highest = max(highest, place.processed)
      }
    }
    return offset..<(highest + 7) & ~7
  }

  /// Goes on behind `damage`: with a new identity, and at offsets that were never given to a record before.
  private func accept(_ damage: JournalDamage) throws(JournalError) {
    guard let lost = damage.lost else { preconditionFailure("the loss behind \(damage) was not worked out") }
    let identity = JournalIdentity.random()
    let segments = try files.segments()
    guard damage.file != files.manifest else {
      return try writeManifest(identity: identity, start: segments.first ?? 0)
    }
    let manifest = try readManifest()
    if let oldest = segments.first, damage.offset == manifest.first, lost.upperBound == oldest, oldest > manifest.first
    {
      return try writeManifest(identity: identity, start: oldest)  // the beginning is missing, the rest is whole
    }
    try writeManifest(identity: identity, start: manifest.first)
    var next = lost.upperBound
    while segments.contains(next) { next += 8 }
    let survives = segments.contains { $0 < lost.lowerBound && $0 >= manifest.first }
    try files.makeSegment(
      first: next, previousEnd: survives ? lost.lowerBound : next, identity: identity, durable: options.durable)
    if !survives { try writeManifest(identity: identity, start: next) }
  }
}
