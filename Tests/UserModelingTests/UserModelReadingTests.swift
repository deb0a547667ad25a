import Layers
import Serving
import Streams
import Testing

@testable import UserModeling

/// What a version of a user model makes of examples, as teachers give it.
@Suite("User model reading") struct UserModelReadingTests {
  @Test
  func `embeddings are the embedder's, logits are the predictor's without its correction, and both follow versions`()
    throws
  {
    let fixture = try Fixture()
    let reading = try #require(UserModelReading(fixture.predictor, model: "users"))
    #expect(UserModelReading(fixture.predictor, model: "others") == nil)
    var columns = FeatureColumns(schema: Fixture.schema)
    for user in [3, 1000] as [UInt64] {
      try Fixture.block(user: user, liked: [1, user]).append(to: &columns, schema: Fixture.schema)
    }
    #expect(reading.output(of: columns) == nil)
    try fixture.load(version: 3)
    let output = try #require(reading.output(of: columns))
    let embedder = try #require(UserEmbedder(fixture.predictor, model: "users"))
    #expect(output.embeddings == embedder.embed(columns)?.values && output.embeddings.count == 32)
    #expect(output.version.number == 3)
    let predicted = try #require(fixture.predictor.predict(model: "users", columns))
    #expect(output.logits.map { Losses.sigmoid($0) } == predicted.probabilities)
    try fixture.load(version: 4, step: 0.1)
    let later = try #require(reading.output(of: columns))
    #expect(later.version.number == 4 && later.embeddings != output.embeddings && later.logits != output.logits)
  }
}
