import Base
import Cluster
import Foundation
import Streams
import Testing

@Suite("Configuration") struct ConfigurationTests {
  static let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent()
  static let sampleText =
    (try? String(
      contentsOf: root.appending(path: "deploy/cluster.yaml"), encoding: .utf8)) ?? ""

  /// The key paths of a text that gives every key a line, by their indentation.
  private static func keyPaths(inBlockStyle text: String) -> Set<String> {
    var stack: [(indent: Int, key: Substring)] = []
    var paths: Set<String> = []
    for line in text.split(separator: "\n") {
      let code = line.split(separator: "#", maxSplits: 1, omittingEmptySubsequences: false)[0]
      guard let colon = code.firstIndex(of: ":") else { continue }
      let indent = code.prefix { $0 == " " || $0 == "-" }.count
      stack.removeAll { $0.indent >= indent }
      stack.append((indent, code[..<colon].drop { $0 == " " || $0 == "-" }))
      paths.insert(stack.map { String($0.key) }.joined(separator: "."))
    }
    return paths
  }

  /// What is wrong with a text, one problem a line.
  private func problems(_ text: String, overrides: [String] = []) -> [String] {
    do throws(ConfigurationError) {
      _ = try ClusterConfiguration(text: text, file: "cluster.yaml", overrides: overrides)
      return []
    } catch { return error.problems.map(\.description) }
  }

  private let smallest = """
    features: [{name: user_id}]
    tasks: [{name: click}]
    models: [{name: main}]

    """

  @Test func `shards within the trainer's process allow one trainer and no keys`() {
    let found = problems(
      smallest + "\n",
      overrides: [
        "cluster.transport=inproc", "trainers.count=2", "streams.examples.partitions=2", "security.mode=curve",
      ])
    #expect(found.contains { $0.contains("trainers.count") && $0.contains("use 1 and more trainers.threads") })
    #expect(found.contains { $0.contains("security.mode") && $0.contains("inproc") })
  }

  @Test func `the sample file says the defaults`() throws {
    let sample = try ClusterConfiguration(file: Self.root.appending(path: "deploy/cluster.yaml").path)
    #expect(sample == .sample)
  }

  @Test func `the sample file mentions every key`() throws {
    #expect(ClusterConfiguration.keyPaths.count > 80)
    let given = Self.keyPaths(inBlockStyle: Self.sampleText)
    for path in ClusterConfiguration.keyPaths
    where !given.contains(path.replacing("tables.overrides.", with: "tables.defaults.")) {
      // Keys that exclude each other, or have no default, are shown in comments.
      let key = try #require(path.split(separator: ".").last)
      let isShown = Self.sampleText.split(separator: "\n").contains { line in
        line.split(separator: "#", maxSplits: 1).last.map { $0.contains("\(key): ") } ?? false
      }
      #expect(isShown, "deploy/cluster.yaml does not mention \(path)")
    }
  }

