import Base
import Cluster
import Foundation
import Glibc
import Streams
import Support
import Testing
import Wire

/// The stores of user embeddings under `kill -9`: what a reader was told is not lost, and nothing is torn.
@Suite("Killed stores of user embeddings", .serialized) struct UserStoreKillTests {
  /// A Redis server of a test's own, on loopback; it can be killed and comes back with what it has written.
  private final class Redis {
    let port: Int
    private let directory: String
    private var process: Process?

    static let path: String? = ["/usr/bin/redis-server", "/usr/local/bin/redis-server"].first {
      FileManager.default.isExecutableFile(atPath: $0)
    }

    init(_ path: String, in directory: String) throws {
      port = try Ports.free()
      self.directory = directory
      try start(path)
    }

    deinit { kill() }

    func start(_ path: String) throws {
      let process = Process()
      process.executableURL = URL(filePath: path)
      process.arguments = [
        "--port", "\(port)", "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--appendfsync", "everysec",
        "--dir", directory, "--daemonize", "no",
      ]
      process.standardInput = FileHandle.nullDevice
      process.standardOutput = FileHandle.nullDevice
      process.standardError = FileHandle.nullDevice
      try process.run()
      self.process = process
    }

    func kill() {
      guard let process, process.isRunning else { return }
      Glibc.kill(process.processIdentifier, SIGKILL)
      process.waitUntilExit()
    }
  }

  private static let users = Array(0..<20 as Range<UInt64>)
  private static let rounds = Int(ProcessInfo.processInfo.environment["GUIRA_SOAP_KILLS"] ?? "") ?? 5

  /// An application that asks with ever newer inputs, and remembers the newest entry of each user that it was told of.
  private final class Reader {
    let endpoint: String
    let schema: EventSchema
    let context = LinkContext()
    var time = Clocks.wall() - 3_600_000
    var seen = [Milliseconds](repeating: 0, count: users.count)

    init(_ running: UserModellingTests.Running) throws {
      let configuration = try ClusterConfiguration(file: "\(running.scratch.state)/cluster.yaml")
      schema = configuration.eventSchema
      endpoint = Endpoints(configuration, socketDirectory: StatePaths(running.scratch.state).socketDirectory).soap(0)
    }

    // Every number of a vector follows from the others, because the tower ends in a normalisation: a torn one shows. Of a
    // user without rows in the first versions, whose biases are zero, nothing is known, and all its numbers are zero.
    private static func isWhole(_ vector: ArraySlice<Float>) -> Bool {
      let mean = vector.reduce(0, +) / Float(vector.count)
      let squares = vector.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Float(vector.count)
      return vector.allSatisfy { $0 == 0 } || vector.allSatisfy(\.isFinite) && squares > 0.01
    }

    func ask(until end: Int64) throws {
      var asker = try Asker(endpoint: endpoint, context: context)
      while Clocks.monotonic() < end {
        time += 1
        let blocks = users.map { user in
          FeatureBlock(
            schema: schema,
            values: [.ids([user]), .ids([]), .ids([]), .ids([]), .numbers([Float](repeating: 0, count: 16))]
          ).bytes
        }
        var body = try asker.ask(timeout: .seconds(20)) {
          EmbedRequest.encoded(model: "users", users: users, eventTime: time, features: blocks, request: $0)
        }
        take(try EmbedReply(decoding: &body))
      }
    }

    private func take(_ reply: EmbedReply) {
      let values = reply.values.array
      for place in users.indices where reply.origins[place].source > 0 {
        seen[place] = max(seen[place], reply.origins[place].eventTime)
        #expect(Self.isWhole(values[place * 16..<(place + 1) * 16]), "a torn vector, \(reply.origins[place])")
      }
    }

    /// Asks until there is an answer, which must hold all that was told before.
    func requireAll(_ round: Int) throws {
      var asker = try Asker(endpoint: endpoint, context: context)
      let deadline = Clocks.monotonic() + 300_000_000_000
      var answer: EmbedReply?
      while answer == nil, Clocks.monotonic() < deadline {
        var body = try? asker.ask(timeout: .milliseconds(500)) {
          EmbedRequest.encoded(model: "users", users: users, request: $0)
        }
        if body != nil { answer = try? EmbedReply(decoding: &body!) }
        if answer == nil { usleep(20_000) }
      }
      let reply = try #require(answer, "there is no answer in round \(round)")
      for place in users.indices where seen[place] > 0 {
        #expect(reply.origins[place].eventTime >= seen[place], "an entry is gone in round \(round)")
      }
      take(reply)
    }
  }

  private func killPlatform(_ running: UserModellingTests.Running) throws {
    let configuration = try ClusterConfiguration(file: "\(running.scratch.state)/cluster.yaml")
    let status = ClusterStatus.read(StatePaths(running.scratch.state), configuration)
    let pid = try #require(status[RoleInstance(.soap)]?.pid)
    #expect(kill(pid, SIGKILL) == 0)
  }

  private func pause(_ round: Int) -> Int64 { Int64(100_000_000 + 37_000_000 * (round % 5)) }

  @Test func `kill -9 of the platform loses no entry and tears none`() throws {
    let running = try UserModellingTests.Running(impressions: 3000)
    defer { running.stop() }
    let reader = try Reader(running)
    for round in 0..<Self.rounds {
      try reader.ask(until: Clocks.monotonic() + pause(round))
      try killPlatform(running)
      try reader.requireAll(round)
    }
    #expect(reader.seen.allSatisfy { $0 > 0 })
  }

  @Test func `with Redis, kill -9 of the platform and of the server in turn loses no entry and tears none`() throws {
    guard let path = Redis.path else {
      print("*** SKIPPED: redis-server is not installed; killing the Redis feature store was NOT tested ***")
      return
    }
    let scratch = try Scratch()
    let redis = try Redis(path, in: scratch.path)
    let running = try UserModellingTests.Running(
      impressions: 3000, ["--set", "soap.store=redis", "--set", "soap.redisPort=\(redis.port)"])
    defer { running.stop() }
    let reader = try Reader(running)
    for round in 0..<Self.rounds + 1 {
      try reader.ask(until: Clocks.monotonic() + pause(round))
      if round % 2 == 0 {
        try killPlatform(running)
      } else {
        redis.kill()
        var asker = try Asker(endpoint: reader.endpoint, context: reader.context)
        // Reads fail while the store is down, each with an answer that says so, and the platform lives on.
        #expect(throws: ErrorReply.self) {
          try asker.ask { EmbedRequest.encoded(model: "users", users: [1], request: $0) }
        }
        try redis.start(path)
      }
      try reader.requireAll(round)
    }
    #expect(reader.seen.allSatisfy { $0 > 0 })
  }
}
