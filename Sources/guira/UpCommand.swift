// `guira up`: the whole cluster from one file, and a replay into it when asked. Everything is checked before anything is
// started. Threads: main shows status and decides, "supervisor" keeps the processes, "player" replays, "signals" waits.

import ArgumentParser
import Base
import Cluster
import Foundation
import Glibc
import Streams
import Synchronization

struct Up: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Starts a whole cluster, and replays events into it when asked.",
    discussion: """
      Starts every role as a process of its own, restarts what dies, shows how it is doing, and stops all in order on
      Ctrl-C or when the replay is done.

      Examples:
        guira up                                             ./cluster.yaml, or the built-in sample
        guira up deploy/cluster.yaml --events traffic --speed max --report report.json
        guira up deploy/kuairand.yaml --events kuairand/ --speed 1000/s --predict-share 1
        guira up cluster.yaml --events clicks.csv            with the import.yaml that `guira init clicks.csv` wrote
        guira up --set shards.count=4 --set sync.sparseEvery=1s
      """)

  @Argument(help: "The configuration file. Default: ./cluster.yaml, or the built-in sample when there is none.")
  var file: String?
  @OptionGroup var state: StateOption
  @Option(
    help: "Events to replay: a directory of events, a file of JSON Lines, a dataset, or rows that --mapping explains.")
  var events: String?
  @Option(
    help: "How rows become events. Default: import.yaml beside the configuration or the events, where there is one.")
  var mapping: String?
  @Option(help: "How fast: max, a multiple of event time such as 60, or impressions per second such as 1000/s.")
  var speed = "max"
  @Option(help: "Where to write the report of the replay, as JSON.") var report: String?
  @Option(name: .customLong("set"), help: "A value to put in, key.path=value; may be repeated.")
  var overrides: [String] = []
  @Option(help: "The share of impressions a replica is asked about over HTTP first, 0 to 1.") var predictShare = 0.0
  @Flag(help: "Let each shard's first start of this run go on although its files are damaged, with what is left.")
  var acceptLoss = false
  @Flag(help: "Keep the cluster running after the replay, until Ctrl-C.") var keepRunning = false

  func validate() throws {
    guard ReplaySpeed(speed) != nil else {
      throw ValidationError("--speed is '\(speed)'; use max, a factor such as 60, or a rate such as 1000/s.")
    }
    guard (0...1).contains(predictShare) else { throw ValidationError("--predict-share must be 0 to 1.") }
    if report != nil && events == nil { throw ValidationError("--report needs --events: it is about a replay.") }
    if mapping != nil && events == nil { throw ValidationError("--mapping needs --events: it explains their rows.") }
    if keepRunning && events == nil { throw ValidationError("--keep-running needs --events.") }
  }

  func run() throws {
    try reporting {
      let cluster = try readConfiguration()
      var rows: ImportMapping?
      if let events {
        if let port = cluster.ingest.port {
          throw Failure(
            "events come in at port \(port), so none can be replayed: one writer a stream. Add --set ingest.port=none")
        }
        rows = try MappingFile.find(mapping, configuration: file, events: events)
        try EventsCheck.run(events, rows, schema: cluster.eventSchema)
      }
      if let report { try checkWritable(report) }
      try StateDirectory.check(state.paths, cluster)
      try ClusterKeys(cluster, state.paths).check()
      let executable = Preflight.ownExecutable()
      let problems = Preflight.problems(cluster, executable: executable)
      guard problems.isEmpty else { throw Failure(problems.joined(separator: "\n")) }
      let directory = try StateDirectory(state.state, for: cluster)
      defer { directory.removeSockets() }
      try ClusterRun(self, cluster, rows, directory.paths, executable).run()
    }
  }

  private func readConfiguration() throws -> ClusterConfiguration {
    if let file { return try ClusterConfiguration(file: file, overrides: overrides) }
    if Files.exists("./cluster.yaml") { return try ClusterConfiguration(file: "./cluster.yaml", overrides: overrides) }
    return try ClusterConfiguration(
      text: ClusterConfiguration.sample.text, file: "the built-in sample", overrides: overrides)
  }

  /// The report comes last; that it cannot be written is better known first.
  private func checkWritable(_ path: String) throws {
    let url = URL(filePath: path)
    let directory = url.deletingLastPathComponent().path(percentEncoded: false)
    guard FileManager.default.isWritableFile(atPath: directory) else {
      throw Failure("the report cannot be written: \(directory) is not a writable directory")
    }
    if url.hasDirectoryPath || (try? Files.names(in: path)) != nil {
      throw Failure("the report cannot be written: \(path) is a directory")
    }
  }
}

