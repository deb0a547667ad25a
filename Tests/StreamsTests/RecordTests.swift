import Base
import Streams
import Testing

@Suite("Stream records") struct RecordTests {
  let schema = EventSchema(
    features: [
      FeatureSpec(name: "user"), FeatureSpec(name: "tags", kind: .ids(limit: 3)),
      FeatureSpec(name: "age", kind: .dense(width: 2)),
    ], tasks: [TaskSpec(name: "click"), TaskSpec(name: "like")])
  let values: [FeatureValue] = [.ids([UInt64.max]), .ids([0, 7]), .numbers([1.5, -2])]

  @Test func `features survive the round trip and pile up in columns`() throws {
    let block = FeatureBlock(schema: schema, values: values)
    #expect(try block.values(of: schema) == values)
    var columns = FeatureColumns(schema: schema)
    try block.append(to: &columns, schema: schema)
    try block.append(to: &columns, schema: schema)
    #expect(columns.offsets[1] == [0, 2, 4])
    #expect(columns.ids[1] == [0, 7, 0, 7])
  }

  @Test func `a damaged block leaves the columns as they were`() throws {
    let block = FeatureBlock(schema: schema, values: values)
    var columns = FeatureColumns(schema: schema)
    try block.append(to: &columns, schema: schema)
    for length in 0..<block.bytes.count {
      let cut = FeatureBlock(bytes: Array(block.bytes[..<length]))
      #expect(throws: DecodeError.self) { try cut.append(to: &columns, schema: schema) }
    }
    #expect(columns.exampleCount == 1)
    #expect(columns.offsets == [[0, 1], [0, 2], [0]])
    #expect(columns.numbers[2] == [1.5, -2])
  }

  @Test func `events and examples survive the round trip, and every cut is an error`() throws {
    let block = FeatureBlock(schema: schema, values: values)
    let events: [Event] = [
      .impression(Impression(id: ImpressionID("a"), time: 5, arrival: 6, features: block, predictions: [0.5, 0.25])),
      .action(Action(impression: ImpressionID(9), name: "click", time: -1, arrival: 3)), .watermark(time: .max),
    ]
    for event in events {
      var writer = ByteWriter()
      event.encode(into: &writer)
      let blob = writer.finish()
      var reader = ByteReader(blob)
      #expect(try Event(decoding: &reader) == event)
      for length in 0..<blob.count {
        var short = ByteReader(blob, range: 0..<length)
        #expect(throws: DecodeError.self) { try Event(decoding: &short) }
      }
    }
    let example = Example(
      impression: ImpressionID("a"), time: 5, ordinal: Position(low: 3), due: 8, arrival: 0,
      labels: [.positive, .masked], rates: [1, 0.5], predictions: [], features: block)
    var writer = ByteWriter()
    example.encode(into: &writer)
    var reader = ByteReader(writer.finish())
    #expect(try Example(decoding: &reader) == example)
  }
}
