// `guira warm-start`: a new cluster begins with what an older one learnt.

import ArgumentParser
import Base
import Cluster
import Sharding

struct WarmStartCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "warm-start", abstract: "Begins a new cluster with the parameters of an older one.",
    discussion: """
      The number of shards may differ, and so may the configuration: tables and tensors are matched by name. New ones start
      fresh and old ones are dropped, which is said; those whose shape differs start fresh with --allow-changes. Optimizer
      state comes along. Streams and positions are the new cluster's own. The older cluster's files are only read. Until the
      last shard is filled nothing runs on the new state.

      Example:
        guira warm-start cluster.yaml --from old-run --state new-run && guira up cluster.yaml --state new-run
      """)
  @Argument(help: "The new cluster's configuration.") var file: String
  @Option(help: "The state directory of the older cluster.") var from: String
  @OptionGroup var state: StateOption
  @Option(help: "A checkpoint that every shard of it has; else its newest state.") var checkpoint: String?
  @Option(name: .customLong("set"), help: "A value to put in, key.path=value; may be repeated.")
  var overrides: [String] = []
  @Flag(help: "Let tables and tensors whose shape differs start fresh.") var allowChanges = false

  func run() throws {
    try reporting {
      let configuration = try ClusterConfiguration(file: file, overrides: overrides)
      let older = StatePaths(from)
      guard Files.exists(older.configuration) else { throw Failure("\(from) is not the state of a cluster") }
      let old = try ClusterOperator(ClusterConfiguration(file: older.configuration), paths: older)
      let start = WarmStart(
        from: (0..<old.shardCount).map { (old.options(ofShard: $0), old.files(ofShard: $0)) }, checkpoint: checkpoint)
      let new = try ClusterOperator(configuration, paths: state.paths)
      let differences = start.differences(to: new.options(ofShard: 0))
      if !differences.changed.isEmpty, !allowChanges {
        throw Failure(
          differences.changed.map(\.words).joined(separator: "\n")
            + "\nwith --allow-changes these start fresh, and the rest is taken over")
      }
      try StateDirectory.check(state.paths, configuration)
      for shard in 0..<new.shardCount { try WarmStart.checkEmpty(new.files(ofShard: shard)) }
      let directory = try StateDirectory(state.state, for: configuration, isFilling: true)
      defer { directory.removeSockets() }
      for name in differences.new { write("\(name) is new and starts fresh\n") }
      for name in differences.dropped { write("\(name) is no longer there and is dropped\n") }
      for words in differences.recounted { write("\(words)\n") }
      for (_, words) in differences.changed { write("\(words): starts fresh\n") }
      for shard in 0..<new.shardCount {
        let lock = try ShardLock(shard, paths: state.paths)
        let summary = try start.write(new.options(ofShard: shard), into: new.files(ofShard: shard))
        withExtendedLifetime(lock) {}
        write("shard \(shard): \(summary.rows) rows and \(summary.tensors) dense tensors taken over\n")
      }
      try directory.finish()
    }
  }
}
