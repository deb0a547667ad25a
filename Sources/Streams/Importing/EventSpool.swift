// Puts imported events into event-time order. Rows in order go straight to the file of events; others go to a spool first,
// and an index of 24 bytes a row is sorted, equal times in file order. Belongs to one thread.

internal import Base
internal import Glibc

/// The file of events of an import: impressions as they come, each with its actions after the mapping's delay.
struct EventFile: ~Copyable {
  private var file: JSONLinesFile
  private let delay: Milliseconds
  /// Actions that are not due yet, oldest first; those before `first` are written.
  private var waiting: [(due: Milliseconds, lines: [UInt8])] = []
  private var first = 0
  private(set) var firstTime: Milliseconds?
  private(set) var lastTime: Milliseconds = 0

  init(path: String, delay: Milliseconds) throws(StreamError) {
    file = try JSONLinesFile(path: path)
    self.delay = delay
  }

  mutating func add(time: Milliseconds, impression: RawSpan, actions: RawSpan) throws(StreamError) {
    try release(upTo: time)
    firstTime = firstTime ?? time
    lastTime = max(lastTime, time + delay)
    file.line.append(raw: impression)
    try file.endLine()
    if delay == 0 {
      try write(actions)
    } else {
      unsafe actions.withUnsafeBytes { unsafe waiting.append((time + delay, Array($0))) }
    }
  }

  private mutating func release(upTo time: Milliseconds) throws(StreamError) {
    while first < waiting.count, waiting[first].due <= time {
      let lines = waiting[first].lines
      try unsafe write(lines.span.bytes)
      first += 1
    }
    if first > 4096, first * 2 > waiting.count {
      waiting.removeFirst(first)
      first = 0
    }
  }

  /// Lines with their ends.
  private mutating func write(_ lines: RawSpan) throws(StreamError) {
    guard lines.byteCount > 0 else { return }
    file.line.append(raw: lines.extracting(0..<lines.byteCount - 1))
    try file.endLine()
  }

  mutating func finish() throws(StreamError) {
    try release(upTo: .max)
    try file.finish()
  }
}

/// Events in the order of their rows, to be read in the order of their times.
struct EventSpool: ~Copyable {
  /// Its name in the staging directory.
  static let name = "spool"

  private struct Entry {
    let time: Milliseconds
    let offset: Int64
    let impressionBytes: UInt32
    let actionBytes: UInt32
  }

  private let path: String
  private let descriptor: Int32
  private var entries: [Entry] = []
  private var pending = ByteWriter(capacity: 1 << 20)
  private var end: Int64 = 0

  init(path: String) throws(StreamError) {
    let descriptor = unsafe open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
    guard descriptor >= 0 else { throw .file(FileError(errno, "create \(path)")) }
    self.path = path
    self.descriptor = descriptor
  }

  deinit {
    close(descriptor)
    _ = unsafe unlink(path)
  }

  mutating func add(time: Milliseconds, impression: RawSpan, actions: RawSpan) throws(StreamError) {
    let bytes = impression.byteCount + actions.byteCount
    entries.append(
      Entry(
        time: time, offset: end, impressionBytes: UInt32(impression.byteCount), actionBytes: UInt32(actions.byteCount)))
    pending.append(raw: impression)
    pending.append(raw: actions)
    end += Int64(bytes)
    if pending.count >= 1 << 20 { try flush() }
  }

  private mutating func flush() throws(StreamError) {
    do throws(FileError) {
      if pending.count > 0 { try Files.write(pending.written, to: descriptor, path: path) }
    } catch {
      throw .file(error)
    }
    pending.clear()
  }

  /// Writes all events to `file` in the order of their times.
  mutating func drain(into file: inout EventFile, progress: (Double) -> Void) throws(StreamError) {
    try flush()
    if !zip(entries, entries.dropFirst()).allSatisfy({ $0.time <= $1.time }) {
      entries.sort { ($0.time, $0.offset) < ($1.time, $1.offset) }
    }
    var window: [UInt8] = []
    var windowStart: Int64 = 0
    for (index, entry) in entries.enumerated() {
      let bytes = Int(entry.impressionBytes + entry.actionBytes)
      let isInside = entry.offset >= windowStart && entry.offset + Int64(bytes) <= windowStart + Int64(window.count)
      if !isInside {
        // Neighbours are read ahead only while rows are in order.
        let isNext = entry.offset == windowStart + Int64(window.count)
        window = try read(at: entry.offset, bytes: max(bytes, isNext ? 1 << 18 : 0))
        windowStart = entry.offset
      }
      let start = Int(entry.offset - windowStart)
      let middle = start + Int(entry.impressionBytes)
      let all = unsafe window.span.bytes
      try file.add(
        time: entry.time, impression: all.extracting(start..<middle), actions: all.extracting(middle..<start + bytes))
      if index % 16_384 == 0 { progress(Double(index) / Double(entries.count)) }
    }
  }

  private func read(at offset: Int64, bytes: Int) throws(StreamError) -> [UInt8] {
    let count = min(bytes, Int(end - offset))
    var got = 0
    var failure: Int32 = 0
    let read = unsafe [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
      while got < count {
        let now = unsafe pread(descriptor, buffer.baseAddress! + got, count - got, Int(offset) + got)
        if now < 0, errno == EINTR { continue }
        guard now > 0 else {
          failure = now < 0 ? errno : EIO
          break
        }
        got += now
      }
      filled = got
    }
    guard failure == 0 else { throw .file(FileError(failure, "read \(path)")) }
    return read
  }
}
