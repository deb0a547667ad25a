// What is read from disks: journals, checkpoints, streams of events and examples, a joiner's state. Journals and
// checkpoints are read where they are always read, from files; here these lie in memory.

import Base
import Glibc
import Joining
import Journal
import Streams

/// Files in memory; one thread.
///
/// unchecked because: a campaign is one thread.
private final class MemoryFiles: FileLayer, @unchecked Sendable {
  private final class File {
    var content: [UInt8]
    init(_ content: [UInt8]) { self.content = content }
  }

  private var files: [String: File] = [:]
  private var opened: [File?] = []

  init(_ contents: [String: [UInt8]] = [:]) { files = contents.mapValues { File($0) } }

  var contents: [String: [UInt8]] {
    get { files.mapValues(\.content) }
    set { files = newValue.mapValues { File($0) } }
  }

  func replace(_ path: String, with content: [UInt8]) { files[path] = File(content) }

  func exists(_ directory: String) -> Bool { true }
  func lock(_ path: String) throws(FileError) -> FileLock? { nil }
  func makeDirectory(_ path: String) throws(FileError) {}
  func close(_ descriptor: Int32) {
    opened[Int(descriptor)] = nil
    if opened.allSatisfy({ $0 == nil }) { opened = [] }
  }
  func names(in directory: String) throws(FileError) -> [String] {
    files.keys.filter { $0.hasPrefix(directory + "/") }.map { String($0.dropFirst(directory.count + 1)) }.sorted()
  }
  func open(_ path: String, _ mode: FileMode) throws(FileError) -> Int32 {
    if mode == .create { files[path] = File([]) }
    guard let file = files[path] else { throw FileError(ENOENT, "open \(path)") }
    opened.append(file)
    return Int32(opened.count - 1)
  }
  private func file(_ descriptor: Int32) throws(FileError) -> File {
    guard let file = opened[Int(descriptor)] else { throw FileError(EBADF, "use a closed file") }
    return file
  }
  func size(_ descriptor: Int32) throws(FileError) -> Int { try file(descriptor).content.count }
  func read(_ descriptor: Int32, count: Int, at offset: Int) throws(FileError) -> Blob {
    let content = try file(descriptor).content
    return Blob(Array(content[min(offset, content.count)..<min(offset + count, content.count)]))
  }
  func write(_ descriptor: Int32, _ bytes: RawSpan, at offset: Int) throws(FileError) -> Int {
    let wanted = bytes.withUnsafeBytes { Array($0) }
    let file = try file(descriptor)
    let end = offset + wanted.count
    file.content += [UInt8](repeating: 0, count: max(0, end - file.content.count))
    file.content.replaceSubrange(offset..<end, with: wanted)
    return wanted.count
  }
  func sync(_ descriptor: Int32, dataOnly: Bool) throws(FileError) {}
  func truncate(_ descriptor: Int32, to size: Int) throws(FileError) {
    let file = try file(descriptor)
    file.content.removeSubrange(min(size, file.content.count)...)
  }
  func rename(_ from: String, to: String) throws(FileError) {
    guard let file = files.removeValue(forKey: from) else { throw FileError(ENOENT, "rename \(from)") }
    files[to] = file
  }
  func unlink(_ path: String) throws(FileError) {
    guard files.removeValue(forKey: path) != nil else { throw FileError(ENOENT, "delete \(path)") }
  }
  func syncDirectory(_ path: String) throws(FileError) {}
}

private let place = "/fuzzing"
private let segmentPath = "\(place)/j/00000000000000000000.segment"

/// A journal with a consumer and a checkpoint.
private func example() throws -> [String: [UInt8]] {
  let memory = MemoryFiles()
  FileLayers.mount(memory, at: place)
  defer { FileLayers.unmount(place) }
  var writer = try JournalWriter(directory: "\(place)/j")
  for length in [0, 5, 40, 3, 120] {
    try writer.append([UInt8](repeating: 7, count: length).span.bytes)
    if length != 40 { try writer.sync() }
  }
  try JournalConsumers.commit(directory: "\(place)/j", consumer: "model", processed: 40, safe: 16)
  var checkpoint = try CheckpointWriter(directory: "\(place)/c", name: "daily")
  for length in [0, 5, 40] { try checkpoint.append([UInt8](repeating: 9, count: length).span.bytes) }
  try checkpoint.finish(manifest: Blob("guira"))
  // Identities are drawn at random; the corpus must fit the files of later runs.
  var contents = memory.contents
  for path in contents.keys where !path.hasSuffix("consumer-model") {
    for byte in 32..<48 { contents[path]?[byte] = 5 }
    sealLabel(&contents[path]!)
  }
  return contents
}

