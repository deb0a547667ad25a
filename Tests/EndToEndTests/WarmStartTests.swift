import Base
import Foundation
import Testing

/// Parameters that leave a cluster: into files for other programs, and into a cluster that begins with them.
@Suite("Warm start and export", .serialized) struct WarmStartTests {
  private func export(_ state: String, to path: String) throws -> Data {
    let outcome = try guira(["export", "--state", state, "--output", path])
    try #require(outcome.code == 0, "\(outcome.errors)")
    return try Data(contentsOf: URL(filePath: path))
  }

  @Test func `a cluster of three shards begins with the very rows and tensors of one of two`() throws {
    let scratch = try Scratch()
    let traffic = try scratch.makeTraffic(2000)
    let deep = ["--set", "models.0.kind=deepfm", "--set", "models.0.dimension=4"]
    let up = try guira(scratch.up(traffic, deep))
    try #require(up.code == 0, "\(up.errors)")
    let old = try export(scratch.state, to: "\(scratch.path)/old.safetensors")
    #expect(old.count > 10_000)
    #expect(!FileManager.default.fileExists(atPath: "\(scratch.path)/old.safetensors.parts"))

    let new = "\(scratch.path)/new"
    let start = ["warm-start", sampleConfiguration, "--from", scratch.state, "--state", new, "--set"]
    let port = ["--set", "replicas.port=\(scratch.httpPort)"]
    let begun = try guira(start + ["shards.count=3"] + deep + port)
    try #require(begun.code == 0, "\(begun.errors)")
    #expect(begun.output.contains("shard 2: ") && !begun.output.contains("fresh"), "\(begun.output)")
    #expect(try export(new, to: "\(scratch.path)/new.safetensors") == old)

    let again = try guira(start + ["shards.count=3"] + deep + port)
    #expect(again.code == 1 && again.errors.contains("holds a shard's state already"), "\(again.errors)")
  }

  @Test func `a warm start that was killed half-way leaves a directory in which nothing runs`() throws {
    let scratch = try Scratch()
    let traffic = try scratch.makeTraffic(500)
    let port = ["--set", "replicas.port=\(scratch.httpPort)"]
    let trained = try guira(["train", sampleConfiguration, "--events", traffic, "--state", scratch.state] + port)
    try #require(trained.code == 0, "\(trained.errors)")
    let new = "\(scratch.path)/new"
    let start = ["warm-start", sampleConfiguration, "--from", scratch.state, "--state", new] + port
    // The second shard's checkpoint has its name, and no manifest.
    let killed = try guira(start, environment: [FaultPoint.variable: "\(FaultPoint.checkpointRenamed.rawValue):2"])
    #expect(killed.code != 0 && killed.output.contains("shard 0: "), "\(killed.output)")

    let words = "a warm start into \(new) was not finished"
    for arguments in [
      ["up", sampleConfiguration, "--state", new] + port, ["shard", "--state", new, "--index", "1"], start,
      ["train", sampleConfiguration, "--events", traffic, "--state", new] + port,
    ] {
      let refused = try guira(arguments)
      #expect(refused.code != 0 && refused.errors.contains(words), "\(arguments[0]): \(refused.errors)")
    }
    try Files.remove(new)
    #expect(try guira(start).code == 0)
    // A cluster that is whole is not harmed by one more attempt.
    #expect(try guira(start).errors.contains("holds a shard's state already"))
    #expect(try guira(["train", sampleConfiguration, "--events", traffic, "--state", new] + port).code == 0)
  }

  @Test(arguments: ["always", "{sketch: 3}", "{count: 2}"])
  func `rows come along when ids are admitted in another way`(admission: String) throws {
    let scratch = try Scratch()
    let traffic = try scratch.makeTraffic(500)
    let port = ["--set", "replicas.port=\(scratch.httpPort)"]
    let trained = try guira(
      ["train", sampleConfiguration, "--events", traffic, "--state", scratch.state, "--set"]
        + ["tables.defaults.admission={count: 3}"] + port)
    try #require(trained.code == 0, "\(trained.errors)")
    let old = try export(scratch.state, to: "\(scratch.path)/old.safetensors")
    let new = "\(scratch.path)/new"
    let begun = try guira(
      ["warm-start", sampleConfiguration, "--from", scratch.state, "--state", new, "--set"]
        + ["tables.defaults.admission=\(admission)"] + port)
    try #require(begun.code == 0, "\(begun.errors)")
    let words = "table 'main.user_id': sightings of ids that have no row yet are counted anew"
    #expect(begun.output.contains(words) == (admission != "{count: 2}"), "\(begun.output)")
    #expect(try export(new, to: "\(scratch.path)/new.safetensors") == old)
  }

