import Base
import Cluster
import Foundation
import Glibc
import Journal
import Streams
import Support
import Testing
import Wire

/// The worked example of docs/user-modelling.md: an upstream model, its embeddings, and a downstream model that reads them.
@Suite("User modelling", .serialized) struct UserModellingTests {
  /// The configuration as the page shows it.
  static func configuration() throws -> String {
    let page = try String(contentsOfFile: packageRoot + "docs/user-modelling.md", encoding: .utf8)
    let begin = try #require(page.range(of: "```yaml\n")).upperBound
    let end = try #require(page.range(of: "\n```", range: begin..<page.endIndex)).lowerBound
    return String(page[begin..<end]) + "\n"
  }

  /// A cluster on the example's configuration that has taken all traffic and goes on.
  struct Running {
    let scratch: Scratch
    let process: Process
    let soapPort: Int
    let log: String

    init(impressions: Int, speed: String = "max", _ more: [String] = []) throws {
      scratch = try Scratch()
      let traffic = try scratch.makeTraffic(impressions)
      let file = "\(scratch.path)/cluster.yaml"
      try UserModellingTests.configuration().write(toFile: file, atomically: true, encoding: .utf8)
      soapPort = try Ports.free()
      log = "\(scratch.path)/up.log"
      process = try start(
        [
          "up", file, "--state", scratch.state, "--events", traffic, "--report", scratch.report, "--speed", speed,
          "--keep-running", "--set", "replicas.port=\(scratch.httpPort)", "--set", "soap.port=\(soapPort)", "--set",
          "shards.epoch=250ms",
        ] + more, output: log)
      let deadline = Clocks.monotonic() + 300_000_000_000
      while process.isRunning, !FileManager.default.fileExists(atPath: scratch.report),
        Clocks.monotonic() < deadline
      {
        usleep(100_000)
      }
      guard process.isRunning, FileManager.default.fileExists(atPath: scratch.report) else {
        throw StateError("no report: \((try? String(contentsOfFile: log, encoding: .utf8)) ?? "")")
      }
    }

    func stop() {
      process.terminate()
      process.waitUntilExit()
    }

    /// Of each example its user, and whether an embedding of theirs was served with the impression.
    func examples(_ schema: EventSchema) throws -> [(user: UInt64, hasVector: Bool)] {
      let location = StreamLocation(root: scratch.state, stream: .examples, partition: 0)
      var reader = try JournalReader(directory: location.directory, from: 0)
      var examples: [(user: UInt64, hasVector: Bool)] = []
      while let record = try reader.next() {
        var payload = record.payload
        let values = try Example(decoding: &payload).features.values(of: schema)
        guard case .numbers(let vector) = values[4], case .ids(let ids) = values[0], let user = ids.first else {
          continue
        }
        examples.append((user, vector.contains { $0 != 0 }))
      }
      return examples
    }

    /// What the process says of the one downstream model; nil while it does not answer.
    func downstream() -> [String: Any]? {
      ((try? get("/status"))?["downstream"] as? [[String: Any]])?.first
    }

    func get(_ path: String) throws -> [String: Any]? {
      let process = Process()
      process.executableURL = URL(filePath: "/usr/bin/curl")
      process.arguments = ["-sS", "http://127.0.0.1:\(soapPort)\(path)"]
      let output = Pipe()
      process.standardOutput = output
      process.standardInput = FileHandle.nullDevice
      try process.run()
      let data = output.fileHandleForReading.readDataToEndOfFile()
      process.waitUntilExit()
      return try JSONSerialization.jsonObject(with: data) as? [String: Any]
    }
  }

  @Test func `impressions carry their users' embeddings, and applications read them`() throws {
    // Slow enough for versions and embeddings to come meanwhile: about fifteen seconds.
    let running = try Running(
      impressions: 2000, speed: "15",
      ["--set", "models.users.users.regularization=0.1", "--set", "models.users.users.distillation=0.1"])
    defer { running.stop() }
    let configuration = try ClusterConfiguration(file: "\(running.scratch.state)/cluster.yaml")
    let schema = configuration.eventSchema

    // The trainer has followed the versions of the model it trains, and says how near it is.
    let trainer = try #require(
      ClusterStatus.read(StatePaths(running.scratch.state), configuration).entries.first {
        $0.instance.role == .trainer
      })
    let counters = try #require(trainer.status?.counters)
    #expect(try #require(counters[StatusKey.teacherVersion(of: "users")]) >= 2)
    #expect(try #require(counters[StatusKey.teacherDistance(of: "users")]) > 0)
    #expect(counters[StatusKey.teacherVersion(of: "feed")] == nil)

    // What was served is what was logged: vectors of the tower, whose module ends in a normalisation over all 16 numbers.
    let logged = try running.examples(schema).filter(\.hasVector)
    // The first ones come before the first version, and those of users who come for the first time have none either.
    #expect(logged.count > 20, "only \(logged.count) impressions carry an embedding")

