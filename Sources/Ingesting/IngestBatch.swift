// One request's body → records, ready to be appended. Each line is taken or refused alone, with its number and reason.
// Belongs to the thread that parses.

internal import Base
internal import Glibc
internal import Streams

/// One event, encoded.
struct IngestedRecord: Sendable {
  /// Where its bytes lie in the batch.
  let bytes: Range<Int>
  /// Its partition of the impressions, or of the actions after those.
  let lane: Int
  let time: Milliseconds
  let isImpression: Bool
  /// What it shares with a repetition of itself.
  let key: EventKey
}

/// What tells an event from others: an impression's id; of an action also its name and time.
struct EventKey: Hashable, Sendable {
  let high: UInt64
  let low: UInt64
}

/// A line that was refused.
struct RefusedLine: Sendable {
  let fault: EventFault
  let text: [UInt8]
}

/// What was read of a body.
struct IngestBatch: Sendable {
  var bytes: [UInt8] = []
  var records: [IngestedRecord] = []
  var refused: [RefusedLine] = []
  /// Whether the body has more events than a request may have; nothing of it is taken then.
  var isTooLong = false
}

/// Reads bodies of JSON Lines.
struct BatchParser: ~Copyable {
  private let options: IngestOptions
  private var parser: EventParser
  private var protobuf: ProtobufEventParser
  init(_ options: IngestOptions) {
    self.options = options
    parser = EventParser(schema: options.schema)
    protobuf = ProtobufEventParser(schema: options.schema)
  }

  /// The events of `body`, which came at `arrival`.
  mutating func parse(_ body: RawSpan, arrival: Milliseconds) -> IngestBatch {
    parser.latestTime = arrival + options.allowedSkew.milliseconds
    var batch = IngestBatch()
    var writer = ByteWriter(capacity: body.byteCount)
    var start = Self.hasMark(body) ? 3 : 0
    var number = 0
    while start < body.byteCount {
      let end = Self.newline(in: body, from: start) ?? body.byteCount
      let line = Self.trimmed(body.extracting(start..<end))
      start = end + 1
      number += 1
      guard line.byteCount > 0 else { continue }
      if batch.records.count + batch.refused.count == options.eventLimit {
        batch.isTooLong = true
        break
      }
      do throws(EventFault) {
        add(try parser.parse(line, line: number), arrival: arrival, to: &batch, &writer)
      } catch {
        let text = unsafe line.withUnsafeBytes { unsafe Array($0.prefix(RejectedEvent.textLimit)) }
        batch.refused.append(RefusedLine(fault: error, text: text))
      }
    }
    batch.bytes = writer.finish().array
    return batch
  }

  /// The events of `body`, an `EventBatch` of protobuf, which came at `arrival`.
  mutating func parse(protobuf body: [UInt8], arrival: Milliseconds) throws(ProtobufFault) -> IngestBatch {
    protobuf.latestTime = arrival + options.allowedSkew.milliseconds
    var batch = IngestBatch()
    guard ProtobufEventParser.count(body, limit: options.eventLimit) <= options.eventLimit else {
      batch.isTooLong = true
      return batch
    }
    let results = try protobuf.parse(body)
    var writer = ByteWriter(capacity: 2 * body.count + 64)
    for result in results {
      switch result {
      case .success(let event): add(event, arrival: arrival, to: &batch, &writer)
      case .failure(let refusal):
        batch.refused.append(
          RefusedLine(fault: refusal.fault, text: Array(refusal.text.prefix(RejectedEvent.textLimit))))
      }
    }
    batch.bytes = writer.finish().array
    return batch
  }

  private func add(_ event: Event, arrival: Milliseconds, to batch: inout IngestBatch, _ writer: inout ByteWriter) {
    let begin = writer.count
    let id: ImpressionID
    let key: EventKey
    let isImpression: Bool
    switch event {
    case .impression(var impression):
      impression.arrival = arrival
      (id, isImpression) = (impression.id, true)
      key = EventKey(high: impression.id.high, low: impression.id.low)
      Event.impression(impression).encode(into: &writer)
    case .action(var action):
      action.arrival = arrival
      (id, isImpression) = (action.impression, false)
      // An impression's key is its id; the mixing keeps actions apart from impressions and from each other.
      let word = Hashing.xxh3(action.name, seed: UInt64(bitPattern: action.time))
      key = EventKey(high: Hashing.mix(id.high ^ word), low: Hashing.mix(id.low &+ Hashing.mix(word)) ^ word)
      Event.action(action).encode(into: &writer)
    case .watermark: return  // The ingest writes its own.
    }
    let partition = StreamLocation.partition(of: id, count: options.partitions)
    batch.records.append(
      IngestedRecord(
        bytes: begin..<writer.count, lane: isImpression ? partition : options.partitions + partition, time: event.time,
        isImpression: isImpression, key: key))
  }

  /// Whether a body begins with a UTF-8 byte order mark.
  private static func hasMark(_ body: RawSpan) -> Bool {
    guard body.byteCount >= 3 else { return false }
    return unsafe body.withUnsafeBytes { unsafe $0[0] == 0xEF && $0[1] == 0xBB && $0[2] == 0xBF }
  }

  private static func newline(in body: RawSpan, from start: Int) -> Int? {
    unsafe body.withUnsafeBytes { bytes in
      guard let base = bytes.baseAddress, let hit = unsafe memchr(base + start, 0x0A, bytes.count - start) else {
        return nil
      }
      return unsafe UnsafeRawPointer(hit) - base
    }
  }

  /// Without spaces, tabs and carriage returns at both ends.
  @_lifetime(copy line)
  private static func trimmed(_ line: RawSpan) -> RawSpan {
    func isBlank(_ index: Int) -> Bool {
      let byte = unsafe line.unsafeLoad(fromByteOffset: index, as: UInt8.self)
      return byte == 0x20 || byte == 0x09 || byte == 0x0D
    }
    var first = 0
    var last = line.byteCount
    while first < last, isBlank(first) { first += 1 }
    while last > first, isBlank(last - 1) { last -= 1 }
    return line.extracting(first..<last)
  }
}

/// The events of the last minutes, so that none is taken twice: two generations of keys, the older one dropped when the
/// newer one is half as old, or half as large, as the window allows.
struct RecentEvents {
  private var newer: Set<EventKey> = []
  private var older: Set<EventKey> = []
  private let limit: Int
  private let window: Int64
  private var turnsAt: Int64

  init(limit: Int, window: Duration, now: Int64) {
    self.limit = max(2, limit) / 2
    self.window = window.nanoseconds
    turnsAt = now + window.nanoseconds
  }

  /// Remembers an event; false when it was known already.
  ///
  /// `now`: monotonic nanoseconds. What came within the window, at most the limit, is known.
  mutating func insert(_ key: EventKey, now: Int64) -> Bool {
    if newer.count >= limit || now >= turnsAt {
      older = now >= turnsAt + window ? [] : newer
      newer = []
      turnsAt = now + window
    }
    return !older.contains(key) && newer.insert(key).inserted
  }

  var count: Int { newer.count + older.count }
}