  @Test func `what does not fit is named, and starts fresh when that is allowed`() throws {
    let scratch = try Scratch()
    let traffic = try scratch.makeTraffic(1000)
    let up = try guira(scratch.up(traffic))
    try #require(up.code == 0, "\(up.errors)")
    // Another feature in the place of 'hour', and a table for users with wider rows.
    let text = try String(contentsOfFile: sampleConfiguration, encoding: .utf8)
    let changed = "\(scratch.path)/changed.yaml"
    try text.replacingOccurrences(of: "name: hour", with: "name: minute").write(
      toFile: changed, atomically: true, encoding: .utf8)
    let start = ["warm-start", changed, "--from", scratch.state, "--set", "replicas.port=\(scratch.httpPort)"]

    let fits = try guira(start + ["--state", "\(scratch.path)/fits"])
    #expect(fits.code == 0, "\(fits.errors)")
    #expect(fits.output.contains("table 'main.minute' is new and starts fresh"), "\(fits.output)")
    #expect(fits.output.contains("table 'main.hour' is no longer there and is dropped"), "\(fits.output)")

    let wider = start + ["--state", "\(scratch.path)/wider", "--set", "models.0.dimension=16"]
    let refused = try guira(wider)
    #expect(refused.code == 1)
    #expect(
      refused.errors.contains("table 'main.user_id' has")
        && refused.errors.contains("with --allow-changes these start fresh"),
      "\(refused.errors)")
    #expect(!FileManager.default.fileExists(atPath: "\(scratch.path)/wider"))
    // State that is as wide means another thing to another rule.
    let rule = ["--state", "\(scratch.path)/rule", "--set", "models.0.optimizer.rule=momentum"]
    let other = try guira(start + rule)
    #expect(other.code == 1 && other.errors.contains("16 of vector by momentum with 16 of state"), "\(other.errors)")
    let allowed = try guira(wider + ["--allow-changes"])
    #expect(allowed.code == 0 && allowed.output.contains("starts fresh"), "\(allowed.errors)")
  }
}

/// Training on files.
@Suite("Batch training", .serialized) struct BatchTrainingTests {
  @Test
  func `passes over a file are made once each, shuffled the same way every time, and a cluster goes on from them`()
    throws
  {
    let scratch = try Scratch()
    let traffic = try scratch.makeTraffic(1500)
    func train(_ state: String, _ more: [String] = []) throws -> Outcome {
      try guira(
        [
          "train", sampleConfiguration, "--events", traffic, "--state", state, "--set",
          "replicas.port=\(scratch.httpPort)",
        ]
          + more)
    }
    func export(_ state: String) throws -> Data {
      let outcome = try guira(["export", "--state", state, "--output", "\(state).safetensors"])
      try #require(outcome.code == 0, "\(outcome.errors)")
      return try Data(contentsOf: URL(filePath: "\(state).safetensors"))
    }
    let (first, second) = ("\(scratch.path)/first", "\(scratch.path)/second")
    let done = try train(first, ["--epochs", "2", "--shuffle"])
    try #require(done.code == 0, "\(done.errors)")
    #expect(done.output.contains("1500 examples, 2 passes; this run trained on 3000, "), "\(done.output)")
    // The same seed and data, one trainer, in one process: the same bits.
    #expect(try train(second, ["--epochs", "2", "--shuffle"]).code == 0)
    let learnt = try export(first)
    #expect(try export(second) == learnt)
    // All passes are made: nothing is trained on again.
    #expect(try train(first, ["--epochs", "2", "--shuffle"]).code == 0)
    #expect(try export(first) == learnt)
    // Another pass goes on.
    let third = try train(first, ["--epochs", "3", "--shuffle"])
    #expect(third.output.contains("1500 examples, 3 passes; this run trained on 1500, "), "\(third.output)")
    let more = try export(first)
    #expect(more != learnt)
    // Fewer passes than were made.
    let fewer = try train(first, ["--epochs", "1", "--shuffle"])
    #expect(fewer.code == 0 && fewer.output.contains("there is nothing to do"), "\(fewer.output)\(fewer.errors)")
    #expect(try export(first) == more)

    let up = try guira(
      [
        "up", sampleConfiguration, "--state", first, "--events", traffic, "--report", scratch.report, "--set",
        "replicas.port=\(scratch.httpPort)", "--set", "sync.sparseEvery=1s", "--set", "sync.denseEvery=1s",
      ])
    #expect(up.code == 0, "\(up.errors)")
    #expect(try scratch.readReport().examples == 1500)
  }

