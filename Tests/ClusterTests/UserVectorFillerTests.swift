import Base
import Streams
import Testing
import Wire

@testable import Cluster

@Suite("Filling users' vectors") struct UserVectorFillerTests {
  private static let text = """
    features: [{name: user_id}, {name: item_id}, {name: vector, kind: dense, width: 16}]
    tasks: [{name: click}]
    models:
      - name: users
        kind: sum
        features: [user_id, item_id]
        users: {features: [user_id], embeddings: 2, embeddingDimension: 8}
    soap: {model: users, feature: vector, defaultValue: 0.25}

    """

  @Test func `what is logged is what was answered, the default too, and the configured one when nobody answers`() throws
  {
    let configuration = try ClusterConfiguration(text: Self.text, file: "cluster.yaml")
    let directory = "/tmp/guira-filler-\(UInt64.random(in: 0 ... .max))"
    try Files.makeDirectory(directory)
    let endpoints = Endpoints(configuration, socketDirectory: directory)
    let schema = configuration.eventSchema
    let filler = try UserVectorFiller(configuration, endpoints, LinkContext())
    func fill(_ users: [UInt64]) throws -> [FeatureValue] {
      var events = users.map { user in
        Event.impression(
          Impression(
            id: ImpressionID(user), time: 5,
            features: FeatureBlock(
              schema: schema, values: [.ids([user]), .ids([1]), .numbers([Float](repeating: 0, count: 16))])))
      }
      filler.fill(&events)
      return try events.map { event in
        guard case .impression(let impression) = event else { return .ids([]) }
        return try impression.features.values(of: schema)[2]
      }
    }
    let server = AnsweringServer(endpoint: endpoints.soap(0), security: nil)
    let thread = OwnedThread(named: "answers") {
      try? server.run { header, body, _ in
        // User 1 is known; the default of this platform is a half.
        let users = try EmbedRequest(decoding: &body).users.array
        let origins = users.map {
          EmbedReply.Origin(version: 1, eventTime: 1, age: 0, source: $0 == 1 ? 2 : 0, pooled: 1)
        }
        return EmbedReply.encoded(request: header.request, count: 2, dimension: 8, numbers: .float32, origins: origins)
        {
          for place in 0..<users.count * 16 { $0[place] = users[place / 16] == 1 ? 3 : 0.5 }
        }
      }
    }
    let deadline = Clocks.monotonic() + 20_000_000_000
    while filler.filled == 0, Clocks.monotonic() < deadline { _ = try fill([1]) }
    let vectors = try fill([1, 2])
    #expect(vectors == [3, 0.5].map { .numbers([Float](repeating: $0, count: 16)) })
    server.stop()
    thread.join()
    #expect(try fill([1]) == [.numbers([Float](repeating: 0.25, count: 16))])
  }
}
