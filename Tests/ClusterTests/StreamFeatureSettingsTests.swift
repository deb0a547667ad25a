import Streams
import Testing

@testable import Cluster

@Suite("Settings of stream features") struct StreamFeatureSettingsTests {
  private func text(_ features: String) -> String {
    """
    features:
      - {name: user_id}
      - {name: tags, kind: ids}
    \(features)
    tasks: [{name: click}]
    models: [{name: main}]
    """
  }

  private func problems(_ features: String) -> [String] {
    do throws(ConfigurationError) {
      _ = try ClusterConfiguration(text: text(features), file: "c.yaml")
      return []
    } catch { return error.problems.map(\.description) }
  }

  @Test func `every kind reads, and reads back equal`() throws {
    let configuration = try ClusterConfiguration(
      text: text(
        """
          - {name: shown, kind: dense, stream: {count: impression, by: [user_id], halfLife: 1h}}
          - {name: ctr, stream: {share: click, over: view_end, by: [user_id], buckets: 50}}
          - {name: last, kind: ids, limit: 7, table: user_id, stream: {last: click, of: user_id, by: [user_id]}}
          - {name: all, stream: {count: click}}
        """), file: "c.yaml")
    let rules = try #require(configuration.streamFeatureRules)
    #expect(rules.problems().isEmpty)
    #expect(
      rules.schema.features.compactMap(\.stream) == [
        StreamFeatureSpec(.count, event: "impression", by: ["user_id"], halfLifeMilliseconds: 3_600_000),
        StreamFeatureSpec(.share(over: "view_end"), event: "click", by: ["user_id"], buckets: 50),
        StreamFeatureSpec(.last(of: "user_id"), event: "click", by: ["user_id"]),
        StreamFeatureSpec(.count, event: "click", by: []),
      ])
    #expect(rules.delayMilliseconds == 5000 && rules.memoryMilliseconds == 25 * 60_000)
    #expect(try ClusterConfiguration(text: configuration.text, file: "again") == configuration)
    #expect(try ClusterConfiguration(text: text(""), file: "c.yaml").streamFeatureRules == nil)
  }

  @Test func `what is wrong is told by key and line`() {
    let found = problems(
      """
        - {name: a, stream: {by: [user_id]}}
        - {name: b, stream: {count: click, share: click, by: [user_id]}}
        - {name: c, stream: {count: click, of: user_id, by: [tags]}}
        - {name: d, stream: {last: click, by: [user_id], halfLife: 1h}}
        - {name: e, stream: {count: click, by: [usr_id]}}
        - {name: f, kind: dense, width: 3, stream: {count: click}}
      """)
    #expect(
      found == [
        "c.yaml:4: features.a.stream.count is missing, and share and last too; say what is computed: one of the three",
        "c.yaml:5: features.b.stream.share is given beside count; make two features of it",
        "c.yaml:6: features.c.stream.of is given without last; remove it",
        "c.yaml:7: features.d.stream.halfLife is given without count or share; remove it",
        "c.yaml:7: features.d.stream.of is missing; name the feature whose ids are listed",
        "c.yaml:8: features.e.stream.by names 'usr_id', which is not a feature; use features of one id that events carry",
        "c.yaml:9: features.f.kind is 3 numbers; use id, which is bucketized, or dense with width 1",
      ])
  }
}