/// Makes the CRC of a label fit.
private func sealLabel(_ bytes: inout [UInt8]) {
  guard bytes.count >= 64 else { return }
  let crc = Hashing.crc32c(Array(bytes[..<60]).span.bytes)
  for index in 0..<4 { bytes[60 + index] = UInt8(truncatingIfNeeded: crc >> UInt32(8 * index)) }
}

/// Makes a head of any bytes whose CRC fits.
private func sealHead(_ bytes: inout [UInt8]) {
  bytes += [UInt8](repeating: 0, count: max(0, 64 - bytes.count))
  sealLabel(&bytes)
}

/// Makes the CRCs of a label and of the frames behind it fit, as long as their lengths lead to a next one.
private func sealFrames(_ bytes: inout [UInt8]) {
  sealLabel(&bytes)
  var at = 64
  while at + 8 <= bytes.count {
    let word = (0..<4).reduce(UInt32(0)) { $0 | UInt32(bytes[at + 4 + $1]) << UInt32(8 * $1) }
    let size = 8 + (Int(word & 0x3FFF_FFFF) + 7) & ~7
    guard at + size <= bytes.count else { return }
    let offset = UInt64(at - 64)
    let crc = Hashing.crc32c(
      Array(bytes[(at + 4)..<(at + size)]).span.bytes, continuing: UInt32(truncatingIfNeeded: offset ^ (offset >> 32)))
    for index in 0..<4 { bytes[at + index] = UInt8(truncatingIfNeeded: crc >> UInt32(8 * index)) }
    at += size
  }
}

/// A decoder of one of the example's files: the others are whole.
private func file(
  _ name: String, _ path: String, seal: @escaping (inout [UInt8]) -> Void, sealsAll: Bool = false,
  _ decode: @escaping () throws -> Void
) -> Decoder {
  var decoder = Decoder(name, seeds: { [try example()[path] ?? []] }) {
    let contents = try example()
    let memory = MemoryFiles()
    FileLayers.mount(memory, at: place)
    memory.contents = contents
    var count = 0
    return { input in
      memory.replace(path, with: input.array)
      let isTaken = (try? decode()) != nil
      count += 1
      if count % 64 == 0, path.hasPrefix("\(place)/j/") {
        // Opening a journal to write is dear: it takes buffers, and gives up what is damaged.
        _ = try? JournalWriter(directory: "\(place)/j")
        _ = try? JournalWriter(directory: "\(place)/j", acceptLoss: true)
        memory.contents = contents
      }
      return isTaken
    }
  }
  decoder.seal = seal
  decoder.sealsAll = sealsAll
  // Buffers of a journal's and a checkpoint's reader and writer, of 1 MiB each, and copies of the example's files.
  decoder.limit = { 64 * $0 + (8 << 20) }
  return decoder
}

private func readJournal() throws {
  var reader = try JournalReader(directory: "\(place)/j", from: 0)
  while try reader.next() != nil {}
  _ = try JournalReader.bounds(directory: "\(place)/j")
}

private func readCheckpoint() throws {
  _ = try Checkpoints.list(directory: "\(place)/c")
  try Checkpoints.verify(directory: "\(place)/c", name: "daily")
}

private let schema = EventSchema(
  features: [
    FeatureSpec(name: "user"), FeatureSpec(name: "tags", kind: .ids(limit: 4)), FeatureSpec(name: "item"),
    FeatureSpec(name: "age", kind: .dense(width: 2)),
  ], tasks: [TaskSpec(name: "click"), TaskSpec(name: "like")])

private let features = FeatureBlock(
  schema: schema, values: [.ids([1]), .ids([2, 3]), .ids([.max]), .numbers([0.5, 1])])

private func written(_ encode: (inout ByteWriter) -> Void) -> [UInt8] {
  var writer = ByteWriter()
  encode(&writer)
  return writer.finish().array
}

private let events: [Event] = [
  .impression(
    Impression(id: ImpressionID(7), time: 1_700_000_000_000, arrival: 9, features: features, predictions: [0.5, 0.25])),
  .action(Action(impression: ImpressionID(7), name: "click", time: 1_700_000_001_000, arrival: 10)),
  .watermark(time: 1_700_000_002_000),
]

/// A parser of lines; a class because closures hold no noncopyable values.
private final class Parser {
  var parser = EventParser(schema: schema)
}

