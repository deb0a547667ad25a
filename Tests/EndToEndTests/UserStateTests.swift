import Base
import Cluster
import Foundation
import Glibc
import Support
import Testing

/// A cluster that takes events over HTTP and follows them in the user-modelling platform.
@Suite("User state from the stream, end to end", .serialized) struct UserStateTests {
  private static let configuration = """
    features:
      - {name: user_id}
      - {name: item_id}
      - {name: clicked, kind: ids, limit: 5, table: item_id, combiner: mean,
         stream: {last: click, of: item_id, by: [user_id]}}
    tasks: [{name: click, window: 1s}]
    models:
      - name: users
        kind: sum
        users: {features: [user_id, clicked], embeddings: 2, embeddingDimension: 8, userTokens: [], mixTokens: [3]}
    joiner: {featureDelay: 100ms, allowedLateness: 100ms, checkpointEvery: 1s}
    shards: {epoch: 250ms}
    sync: {sparseEvery: 1s, denseEvery: 1s}
    soap: {model: users, recompute: [onAction]}

    """

  /// The cluster, and what a client asks of it.
  private final class Running {
    let scratch: Scratch
    let process: Process
    let soapPort: Int
    let ingestPort: Int
    let log: String
    private var nextImpression = 0
    let deadline = Clocks.monotonic() + 300_000_000_000

    init() throws {
      scratch = try Scratch()
      soapPort = try Ports.free()
      ingestPort = try Ports.free()
      log = "\(scratch.path)/up.log"
      let file = "\(scratch.path)/cluster.yaml"
      try UserStateTests.configuration.write(toFile: file, atomically: true, encoding: .utf8)
      process = try start(
        [
          "up", file, "--state", scratch.state, "--set", "replicas.port=\(scratch.httpPort)", "--set",
          "soap.port=\(soapPort)", "--set", "ingest.port=\(ingestPort)",
        ], output: log)
    }

    deinit {
      process.terminate()
      process.waitUntilExit()
    }

    private func curl(_ arguments: [String]) throws -> Data {
      let process = Process()
      process.executableURL = URL(filePath: "/usr/bin/curl")
      process.arguments = ["-s", "-m", "10"] + arguments
      process.standardInput = FileHandle.nullDevice
      let output = Pipe()
      process.standardOutput = output
      try process.run()
      let data = output.fileHandleForReading.readDataToEndOfFile()
      process.waitUntilExit()
      return data
    }

    /// Shows items to a user, and has the user click them or not.
    func show(_ items: Range<Int>, to user: Int, click: Bool) throws {
      let now = Clocks.wall()
      var lines: [String] = []
      for item in items {
        nextImpression += 1
        lines.append(
          #"{"type":"impression","id":\#(nextImpression),"time":\#(now),"features":{"user_id":\#(user),"item_id":\#(item)}}"#
        )
        if click {
          lines.append(#"{"type":"action","impression":\#(nextImpression),"action":"click","time":\#(now + 1)}"#)
        }
      }
      let file = "\(scratch.path)/events.jsonl"
      try lines.joined(separator: "\n").write(toFile: file, atomically: true, encoding: .utf8)
      while Clocks.monotonic() < deadline {
        let code = try curl([
          "-o", "/dev/null", "-w", "%{http_code}", "--data-binary", "@\(file)",
          "http://127.0.0.1:\(ingestPort)/v1/events",
        ])
        if String(decoding: code, as: UTF8.self) == "200" { return }
        usleep(100_000)
      }
      throw StateError("events are not taken: \((try? String(contentsOfFile: log, encoding: .utf8)) ?? "")")
    }

    struct Answer: Decodable, Equatable {
      var source: String
      var version: UInt64
      var event_time: Int64
      var embedding: [Float]
    }

    private struct Page: Decodable { var users: [Answer] }

    /// What the platform has of a user; a question without any features.
    func vector(of user: Int) throws -> Answer? {
      let data = try curl(["http://127.0.0.1:\(soapPort)/v1/models/users/users/\(user)"])
      return (try? JSONDecoder().decode(Page.self, from: data))?.users.first
    }

    /// Asks until the answer is as wished.
    func wait(_ user: Int, until isWished: (Answer) -> Bool) throws -> Answer {
      var last: Answer?
      while Clocks.monotonic() < deadline {
        last = try vector(of: user)
        if let last, isWished(last) { return last }
        usleep(50_000)
      }
      throw StateError("the answer stays \(String(describing: last))")
    }
  }

  @Test
  func `a user acts, and their embedding moves without any request that brings features; forgotten, they are gone`()
    throws
  {
    let running = try Running()
    // Something to learn from, by others.
    for round in 0..<20 { try running.show(0..<20, to: 100 + round, click: round % 2 == 0) }
    // The first action brings the first entry, as soon as there is a version.
    try running.show(1..<3, to: 7, click: true)
    let first = try running.wait(7) { $0.source != "default" }
    // Showing alone moves nothing; acting does.
    try running.show(30..<31, to: 7, click: false)
    let began = Clocks.wall()
    try running.show(15..<19, to: 7, click: true)
    let second = try running.wait(7) { $0.event_time > began }
    #expect(second.embedding != first.embedding)
    #expect(try running.vector(of: 8)?.source == "default")

    let forgotten = try guira(["forget", "users.user_id", "7", "--state", running.scratch.state])
    #expect(forgotten.code == 0, "\(forgotten.errors)")
    #expect(try running.vector(of: 7)?.source == "default")
    #expect(try running.vector(of: 100)?.source != "default")
  }
}