  @Test(.timeLimit(.minutes(2))) func `shards that cannot start end the run, whichever they are`() throws {
    let scratch = try Scratch()
    let traffic = try scratch.makeTraffic(100)
    let train = [
      "train", sampleConfiguration, "--events", traffic, "--state", scratch.state, "--set", "shards.count=8", "--set",
      "replicas.port=\(scratch.httpPort)",
    ]
    let whole = try guira(train)
    try #require(whole.code == 0, "\(whole.errors)")
    // All but the last have a damaged journal.
    for shard in 0..<7 {
      let journal = "\(scratch.state)/shard-\(shard)/journal"
      for name in try Files.names(in: journal) { try Files.replace("\(journal)/\(name)", with: Array("damage".utf8)) }
    }
    let broken = try guira(train + ["--epochs", "2"])
    #expect(broken.code != 0 && broken.errors.contains("/journal"), "\(broken.errors)")
  }

  @Test(.timeLimit(.minutes(2))) func `a benchmark whose shard dies at once says so`() throws {
    let outcome = try guira(
      ["bench", "train", "--transport", "ipc", "--model", "fm", "--ids", "100", "--examples", "100", "--runs", "1"],
      environment: [FaultPoint.variable: "\(FaultPoint.claimTaken.rawValue):1"])
    #expect(outcome.code == 1 && outcome.errors.contains("the shard ended: "), "\(outcome.errors)")
  }

  @Test func `a file that was corrected is trained on, and keys are no hindrance`() throws {
    let scratch = try Scratch()
    let traffic = try scratch.makeTraffic(300)
    let keys = try guira(["keys", "create", "--config", sampleConfiguration, "--state", scratch.state])
    try #require(keys.code == 0, "\(keys.errors)")
    let train = [
      "train", sampleConfiguration, "--events", traffic, "--state", scratch.state, "--set", "security.mode=curve",
      "--set", "replicas.port=\(scratch.httpPort)",
    ]
    let first = try guira(train)
    try #require(first.code == 0, "\(first.errors)")
    #expect(try guira(train).output.contains("there is nothing to do"))
    let path = "\(traffic)/events.jsonl"
    let text = try String(contentsOfFile: path, encoding: .utf8)
    let line = try #require(text.split(separator: "\n").first { $0.contains("\"click\"") })
    try text.replacingOccurrences(of: line + "\n", with: "").write(toFile: path, atomically: true, encoding: .utf8)
    let corrected = try guira(train)
    #expect(corrected.output.contains("300 examples, 1 passes; this run trained on 300, "), "\(corrected.output)")
  }

  @Test func `a pass over a file knows the features from the stream`() throws {
    let scratch = try Scratch()
    let traffic = try scratch.makeTraffic(1000)
    let features = """
      [{name: user_id}, {name: item_id}, {name: category}, {name: hour}, \
      {name: item_clicks, stream: {count: click, by: [item_id], buckets: 4}}]
      """
    let trained = try guira([
      "train", sampleConfiguration, "--events", traffic, "--state", scratch.state, "--set", "features=\(features)",
      "--set", "replicas.port=\(scratch.httpPort)", "--set", "joiner.allowedLateness=10s",
    ])
    try #require(trained.code == 0, "\(trained.errors)")
    let path = "\(scratch.path)/learnt.safetensors"
    let exported = try guira(["export", "--state", scratch.state, "--output", path])
    try #require(exported.code == 0, "\(exported.errors)")
    // One bucket at least for no click, one click and more.
    #expect(try SafetensorsHeader(path).shape("main.item_clicks.ids")[0] >= 3)
  }
}

/// What a safetensors file says of its arrays.
struct SafetensorsHeader {
  private let entries: [String: Any]

  init(_ path: String) throws {
    let data = try Data(contentsOf: URL(filePath: path))
    let count = data.prefix(8).reversed().reduce(0) { $0 << 8 | Int($1) }
    entries = try JSONSerialization.jsonObject(with: data[8..<8 + count]) as? [String: Any] ?? [:]
  }

  func shape(_ name: String) throws -> [Int] {
    try #require((entries[name] as? [String: Any])?["shape"] as? [Int], "no array \(name)")
  }
}
