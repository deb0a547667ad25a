import Base
import Foundation
import Glibc
import Logging
import Testing

@testable import Cluster

@Suite("State directory") struct StateTests {
  let scratch = Scratch()

  private func open(_ name: String, _ change: (inout ClusterConfiguration) -> Void = { _ in }) throws(StateError)
    -> StatePaths
  {
    var configuration = ClusterConfiguration.sample
    change(&configuration)
    let state = try StateDirectory("\(scratch.path)/\(name)", for: configuration)
    return state.paths
  }

  private func refusal(_ name: String, _ change: (inout ClusterConfiguration) -> Void = { _ in }) -> String? {
    do throws(StateError) {
      _ = try open(name, change)
      return nil
    } catch { return error.description.replacing(scratch.path, with: "…") }
  }

  /// Every file below, with its content.
  private func content(_ name: String) throws -> [String: Data] {
    let root = "\(scratch.path)/\(name)"
    var files: [String: Data] = [:]
    for path in try FileManager.default.subpathsOfDirectory(atPath: root) {
      files[path] = FileManager.default.contents(atPath: "\(root)/\(path)") ?? Data()
    }
    return files
  }

  @Test func `it is made, marked, and opened again with compatible changes`() throws {
    let paths = try open("run")
    #expect(try ClusterConfiguration(file: paths.configuration) == .sample)
    #expect(refusal("run") { $0.sync.sparseEvery = .seconds(5) } == nil)
    #expect(try ClusterConfiguration(file: paths.configuration).sync.sparseEvery == .seconds(5))
  }

  @Test func `another cluster's directory is refused and nothing in it is touched`() throws {
    _ = try open("run")
    let before = try content("run")
    #expect(
      refusal("run") { $0.cluster.name = "other" }
        == "…/run belongs to cluster 'guira', the configuration is of 'other'; choose another directory with --state")
    #expect(
      refusal("run") {
        $0.shards.count = 3
        $0.tasks.removeLast()
      }
        == "the data in …/run was stored with other settings: dense tensors of models.main was 'bias [2] by adagrad' and "
        + "is now 'bias [1] by adagrad'; shards.count was '2' and is now '3'; tasks was 'click like' and is now 'click'. "
        + "Set them back, or begin anew with another --state")
    #expect(try content("run") == before)
  }

  @Test func `other layers, or another rule for them, are refused and nothing is touched`() throws {
    let deep = { (configuration: inout ClusterConfiguration) in
      configuration.models[0].kind = .deepfm
      configuration.models[0].hidden = [64, 32]
    }
    _ = try open("run", deep)
    let before = try content("run")
    for change in [{ $0.hidden = [64, 16] }, { $0.denseOptimizer.rule = .sgd }, { $0.layerNorm = true }]
      as [(inout ModelSettings) -> Void]
    {
      let words = refusal("run") {
        deep(&$0)
        change(&$0.models[0])
      }
      #expect(words?.contains("dense tensors of models.main was '") == true, "\(words ?? "")")
      #expect(try content("run") == before)
    }
    // What shapes no tensor may change.
    #expect(
      refusal("run") {
        deep(&$0)
        $0.models[0].batchSize = 8
        $0.models[0].denseOptimizer.learningRate = 0.5
      } == nil)
  }

  @Test func `a directory that is no cluster's is refused and nothing is written`() throws {
    try FileManager.default.createDirectory(atPath: "\(scratch.path)/home", withIntermediateDirectories: true)
    try Data("precious".utf8).write(to: URL(filePath: "\(scratch.path)/home/thesis.txt"))
    #expect(
      refusal("home") == "…/home is not empty and not the state of a cluster; choose another directory with --state")
    #expect(try content("home").keys.sorted() == ["thesis.txt"])
  }

  @Test func `a directory in use is refused`() throws {
    let held = try StateDirectory("\(scratch.path)/run", for: .sample)
    #expect(refusal("run")?.contains("a cluster runs there: stop it, or choose another --state") == true)
    _ = held.paths
    let role = try RoleDirectory(RoleInstance(.shard, 1), in: held.paths)
    #expect(throws: StateError.self) { _ = try RoleDirectory(RoleInstance(.shard, 1), in: held.paths).path }
    _ = role.path
  }

  @Test func `sockets of a deep directory lie in a short private one`() throws {
    let deep = "\(scratch.path)/\(String(repeating: "deep/", count: 20))run"
    let state = try StateDirectory(deep, for: .sample)
    let endpoints = Endpoints(.sample, socketDirectory: state.paths.socketDirectory)
    let longest = endpoints.trainer(1023).dropFirst("ipc://".count)
    #expect(longest.utf8.count <= 107 && !longest.hasPrefix(scratch.path))
    #expect(state.paths.socketDirectory == StatePaths(deep).socketDirectory)
    #expect(state.paths.socketDirectory != StatePaths(deep + "2").socketDirectory)
    var info = stat()
    #expect(lstat(state.paths.socketDirectory, &info) == 0 && info.st_mode & 0o777 == 0o700)
    state.removeSockets()
    #expect(!FileManager.default.fileExists(atPath: state.paths.socketDirectory))
    #expect(StatePaths("/run/guira").socketDirectory == "/run/guira/sockets")
  }

  @Test func `tcp endpoints have a port each`() throws {
    var configuration = ClusterConfiguration.sample
    configuration.cluster.transport = .tcp
    configuration.shards.count = 3
    let endpoints = Endpoints(configuration, socketDirectory: "/unused")
    #expect(endpoints.sync == "tcp://127.0.0.1:8600" && endpoints.joiner == "tcp://127.0.0.1:8601")
    #expect((0..<3).map(endpoints.shard) == (8602...8604).map { "tcp://127.0.0.1:\($0)" })
    #expect(endpoints.trainer(0) == "tcp://127.0.0.1:8605")
    #expect(endpoints.url(replica: 1) == "http://127.0.0.1:8502")
    #expect(Endpoints.ports(of: configuration).map(\.port) == [8501, 8502] + Array(8600...8607))
  }

  @Test func `a busy port is named with the key that moves it`() throws {
    let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    defer { close(listener) }
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = inet_addr("127.0.0.1")
    var size = socklen_t(MemoryLayout<sockaddr_in>.size)
    let isListening = withUnsafeMutablePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { raw in
        bind(listener, raw, size) == 0 && listen(listener, 1) == 0 && getsockname(listener, raw, &size) == 0
      }
    }
    try #require(isListening)
    let port = Int(UInt16(bigEndian: address.sin_port))
    var configuration = ClusterConfiguration.sample
    configuration.replicas.port = port
    configuration.replicas.count = 1
    #expect(
      Preflight.problems(configuration, executable: Preflight.ownExecutable()) == [
        "port \(port) of 127.0.0.1 (HTTP of replica 0) is in use; stop what listens there; set replicas.port"
      ])
    #expect(
      Preflight.problems(configuration, executable: "/nowhere/guira").first
        == "/nowhere/guira cannot be run; was it moved or rebuilt? Start guira again")
    #expect(Preflight.fault(host: "192.0.2.1", port: 80) == "is not an address of this machine")
  }
}