/// Whether events can be replayed, as far as that can be told without reading them.
enum EventsCheck {
  static func run(_ path: String, _ mapping: ImportMapping?, schema: EventSchema) throws {
    guard Files.exists(path) else {
      throw Failure("there are no events at \(path); make some: guira events generate --output \(path)")
    }
    let names = try? Files.names(in: path)
    if names?.contains(Dataset.manifestName) == true {
      let problems = try Dataset(directory: path).misfits(schema)
      if !problems.isEmpty { throw StreamError.misfit(path: path, problems: problems) }
    } else if let importer = try KnownDatasets.importer(of: path, mapping: mapping) {
      let problems = importer.shape.misfits(schema)
      if !problems.isEmpty { throw StreamError.misfit(path: path, problems: problems) }
    } else if let names {
      throw StreamError.notADataset(path: path, found: names)
    } else if !EventInput.isEvents(path) {
      throw StreamError.notADataset(path: path, found: [path])
    }
  }
}

/// Where the mapping of a replay is.
enum MappingFile {
  /// The mapping that was named, else import.yaml beside the configuration or the events.
  ///
  /// Events that are events already need none.
  static func find(_ named: String?, configuration: String?, events: String) throws -> ImportMapping? {
    if let named { return try ImportMapping(file: named) }
    let isDirectory = (try? Files.names(in: events)) != nil
    if isDirectory && Files.exists("\(events)/\(Dataset.manifestName)") { return nil }
    let besides = [
      directory(of: configuration ?? "./cluster.yaml"), isDirectory ? events : directory(of: events),
    ]
    for place in besides.map({ "\($0)/\(ImportMapping.fileName)" }) where Files.exists(place) {
      let mapping = try ImportMapping(file: place)
      if mapping.isAbout(events) { return mapping }
    }
    return nil
  }

  private static func directory(of path: String) -> String {
    guard let slash = path.lastIndex(of: "/") else { return "." }
    return slash == path.startIndex ? "/" : String(path[..<slash])
  }
}

/// One run of a cluster: from the first process started to the last one gone.
private struct ClusterRun {
  private enum News: Sendable {
    case replayed(Result<Report, Failure>)
    case supervisor(SupervisorEvent)
  }

  /// How long the player may take to stop after Ctrl-C before the roles are stopped under it.
  private static let playerGrace = Duration.seconds(5)

  private let options: Up
  private let configuration: ClusterConfiguration
  private let mapping: ImportMapping?
  private let paths: StatePaths
  private let executable: String
  private let news = Mailbox<News>(bound: 100_000)

  init(
    _ options: Up, _ configuration: ClusterConfiguration, _ mapping: ImportMapping?, _ paths: StatePaths,
    _ executable: String
  ) {
    self.options = options
    self.configuration = configuration
    self.mapping = mapping
    self.paths = paths
    self.executable = executable
  }

