// `guira checkpoint`: states of the shards on disk. `create` asks running shards; the others look at the files.

import ArgumentParser
import Base
import Cluster
import Foundation
import Sharding

struct Checkpoint: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Writes, checks and restores states of the shards.",
    discussion: """
      Shards write checkpoints by themselves (shards.checkpointEvery); they are named auto-… and deleted in their time.
      Those created here stay until they are deleted.
      """,
    subcommands: [
      CheckpointCreate.self, CheckpointList.self, CheckpointVerify.self, CheckpointRestoreCommand.self,
      CheckpointDelete.self,
    ])
}

/// The shards a command is about.
struct ShardsOption: ParsableArguments {
  @OptionGroup var state: StateOption
  @Option(help: "One shard only, from 0.") var shard: Int?

  static func cluster(_ state: StateOption) throws -> ClusterOperator {
    let paths = state.paths
    guard Files.exists(paths.configuration) else {
      throw Failure("\(paths.root) is not the state of a cluster; name it with --state")
    }
    return try ClusterOperator(ClusterConfiguration(file: paths.configuration), paths: paths)
  }

  func open() throws -> (cluster: ClusterOperator, shards: [Int]) {
    let cluster = try Self.cluster(state)
    guard let shard else { return (cluster, Array(0..<cluster.shardCount)) }
    guard (0..<cluster.shardCount).contains(shard) else {
      throw Failure(
        "the cluster has \(cluster.shardCount) shards: --shard must be 0 to \(cluster.shardCount - 1)", code: 2)
    }
    return (cluster, [shard])
  }
}

struct CheckpointCreate: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "create", abstract: "Has running shards write a checkpoint while they serve.",
    discussion: """
      Examples:
        guira checkpoint create --name before-migration
        guira checkpoint create --compact        after `guira forget`: nothing older stays on the disk
      """)

  @OptionGroup var shards: ShardsOption
  @Option(help: "Its name: letters, digits, '.', '_', '-'. Default: the time.") var name: String?
  @Flag(help: "Delete all older checkpoints and blocks, named ones too.") var compact = false

  func run() throws {
    try reporting {
      let (cluster, numbers) = try shards.open()
      let name = self.name ?? Self.timeName()
      for shard in numbers {
        let manifest = try cluster.createCheckpoint(shard: shard, name: name, compacts: compact)
        let rows = manifest.tables.reduce(0) { $0 + $1.rows }
        write("shard \(shard): checkpoint '\(name)' of epoch \(manifest.epoch), \(rows) rows\n")
      }
    }
  }

  private static func timeName() -> String {
    let formatter = DateFormatter()
    formatter.locale = Locale(identifier: "en_US_POSIX")
    formatter.timeZone = TimeZone(identifier: "UTC")
    formatter.dateFormat = "yyyyMMdd-HHmmss"
    return formatter.string(from: Date())
  }
}

struct CheckpointList: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "list", abstract: "Shows the checkpoints of the shards.")

  @OptionGroup var shards: ShardsOption
  @Flag(help: "Print the manifests as JSON, one a line.") var json = false

  func run() throws {
    try reporting {
      let (cluster, numbers) = try shards.open()
      var damaged: [String] = []
      for shard in numbers {
        let found = try ShardAudit.checkpoints(in: cluster.files(ofShard: shard))
        damaged += found.damaged
        for (manifest, bytes) in found.checkpoints {
          write(json ? manifest.json + "\n" : Self.line(shard, manifest, bytes, cluster))
        }
        if !json, found.checkpoints.isEmpty { write("shard \(shard): no checkpoint yet\n") }
      }
      if !damaged.isEmpty { throw Failure(damaged.joined(separator: "\n")) }
    }
  }

  private static func line(
    _ shard: Int, _ manifest: ShardCheckpoint, _ bytes: UInt64, _ cluster: ClusterOperator
  ) -> String {
    let time = Date(timeIntervalSince1970: Double(manifest.finished) / 1000).ISO8601Format()
    let rows = manifest.tables.reduce(0) { $0 + $1.rows }
    let chains = manifest.chains.map {
      "\(cluster.name(consumer: $0.consumer, partition: $0.partition))=\(Position(high: $0.high, low: $0.low))"
    }
    return "shard \(shard)  \(manifest.name)  \(time)  epoch \(manifest.epoch)  \(rows) rows  "
      + "\(bytes >> 20) MiB  \(chains.joined(separator: " "))\n"
  }
}

struct CheckpointVerify: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "verify", abstract: "Reads checkpoints and blocks through and says where a bit is wrong.",
    discussion: "Exit code 1 when something is damaged. Shards may run meanwhile.")

  @Argument(help: "One checkpoint. Default: all of them, and the blocks.") var name: String?
  @OptionGroup var shards: ShardsOption

  func run() throws {
    try reporting {
      let (cluster, numbers) = try shards.open()
      var damaged: [String] = []
      for shard in numbers {
        let files = cluster.files(ofShard: shard)
        let found = try ShardAudit.checkpoints(in: files)
        damaged += found.damaged
        let names = found.checkpoints.map(\.manifest.name).filter { name == nil || $0 == name }
        if let name, names.isEmpty { damaged.append("shard \(shard) has no checkpoint '\(name)'") }
        for name in names {
          do {
            try ShardAudit.verify(checkpoint: name, in: files)
            write("shard \(shard): checkpoint '\(name)' is whole\n")
          } catch { damaged.append("\(error)") }
        }
        guard name == nil else { continue }
        do {
          let bytes = try ShardAudit.verifyJournal(in: files)
          write("shard \(shard): \(bytes) bytes of blocks are whole\n")
        } catch { damaged.append("\(error)") }
      }
      if !damaged.isEmpty { throw Failure(damaged.joined(separator: "\n")) }
    }
  }
}

