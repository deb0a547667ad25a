import Base
import Dispatch
import Glibc
import Hummingbird
import HTTPTypes
import HummingbirdTesting
import Layers
import NIOCore
import Streams
import Support
import Synchronization
import Testing

@testable import Serving

/// Which way a request takes to the routes.
enum Way: CaseIterable, Sendable {
  case router, socket
  var setup: TestingSetup { self == .router ? .router : .live }
}

@Suite("Replica over HTTP", .onOwnThread) struct HTTPTests {
  func application(_ predictor: Predictor, stalenessLimit: Duration? = nil) -> some ApplicationProtocol {
    let service = InferenceService(
      predictor: predictor, metrics: RequestMetrics(), stalenessLimit: stalenessLimit)
    return Application(
      router: ReplicaRouter(service: service).build(), configuration: .init(address: .hostname("127.0.0.1", port: 0)))
  }

  static let tensors = """
    {"id":"r1","inputs":[
      {"name":"user","shape":[2,1],"datatype":"UINT64","data":[[1],[18446744073709551615]]},
      {"name":"tags","shape":[2,2],"datatype":"INT64","data":[[2,3],[4,4]]},
      {"name":"item","shape":[2],"datatype":"INT32","data":[5,-6]}]}
    """
  static let instances = """
    {"instances":[{"user":1,"tags":[2,3],"item":5},{"user":18446744073709551615,"tags":[4,4],"item":-6}]}
    """

  func wanted(_ predictor: Predictor) throws -> [Float] {
    var columns = FeatureColumns(schema: Fixture.schema)
    try Fixture.block(user: 1, tags: [2, 3], item: 5).append(to: &columns, schema: Fixture.schema)
    try Fixture.block(user: .max, tags: [4, 4], item: UInt64(bitPattern: -6)).append(
      to: &columns, schema: Fixture.schema)
    return try #require(predictor.predict(model: "fm", columns)).probabilities
  }

  /// What every test here depends on beside tests that block.
  @Test func `requests are answered while every thread that tasks share is held`() async throws {
    let threads = sysconf(Int32(_SC_NPROCESSORS_ONLN))
    let release = DispatchSemaphore(value: 0)
    try await application(Fixture.predictor()).test(.live) { client in
      for _ in 0..<threads { Task.detached { Self.block(on: release) } }
      defer { for _ in 0..<threads { release.signal() } }
      let answer = try await client.execute(
        uri: "/v1/models/fm:predict", method: .post, body: ByteBuffer(string: Self.instances))
      #expect(answer.status == .ok)
    }
  }

  static func block(on semaphore: DispatchSemaphore) { semaphore.wait() }

