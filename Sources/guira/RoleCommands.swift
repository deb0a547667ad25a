// One subcommand per role: what `guira up` starts, and what systemd or Kubernetes start by themselves.

import ArgumentParser
import Cluster
import Foundation
import Glibc
import Logging

/// The roles as subcommands.
let roleCommands: [any ParsableCommand.Type] = [
  ShardCommand.self, IngestCommand.self, JoinerCommand.self, TrainerCommand.self, SyncCommand.self, ReplicaCommand.self,
  SoapCommand.self,
]

struct RoleOptions: ParsableArguments {
  @Option(help: "The configuration file; by default the one in the state directory.") var config: String?
  @Option(help: "The state directory.") var state = "./guira-run"
  @Option(help: "Which of its kind this is, from 0.") var index = 0
  @Option(
    help: "How much is logged: trace, debug, info, notice, warning, error, critical.",
    transform: {
      guard let level = Logger.Level(rawValue: $0) else { throw ValidationError("'\($0)' is not a log level.") }
      return level
    })
  var log = Logger.Level.info

  /// Runs a role in this process until it is told to stop.
  ///
  /// - Parameters:
  ///   - acceptLoss: whether a shard starts although its files are damaged.
  ///   - keepsAllScores: whether a trainer's score records stay, whatever the configuration says.
  func run(_ role: Role, acceptLoss: Bool = false, keepsAllScores: Bool = false) throws {
    guard ParentWatch.begin() else { throw ExitCode(1) }
    let instance = RoleInstance(role, index)
    let paths = StatePaths(state)
    let logger = JSONLogHandler.logger(instance, level: log)
    do {
      let configuration = try ClusterConfiguration(file: config ?? paths.configuration)
      let known = configuration.instances.filter { $0.role == role }
      guard known.contains(instance) else {
        throw Failure(
          "the configuration has \(known.count) of role \(role.rawValue): --index must be 0 to \(known.count - 1)",
          code: 2)
      }
      try Roles.run(
        instance, configuration: configuration, state: paths, logger: logger, acceptLoss: acceptLoss,
        keepsAllScores: keepsAllScores)
    } catch {
      // Under a supervisor stderr is the log, and its last line what the operator is told.
      if ParentWatch.isSupervised { logger.critical("\((error as? Failure)?.message ?? "\(error)")") }
      let code = (error as? Failure)?.code ?? Roles.exitCode(for: error)
      if ParentWatch.isSupervised { throw ExitCode(code) }
      throw Failure("\((error as? Failure)?.message ?? "\(error)")", code: code)
    }
  }
}

struct ShardCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "shard", abstract: "Runs one parameter server.",
    discussion: "Example:\n  guira shard --config cluster.yaml --state /var/lib/guira --index 0")
  @OptionGroup var options: RoleOptions
  @Flag(
    help: """
      Start although the journal or a checkpoint is damaged, with what is left. Without it the shard refuses and says \
      what would be lost.
      """)
  var acceptLoss = false
  func run() throws { try options.run(.shard, acceptLoss: acceptLoss) }
}

struct IngestCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "ingest", abstract: "Runs the ingest, which takes events over HTTP.",
    discussion: "Example:\n  guira ingest --config cluster.yaml --state /var/lib/guira")
  @OptionGroup var options: RoleOptions
  func run() throws { try options.run(.ingest) }
}

struct JoinerCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "joiner", abstract: "Runs the joiner of impressions and actions.",
    discussion: "Example:\n  guira joiner --config cluster.yaml --state /var/lib/guira")
  @OptionGroup var options: RoleOptions
  func run() throws { try options.run(.joiner) }
}

struct TrainerCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "trainer", abstract: "Runs one trainer.",
    discussion: """
      With cluster.transport inproc it runs the shards too.

      Example:
        guira trainer --config cluster.yaml --state /var/lib/guira --index 0
      """)
  @OptionGroup var options: RoleOptions
  @Flag(help: "Start shards of this process although their files are damaged, with what is left.")
  var acceptLoss = false
  @Flag(help: "Keep all score records, whatever trainers.keepScores says.") var keepAllScores = false
  func run() throws { try options.run(.trainer, acceptLoss: acceptLoss, keepsAllScores: keepAllScores) }
}

struct SyncCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "sync", abstract: "Runs the process that ships versions to replicas, and steers it.",
    discussion: """
      Without a subcommand it runs the process; the others ask the one that runs.

      Examples:
        guira sync --config cluster.yaml --state /var/lib/guira
        guira sync rollback --to 812
      """,
    subcommands: [
      SyncRun.self, SyncList.self, SyncShow.self, SyncRollback.self, SyncPause.self, SyncResume.self,
    ], defaultSubcommand: SyncRun.self)
}

struct SyncRun: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "run", abstract: "Runs the process that ships versions to replicas.")
  @OptionGroup var options: RoleOptions
  func run() throws { try options.run(.sync) }
}

struct ReplicaCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "replica", abstract: "Runs one replica that answers predictions over HTTP.",
    discussion: "Example:\n  guira replica --config cluster.yaml --state /var/lib/guira --index 0")
  @OptionGroup var options: RoleOptions
  func run() throws { try options.run(.replica) }
}

struct SoapCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "soap", abstract: "Runs one process that keeps user embeddings fresh and answers them.",
    discussion: "Example:\n  guira soap --config cluster.yaml --state /var/lib/guira --index 0")
  @OptionGroup var options: RoleOptions
  func run() throws { try options.run(.soap) }
}
