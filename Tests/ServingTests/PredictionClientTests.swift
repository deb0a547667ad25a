import Base
import Hosting
import Logging
import Streams
import Testing

@testable import Serving

// Starting and stopping a server blocks, and tests run on the cooperative pool: one at a time leaves it a thread.
@Suite("Prediction client", .serialized) struct PredictionClientTests {
  func server(_ predictor: Predictor, port: Int = 0) throws -> ReplicaServer {
    try ReplicaServer(
      options: ReplicaServerOptions(port: port), predictor: predictor, logger: Logger(label: "replica"))
  }

  func client(_ ports: [Int]) -> PredictionClient {
    PredictionClient(
      options: PredictionClientOptions(replicas: ports.map { .init(port: $0) }), model: "fm", schema: Fixture.schema)
  }

  let impressions = (0..<40 as Range<UInt64>).map { Fixture.block(user: $0, tags: [$0, $0 + 1], item: $0 * 20) }

  func wanted(_ predictor: Predictor) throws -> [[Float]] {
    try impressions.map { block in
      var columns = FeatureColumns(schema: Fixture.schema)
      try block.append(to: &columns, schema: Fixture.schema)
      return try #require(predictor.predict(model: "fm", columns)).probabilities
    }
  }

  @Test func `every impression gets its own answer, equal to the last bit`() throws {
    let predictor = try Fixture.predictor()
    let server = try server(predictor)
    defer { server.stop() }
    let client = client([server.port])
    let unknown = Fixture.block(user: 900, tags: [], item: 901)
    let empty = FeatureBlock(schema: Fixture.schema, values: [.ids([]), .ids([]), .ids([]), .numbers([0, 0])])
    let answers = client.predict(impressions + [unknown, empty])
    #expect(answers.prefix(impressions.count).map { $0?.probabilities } == (try wanted(predictor)))
    #expect(answers.suffix(2).map { $0?.defaultRowsOnly } == [true, true])
    #expect(answers[0]?.defaultRowsOnly == false)
    #expect(client.counts.answered == 42 && client.counts.lastProblem == nil)
    #expect(client.predict(impressions).allSatisfy { $0 != nil })
  }

  @Test func `a dead replica costs nothing but retries, and none at all answers nil`() throws {
    let predictor = try Fixture.predictor()
    let alive = try server(predictor)
    let dying = try server(predictor)
    let client = client([dying.port, alive.port])
    #expect(client.predict(impressions).allSatisfy { $0 != nil })
    dying.stop()
    #expect(client.predict(impressions).map { $0?.probabilities } == (try wanted(predictor)))
    alive.stop()
    #expect(client.predict(impressions).allSatisfy { $0 == nil })
    #expect(client.counts.lastProblem != nil)
  }

  @Test func `a replica without a base is passed over`() throws {
    let predictor = try Fixture.predictor()
    let ready = try server(predictor)
    let unready = try server(Predictor(store: Fixture.empty(), schema: Fixture.schema))
    defer {
      ready.stop()
      unready.stop()
    }
    #expect(client([unready.port, ready.port]).predict(impressions).allSatisfy { $0 != nil })
    let alone = client([unready.port])
    #expect(alone.predict(impressions).allSatisfy { $0 == nil })
    #expect(alone.counts.lastProblem?.contains("status 503") == true)
  }

  @Test func `a connection that the server closed in between is opened again`() throws {
    let predictor = try Fixture.predictor()
    let first = try server(predictor)
    let client = client([first.port])
    #expect(client.predict(impressions).allSatisfy { $0 != nil })
    first.stop()
    let second = try server(predictor, port: first.port)
    defer { second.stop() }
    #expect(client.predict(impressions).allSatisfy { $0 != nil })
  }

  @Test func `a busy port is a clear error`() throws {
    let predictor = try Fixture.predictor()
    let first = try server(predictor)
    defer { first.stop() }
    #expect(throws: HTTPHostError.portBusy(host: "127.0.0.1", port: first.port)) {
      _ = try server(predictor, port: first.port)
    }
  }

  @Test func `impressions of another schema and refused requests are nil`() throws {
    let server = try server(Fixture.predictor())
    defer { server.stop() }
    #expect(client([server.port]).predict([FeatureBlock(bytes: [1, 2, 3])]).map { $0 == nil } == [true])
    let lost = PredictionClient(
      options: PredictionClientOptions(replicas: [.init(port: server.port)]), model: "other", schema: Fixture.schema)
    #expect(lost.predict(impressions).allSatisfy { $0 == nil })
    #expect(lost.counts.lastProblem?.contains("there is no model 'other'") == true)
  }

  @Test(arguments: [
    ("HTTP/1.1 200 OK\r\nContent-Le", ResponseHead.Result.incomplete),
    (
      "HTTP/1.1 503 X\r\ncontent-length: 2\r\nConnection: close\r\n\r\nab",
      .complete(ResponseHead(status: 503, body: 56..<58, keepsAlive: false))
    ),
    (
      "HTTP/1.0 200 OK\r\nContent-Length:0\r\n\r\n",
      .complete(ResponseHead(status: 200, body: 37..<37, keepsAlive: false))
    ),
    ("hello\r\n\r\n", .invalid("the answer is not HTTP/1.1")),
    ("HTTP/1.1 200 OK\r\n\r\n", .invalid("the answer has no Content-Length up to 16777216")),
    ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", .invalid("the answer has no Content-Length up to 16777216")),
  ]) func `heads of answers are read or refused`(text: String, result: ResponseHead.Result) {
    let bytes = Array(text.utf8)
    #expect(ResponseHead.parse(bytes, count: bytes.count) == result)
  }
}