/// Counts, shares and last items of what the events say.
private func streamFeatures() -> StreamFeatures {
  let clicks = StreamFeatureSpec(.count, event: "click", by: ["user"], halfLifeMilliseconds: 60_000)
  let last = StreamFeatureSpec(.last(of: "item"), event: "click", by: ["user"])
  let schema = EventSchema(
    features: schema.features + [
      FeatureSpec(name: "clicks", kind: .dense(width: 1), stream: clicks),
      FeatureSpec(name: "items", kind: .ids(limit: 3), stream: last),
    ], tasks: schema.tasks)
  var features = StreamFeatures(StreamFeatureRules(schema: schema))
  let block = FeatureBlock(
    schema: schema,
    values: [.ids([1]), .ids([2, 3]), .ids([.max]), .numbers([0.5, 1]), .numbers([0]), .ids([])])
  for number in 0..<6 as Range<UInt64> {
    features.take(Impression(id: ImpressionID(number), time: Int64(100 * number), features: block))
    features.take(Action(impression: ImpressionID(number), name: "click", time: Int64(100 * number + 30)))
  }
  features.advance(to: 350)
  return features
}

/// Decoders of files and streams.
func fileDecoders() -> [Decoder] {
  let rules = JoinRules(tasks: [TaskSpec(name: "click"), TaskSpec(name: "like", closingActions: ["like_end"])])
  func joiner() -> [UInt8] {
    var core = JoinerCore(rules: rules)
    for (number, event) in events.enumerated() {
      let input = JoinInput(number == 1 ? .actions : .impressions, 0)
      core.take(event, from: input, at: Position(low: UInt64(number + 1)))
    }
    return written { core.encode(into: &$0) }
  }
  var lines = Decoder(
    "event-line",
    seeds: {
      [
        #"{"type":"impression","id":"7","time":1700000000000,"features":{"user":1,"tags":[2,"three"],"item":5,"age":[1,2.5]}}"#,
        #"{"type":"action","impression":7,"action":"click","time":1700000001000}"#,
        #"{"type":"watermark","time":1700000002000}"#,
      ].map { Array($0.utf8) }
    }
  ) {
    let box = Parser()
    return { input in (try? box.parser.parse(input.bytes, line: 1)) != nil }
  }
  lines.limit = { 256 * $0 + (64 << 10) }
  var join = Decoder("joiner-state", seeds: { [joiner()] }) { input in
    var reader = ByteReader(input)
    _ = try JoinerCore(rules: rules, decoding: &reader)
  }
  join.limit = { 256 * $0 + (1 << 20) }
  var counts = Decoder("stream-features", seeds: { [written { streamFeatures().encode(into: &$0) }] }) {
    let rules = streamFeatures().rules
    return { input in
      var reader = ByteReader(input)
      return (try? StreamFeatures(rules, decoding: &reader)) != nil
    }
  }
  counts.limit = { 256 * $0 + (1 << 20) }
  return [
    file("journal-segment", segmentPath, seal: sealFrames, readJournal),
    // A head that does not verify is read again and again, since its writer may be at it: too slow for many inputs, so all
    // that are long enough get a fitting checksum.
    file("journal-head", "\(place)/j/head", seal: sealHead, sealsAll: true, readJournal),
    file("journal-manifest", "\(place)/j/manifest", seal: sealLabel, readJournal),
    file("journal-consumer", "\(place)/j/consumer-model", seal: sealLabel) {
      _ = try JournalConsumers.read(directory: "\(place)/j")
    },
    file("checkpoint-manifest", "\(place)/c/daily.checkpoint", seal: sealFrames, readCheckpoint),
    file("checkpoint-data", "\(place)/c/daily-000000.data", seal: sealFrames, readCheckpoint),
    Decoder("event", seeds: { events.map { event in written { event.encode(into: &$0) } } }) { input in
      var reader = ByteReader(input)
      _ = try Event(decoding: &reader)
    },
    Decoder(
      "example",
      seeds: {
        [
          written {
            Example(
              impression: ImpressionID(7), time: 1, ordinal: Position(low: 2), due: 3, arrival: 4,
              labels: [.positive, .negative], rates: [1, 0.5], predictions: [0.5, 0.25], features: features
            ).encode(into: &$0)
          }
        ]
      }
    ) { input in
      var reader = ByteReader(input)
      _ = try Example(decoding: &reader)
    },
    Decoder("features", seeds: { [features.bytes] }) { input in
      _ = try FeatureBlock(bytes: input.array).values(of: schema)
    },
    lines, join, counts,
  ]
}

/// Every decoder.
func allDecoders() throws -> [Decoder] {
  try wireDecoders() + shardDecoders() + fileDecoders() + servingDecoders()
}