  @Test func `the KuaiRand file has field set B and eight tasks`() throws {
    let file = try ClusterConfiguration(file: Self.root.appending(path: "deploy/kuairand.yaml").path)
    #expect(
      file.eventSchema.features.map(\.name) == [
        "user_id", "video_id", "author_id", "tag", "duration_bucket", "tab", "hour",
      ])
    #expect(
      file.eventSchema.tasks.map(\.name) == [
        "is_click", "is_like", "is_follow", "is_comment", "is_forward", "is_hate", "long_view", "is_profile_enter",
      ])
    #expect(
      file.eventSchema.tasks.allSatisfy { $0.closingActions == ["view_end"] && $0.windowMilliseconds == 900_000 })
    #expect(file.eventSchema.tasks.allSatisfy { $0.positiveActions == [$0.name] })
    #expect(file.models.map(\.kind) == [.fm] && file.models[0].dimension == 8)
  }

  @Test func `what is written reads back equal`() throws {
    var configuration = ClusterConfiguration.sample
    configuration.features[1] = FeatureSettings(name: "tags", kind: .ids(limit: 7))
    configuration.features[2] = FeatureSettings(name: "age", kind: .dense(width: 3))
    configuration.features[0].table = "people"
    configuration.tasks[0].positive = ["tap", "press"]
    configuration.tasks[0].window = .milliseconds(1500)
    configuration.tables.defaults.timeToLive = nil
    var strict = TableSettings()
    strict.admission = .probability(0.25)
    strict.rowLimit = 1000
    configuration.tables.overrides["people"] = strict
    configuration.models[0].optimizer.clipNorm = 2.5
    configuration.models[0].tasks = ["click"]
    configuration.sync.denseAt = .seconds(23 * 3600 + 59 * 60)
    let again = try ClusterConfiguration(text: configuration.text, file: "written.yaml")
    #expect(again == configuration)
    #expect(again.fingerprint == configuration.fingerprint)
    #expect(again.fingerprint != ClusterConfiguration.sample.fingerprint)
  }

  @Test func `all problems are told at once, each with its line and the way out`() {
    let text = """
      cluster:
        nme: mine
        transport: tpc
      features:
        - name: user_id
          limit: 3
        - {kind: ids}
        - name: user_id
      tasks:
        - name: click
          window: 15
          negativeRate: 0
      models:
        - name: main
          dimension: eight
          features: [user, item]
      tables:
        defaults: {admission: {count: 0}, timeToLive: [1]}
        overrides: {user_idd: {rowLimit: 5}}
      shards: 2
      trainers:
        count: 0
      sync: {sparseEvery: 100ms, denseAt: 25:00}
      replica: {count: 3}
      """
    #expect(
      problems(text) == [
        "cluster.yaml:2: cluster.nme is not a known key; did you mean 'name'?",
        "cluster.yaml:3: cluster.transport is 'tpc'; use one of: ipc, tcp, inproc (did you mean 'tcp'?)",
        "cluster.yaml:6: features.user_id.limit is given for kind id; remove it, or use 'kind: ids'",
        "cluster.yaml:7: features.1.name is missing; name the feature",
        "cluster.yaml:8: features.user_id is named twice; give every entry a name of its own",
        "cluster.yaml:11: tasks.click.window is '15', which has no unit; use a duration such as 50ms, 1s, 15m, 24h or 7d",
        "cluster.yaml:12: tasks.click.negativeRate is '0'; use a number above 0, at most 1",
        "cluster.yaml:15: models.main.dimension is 'eight'; use a whole number, 1 to 4096",
        "cluster.yaml:16: models.main.features names 'user', which is not a feature; use some of: user_id",
        "cluster.yaml:16: models.main.features names 'item', which is not a feature; use some of: user_id",
        "cluster.yaml:18: tables.defaults.admission.count is 0; use at least 1",
        "cluster.yaml:18: tables.defaults.timeToLive is a list; use a duration such as 50ms, 1s, 15m, 24h or 7d, or 'never'",
        "cluster.yaml:19: tables.overrides.user_idd is not a table; did you mean 'user_id'?",
        "cluster.yaml:20: shards is '2'; use a mapping: one 'key: value' a line",
        "cluster.yaml:22: trainers.count is 0; use at least 1",
        "cluster.yaml:23: sync.sparseEvery is 100ms; use at least 1s",
        "cluster.yaml:23: sync.denseAt is '25:00'; use a time of day in UTC such as 04:00",
        "cluster.yaml:24: replica is not a known key; did you mean 'replicas'?",
      ])
  }

  @Test func `values from the command line come before the checks and name themselves in problems`() throws {
    let good = try ClusterConfiguration(
      text: smallest, file: "cluster.yaml",
      overrides: [
        "shards.count=4", "models.main.dimension=16", "models.0.optimizer.rule=adam", "features.user_id.table=people",
        "tables.overrides.people.admission.count=3", "sync={sparseEvery: 5s}",
      ])
    #expect(good.shards.count == 4)
    #expect(good.models[0].dimension == 16 && good.models[0].optimizer.rule == .adam)
    #expect(good.tables.policy(of: "people").admission == .count(3))
    #expect(good.sync.sparseEvery == .seconds(5))
    #expect(
      problems(
        smallest + "shards: {count: 2}\n",
        overrides: [
          "shards.count=0", "models.0.kind=fn", "models.other.kind=fm", "nonsense", "shards.count.more=1",
          "shard.cont=3",
        ])
        == [
          "--set models.other.kind=fm: names 'other', which is not in the list; there are: main",
          "--set nonsense: is not of the form key.path=value; write it like shards.count=4",
          "--set shards.count.more=1: reaches into 'more', but there is a single value above it; check the key path",
          "--set models.0.kind=fn: models.main.kind is 'fn'; use one of: logistic, fm, deepfm, dcn, dlrm, sum, counting (did you mean 'fm'?)",
          "--set shards.count=0: shards.count is 0; use at least 1",
          "--set shard.cont=3: shard is not a known key; did you mean 'shards'?",
        ])
  }

  @Test func `settings that do not fit together are problems`() {
    #expect(
      problems(
        smallest + """
          cluster: {transport: tcp, host: 10.0.0.1, basePort: 8500}
          shards: {epoch: 30s}
          trainers: {count: 2}
          sync: {sparseEvery: 10s}
          replicas: {staleAfter: 5s}
          streams: {actions: {partitions: 2}}
          """) == [
          "cluster.yaml:4: cluster.host is '10.0.0.1', which strangers may reach, and security.mode is none; set security.mode to curve and make keys with `guira keys create`, or use a loopback address such as 127.0.0.1",
          "cluster.yaml:4: cluster.basePort takes the ports 8500 to 8507, and replicas.port some of them; move one of the two",
          "cluster.yaml:6: trainers.count is 2, more than streams.examples.partitions; use at most 1, or more partitions: each is read by one trainer",
          "cluster.yaml:7: sync.sparseEvery is shorter than shards.epoch; use at least the length of an epoch: nothing changes within",
          "cluster.yaml:8: replicas.staleAfter is not longer than sync.sparseEvery; use several times that interval, or replicas are never ready",
          "cluster.yaml:9: streams.actions.partitions is not the same as streams.impressions.partitions; use the same number: both are partitioned by impression and joined pairwise",
        ])
  }

  @Test func `an empty file is told what to begin with`() {
    #expect(
      problems("# nothing\n") == [
        "cluster.yaml: features names no feature; list at least one: '- name: user_id'",
        "cluster.yaml: tasks names no task; list at least one: '- name: click'",
        "cluster.yaml: models names no model; list at least one: '- name: main'",
      ])
    #expect(
      problems("just words") == ["cluster.yaml: the file is not a mapping; begin with 'cluster:' and 'features:'"])
  }

  @Test(arguments: [
    ("cluster: {name: [", "cluster.yaml:2: this is not YAML"),
    ("cluster:\n  name: a\n name: b\n", "cluster.yaml:3: this is not YAML"),
    ("shards: {count: 1}\nshards: {count: 2}\n", "cluster.yaml:1: 'shards' is given twice; keep one of them"),
    ("\u{0}", "cluster.yaml: this is not YAML"), ("a: *b", "cluster.yaml:1: this is not YAML"),
  ])
  func `what is not YAML is one problem with its line`(text: String, beginning: String) {
    let found = problems(text)
    #expect(found.count == 1 && found[0].hasPrefix(beginning), "\(found)")
  }

  @Test func `a missing file is a problem, not a crash`() {
    #expect(throws: ConfigurationError.self) { try ClusterConfiguration(file: "/nowhere/cluster.yaml") }
  }

  @Test func `damaged texts are read or refused, never trapped on`() {
    var random = SeededRandom(seed: 7)
    let bytes = Array(Self.sampleText.utf8)
    var refused = 0
    for _ in 0..<60 {
      var damaged = bytes
      for _ in 0..<Int.random(in: 1...8, using: &random) {
        let at = Int.random(in: damaged.indices, using: &random)
        switch Int.random(in: 0..<3, using: &random) {
        case 0: damaged[at] = UInt8.random(in: 0...127, using: &random)
        case 1: damaged.remove(at: at)
        default: damaged.replaceSubrange(at..<min(at + 40, damaged.count), with: [])
        }
      }
      let found = problems(String(decoding: damaged, as: UTF8.self))
      #expect(found.allSatisfy { !$0.isEmpty })
      if !found.isEmpty { refused += 1 }
    }
    #expect((1..<60).contains(refused), "\(refused) of 60")
  }
}
