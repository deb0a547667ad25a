import Base
import Journal
import Streams
import Testing

@Suite("Streams on journals") struct JournalStreamsTests {
  private func append(_ texts: [String], to sink: some RecordSink) throws -> [Position] {
    var sink = sink
    return try texts.map { text in
      var writer = ByteWriter()
      writer.append(string: text)
      return try sink.append(writer.written)
    }
  }

  @Test func `a source sees synced records only, each with the position of its end`() throws {
    let directory = try TemporaryDirectory()
    let location = StreamLocation(root: directory.path, stream: .actions, partition: 3)
    #expect(location.directory == "\(directory.path)/streams/actions/3")
    let sink = try JournalSink(location)
    let source = try JournalSource(location, consumer: "joiner")
    let positions = try append(["a", "b"], to: sink)
    #expect(try source.next()?.position == nil)
    #expect(sink.synced < sink.end)
    try sink.sync()
    #expect(sink.synced == sink.end)
    #expect(try source.end() == positions[1])
    var read: [String] = []
    while let record = try source.next() {
      var reader = record.reader
      read.append(try reader.string())
      #expect(record.position == positions[read.count - 1])
      #expect(source.position == record.position)
    }
    #expect(read == ["a", "b"])
    var behind = try #require(try JournalSource(location, consumer: "x", from: positions[0]).next()).reader
    #expect(try behind.string() == "b")
  }

  @Test func `a source notes how far it has come`() throws {
    let directory = try TemporaryDirectory()
    let location = StreamLocation(root: directory.path, stream: .examples, partition: 0)
    let sink = try JournalSink(location)
    let positions = try append(["a", "b"], to: sink)
    try sink.sync()
    let source = try JournalSource(location, consumer: "trainer-0")
    try source.commit(processed: positions[1], safe: positions[0])
    let places = try JournalConsumers.read(directory: location.directory)
    #expect(places["trainer-0"]?.processed == positions[1].low)
    #expect(places["trainer-0"]?.safe == positions[0].low)
  }

  @Test func `a partition has one writer, and none is an error that says so`() throws {
    let directory = try TemporaryDirectory()
    let location = StreamLocation(root: directory.path, stream: .impressions, partition: 0)
    #expect(throws: StreamError.self) { try JournalSource(location, consumer: "joiner") }
    let sink = try JournalSink(location)
    #expect(throws: StreamError.journal(.locked(directory: location.directory))) { try JournalSink(location) }
    _ = sink.end
  }
}
