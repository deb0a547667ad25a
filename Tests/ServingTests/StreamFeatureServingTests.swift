import Base
import Streams
import Testing

@testable import Serving

@Suite("Stream features in serving") struct StreamFeatureServingTests {
  /// The fixture's features, where `tags` are the last items the user clicked.
  let schema = EventSchema(
    features: [
      FeatureSpec(name: "user"),
      FeatureSpec(
        name: "tags", kind: .ids(limit: 4), stream: StreamFeatureSpec(.last(of: "item"), event: "click", by: ["user"])),
      FeatureSpec(name: "item"), FeatureSpec(name: "age", kind: .dense(width: 2)),
    ], tasks: [TaskSpec(name: "click"), TaskSpec(name: "like")])

  /// A predictor beside features that know user 1's clicks on items 5 and 7.
  func predictor() throws -> Predictor {
    let store = try Fixture.empty()
    try Fixture.load(store)
    var features = StreamFeatures(StreamFeatureRules(schema: schema))
    for (number, item) in [(1, 5), (2, 7)] as [(UInt64, UInt64)] {
      let values: [FeatureValue] = [.ids([1]), .ids([]), .ids([item]), .numbers([0, 0])]
      let block = FeatureBlock(schema: schema, values: values)
      features.take(Impression(id: ImpressionID(number), time: 1000, features: block))
      features.take(Action(impression: ImpressionID(number), name: "click", time: 1000 + Int64(number)))
    }
    features.advance(to: 2000)
    return try Predictor(store: store, schema: schema, streamFeatures: SharedStreamFeatures(features))
  }

  func instances(_ text: String, _ predictor: Predictor) throws -> [[UInt64]] {
    let body = Array(text.utf8)
    return try predictor.withWorkspace { workspace throws(RequestError) in
      try InstancesRequest.read(body.span.bytes, model: 0, predictor: predictor, workspace: workspace)
      return workspace.columns.ids
    }
  }

  @Test func `a request is answered with the features it does not give`() throws {
    let predictor = try predictor()
    let text = #"{"time":2000,"instances":[{"user":1,"item":3,"age":[0.5,1]},{"user":2,"item":3,"age":[0.5,1]}]}"#
    #expect(try instances(text, predictor) == [[1, 2], [7, 5], [3, 3], []])

    let body = Array(
      #"""
      {"inputs":[{"name":"user","datatype":"INT64","shape":[1],"data":[1]},
      {"name":"item","datatype":"INT64","shape":[1],"data":[3]},
      {"name":"age","datatype":"FP32","shape":[1,2],"data":[0.5,1]}],"parameters":{"time":2000}}
      """#.utf8)
    let columns = try predictor.withWorkspace { workspace throws(RequestError) in
      _ = try InferenceRequest(
        body.span.bytes, jsonByteCount: nil, model: 0, predictor: predictor, workspace: workspace)
      return workspace.columns
    }
    #expect(columns.ids == [[1], [7, 5], [3], []])
    var given = FeatureColumns(schema: Fixture.schema)
    try Fixture.block(user: 1, tags: [7, 5], item: 3).append(to: &given, schema: Fixture.schema)
    let answer = try #require(predictor.predict(model: "fm", columns))
    #expect(answer.probabilities == (try #require(Fixture.predictor().predict(model: "fm", given))).probabilities)
  }

  @Test func `a request that gives what is computed is refused`() throws {
    let predictor = try predictor()
    #expect(throws: RequestError.self) {
      try instances(#"{"instances":[{"user":1,"item":3,"tags":[9],"age":[0.5,1]}]}"#, predictor)
    }
  }
}
