// The traffic of `guira bench join`: made once, rendered as JSON Lines and as protobuf, and written to journals as an ingest
// writes it. The protobuf is written by hand here, so that what is measured reads bytes that it has not written itself.

internal import Base
internal import Streams

/// Synthetic traffic in memory, in both formats.
struct BenchTraffic: Sendable {
  enum Format: Sendable { case json, protobuf }

  /// Events of a batch of protobuf.
  private static let batch = 500

  let text: [UInt8]
  /// Where each line begins, and the end.
  let starts: [Int]
  let latenessMilliseconds: Int64
  private let batches: [[UInt8]]

  var events: Int { starts.count - 1 }

  init(_ benchmark: JoinBenchmark) throws {
    var options = TrafficOptions()
    options.seed = benchmark.seed
    options.impressions = benchmark.impressions
    var generator = TrafficGenerator(options)
    let encoder = EventEncoder(schema: .synthetic)
    var writer = ByteWriter(capacity: 1 << 24)
    var starts = [0]
    var batches: [[UInt8]] = []
    var protobuf = ByteWriter(capacity: 1 << 18)
    while let record = generator.next() {
      try encoder.append(record.event, to: &writer)
      writer.append(UInt8(0x0A))
      starts.append(writer.count)
      try append(record.event, to: &protobuf)
      if (starts.count - 1) % Self.batch == 0 { batches.append(protobuf.take().array) }
    }
    if protobuf.count > 0 { batches.append(protobuf.take().array) }
    text = writer.finish().array
    self.starts = starts
    latenessMilliseconds = generator.latenessMilliseconds
    self.batches = batches
  }

  func bodies(of count: Int) -> [Range<Int>] {
    stride(from: 0, to: events, by: count).map { starts[$0]..<starts[min($0 + count, events)] }
  }

  /// Parses all events and appends them, with watermarks, as an ingest does.
  func feed(_ root: String, _ format: Format) throws(StreamError) {
    let sinks = try BenchSinks(root, events: events, latenessMilliseconds: latenessMilliseconds)
    func fault(_ reason: String) -> StreamError { .misfit(path: "the benchmark's traffic", problems: [reason]) }
    switch format {
    case .json:
      var parser = EventParser(schema: .synthetic)
      let whole = unsafe text.span.bytes
      for line in 0..<events {
        let event: Event
        do throws(EventFault) {
          event = try parser.parse(whole.extracting(starts[line]..<starts[line + 1] - 1), line: line + 1)
        } catch {
          throw fault("\(error)")
        }
        try sinks.append(event)
      }
    case .protobuf:
      var parser = ProtobufEventParser(schema: .synthetic)
      for batch in batches {
        let results: [Result<Event, ProtobufRefusal>]
        do throws(ProtobufFault) { results = try parser.parse(batch) } catch { throw fault("\(error)") }
        for result in results {
          switch result {
          case .success(let event): try sinks.append(event)
          case .failure(let refusal): throw fault("\(refusal)")
          }
        }
      }
    }
  }
}

/// The two journals of the events.
private final class BenchSinks {
  private let sinks: [JournalSink]
  private let events: Int
  private let latenessMilliseconds: Int64
  private var writer = ByteWriter(capacity: 1024)
  private var newest: Milliseconds = .min
  private var count = 0

  init(_ root: String, events: Int, latenessMilliseconds: Int64) throws(StreamError) {
    sinks = [
      try JournalSink(StreamLocation(root: root, stream: .impressions, partition: 0)),
      try JournalSink(StreamLocation(root: root, stream: .actions, partition: 0)),
    ]
    self.events = events
    self.latenessMilliseconds = latenessMilliseconds
  }

  func append(_ event: Event) throws(StreamError) {
    newest = max(newest, event.time)
    count += 1
    writer.clear()
    event.encode(into: &writer)
    if case .impression = event {
      try append(writer, to: sinks[0])
    } else {
      try append(writer, to: sinks[1])
    }
    let isLast = count == events
    guard count % 8192 == 0 || isLast else { return }
    writer.clear()
    Event.watermark(time: isLast ? newest + 3_600_000 : newest - latenessMilliseconds).encode(into: &writer)
    for sink in sinks {
      try append(writer, to: sink)
      try sink.sync()
    }
  }

  private func append(_ record: borrowing ByteWriter, to sink: JournalSink) throws(StreamError) {
    try sink.append(record.written)
  }
}

/// Appends an event to the bytes of an `EventBatch` (events.proto).
private func append(_ event: Event, to batch: inout ByteWriter) throws {
  var message = ByteWriter()
  switch event {
  case .impression(let impression):
    message.appendField(1, varint: impression.id.low)
    message.appendField(3, varint: UInt64(bitPattern: impression.time))
    for (feature, value) in zip(EventSchema.synthetic.features, try impression.features.values(of: .synthetic)) {
      var part = ByteWriter()
      part.appendField(1, text: feature.name)
      switch value {
      case .ids(let ids):
        var packed = ByteWriter()
        for id in ids { packed.append(varint: id) }
        part.appendField(2, packed)
      case .numbers(let numbers):
        var packed = ByteWriter()
        packed.append(array: numbers)
        part.appendField(4, packed)
      }
      message.appendField(4, part)
    }
    for (task, probability) in zip(EventSchema.synthetic.tasks, impression.predictions) {
      var part = ByteWriter()
      part.appendField(1, text: task.name)
      part.append(UInt8(2 << 3 | 5))
      part.append(probability)
      message.appendField(5, part)
    }
    var whole = ByteWriter()
    whole.appendField(1, message)
    batch.appendField(1, whole)
  case .action(let action):
    message.appendField(1, varint: action.impression.low)
    message.appendField(3, text: action.name)
    message.appendField(4, varint: UInt64(bitPattern: action.time))
    var whole = ByteWriter()
    whole.appendField(2, message)
    batch.appendField(1, whole)
  case .watermark: throw BenchmarkFault("protobuf has no watermarks")
  }
}

extension ByteWriter {
  fileprivate mutating func append(varint value: UInt64) {
    var rest = value
    while rest >= 0x80 {
      append(UInt8(truncatingIfNeeded: rest) | 0x80)
      rest >>= 7
    }
    append(UInt8(rest))
  }

  fileprivate mutating func appendField(_ number: UInt8, varint value: UInt64) {
    append(number << 3)
    append(varint: value)
  }

  fileprivate mutating func appendField(_ number: UInt8, _ bytes: borrowing ByteWriter) {
    append(number << 3 | 2)
    append(varint: UInt64(bytes.count))
    append(raw: bytes.written)
  }

  fileprivate mutating func appendField(_ number: UInt8, text: String) {
    let utf8 = Array(text.utf8)
    append(number << 3 | 2)
    append(varint: UInt64(utf8.count))
    append(array: utf8)
  }
}