struct CheckpointRestoreCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "restore", abstract: "Makes a checkpoint the state of shards that do not run.",
    discussion: """
      Trainers go on where the checkpoint stood: what came after it is trained on again, as far as the streams still hold
      it. What the shards were told to forget stays forgotten. The state before is kept as checkpoint before-restore-….

      Examples:
        guira checkpoint restore before-migration
        guira checkpoint restore before-migration --skip-to 0:81920 --skip-to 1:77344
      """)

  @Argument(help: "The checkpoint; shards that lack it make the command refuse.") var name: String
  @OptionGroup var shards: ShardsOption
  @Option(
    help: """
      Go on at this position instead, and never train on what lies between: POSITION for all partitions, or \\
      PARTITION:POSITION; may be repeated.
      """)
  var skipTo: [String] = []
  @Flag(help: "Do not keep the state before.") var discard = false

  func validate() throws { _ = try skips() }

  private func skips() throws -> SkipTo {
    var skips = SkipTo()
    for text in skipTo {
      let parts = text.split(separator: ":", omittingEmptySubsequences: false)
      guard parts.count <= 2, let position = parts.last.flatMap({ Position(String($0)) }) else {
        throw ValidationError("--skip-to is '\(text)'; use a position such as 81920, or PARTITION:POSITION.")
      }
      if parts.count == 1 {
        skips.all = position
      } else if let partition = UInt64(parts[0]) {
        skips.partitions[partition] = position
      } else {
        throw ValidationError("--skip-to is '\(text)'; the partition must be a number.")
      }
    }
    return skips
  }

  func run() throws {
    try reporting {
      let (cluster, numbers) = try shards.open()
      // All of them first: a cluster restored by half is no state at all.
      var directories: [ShardLock] = []
      for shard in numbers {
        directories.append(try ShardLock(shard, paths: shards.state.paths))
        let found = try ShardAudit.checkpoints(in: cluster.files(ofShard: shard)).checkpoints.map(\.manifest)
        guard let manifest = found.first(where: { $0.name == name }) else {
          throw Failure(
            "shard \(shard) has no checkpoint '\(name)'; it has: \(found.map(\.name).joined(separator: ", "))")
        }
        for chain in manifest.chains {
          if let problem = try cluster.problem(withStreamOf: chain, skipTo: skips()) { throw Failure(problem) }
        }
        try ShardAudit.verify(checkpoint: name, in: cluster.files(ofShard: shard))
      }
      for shard in numbers {
        let restore = CheckpointRestore(cluster.options(ofShard: shard), files: cluster.files(ofShard: shard))
        let summary = try restore.run(name: name, skipTo: skips(), savesCurrent: !discard)
        var text = "shard \(shard): restored '\(name)', epochs go on after \(summary.checkpoint.epoch)"
        if let saved = summary.saved { text += "; the state before is checkpoint '\(saved)'" }
        if let problem = summary.saveProblem { text += "; the state before could not be kept: \(problem)" }
        if summary.forgottenAgain > 0 { text += "; \(summary.forgottenAgain) forgotten rows were left out" }
        write(text + "\n")
        for chain in summary.skipped {
          let position = Position(high: chain.high, low: chain.low)
          write(
            "shard \(shard): \(cluster.name(consumer: chain.consumer, partition: chain.partition)) goes on at \(position)\n"
          )
        }
      }
    }
  }
}

/// Keeps a shard from starting while its files are changed.
final class ShardLock {
  private let directory: RoleDirectory

  init(_ shard: Int, paths: StatePaths) throws {
    do { directory = try RoleDirectory(RoleInstance(.shard, shard), in: paths) } catch {
      throw Failure("\(error); stop the cluster first")
    }
  }
}

struct CheckpointDelete: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "delete", abstract: "Deletes a checkpoint.")

  @Argument(help: "The checkpoint.") var name: String
  @OptionGroup var shards: ShardsOption

  func run() throws {
    try reporting {
      let (cluster, numbers) = try shards.open()
      for shard in numbers {
        let files = cluster.files(ofShard: shard)
        let names = try ShardAudit.checkpoints(in: files).checkpoints.map(\.manifest)
        let manifest = names.first { $0.name == name }
        guard manifest != nil || ShardAudit.isThere(checkpoint: name, in: files) else {
          write("shard \(shard) has no checkpoint '\(name)'\n")
          continue
        }
        // A recovery may need a shard's own ones; it deletes them itself, but for one whose manifest is damaged.
        guard manifest?.isAutomatic != true else {
          throw Failure("'\(name)' is a checkpoint the shard keeps for its recovery; it deletes it itself")
        }
        try ShardAudit.delete(checkpoint: name, in: files)
        write("shard \(shard): deleted checkpoint '\(name)'\n")
      }
    }
  }
}
