import Base
import Cluster
import Foundation
import Streams
import Testing

@Suite("Features from the stream, end to end", .serialized) struct StreamFeatureEndToEndTests {
  private static let features = """
    [{name: user_id}, {name: item_id}, {name: category}, {name: hour}, {name: item_clicks, stream: {count: click, by: \
    [item_id], halfLife: 1h}}, {name: item_share, stream: {share: click, by: [item_id]}}, {name: clicked, kind: ids, \
    limit: 5, table: item_id, combiner: mean, stream: {last: click, of: item_id, by: [user_id]}}]
    """

  @Test func `what models are trained on is what counting the streams again gives`() throws {
    let scratch = try Scratch()
    let traffic = try scratch.makeTraffic(3000)
    // Some impressions of the traffic are seconds out of order; none is to be late, so that all have values.
    let overrides = ["features=\(Self.features)", "joiner.featureDelay=1s", "joiner.allowedLateness=10s"]
    let settings = overrides.flatMap { ["--set", $0] }
    let outcome = try guira(scratch.up(traffic, settings + ["--speed", "max", "--predict-share", "1"]))
    try #require(outcome.code == 0, "\(outcome.errors)")
    let report = try scratch.readReport()
    #expect(report.labels["click"]?.emitted == 3000)
    #expect(report.predictions.answered == report.predictions.asked && report.predictions.asked >= 3000)

    var configuration = ClusterConfiguration.sample
    configuration = try ClusterConfiguration(
      text: configuration.text, file: "sample", overrides: overrides)
    let rules = try #require(configuration.streamFeatureRules)
    var counted = StreamFeatures(rules)
    var known: Set<ImpressionID> = []
    for stream in [StreamLocation.Stream.impressions, .actions] {
      var own = Milliseconds.min
      try read(stream, scratch) { reader in
        let event = try Event(decoding: &reader)
        var time = Milliseconds.min
        switch event {
        case .impression(let impression):
          time = impression.time
          if time >= own, known.insert(impression.id).inserted { counted.take(impression, isValued: true) }
        case .action(let action):
          time = action.time
          if time >= own { counted.take(action) }
        case .watermark(let mark): own = max(own, mark)
        }
        if time > .min { own = max(own, time - configuration.joiner.allowedLateness.milliseconds) }
      }
    }
    var valued: [StreamFeatures.Valued] = []
    counted.advance(to: .max, into: &valued)
    let values = Dictionary(valued.map { ($0.id, $0.values) }, uniquingKeysWith: { first, _ in first })
    var compared = 0
    var withClicks = 0
    try read(.examples, scratch) { reader in
      let example = try Example(decoding: &reader)
      guard let expected = values[example.impression] else { return }
      let computed = Array(try example.features.values(of: rules.schema).suffix(3))
      if computed != expected { Issue.record("\(example.impression): \(computed), not \(expected)") }
      compared += 1
      if case .ids(let ids) = computed[2], !ids.isEmpty { withClicks += 1 }
    }
    #expect(compared == 3000 && withClicks > 100, "\(compared) examples, \(withClicks) of users who had clicked")
  }

  /// Calls `body` with every record of a stream's only partition.
  private func read(
    _ stream: StreamLocation.Stream, _ scratch: Scratch, _ body: (inout ByteReader) throws -> Void
  ) throws {
    let source = try JournalSource(
      StreamLocation(root: scratch.state, stream: stream, partition: 0), consumer: "test", from: .start)
    while let record = try source.next() {
      var reader = record.reader
      try body(&reader)
    }
  }
}