    let user = try #require(logged.map(\.user).min())
    let answer = try #require(try running.get("/v1/models/users/users/\(user)"))
    let first = try #require((answer["users"] as? [[String: Any]])?.first)
    #expect(first["source"] as? String != "default")
    #expect((first["embedding"] as? [Double])?.count == 16)
    // Users were worked out besides when a version knew more of them than their last request.
    // The examples of the last requests came with versions after them, and the compute centre gets to those soon.
    func changed() throws -> Int {
      let compute = try #require(try running.get("/status")?["compute"] as? [String: Any])
      return try #require(compute["changed"] as? Int)
    }
    let deadline = Clocks.monotonic() + 60_000_000_000
    while try changed() == 0, Clocks.monotonic() < deadline { usleep(200_000) }
    #expect(try changed() > 0)
    let unknown = try #require(try running.get("/v1/models/users/users/999999999999"))
    #expect(((unknown["users"] as? [[String: Any]])?.first?["source"] as? String) == "default")

    // Over ZeroMQ the same numbers.
    let endpoints = Endpoints(configuration, socketDirectory: StatePaths(running.scratch.state).socketDirectory)
    let context = LinkContext()
    var asker = try Asker(endpoint: endpoints.soap(0), context: context)
    var body = try asker.ask { EmbedRequest.encoded(model: "users", users: [user, user], request: $0) }
    let reply = try EmbedReply(decoding: &body)
    #expect(reply.count == 2 && reply.dimension == 8 && reply.values.count == 32)
    for (a, b) in zip(reply.values.array, try #require(first["embedding"] as? [Double])) {
      #expect(abs(Double(a) - b) < 1e-4)
    }
    #expect(try running.scratch.readReport().prequential.keys.contains("feed/click"))
  }

  @Test func `a version is served to the downstream model once it was trained on examples of it, and stays so`() throws
  {
    let needed = 40
    let running = try Running(
      impressions: 3000, speed: "15",
      [
        "--set", "soap.seen.examples=\(needed)", "--set", "soap.seen.share=0.5", "--set", "tasks.click.window=3s",
        "--set", "tasks.like.window=3s",
      ])
    defer { running.stop() }
    let configuration = try ClusterConfiguration(file: "\(running.scratch.state)/cluster.yaml")
    let schema = configuration.eventSchema
    func served() -> UInt64 { (running.downstream()?["served"] as? NSNumber)?.uint64Value ?? 0 }
    let deadline = Clocks.monotonic() + 120_000_000_000
    while served() == 0, Clocks.monotonic() < deadline { usleep(100_000) }
    let version = served()
    #expect(version > 0)
    #expect(running.downstream()?["needed"] as? Int == needed)

    // What training read: users' vectors, first those of the early ones only.
    let examples = try running.examples(schema)
    let logged = examples.count(where: \.hasVector)
    #expect(logged >= needed, "only \(logged) examples carry an embedding")

    let endpoint = Endpoints(configuration, socketDirectory: StatePaths(running.scratch.state).socketDirectory).soap(0)
    let context = LinkContext()
    let all = Set(examples.map(\.user)).sorted()
    func versions(_ models: [String]) throws -> [UInt64] {
      var asker = try Asker(endpoint: endpoint, context: context)
      var body = try asker.ask { EmbedRequest.encoded(model: "users", users: all, for: models, request: $0) }
      return try EmbedReply(decoding: &body).origins.array.map(\.version)
    }
    let (newest, read) = (try versions([]), try versions(["feed"]))
    let limit = served()
    let restricted = zip(newest, read).filter { $0 != $1 }
    // Half of the users wait; for them nothing is read that the model was not trained on.
    #expect(restricted.allSatisfy { $1 <= limit }, "\(restricted), served \(limit)")
    #expect(read.contains { $0 > 0 && $0 <= limit })
    // Before the first version was seen there were users whose entries were not read.
    let reads = try #require(try running.get("/status")?["reads"] as? [String: Any])
    #expect(try #require(reads["withheld"] as? Int) > 0)
    let error = #expect(throws: ErrorReply.self) { try versions(["news"]) }
    #expect(error?.code == .mismatch && error?.message.contains("use: feed") == true)

    let user = try #require(all.first)
    let one = try running.get("/v1/models/users/users/\(user)?for=feed")
    #expect(((one?["users"] as? [[String: Any]])?.first?["version"] as? NSNumber)?.uint64Value == read[0])
    let refusal = try #require(try running.get("/v1/models/users/users/\(user)?for=feed,news"))
    #expect((refusal["error"] as? String)?.contains("no downstream model 'news'") == true)

    let status = ClusterStatus.read(StatePaths(running.scratch.state), configuration)
    #expect(StatusView.page(status, width: 500).joined().contains("feed is served"))
    #expect(try kill(#require(status[RoleInstance(.soap)]?.pid), SIGKILL) == 0)
    var back: UInt64 = 0
    let patience = Clocks.monotonic() + 120_000_000_000
    while back == 0, Clocks.monotonic() < patience {
      usleep(100_000)
      back = served()
    }
    #expect(back >= limit)
  }
}