  func run() throws {
    let signals = Signals.mailbox()
    let isCancelled = Cancellation()
    let isTerminal = isatty(STDOUT_FILENO) == 1
    write("\(configuration.cluster.name): \(configuration.processes.count) processes, state in \(paths.root)\n")
    let supervisor = Supervisor(specs, status: paths) { [news] in _ = news.offer(.supervisor($0)) }
    if options.events != nil { startReplay(isCancelled) }

    var screen = StatusScreen()
    var outcome: Result<Report, Failure>?
    var isStopping = false
    var isFinished = false
    var wasInterrupted = false
    var isReplaying = options.events != nil
    var patienceEnds = Int64.max
    while !isFinished {
      for item in news.waitAll(timeout: .milliseconds(250)) {
        switch item {
        case .replayed(let result):
          outcome = result
          isReplaying = false
          if case .success(let report) = result, options.keepRunning {
            try publish(report)
            // The player is over, and nobody is to wait for it in the status.
            try? FileManager.default.removeItem(atPath: paths.status(RoleInstance(.player)))
            continue
          }
          isStopping = true
        case .supervisor(.finished): isFinished = true
        case .supervisor(let event):
          if case .refused = event { isCancelled.set() }
          if let words = words(event, isStopping), !isTerminal { write("\(words)\n", to: STDERR_FILENO) }
        }
      }
      for signal in signals.takeAll() {
        // A second Ctrl-C does not wait: the kernel kills the roles with this process.
        if wasInterrupted && signal == SIGINT { _exit(130) }
        wasInterrupted = true
        isStopping = true
        isCancelled.set()
        patienceEnds = min(patienceEnds, Clocks.monotonic() + Self.playerGrace.nanoseconds)
      }
      // The player comes first: what it has sent half of would be reported as missing.
      if isStopping && (!isReplaying || Clocks.monotonic() > patienceEnds) { supervisor.stop() }
      if !isFinished { screen.show(ClusterStatus.read(paths, configuration)) }
    }
    supervisor.wait()
    screen.finish()
    if let failure = supervisor.failure { throw Failure(failure, code: ConfigurationError.exitCode) }
    try finish(outcome, wasInterrupted)
  }

  private func finish(_ outcome: Result<Report, Failure>?, _ wasInterrupted: Bool) throws {
    guard options.events != nil else { return }
    if wasInterrupted, (try? outcome?.get()) == nil { throw Failure("the replay was interrupted", code: 130) }
    guard let outcome else { throw Failure("the replay did not end") }
    let report = try outcome.get()
    if !options.keepRunning { try publish(report) }
  }

  private func publish(_ report: Report) throws {
    write("\n\(report.summary)")
    if let path = options.report {
      try Files.replace(path, with: Array(try report.json().utf8))
      write("The report is in \(path).\n")
    }
  }

  private var specs: [ChildSpec] {
    let shardHost = configuration.cluster.transport == .inproc ? Role.trainer : .shard
    return configuration.processes.map { instance in
      var spec = ChildSpec(
        instance, executable: executable,
        arguments: [
          instance.role.rawValue, "--config", paths.configuration, "--state", paths.root, "--index",
          "\(instance.index)",
        ] + (instance.role == .trainer && options.events != nil ? ["--keep-all-scores"] : []), log: paths.log(instance))
      if instance.role == shardHost && options.acceptLoss { spec.firstArguments = ["--accept-loss"] }
      return spec
    }
  }

  private func startReplay(_ isCancelled: Cancellation) {
    guard let events = options.events, let speed = ReplaySpeed(options.speed) else { return }
    let (share, configuration, paths, news) = (options.predictShare, configuration, paths, news)
    let mapping = mapping
    _ = OwnedThread(named: "player") {
      do {
        let report = try Replay.run(
          events: events, mapping: mapping, speed: speed, predictedShare: share, configuration: configuration,
          state: paths,
          isCancelled: { isCancelled.isSet })
        _ = news.offer(.replayed(.success(report)))
      } catch {
        _ = news.offer(.replayed(.failure(error as? Failure ?? Failure("\(error)"))))
      }
    }
  }

  /// What is said about an event where no status page shows it.
  private func words(_ event: SupervisorEvent, _ isStopping: Bool) -> String? {
    switch event {
    case .ended(let instance, let ending, let delay?):
      "\(instance) \(ending); it is started again in \(delay.milliseconds) ms; see \(paths.log(instance))"
    case .killed(let instance): "\(instance) did not stop in time and was killed"
    case .started, .ended, .stopping, .refused, .finished: nil
    }
  }
}

/// A flag that is set once, from any thread.
private final class Cancellation: Sendable {
  private let value = Atomic(false)
  var isSet: Bool { value.load(ordering: .relaxed) }
  func set() { value.store(true, ordering: .relaxed) }
}