@Suite("Status") struct StatusTests {
  let scratch = Scratch()

  @Test func `a status is written at most twice a second, and at once when the state changes`() throws {
    let paths = StatePaths(scratch.path)
    try Files.makeDirectory(paths.directory(RoleInstance(.trainer)))
    var writer = StatusWriter(RoleInstance(.trainer), in: paths)
    var status = RoleStatus(RoleInstance(.trainer), state: .ready)
    status.counters = [StatusKey.auc("click"): .nan, StatusKey.examples: 12]
    status.labels = ["click": .init(emitted: 9, positive: 3)]
    var written = [Int64(0), 499_999_999, 500_000_000].map { writer.update(status, now: $0) }
    status.state = .waiting
    written.append(writer.update(status, now: 500_000_001))
    #expect(written == [true, false, true, true])
    let read = ClusterStatus.read(paths, .sample)
    let entry = try #require(read.entries.first { $0.instance.role == .trainer })
    #expect(entry.isAlive && entry.status?.counters[StatusKey.examples] == 12)
    #expect(entry.status?.counters[StatusKey.auc("click")]?.isNaN == true)
    #expect(read.all(.trainer).first?.labels == status.labels)
  }

  @Test func `problems are told in words, the gravest first`() {
    func entry(
      _ instance: RoleInstance, _ state: RoleStatus.State?, _ message: String = "", alive: Bool = true, age: Double = 0,
      restarts: Int = 0
    ) -> ClusterStatus.Entry {
      var status = state.map { RoleStatus(instance, state: $0, message: message) }
      status?.pid = 42
      return .init(status: status, instance: instance, isAlive: alive, ageSeconds: age, restarts: restarts)
    }
    #expect(
      ClusterStatus.problems([
        entry(RoleInstance(.shard, 0), .ready), entry(RoleInstance(.shard, 1), .ready, alive: false),
        entry(RoleInstance(.joiner), .waiting, "actions 40 s behind"),
        entry(RoleInstance(.trainer), .ready, age: 12.7), entry(RoleInstance(.sync), .ready, restarts: 2),
        entry(RoleInstance(.replica, 1), nil, alive: false), entry(RoleInstance(.player), .ready, alive: false),
      ]) == [
        "shard 1 is dead (process 42)", "trainer 0 has said nothing for 12 s (process 42)",
        "joiner 0 waits: actions 40 s behind", "sync 0 was restarted 2 times", "replica 1 has not started yet",
      ])
    #expect(
      ClusterStatus.problems([entry(RoleInstance(.shard, 0), .ready, alive: false)])
        == ["nothing runs; start the cluster with guira up"])
  }

  @Test func `a log line is one JSON object with role and message`() throws {
    let path = "\(scratch.path)/log.jsonl"
    let descriptor = open(path, O_WRONLY | O_CREAT | O_APPEND, 0o644)
    defer { close(descriptor) }
    var logger = Logger(label: "test") { _ in JSONLogHandler(RoleInstance(.shard, 3), descriptor: descriptor) }
    logger[metadataKey: "epoch"] = "7"
    logger.info("block \"written\"\nand synced", metadata: ["rows": "12"])
    logger.debug("not this one")
    let lines = String(decoding: try Files.read(path), as: UTF8.self).split(separator: "\n")
    try #require(lines.count == 1)
    struct Line: Decodable {
      var time: String
      var level: String
      var role: String
      var index: Int
      var message: String
      var metadata: [String: String]
    }
    let line = try JSONDecoder().decode(Line.self, from: Data(lines[0].utf8))
    #expect(line.role == "shard" && line.index == 3 && line.level == "info")
    #expect(line.message == "block \"written\"\nand synced" && line.metadata == ["epoch": "7", "rows": "12"])
    #expect(JSONLogHandler.timestamp(1_778_243_696_789) == "2026-05-08T12:34:56.789Z")
  }
}