  @Test(arguments: Way.allCases) func `both protocols answer what the predictor computes`(way: Way) async throws {
    let predictor = try Fixture.predictor()
    let want = try wanted(predictor)
    try await application(predictor).test(way.setup) { client in
      let v2 = try await client.execute(
        uri: "/v2/models/fm/infer", method: .post, body: ByteBuffer(string: Self.tensors))
      #expect(v2.status == .ok)
      let text = String(buffer: v2.body)
      #expect(text.contains(#""model_name":"fm","model_version":"3","id":"r1""#))
      #expect(text.contains(#""default_rows_only":false"#))
      let click = "\"name\":\"click\",\"datatype\":\"FP32\",\"shape\":[2],\"data\":[\(want[0]),\(want[2])]"
      let like = "\"name\":\"like\",\"datatype\":\"FP32\",\"shape\":[2],\"data\":[\(want[1]),\(want[3])]"
      #expect(text.contains(click) && text.contains(like))
      let v1 = try await client.execute(
        uri: "/v1/models/fm:predict", method: .post, body: ByteBuffer(string: Self.instances))
      #expect(v1.status == .ok)
      #expect(
        String(buffer: v1.body).hasPrefix(
          "{\"predictions\":[{\"click\":\(want[0]),\"like\":\(want[1])},{\"click\":\(want[2]),\"like\":\(want[3])}]"))
    }
  }

  @Test(arguments: Way.allCases) func `raw tensors are read and written as tritonclient has them`(way: Way) async throws
  {
    let predictor = try Fixture.predictor()
    let head = """
      {"inputs":[
        {"name":"user","shape":[2,1],"datatype":"UINT64","parameters":{"binary_data_size":16}},
        {"name":"tags","shape":[2,1],"datatype":"BYTES","parameters":{"binary_data_size":11}},
        {"name":"item","shape":[2,1],"datatype":"INT32","parameters":{"binary_data_size":8}}],
       "outputs":[{"name":"like","parameters":{"binary_data":true}},{"name":"click"}]}
      """
    var body = ByteBuffer(string: head)
    body.writeInteger(UInt64(1), endianness: .little)
    body.writeInteger(UInt64(2), endianness: .little)
    body.writeInteger(UInt32(3), endianness: .little)
    body.writeString("art")
    body.writeInteger(UInt32(0), endianness: .little)
    body.writeInteger(Int32(5), endianness: .little)
    body.writeInteger(Int32(-1), endianness: .little)
    var columns = FeatureColumns(schema: Fixture.schema)
    try Fixture.block(user: 1, tags: [Hashing.id(of: "art", feature: "tags")], item: 5)
      .append(to: &columns, schema: Fixture.schema)
    try Fixture.block(user: 2, tags: [Hashing.id(of: "", feature: "tags")], item: .max)
      .append(to: &columns, schema: Fixture.schema)
    let want = try #require(predictor.predict(model: "fm", columns)).probabilities
    let request = body
    try await application(predictor).test(way.setup) { client in
      let reply = try await client.execute(
        uri: "/v2/models/fm/infer", method: .post, headers: [.inferenceHeaderLength: "\(head.utf8.count)"],
        body: request)
      #expect(reply.status == .ok)
      let jsonCount = try #require(reply.headers[.inferenceHeaderLength].flatMap { Int($0) })
      var rest = reply.body
      let json = rest.readString(length: jsonCount) ?? ""
      #expect(json.contains("\"name\":\"click\",\"datatype\":\"FP32\",\"shape\":[2],\"data\":[\(want[0]),\(want[2])]"))
      for task in [want[1], want[3]] {
        #expect(rest.readInteger(endianness: .little, as: UInt32.self) == task.bitPattern)
      }
      #expect(rest.readableBytes == 0)
    }
  }

  static let malformed: [(body: String, says: String)] = [
    ("", "not JSON"),
    ("[]", "expected an object"),
    ("{}", "no 'inputs'"),
    ("{\"inputs\":5}", "'inputs' is an integer"),
    ("{\"inputs\":[5]}", "inputs[0] is an integer"),
    ("{\"inputs\":[]}", "needs the inputs 'user', 'tags', 'item'"),
    ("{\"inputs\":[{\"shape\":[1]}]}", "inputs[0] needs a text 'name'"),
    (input("shop", "[1]", "INT64", "[1]"), "input 'shop' is no feature"),
    (input("user", "[1]", "FLOAT", "[1]"), "input 'user' has the datatype 'FLOAT'"),
    (input("user", "[1]", "FP32", "[1]"), "input 'user' has the datatype 'FP32'"),
    (input("age", "[1,2]", "INT64", "[1,2]"), "input 'age' has the datatype 'INT64'"),
    (input("age", "[1,3]", "FP32", "[1,2,3]"), "input 'age' has the shape [1, 3]; expected [N, 2]"),
    (input("age", "[1,2]", "FP32", "[1,1e300]"), "value 1 of input 'age'"),
    (input("user", "[1,2]", "INT64", "[1,2]"), "input 'user' has the shape [1, 2]"),
    (input("user", "[]", "INT64", "[]"), "input 'user' needs a 'shape'"),
    (input("user", "[-1]", "INT64", "[]"), "'shape' of input 'user'"),
    (input("user", "[1.5]", "INT64", "[]"), "'shape' of input 'user'"),
    (input("user", "\"1\"", "INT64", "[]"), "input 'user' needs a 'shape'"),
    (input("user", "[9223372036854775807]", "INT64", "[]"), "the limit is 100000"),
    (input("tags", "[9,9223372036854775807,9223372036854775807]", "INT64", "[]"), "too large"),
    (input("tags", "[1,5]", "INT64", "[1,2,3,4,5]"), "at most 4 ids"),
    (input("user", "[2]", "INT64", "[1]"), "'data' of input 'user' has 1 values; its shape needs 2"),
    (input("user", "[1]", "INT64", "[1,2]"), "more than the 1 values"),
    (input("user", "[1]", "INT64", "[1.5]"), "value 0 of input 'user' is a fraction"),
    (input("user", "[1]", "INT64", "[\"a\"]"), "value 0 of input 'user' is a text"),
    (input("user", "[1]", "BYTES", "[1]"), "value 0 of input 'user' is an integer"),
    (input("user", "[1]", "INT64", "[{}]"), "value 0 of input 'user' is an object"),
    (input("user", "[1]", "INT64", "7"), "'data' of input 'user' is an integer"),
    (input("user", "[1]", "INT64", "[1]", more: #","parameters":{"binary_data_size":8}"#), "binary_data_size"),
    (
      "{\"inputs\":[\(tensor("user", "[1]", "INT64", "[1]")),\(tensor("user", "[1]", "INT64", "[1]"))]}",
      "input 'user' is there twice"
    ),
    (
      "{\"inputs\":[\(tensor("user", "[1]", "INT64", "[1]")),\(tensor("item", "[2]", "INT64", "[1,2]"))]}",
      "input 'item' is for 2 candidates"
    ),
    (
      "{\"outputs\":[{\"name\":\"buy\"}],\"inputs\":[\(tensor("user", "[1]", "INT64", "[1]"))]}",
      "output 'buy' is no task"
    ),
    ("{\"inputs\":[\(tensor("user", "[1]", "INT64", "[1]"))]}", "needs the inputs 'tags', 'item'"),
  ]

  static func tensor(_ name: String, _ shape: String, _ type: String, _ data: String, more: String = "") -> String {
    "{\"name\":\"\(name)\",\"shape\":\(shape),\"datatype\":\"\(type)\",\"data\":\(data)\(more)}"
  }

  static func input(_ name: String, _ shape: String, _ type: String, _ data: String, more: String = "") -> String {
    "{\"inputs\":[\(tensor(name, shape, type, data, more: more))]}"
  }

  static let malformedInstances: [(body: String, says: String)] = [
    ("{}", "no list 'instances'"),
    ("7", "expected an object"),
    ("{\"instances\":[3]}", "instances[0] is an integer"),
    ("{\"time\":\"1700000000000\",\"instances\":[]}", "'time' is a text; expected an integer"),
    ("{\"instances\":[{\"user\":1,\"tags\":[]}]}", "instances[0] has no 'item'"),
    ("{\"instances\":[{\"user\":1,\"tags\":[],\"item\":1,\"shop\":2}]}", "instances[0]: unknown feature 'shop'"),
    ("{\"instances\":[{\"user\":[1],\"tags\":[],\"item\":1}]}", "'user' is a list"),
    ("{\"instances\":[{\"user\":1,\"tags\":[1,2,3,4,5],\"item\":1}]}", "feature 'tags' has 5 ids; the limit is 4"),
    ("{\"instances\":[{\"user\":1,\"tags\":[],\"item\":1,\"age\":[1]}]}", "feature 'age' has 1 numbers"),
  ]

  @Test(arguments: Way.allCases) func `malformed requests name the field, and the next one is answered`(
    way: Way
  ) async throws {
    let predictor = try Fixture.predictor()
    try await application(predictor).test(way.setup) { client in
      for (uri, cases) in [
        ("/v2/models/fm/infer", Self.malformed), ("/v1/models/fm:predict", Self.malformedInstances),
      ] {
        for (body, says) in cases {
          let reply = try await client.execute(uri: uri, method: .post, body: ByteBuffer(string: body))
          #expect(reply.status == .badRequest, "\(body)")
          let text = String(buffer: reply.body)
          #expect(text.hasPrefix("{\"error\":") && text.contains(says), "\(body) was answered \(text)")
        }
      }
      let good = try await client.execute(
        uri: "/v1/models/fm:predict", method: .post, body: ByteBuffer(string: Self.instances))
      #expect(good.status == .ok)
    }
  }

  @Test(arguments: Way.allCases) func `raw tensors of the wrong size are refused`(way: Way) async throws {
    let predictor = try Fixture.predictor()
    func head(_ type: String, _ size: String) -> String {
      "{\"inputs\":[{\"name\":\"user\",\"shape\":[2],\"datatype\":\"\(type)\","
        + "\"parameters\":{\"binary_data_size\":\(size)}}]}"
    }
    let cases: [(head: String, raw: [UInt8], length: String?, says: String)] = [
      (head("INT64", "16"), [1, 2], nil, "does not fit the 2 bytes"),
      (head("INT64", "8"), Array(repeating: 0, count: 8), nil, "its shape [2] needs 16"),
      (head("INT64", "-1"), [], nil, "binary_data_size"),
      (head("INT64", "1e400"), [], nil, "not JSON"),
      (head("INT64", "\"16\""), [], nil, "binary_data_size"),
      (head("BYTES", "3"), [1, 0, 0], nil, "ends inside text 0"),
      (head("BYTES", "6"), [1, 0, 0, 0, 65, 1], nil, "ends inside text 1"),
      (head("BYTES", "8"), [255, 255, 255, 255, 0, 0, 0, 0], nil, "ends inside text 0"),
      (head("BYTES", "9"), [0, 0, 0, 0, 0, 0, 0, 0, 9], nil, "1 bytes too many"),
      (head("INT64", "16"), Array(repeating: 0, count: 17), nil, "1 bytes are left"),
      (head("INT64", "16"), [], "99999", "Inference-Header-Content-Length is 99999"),
      (head("INT64", "16"), [], "-4", "Inference-Header-Content-Length is '-4'"),
      (head("INT64", "16"), [], "many", "Inference-Header-Content-Length is 'many'"),
    ]
    try await application(predictor).test(way.setup) { client in
      for (head, raw, length, says) in cases {
        var body = ByteBuffer(string: head)
        body.writeBytes(raw)
        let reply = try await client.execute(
          uri: "/v2/models/fm/infer", method: .post,
          headers: [.inferenceHeaderLength: length ?? "\(head.utf8.count)"], body: body)
        #expect(reply.status == .badRequest)
        #expect(String(buffer: reply.body).contains(says), "\(head) was answered \(String(buffer: reply.body))")
      }
    }
  }

  @Test(arguments: Way.allCases) func `unknown things are 404, large bodies 413, compressed ones 415`(way: Way)
    async throws
  {
    let store = try Fixture.empty()
    try Fixture.load(store)
    let predictor = try Predictor(store: store, schema: Fixture.schema, bodyByteLimit: 1000)
    try await application(predictor).test(way.setup) { client in
      for uri in ["/v2/models/other", "/v2/models/other/ready", "/v1/models/other", "/nothing"] {
        let reply = try await client.execute(uri: uri, method: .get)
        #expect(reply.status == .notFound)
        #expect(String(buffer: reply.body).hasPrefix("{\"error\":"))
      }
      for uri in ["/v2/models/other/infer", "/v1/models/other:predict"] {
        let reply = try await client.execute(uri: uri, method: .post, body: ByteBuffer(string: "{}"))
        #expect(reply.status == .notFound)
        #expect(String(buffer: reply.body).contains("there is no model 'other'; there are fm"))
      }
      let large = try await client.execute(
        uri: "/v2/models/fm/infer", method: .post, body: ByteBuffer(repeating: 32, count: 1001))
      #expect(large.status == .contentTooLarge)
      let packed = try await client.execute(
        uri: "/v2/models/fm/infer", method: .post, headers: [.contentEncoding: "gzip"], body: ByteBuffer(string: "x"))
      #expect(packed.status == .unsupportedMediaType)
      #expect(try await client.execute(uri: "/healthz", method: .get).status == .ok)
    }
  }

  @Test func `a replica is ready between its first base and growing stale`() async throws {
    let clock = ManualClock()
    let store = try Fixture.empty(clock: { clock.now })
    let predictor = try Predictor(store: store, schema: Fixture.schema)
    try await application(predictor, stalenessLimit: .seconds(10)).test(.router) { client in
      func ready(_ uri: String) async throws -> Bool { try await client.execute(uri: uri, method: .get).status == .ok }
      #expect(try await !ready("/readyz"))
      #expect(try await ready("/healthz"))
      let early = try await client.execute(
        uri: "/v1/models/fm:predict", method: .post, body: ByteBuffer(string: Self.instances))
      #expect(early.status == .serviceUnavailable)
      try Fixture.load(store)
      #expect(try await ready("/readyz"))
      clock.advance(.seconds(11))
      #expect(try await !ready("/readyz"))
      #expect(try await !ready("/v2/health/ready"))
      #expect(try await !ready("/v2/models/fm/ready"))
      try store.publish(Fixture.version)
      #expect(try await ready("/v2/models/fm/ready"))
    }
  }

  @Test func `metadata, status and metrics tell what is served`() async throws {
    let predictor = try Fixture.predictor()
    predictor.store.recordServable(arrivals: [(1_000, 3), (1_500, 1)], at: 2_500)
    try await application(predictor).test(.router) { client in
      func text(_ uri: String) async throws -> String {
        String(buffer: try await client.execute(uri: uri, method: .get).body)
      }
      _ = try await client.execute(
        uri: "/v1/models/fm:predict", method: .post, body: ByteBuffer(string: Self.instances))
      let metadata = try await text("/v2/models/fm")
      #expect(metadata.contains(#"{"name":"tags","datatype":"UINT64","shape":[-1,-1]}"#))
      #expect(metadata.contains(#""platform":"guira_fm""#))
      #expect(try await text("/v2").contains("binary_tensor_data"))
      #expect(try await text("/v1/models/fm").contains("AVAILABLE"))
      let status = try await text("/status")
      #expect(status.contains(#""name":"user","rows":100"#))
      #expect(status.contains(#""freshnessMilliseconds":{"count":4"#))
      let metrics = try await text("/metrics")
      #expect(metrics.contains("guira_replica_version 3\n"))
      #expect(metrics.contains("guira_replica_rows{table=\"item\"} 100\n"))
      #expect(metrics.contains("guira_replica_freshness_seconds_count 4\n"))
      #expect(metrics.contains("code=\"200\"} 1\n"))
    }
  }
}

/// A clock that tests move.
final class ManualClock: Sendable {
  private let time = Atomic<Int64>(0)
  var now: Int64 { time.load(ordering: .relaxed) }
  func advance(_ duration: Duration) { time.add(duration.nanoseconds, ordering: .relaxed) }
}
